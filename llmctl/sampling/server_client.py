"""Requests to an OpenAI-compatible server: retries with backoff, and what each failure means."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, TypeVar
from urllib.parse import urlsplit

from llmctl.errors import EngineError, UserError
from llmctl.sampling.server_reply import MalformedReply
from llmctl.sampling.types import PromptTooLong
from llmctl.trust import keys

T = TypeVar("T")
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
_LOCAL = ("127.0.0.1", "localhost", "::1")
_RETRIED = (408, 409, 425, 429)  # and every 5xx: another try may do
_TOO_LONG = re.compile(
    r"context[ _]length|context window|context size|max_model_len|maximum context|too many tokens", re.I
)
_FILTER = re.compile(r"content[ _]?(?:filter|policy)|content management policy", re.I)


class Refused(EngineError):
    """The server understood the request and does not want it (4xx)."""


class Filtered(Refused):
    """A content filter of the provider refused the conversation."""


class Unavailable(EngineError):
    """The server did not answer, or failed; another try may do."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s  # how long the server asks to wait


@dataclass(frozen=True)
class ServerOptions:
    """Where a server is and how patiently to ask it; see `ServerSampler`."""

    base_url: str = "http://127.0.0.1:8000/v1"
    api_key: str | None = field(default=None, repr=False)
    max_parallel: int = 32
    timeout_s: float = 120.0
    retries: int = 4

    def __post_init__(self) -> None:
        """Refuse what could not be asked.

        Raises:
            UserError: A field is out of its range.
        """
        if urlsplit(self.base_url).scheme not in ("http", "https"):
            raise UserError(
                f"base_url is {self.base_url!r}, but an http address is needed: http://127.0.0.1:8000/v1"
            )
        keys.check_address(self.base_url)
        if self.max_parallel < 1 or self.retries < 0 or self.timeout_s <= 0:
            raise UserError(
                f"max_parallel is {self.max_parallel}, retries {self.retries}, timeout_s {self.timeout_s}, "
                "but at least 1, at least 0 and more than 0 are needed"
            )


class Client:
    """One server; safe to use from many threads."""

    def __init__(self, options: ServerOptions) -> None:
        if find_spec("openai") is None:
            raise UserError("engine server needs the package openai: run `pip install openai`")
        from openai import DefaultHttpxClient, OpenAI

        self.options = options
        host = urlsplit(options.base_url).hostname
        self._openai = OpenAI(
            base_url=options.base_url,
            api_key=options.api_key or keys.key_for(options.base_url) or "none",
            timeout=options.timeout_s,
            # A proxy of the environment is for the world outside; it knows no server on this machine.
            http_client=DefaultHttpxClient(trust_env=host not in _LOCAL, timeout=options.timeout_s),
            max_retries=0,  # they are counted and spaced here
        )
        self._jitter = random.Random()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self.retries = 0

    def get(self, path: str) -> Any:
        """GET a path under the base URL, once."""
        return self._ask(lambda: self._openai.get(path, cast_to=str))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """POST JSON to a path under the base URL (or to a full URL), once; the decoded reply.

        Raises:
            Unavailable: No answer in time, or a server error.
            MalformedReply: The answer is not JSON.
            Refused: The request is refused.
            PromptTooLong: The prompt is longer than the context.
            UserError: The key is refused.
        """
        return self._ask(lambda: self._openai.post(path, body=body, cast_to=str))

    def with_retries(self, attempt: Callable[[], T]) -> T:
        """The result of `attempt`, tried again with growing, jittered waits.

        Raises:
            Unavailable, MalformedReply: The last try failed as well.
        """
        for tried in range(self.options.retries + 1):
            try:
                return attempt()
            except (Unavailable, MalformedReply) as error:
                if tried == self.options.retries:
                    raise
                wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**tried) * self._jitter.uniform(0.5, 1.5)
                asked = error.wait_s if isinstance(error, Unavailable) else None
                if self._closed.wait(wait if asked is None else min(LONGEST_WAIT_S, max(wait, asked))):
                    raise
                with self._lock:
                    self.retries += 1
        raise EngineError("no attempt was made")

    def close(self) -> None:
        """Close the connections; no request is tried again."""
        self._closed.set()
        self._openai.close()

    def _ask(self, send: Callable[[], str]) -> Any:
        import openai

        try:
            text = send()
        except openai.APIStatusError as error:
            raise self._refusal(error) from error
        except openai.APITimeoutError as error:
            raise Unavailable(f"no answer within {self.options.timeout_s:g} s") from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise Unavailable(f"the connection failed ({type(cause).__name__}: {cause})") from error
        try:
            return json.loads(text)
        except ValueError as error:
            raise MalformedReply("the reply is not JSON") from error

    def _refusal(self, error: Any) -> Exception:
        code, message = error.status_code, _message(error)
        url = self.options.base_url
        if code in (401, 403):
            withheld = "" if self.options.api_key else keys.withheld(url)
            if withheld:
                return UserError(f"the server at {url} refuses the request ({message}): {withheld}")
            return UserError(f"the server at {url} refuses the key ({message}): set {keys.KEY}")
        if code >= 500 or code in _RETRIED:
            return Unavailable(f"the server answered {code} ({message})", _retry_after(error.response))
        if _TOO_LONG.search(message):
            return PromptTooLong(
                f"a prompt does not fit the context of the server at {url} ({message}): shorten it, or lower "
                "max_tokens"
            )
        kind = Filtered if _FILTER.search(str(error.body)) else Refused
        return kind(f"the server refused with {code} ({message})")


def _message(error: Any) -> str:
    """What the server said, on one line; servers differ in where they put it."""
    body = error.body
    for key in ("error", "message", "detail"):
        if isinstance(body, dict) and body.get(key):
            body = body[key]
    text = body if isinstance(body, str) else error.response.text if body is None else json.dumps(body)
    return " ".join(keys.scrub(text).split())[:300] or "no message"


def _retry_after(response: Any) -> float | None:
    try:
        return float(response.headers.get("retry-after"))
    except (TypeError, ValueError):
        return None
