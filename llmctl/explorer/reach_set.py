"""The reachable set as a job: tokens are sent in small groups as they are reached."""

from __future__ import annotations

import random
import threading
from collections import OrderedDict
from dataclasses import replace
from typing import Any

from llmctl.explorer.events import SetBegan, SetEnded, SetProgressed, TokensReached
from llmctl.explorer.jobs import Job
from llmctl.explorer.models import Models, Open
from llmctl.explorer.questions import layout_of
from llmctl.explorer.requests import SetRequest
from llmctl.reach.problem import Problem

_CHUNK = 64  # controls of the scan between two points of the growth curve


class ExploredSets:
    """The sets that were explored last, as far as they came, so that a link shows them again.

    Args:
        size: Sets that are kept.
    """

    def __init__(self, size: int = 8) -> None:
        self._size = size
        self._sets: OrderedDict[SetRequest, dict[str, Any]] = OrderedDict()
        self._mutex = threading.Lock()

    def begin(self, request: SetRequest) -> dict[str, Any]:
        """A place for a set that is explored now; the one that was touched longest ago gives way."""
        with self._mutex:
            found = self._sets[request] = {"reached": {}, "growth": [], "end": None}
            self._sets.move_to_end(request)
            while len(self._sets) > self._size:
                self._sets.popitem(last=False)
        return found

    def look(self, request: SetRequest) -> dict[str, Any]:
        """What is known of a set: `reached`, `growth` and `end`; all empty where it was not explored."""
        with self._mutex:
            found = self._sets.get(request) or {"reached": {}, "growth": [], "end": None}
            return {**found, "reached": list(found["reached"].values()), "growth": list(found["growth"])}


def explore_set(job: Job, models: Models, request: SetRequest, shelf: ExploredSets) -> None:
    """Find the tokens that short controls reach.

    Events: `SetBegan`, `TokensReached`, `SetProgressed`, `SetEnded`.

    Raises:
        UserError: The request does not fit the model.
        Stopped: The job is to end.
    """
    from llmctl.reach.reachable_sets.explore import Exploration, Growth, explore

    found = models.get(request.model, request.adapter)
    problem = _problem(found, request)
    base = _base_logprobs(found, request)
    news: list[dict[str, Any]] = []

    def note(token: int, control: tuple[int, ...]) -> None:
        rank = int((base > base[token]).sum())
        news.append(
            {
                "token": {"id": token, "text": found.text(token)},
                "control": found.tokens(control),
                "base_rank": rank,
                "base_loss": -float(base[token]),
            }
        )

    settings = Exploration(forwards=request.forwards, seed=request.seed)
    kept = shelf.begin(request)
    steps = explore(found.model, found.tokenizer, problem, request.k, settings, on_reached=note, chunk=_CHUNK)
    allowed = len(problem.candidates or found.texts)
    total = allowed + (request.forwards if request.k > 1 else 0)
    job.say(SetBegan(allowed, total, len(found.texts)))
    for step in steps:
        if news:
            job.say(TokensReached(list(news)))
            # A new dict, since somebody may be reading the old one.
            kept["reached"] = kept["reached"] | {entry["token"]["id"]: entry for entry in news}
            news.clear()
        if isinstance(step, Growth):
            kept["growth"].append({"forwards": step.forwards, "reached": step.reached})
            left = max(total - step.forwards, 0) * job.seconds / step.forwards if step.forwards else None
            job.say(
                SetProgressed(
                    reached=step.reached,
                    forwards=step.forwards,
                    forward_tokens=step.forward_tokens,
                    of=total,
                    seconds=round(job.seconds, 2),
                    left=None if left is None else round(left, 1),
                )
            )
        else:
            end = SetEnded(len(step.reached), step.k, step.exact_k, step.allowed)
            kept["end"] = end.content()
            job.say(end)


def _problem(found: Open, request: SetRequest) -> Problem:
    """The state, with the tokens that a control may hold."""
    from llmctl.reach.vocabulary import allowed_tokens

    problem = Problem(request.state, position=request.position, controls=request.controls)
    if request.sample == 0:
        return problem
    allowed = allowed_tokens(problem, found.tokenizer, len(found.texts))
    drawn = random.Random(request.seed).sample(allowed, min(request.sample, len(allowed)))
    return replace(problem, candidates=sorted(drawn), controls="any")


def _base_logprobs(found: Open, request: SetRequest) -> Any:
    """Log-probabilities (V,) after the state alone."""
    import torch

    from llmctl.reach.scoring.scorer import Scorer

    scorer = Scorer(found.model, layout_of(found, request))
    _, logits = next(iter(scorer.next_logits(torch.empty(1, 0, dtype=torch.long))))
    return logits[0].float().log_softmax(-1).cpu()
