"""The routes: a page, its files, quick questions, what runs have left, and the socket of each tab."""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

import llmctl
from llmctl.errors import LlmctlError, UserError
from llmctl.explorer import curves, episodes, questions
from llmctl.explorer.access.guard import Guard
from llmctl.explorer.access.login import Login
from llmctl.explorer.files.library import Library, RunNotFound
from llmctl.explorer.limits import Limits
from llmctl.explorer.models import Models, check_tokens
from llmctl.explorer.reach_set import ExploredSets
from llmctl.explorer.requests import (
    BoundRequest,
    CompletionRequest,
    NextTokensRequest,
    PageRequest,
    SetRequest,
    WitnessRequest,
    read_request,
)
from llmctl.explorer.scheduler import Scheduler
from llmctl.explorer.sessions import Session
from llmctl.runs.files import to_json

logger = logging.getLogger(__name__)
STATIC = Path(__file__).parent / "static"
Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(
    library: Library,
    models: Models,
    limits: Limits | None = None,
    *,
    host: str = "127.0.0.1",
    password: str | None = None,
    token: str | None = None,
    warm_up: bool = False,
) -> Starlette:
    """The explorer as an ASGI application.

    Args:
        library: The runs folder.
        models: Which models may be opened.
        limits: What a visitor may ask for.
        host: The address that the server listens on; it decides which Host names are answered.
        password: The password that every visitor must give; None asks nobody.
        token: The secret of a link that logs in once without the password.
        warm_up: Whether to load the default model at once, in a thread.
    """
    limits = limits or Limits()
    scheduler = Scheduler(limits.running, limits.waiting, limits.questions)
    if warm_up:
        threading.Thread(target=_warm, args=(scheduler, models), daemon=True, name="llmctl-warm-up").start()

    shelf = ExploredSets()

    def about() -> dict[str, Any]:
        running = scheduler.slots.running
        return {"version": llmctl.__version__, "limits": vars(limits), "running": running, **models.offers()}

    def ask(path: str, cls: type[PageRequest], answer: Callable[[Models, Any], Any]) -> Route:
        return Route(path, _question(scheduler, models, limits, cls, answer), methods=["POST"])

    routes = [
        Route("/", _page),
        _get("/api/about", lambda _: about()),
        ask("/api/next", NextTokensRequest, questions.next_tokens),
        ask("/api/complete", CompletionRequest, questions.complete),
        ask("/api/witness", WitnessRequest, questions.witness),
        ask(
            "/api/bound", BoundRequest, lambda found, order: questions.bound(found, order, scheduler.between)
        ),
        Route("/api/explored", _asked(limits, SetRequest, shelf.look), methods=["POST"]),
        _get("/api/runs", lambda _: {"runs": library.runs()}),
        _get("/api/published", lambda _: {"curves": curves.published()}),
        _get("/api/curve", lambda q: curves.curve(library, q["run"])),
        _get("/api/pairs", lambda q: _pairs(library, q)),
        _get("/api/set", lambda q: _saved_set(library, q["run"])),
        _get("/api/rise", lambda q: episodes.overview(library, q["run"])),
        _get("/api/episode", lambda q: episodes.episode(library, q["run"], _whole(q, "stage"), q["problem"])),
        WebSocketRoute("/api/session", _socket(scheduler, models, limits, shelf)),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    login = None if password is None else Login(password, token)
    guard = Middleware(Guard, host=host, login=login, body=limits.body)
    return Starlette(routes=routes, middleware=[guard])


def _socket(
    scheduler: Scheduler, models: Models, limits: Limits, shelf: ExploredSets
) -> Callable[[WebSocket], Awaitable[None]]:
    """The endpoint of a tab's socket, for as many tabs as are served at a time."""
    tabs: set[WebSocket] = set()

    async def endpoint(websocket: WebSocket) -> None:
        if len(tabs) >= limits.tabs:
            await websocket.close(1013, "too many tabs are open")
            return
        await websocket.accept()
        tabs.add(websocket)
        try:
            await Session(websocket, scheduler, models, limits, shelf).run()
        finally:
            tabs.discard(websocket)

    return endpoint


async def _page(_: Request) -> Response:
    return FileResponse(STATIC / "index.html")


class _Query(dict[str, str]):
    """What a request names; a missing name is the asker's mistake, unlike any other KeyError."""

    def __missing__(self, name: str) -> str:
        raise UserError(f"the request names no {name}")


def _get(path: str, answer: Callable[[dict[str, str]], Any]) -> Route:
    async def endpoint(request: Request) -> Response:
        query = _Query(request.query_params)
        return await _answer(lambda: answer(query))

    return Route(path, endpoint)


def _question(
    scheduler: Scheduler,
    models: Models,
    limits: Limits,
    cls: type[PageRequest],
    answer: Callable[[Models, Any], Any],
) -> Endpoint:
    def answer_in_turn(order: Any) -> Any:
        check_tokens(models, order, limits)
        return answer(models, order)

    return _asked(limits, cls, lambda order: scheduler.ask(lambda: answer_in_turn(order)))


def _asked(limits: Limits, cls: type[PageRequest], answer: Callable[[Any], Any]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        body = await request.body()
        return await _answer(lambda: answer(read_request(cls, body, limits)))

    return endpoint


async def _answer(work: Callable[[], Any]) -> Response:
    """The answer as JSON; what is not there is one line with status 404, another mistake one with 400."""
    try:
        return _json(await run_in_threadpool(work))
    except RunNotFound as error:
        return _json({"error": str(error)}, 404)
    except LlmctlError as error:
        return _json({"error": str(error)}, 400)
    except RecursionError:
        return _json({"error": "the files of this run nest too deep to be shown"}, 400)
    except Exception as error:  # a defect: the page says so, the log has the traceback
        logger.exception("a question failed")
        return _json({"error": f"{type(error).__name__}: {error}"}, 500)


def _json(content: Any, status: int = 200) -> Response:
    return Response(to_json(content), status, media_type="application/json")


def _whole(query: dict[str, str], name: str) -> int:
    text = query[name]
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UserError(f"{name} is {text!r}, but it must be a whole number")
    return int(text)


def _pairs(library: Library, query: dict[str, str]) -> dict[str, Any]:
    k = None if query.get("k", "none") == "none" else _whole(query, "k")
    offset, limit = (_whole({"offset": "0", "limit": "50", **query}, name) for name in ("offset", "limit"))
    return curves.pairs(library, query["run"], k, offset, limit)


def _saved_set(library: Library, run: str) -> dict[str, Any]:
    found = library.metrics(run)
    if "reached" not in found or not isinstance(found["reached"], list):
        raise UserError(f"{run} is no reachable set: choose a run of kind reach-set")
    recipe = library.recipe(run)
    named = {name: library.offer_name(recipe.get(name)) for name in ("model", "adapter")}
    return {**found, **named, "run": run}


def _warm(scheduler: Scheduler, models: Models) -> None:
    """Load the default model before anybody asks; a model that cannot be loaded says so when it is asked."""
    with suppress(LlmctlError):
        name = models.offers()["models"][0]["name"]
        scheduler.ask(lambda: models.get(name).texts)
