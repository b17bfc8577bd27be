"""Who may talk to the server: pages of this machine, or visitors who have logged in.

Pages of other sites cannot reach it: requests with a foreign Origin are refused. A server that only this
machine can reach also refuses foreign Host names, because an attacker's name can resolve to 127.0.0.1.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmctl.explorer.access.login import LOGIN_BYTES, Login, TooManyGuesses

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_LOGIN = """<!doctype html><html lang="en"><meta charset="utf-8"><title>llmctl explorer</title>
<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/static/style.css">
<main class="login"><h1>llmctl explorer</h1><form method="post" action="/login">
<label>Password <input type="password" name="password" autofocus autocomplete="current-password"></label>
<button class="primary">Open</button></form>%s</main></html>"""
_WRONG = "<p class=error>That is not the password.</p>"
_SPENT = "<p class=error>This link is spent or wrong: type the password.</p>"
_TOO_MANY = (
    "<p class=error>Too many passwords were tried: wait a minute, or open the one-time link that the server "
    "printed.</p>"
)


def is_loopback(host: str) -> bool:
    """Whether an address or a name to listen on is this machine's alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """Middleware that checks Host, Origin and login, and puts the security policy on every answer.

    Args:
        app: The application behind it.
        host: The address that the server listens on.
        login: Decides which visitors are known; None lets everybody in.
        body: The largest request in bytes, once a visitor is known.
    """

    def __init__(self, app: ASGIApp, host: str, login: Login | None, body: int) -> None:
        self._app, self._body, self._login = app, body, login
        self._names = {"127.0.0.1", "localhost", "[::1]", host} if is_loopback(host) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_known = self._login is None or self._login.is_known(headers.get("cookie", ""))
        if refusal := self._refusal(scope, headers, self._body if is_known else LOGIN_BYTES):
            await self._refuse(scope, receive, send, refusal)
        elif self._login is not None and _is_login(scope):
            answer = await self._log_in(Request(scope, receive), self._login)
            await answer(scope, receive, _with_policy(send, scope["path"]))
        elif not is_known and not _is_open(scope["path"]):
            await self._ask(scope, receive, send)
        else:
            await self._app(scope, receive, _with_policy(send, scope["path"]))

    def _refusal(self, scope: Scope, headers: Headers, body: int) -> str | None:
        host = headers.get("host", "")
        if self._names is not None and _name_of(host) not in self._names:
            return "this server answers to its own address only: open it as http://127.0.0.1"
        origin = headers.get("origin")
        changes = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD")
        if changes and origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            return "requests of other sites are refused"
        if scope["type"] == "websocket" and origin is None:
            return "a socket needs an Origin"
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none") and (
            changes or scope["path"].startswith("/api/")
        ):
            return "requests of other sites are refused"
        if changes and scope["type"] == "http":
            if not _is_small(headers.get("content-length"), body):
                return f"a request may have {body:,} bytes at most"
            kind = headers.get("content-type", "").partition(";")[0].strip()
            wanted = "application/x-www-form-urlencoded" if scope["path"] == "/login" else "application/json"
            if kind != wanted:
                return f"the request must be {wanted}"
        return None

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, reason: str) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            await PlainTextResponse(reason, 403)(scope, receive, _with_policy(send, scope["path"]))

    async def _ask(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Show the login page, or say that a login is needed."""
        if scope["type"] == "websocket":
            await self._refuse(scope, receive, send, "log in first")
            return
        is_page = not scope["path"].startswith("/api/")
        answer = HTMLResponse(_LOGIN % "", 401) if is_page else PlainTextResponse("log in first", 401)
        await answer(scope, receive, _with_policy(send, scope["path"]))

    async def _log_in(self, request: Request, login: Login) -> Response:
        """Exchange the password, or the secret of the one-time link, for the cookie."""
        if request.method == "GET":
            is_right, reason = login.use_token(request.query_params.get("token", "")), _SPENT
        else:
            fields = parse_qs((await request.body()).decode(errors="replace"))
            try:
                is_right, reason = await login.is_password(fields.get("password", [""])[0]), _WRONG
            except TooManyGuesses:
                return HTMLResponse(_LOGIN % _TOO_MANY, 429, {"Retry-After": "60"})
        if not is_right:
            return HTMLResponse(_LOGIN % reason, 401)
        answer = RedirectResponse("/", 303)  # away from the address with the secret
        name, value = login.cookie()
        answer.set_cookie(name, value, httponly=True, samesite="lax", secure=request.url.scheme == "https")
        return answer


def _is_login(scope: Scope) -> bool:
    """Whether a password or the secret of a one-time link comes with the request."""
    if scope["type"] != "http" or scope["path"] != "/login":
        return False
    return scope["method"] == "POST" or (scope["method"] == "GET" and b"token=" in scope["query_string"])


def _is_open(path: str) -> bool:
    """Whether the login page itself needs this file."""
    return path in ("/static/style.css", "/static/icon.svg")


def _is_small(length: str | None, most: int) -> bool:
    return length is not None and length.isascii() and length.isdigit() and int(length) <= most


def _name_of(host: str) -> str:
    """The name in a Host header, without the port."""
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]


def _with_policy(send: Send, path: str) -> Callable[[Message], Awaitable[None]]:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Content-Security-Policy"] = POLICY
            headers["X-Content-Type-Options"] = "nosniff"
            # Under "no-referrer" browsers send the login form with `Origin: null`, which is refused.
            headers["Referrer-Policy"] = "same-origin"
            headers["Cross-Origin-Opener-Policy"] = "same-origin"
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
            # Files are asked for again each time (and answered 304), so that an upgrade shows at once.
            headers["Cache-Control"] = "no-store" if path.startswith("/api/") else "no-cache"
        await send(message)

    return wrapped
