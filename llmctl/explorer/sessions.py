"""A tab's socket: requests come in, events go out, and when the tab is closed its jobs are stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from llmctl.errors import UserError
from llmctl.explorer.events import Message, Refused
from llmctl.explorer.jobs import Job
from llmctl.explorer.limits import Limits
from llmctl.explorer.models import Models, check_tokens
from llmctl.explorer.reach_set import ExploredSets, explore_set
from llmctl.explorer.requests import ChatRequest, ModelRequest, SearchRequest, SetRequest, read_request
from llmctl.explorer.scheduler import Scheduler
from llmctl.runs.files import to_json
from llmctl.trust import parse_json

if TYPE_CHECKING:
    Work = Callable[[Job, Models, Any], None]


def works(shelf: ExploredSets) -> dict[str, tuple[type[ModelRequest], Work]]:
    """What a job can be: the request that it takes, and what it does."""
    from llmctl.explorer.chat import converse
    from llmctl.explorer.search import search

    return {
        "search": (SearchRequest, search),
        "set": (SetRequest, partial(explore_set, shelf=shelf)),
        "converse": (ChatRequest, converse),
    }


class Session:
    """One tab.

    Args:
        socket: Accepted.
        scheduler: Where its jobs take their turns.
        models: Which models they may open.
        limits: What they may ask for.
        shelf: Keeps the sets that they explore.
    """

    def __init__(
        self, socket: WebSocket, scheduler: Scheduler, models: Models, limits: Limits, shelf: ExploredSets
    ) -> None:
        self._socket, self._scheduler, self._models, self._limits = socket, scheduler, models, limits
        self._works = works(shelf)
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._jobs: dict[str, Job] = {}  # by kind: a tab has one of each at most

    async def run(self) -> None:
        """Serve the tab until it goes."""
        sender = asyncio.create_task(self._send_events())
        try:
            while True:
                self._take(await self._socket.receive_text())
        except WebSocketDisconnect:
            pass
        finally:
            self.close()
            sender.cancel()

    def close(self) -> None:
        """Stop every job of the tab."""
        for job in self._jobs.values():
            job.stop()

    def _take(self, text: str) -> None:
        message: Any = None
        try:
            if len(text.encode()) > self._limits.body:
                raise UserError(f"the request is longer than {self._limits.body:,} bytes: shorten it")
            message = parse_json(text)
            if not isinstance(message, dict):
                raise UserError("the request is no JSON object")
            self._do(message)
        except ValueError:
            self._tell(Message(None, None, Refused("the request is not JSON")))
        except UserError as error:
            named = message if isinstance(message, dict) else {}
            self._tell(Message(named.get("kind"), named.get("job"), Refused(str(error))))

    def _do(self, message: Mapping[str, Any]) -> None:
        verb, kind = message.get("do"), str(message.get("kind"))
        job = self._jobs.get(kind)
        if verb == "start":
            self._start(kind, str(message.get("job", ""))[:64], message.get("order") or {})
        elif job is not None and verb == "pause":
            job.pause()
        elif job is not None and verb == "go-on":
            job.go_on()
        elif job is not None and verb == "stop":
            job.stop()
        elif verb not in ("pause", "go-on", "stop"):
            raise UserError(f"{verb!r} is nothing that a job can do: start, pause, go-on or stop it")

    def _start(self, kind: str, name: str, content: Mapping[str, Any]) -> None:
        if kind not in self._works:
            raise UserError(f"{kind!r} is no kind of job: it must be one of {', '.join(self._works)}")
        cls, work = self._works[kind]
        request = read_request(cls, content, self._limits)
        if (old := self._jobs.get(kind)) is not None:
            old.stop()

        def check_then_work(job: Job) -> None:
            check_tokens(self._models, request, self._limits)
            work(job, self._models, request)

        job = Job(self._scheduler, kind, name, check_then_work, self._tell_from_thread)
        job.start()
        self._jobs[kind] = job

    def _tell_from_thread(self, message: Message) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, message)

    def _tell(self, message: Message) -> None:
        self._events.put_nowait(message)

    async def _send_events(self) -> None:
        while True:
            message = await self._events.get()
            try:
                await self._socket.send_text(to_json(message))
            except (WebSocketDisconnect, RuntimeError):  # the tab is gone; `run` hears of it too
                return
