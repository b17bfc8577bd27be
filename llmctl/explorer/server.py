"""Serve the page: to this machine alone, unless a password and a certificate guard it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.errors import UserError
from llmctl.explorer.access.guard import is_loopback
from llmctl.explorer.limits import Limits

if TYPE_CHECKING:
    import uvicorn

    from llmctl.explorer.access.connections import Listener

_SHORTEST, _LONGEST = 8, 256  # characters of a password
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
    """Keywords for loading a model: device, dtype, quantization."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = 7860
    """The port to listen on; 0 selects a free one."""
    password: str | None = None
    """The password that every visitor must give; None asks nobody."""
    certfile: Path | None = None
    """The TLS certificate in PEM format; with it the page is served over HTTPS."""
    keyfile: Path | None = None
    """The private key of the certificate; None where the certificate's file holds it too."""
    insecure_http: bool = False
    """Whether other machines may use plain HTTP, which shows the password to the network."""
    limits: Limits = Limits()
    """What one visitor may ask for at most."""

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
        if self.password is not None and len(self.password) > _LONGEST:
            raise UserError(
                f"the password has {len(self.password)} characters, but {_LONGEST} are allowed: choose a "
                "shorter one"
            )
        if self.keyfile is not None and self.certfile is None:
            raise UserError("--keyfile is given without --certfile: give the certificate too")
        if not is_loopback(self.host) and self.certfile is None and not self.insecure_http:
            raise UserError(
                f"host is {self.host}, which other machines can reach, and plain HTTP would show them the "
                "password: give --certfile and --keyfile, or accept that with --insecure-http, or listen on "
                "127.0.0.1"
            )


def serve(settings: ServerSettings, ready: Callable[[str, str | None], None] | None = None) -> None:
    """Serve the explorer until it is interrupted.

    Args:
        settings: How it runs.
        ready: Called once the page can be opened, with its address and, where there is a password, with a
            link that logs in without it, once.

    Raises:
        UserError: The port is taken, the host is not this machine's, or the certificate cannot be used.
    """
    from llmctl.explorer.access.log_limit import unlimit_logs
    from llmctl.explorer.access.login import make_token
    from llmctl.explorer.app import make_app
    from llmctl.explorer.files.library import Library
    from llmctl.explorer.models import Models

    _check_certificate(settings)
    listener = listen(settings.host, settings.port)
    library = Library(settings.runs)
    token = None if settings.password is None else make_token()
    app = make_app(
        library,
        Models(library, settings.models, settings.adapters, settings.options),
        settings.limits,
        host=settings.host,
        password=settings.password,
        token=token,
        warm_up=True,
    )
    server = make_server(app, settings, listener)
    if ready is not None:
        port = listener.getsockname()[1]
        link = (
            None if token is None else f"{_address(settings, _reachable(settings.host), port)}/login?token="
        )
        ready(_address(settings, settings.host, port), None if link is None else f"{link}{token}")
    try:
        with listener:
            server.run(sockets=[listener])
    finally:
        unlimit_logs()


def make_server(app: Any, settings: ServerSettings, listener: Listener) -> uvicorn.Server:
    """The server of an application, with bounds on connections, time and log; `listener` listens from now on.

    Args:
        app: An ASGI application.
        settings: Certificate and limits.
        listener: From `listen`.
    """
    import uvicorn

    from llmctl.explorer.access.connections import BACKLOG, Connections, make_protocol
    from llmctl.explorer.access.log_limit import limit_logs

    listener.connections = Connections(settings.limits.connections)
    config = uvicorn.Config(
        app,
        loop="asyncio",  # It accepts through `Listener.accept`.
        http=make_protocol(listener.connections, settings.limits.patience),
        backlog=BACKLOG,
        log_level="warning",
        access_log=False,  # It would hold the secret of the one-time link.
        ws_ping_interval=_PING,
        ws_ping_timeout=_PING,
        ws_max_size=settings.limits.body,
        timeout_graceful_shutdown=1,
        server_header=False,
        ssl_certfile=settings.certfile,
        ssl_keyfile=settings.keyfile,
    )
    limit_logs()
    listener.listen(BACKLOG)  # From here on a browser that comes early waits, and is not refused.
    return uvicorn.Server(config)


def listen(host: str, port: int) -> Listener:
    """A socket that is bound, and does not listen yet.

    Raises:
        UserError: The port is taken, or the host is not this machine's.
    """
    from llmctl.explorer.access.connections import Listener

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = Listener(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise UserError(f"cannot listen on {host}, port {port} ({error}): choose another --port") from error
    return listener


def _check_certificate(settings: ServerSettings) -> None:
    """Load the certificate once, so that a mistake is one line before anything listens."""
    if settings.certfile is None:
        return
    try:
        # A key that is encrypted would stop the start with a question on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.certfile, settings.keyfile, password=lambda: ""
        )
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        key = f" with {settings.keyfile}" if settings.keyfile else ""
        raise UserError(
            f"the certificate {settings.certfile}{key} cannot be used ({error}): give a PEM certificate and "
            "its unencrypted private key"
        ) from error


def _address(settings: ServerSettings, host: str, port: int) -> str:
    scheme = "http" if settings.certfile is None else "https"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _reachable(host: str) -> str:
    """A name under which other machines reach a server that listens on all addresses."""
    return socket.gethostname() if host in ("0.0.0.0", "::") else host
