"""The login of the explorer: a password that can only be guessed slowly, and a link that works once."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

_COOKIE = "llmctl-explorer"
LOGIN_BYTES = 4_096  # bytes of a request before login; the longest password fits


@dataclass(frozen=True)
class GuessLimits:
    """How fast passwords can be tried, by all clients together."""

    delay_s: float = 1.0
    """Seconds after each wrong password before the next one is looked at."""
    waiting: int = 16
    """Passwords that wait to be looked at; more are refused at once."""
    per_minute: int = 20
    """Wrong passwords per minute; after that no password is looked at until the minute is over."""


class TooManyGuesses(Exception):
    """A password was refused without being looked at."""


class Login:
    """Decides who is known: by a cookie, which is given for the password or for the one-time link.

    Args:
        password: The password.
        token: The secret of the one-time link; None makes no link.
        limits: How fast passwords can be tried.
        now: A clock in seconds.
    """

    def __init__(
        self,
        password: str,
        token: str | None = None,
        limits: GuessLimits | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._password, self._token, self._now = _digest(password), token, now
        self._limits = limits or GuessLimits()
        self._key = secrets.token_bytes(32)  # A new key at each start ends the old cookies.
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._wrong: deque[float] = deque()  # times of the wrong passwords of the last minute

    async def is_password(self, given: str) -> bool:
        """Whether this is the password. Guesses wait for one another, right ones too.

        Raises:
            TooManyGuesses: Too many guesses wait, or too many were wrong in the last minute.
        """
        if self._waiting >= self._limits.waiting or self._is_full():
            raise TooManyGuesses
        self._waiting += 1
        try:
            async with self._turn:
                if self._is_full():  # It filled up while this guess waited.
                    raise TooManyGuesses
                if hmac.compare_digest(_digest(given), self._password):
                    return True
                self._wrong.append(self._now())
                await asyncio.sleep(self._limits.delay_s)
                return False
        finally:
            self._waiting -= 1

    def use_token(self, given: str) -> bool:
        """Whether this is the secret of the one-time link, which is spent by that.

        It has 256 random bits, so it needs no delay: its owner gets in while others guess passwords.
        """
        if self._token is None or not hmac.compare_digest(_digest(given), _digest(self._token)):
            return False
        self._token = None
        return True

    def is_known(self, cookies: str) -> bool:
        """Whether the Cookie header of a request holds the cookie of this server."""
        try:
            cookie = SimpleCookie(cookies).get(_COOKIE)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self._value().encode())

    def cookie(self) -> tuple[str, str]:
        """Name and value of the cookie that makes a visitor known."""
        return _COOKIE, self._value()

    def _is_full(self) -> bool:
        while self._wrong and self._now() - self._wrong[0] > 60.0:
            self._wrong.popleft()
        return len(self._wrong) >= self._limits.per_minute

    def _value(self) -> str:
        return hmac.new(self._key, b"visitor", hashlib.sha256).hexdigest()


def make_token() -> str:
    """A secret for the one-time link."""
    return secrets.token_urlsafe(32)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="replace")).digest()
