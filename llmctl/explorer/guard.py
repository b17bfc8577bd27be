"""Who may talk to the server: this machine's own pages, or whoever knows the password.

A page of another site cannot reach it: requests with a foreign Origin are refused, and so are, on a server
of this machine alone, requests under a foreign Host name (an attacker's name can resolve to 127.0.0.1).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_COOKIE = "llmctl-explorer"
_LOGIN = """<!doctype html><html lang="en"><meta charset="utf-8"><title>llmctl explorer</title>
<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/static/style.css">
<main class="login"><h1>llmctl explorer</h1><form method="post" action="/login">
<label>Password <input type="password" name="password" autofocus autocomplete="current-password"></label>
<button class="primary">Open</button></form>%s</main></html>"""


def is_loopback(host: str) -> bool:
    """Whether an address or a name to listen on is this machine's alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """Middleware: checks Host, Origin and password, and puts the policy on every answer.

    Args:
        app: What is guarded.
        host: What the server listens on.
        password: Asked of every visitor; None asks nobody.
        body: Bytes of a request at most.
    """

    def __init__(self, app: ASGIApp, host: str, password: str | None, body: int) -> None:
        self._app, self._body = app, body
        self._names = {"127.0.0.1", "localhost", "[::1]", host} if is_loopback(host) else None
        self._password = password
        self._key = secrets.token_bytes(32)  # a new one each start: old cookies end
        self._login_turn = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if refusal := self._refusal(scope, headers):
            await self._refuse(scope, receive, send, refusal)
        elif self._password is not None and not self._is_known(headers) and not _is_open(scope["path"]):
            await self._ask(scope, receive, send)
        else:
            await self._app(scope, receive, _with_policy(send, scope["path"]))

    def _refusal(self, scope: Scope, headers: Headers) -> str | None:
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
            if not _is_small(headers.get("content-length"), self._body):
                return f"a request may have {self._body:,} bytes at most"
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
        """Ask for the password, or look at the one that was given."""
        if scope["type"] == "websocket":
            await self._refuse(scope, receive, send, "log in first")
            return
        answer: Response
        if scope["path"] == "/login" and scope["method"] == "POST":
            answer = await self._log_in(Request(scope, receive))
        elif scope["path"].startswith("/api/"):
            answer = PlainTextResponse("log in first", 401)
        else:
            answer = HTMLResponse(_LOGIN % "", 401)
        await answer(scope, receive, _with_policy(send, scope["path"]))

    async def _log_in(self, request: Request) -> Response:
        fields = parse_qs((await request.body()).decode(errors="replace"))
        given = fields.get("password", [""])[0]
        if self._password is not None and hmac.compare_digest(_digest(given), _digest(self._password)):
            answer = RedirectResponse("/", 303)
            secure = request.url.scheme == "https"
            answer.set_cookie(_COOKIE, self._token(), httponly=True, samesite="lax", secure=secure)
            return answer
        async with self._login_turn:  # one wrong guess a second, however many ask
            await asyncio.sleep(1.0)
        return HTMLResponse(_LOGIN % "<p class=error>That is not the password.</p>", 401)

    def _is_known(self, headers: Headers) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(_COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self._token().encode())

    def _token(self) -> str:
        return hmac.new(self._key, b"visitor", hashlib.sha256).hexdigest()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="replace")).digest()


def _is_open(path: str) -> bool:
    """What the page that asks for the password needs itself."""
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
            headers["Referrer-Policy"] = "no-referrer"
            headers["Cross-Origin-Opener-Policy"] = "same-origin"
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
            # Files are asked for again each time (and answered 304), so that an upgrade shows at once.
            headers["Cache-Control"] = "no-store" if path.startswith("/api/") else "no-cache"
        await send(message)

    return wrapped
