"""`llmctl explore`: the reachability explorer as a page in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    invoke_without_command=True,
    help="Explore in the browser: search, reachable sets, curves, bounds and RISE episodes.",
)


@app.callback()
def explore(
    runs: Annotated[Path, typer.Option(help="The runs folder; nothing outside it is shown.")] = Path("runs"),
    model: Annotated[
        list[str] | None, typer.Option(help="A model to offer: alias, folder or Hub name; may be repeated.")
    ] = None,
    adapter: Annotated[
        list[Path] | None, typer.Option(help="A folder of an adapter to offer; may be repeated.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Listen here; an address that others can reach needs a password.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Listen on this port; 0 takes a free one.")] = 7860,
    password: Annotated[
        str | None,
        typer.Option(help="Asked of every visitor.", envvar="LLMCTL_EXPLORER_PASSWORD", show_envvar=True),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    quantization: Annotated[str, typer.Option(help="none, nf4 or int8.")] = "none",
    parallel: Annotated[int, typer.Option(help="Searches that run at a time; more wait.")] = 2,
    max_budget: Annotated[int, typer.Option(help="Controls that a search may score at most.")] = 200_000,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
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
        limits=Limits(running=parallel, budget=max_budget),
    )
    serve(settings, lambda address: _say(address, open_page))


def _say(address: str, open_page: bool) -> None:
    """Tell where the page is, once it can be opened."""
    from llmctl.cli.output import print_text

    print_text(f"explorer: {address} (Ctrl-C ends it)")
    if open_page:
        import webbrowser

        webbrowser.open(address)
