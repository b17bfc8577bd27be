"""`llmctl explore`: a web page for runs, searches and models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    invoke_without_command=True,
    help="Open a web page: search, reachable sets, curves, bounds, and the results of runs.",
)


@app.callback()
def explore(
    runs: Annotated[
        Path, typer.Option(help="Folder of the runs to show; nothing outside it is shown.")
    ] = Path("runs"),
    model: Annotated[
        list[str] | None, typer.Option(help="Model to offer: alias, folder or Hub name. Can be repeated.")
    ] = None,
    adapter: Annotated[
        list[Path] | None, typer.Option(help="Folder of an adapter to offer. Can be repeated.")
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on; one that other machines can reach needs a password and a certificate."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 selects a free port.")] = 7860,
    password: Annotated[
        str | None,
        typer.Option(
            help="Password that every visitor must give.", envvar="LLMCTL_EXPLORER_PASSWORD", show_envvar=True
        ),
    ] = None,
    certfile: Annotated[
        Path | None, typer.Option(help="TLS certificate in PEM format; serves the page over HTTPS.")
    ] = None,
    keyfile: Annotated[
        Path | None, typer.Option(help="Private key of the certificate, where it has a file of its own.")
    ] = None,
    insecure_http: Annotated[
        bool,
        typer.Option(
            "--insecure-http", help="Serve other machines over plain HTTP, which shows the password."
        ),
    ] = False,
    device: Annotated[str, typer.Option(help="Device of the models: auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="Data type of the weights: auto, float32, bfloat16 or float16.")
    ] = "auto",
    quantization: Annotated[
        str, typer.Option(help="Quantization of the weights: none, nf4 or int8.")
    ] = "none",
    parallel: Annotated[
        int, typer.Option(help="Number of searches that run at the same time; further ones wait.")
    ] = 2,
    max_budget: Annotated[
        int, typer.Option(help="Maximum number of controls that one search may score.")
    ] = 200_000,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Serve the page until Ctrl-C."""
    from importlib.util import find_spec

    from llmctl.errors import UserError
    from llmctl.explorer.limits import Limits

    if missing := [name for name in ("starlette", "uvicorn", "websockets") if find_spec(name) is None]:
        raise UserError(
            f"the explorer needs {', '.join(missing)}, which is not installed: pip install starlette "
            "uvicorn websockets, or llmctl with its extra explorer"
        )
    from llmctl.explorer.server import ServerSettings, serve

    settings = ServerSettings(
        runs=runs,
        models=tuple(model or ("smollm2-135m",)),
        adapters=tuple(adapter or ()),
        options={"device": device, "dtype": dtype, "quantization": quantization},
        host=host,
        port=port,
        password=password,
        certfile=certfile,
        keyfile=keyfile,
        insecure_http=insecure_http,
        limits=Limits(running=parallel, budget=max_budget),
    )
    serve(settings, lambda address, link: _say(address, link, open_page))


def _say(address: str, link: str | None, open_page: bool) -> None:
    """Print the address of the page, and the link that logs in without the password."""
    from llmctl.cli.output import print_text

    print_text(f"explorer: {address} (press Ctrl-C to stop)")
    if link is not None:
        print_text(f"one-time link: {link} (it logs in once, without the password)")
    if open_page:
        import webbrowser

        webbrowser.open(address)
