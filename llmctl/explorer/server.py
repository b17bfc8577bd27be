"""Listen: on this machine alone, unless a password guards the page."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.explorer.guard import is_loopback
from llmctl.explorer.limits import Limits

_SHORTEST = 8  # characters of a password
_PING = 5.0  # seconds; a tab whose network is gone is noticed after one or two of these


@dataclass(frozen=True)
class ServerSettings:
    """How the explorer runs."""

    runs: Path = Path("runs")
    """The runs folder; nothing outside it is shown."""
    models: Sequence[str] = ("smollm2-135m",)
    """Models that may be chosen beside those in the runs folder; the first is the default."""
    adapters: Sequence[Path] = ()
    """Adapters that may be chosen beside those in the runs folder."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of loading: device, dtype, quantization."""
    host: str = "127.0.0.1"
    port: int = 7860
    password: str | None = None
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.password:
            raise UserError(
                f"host is {self.host}, which other machines can reach, and there is no password: give "
                "--password or LLMCTL_EXPLORER_PASSWORD, or listen on 127.0.0.1"
            )
        if self.password is not None and len(self.password) < _SHORTEST:
            raise UserError(
                f"the password has {len(self.password)} characters, but {_SHORTEST} are needed: choose a "
                "longer one"
            )


def serve(settings: ServerSettings, ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve the explorer until it is interrupted.

    Args:
        settings: How it runs.
        ready: Called with the page's address once it can be opened.

    Raises:
        UserError: The port is taken, or the host is not this machine's.
    """
    import uvicorn

    from llmctl.explorer.app import make_app
    from llmctl.explorer.library import Library
    from llmctl.explorer.models import Models

    listener = listen(settings.host, settings.port)
    library = Library(settings.runs)
    models = Models(library, settings.models, settings.adapters, settings.options)
    app = make_app(
        library,
        models,
        settings.limits,
        host=settings.host,
        password=settings.password,
        warm_up=True,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        ws_ping_interval=_PING,
        ws_ping_timeout=_PING,
        ws_max_size=settings.limits.body,
        timeout_graceful_shutdown=1,
        server_header=False,
    )
    listener.listen(128)  # from here on a browser that comes early waits, and is not refused
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    ready(f"http://{shown}:{listener.getsockname()[1]}")
    with listener:
        uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        UserError: The port is taken, or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise UserError(f"cannot listen on {host}, port {port} ({error}): choose another --port") from error
    return listener
