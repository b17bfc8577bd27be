"""The reachable set as a job: tokens are told in small groups as they are reached."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from llmctl.explorer.desk import Job
from llmctl.explorer.models import Models, Open
from llmctl.explorer.orders import SetOrder
from llmctl.explorer.questions import layout_of
from llmctl.reach.problem import Problem

_CHUNK = 64  # controls of the scan between two points of the growth curve


def explore_set(job: Job, models: Models, order: SetOrder) -> None:
    """Find the tokens that short controls reach.

    News: `begin` (controls of one token that will be tried), `reached` (tokens with witness, base rank and
    base loss), `progress`, and `end` (the counts, and up to which k the set is exact).

    Raises:
        UserError: The order does not fit the model.
        Stopped: The job is to end.
    """
    from llmctl.reach.frontier import Exploration, Growth, explore

    found = models.get(order.model, order.adapter)
    problem = _problem(found, order)
    base = _base_logprobs(found, order)
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

    settings = Exploration(forwards=order.forwards, seed=order.seed)
    steps = explore(found.model, found.tokenizer, problem, order.k, settings, on_reached=note, chunk=_CHUNK)
    allowed = len(problem.candidates or found.texts)
    total = allowed + (order.forwards if order.k > 1 else 0)
    job.say("begin", allowed=allowed, of=total, vocabulary=len(found.texts))
    for step in steps:
        if news:
            job.say("reached", tokens=list(news))
            news.clear()
        if isinstance(step, Growth):
            rate = step.forwards / job.seconds if job.seconds else 0.0
            job.say(
                "progress",
                reached=step.reached,
                forwards=step.forwards,
                forward_tokens=step.forward_tokens,
                of=total,
                seconds=round(job.seconds, 2),
                left=round(max(total - step.forwards, 0) / rate, 1) if rate else None,
            )
        else:
            job.say("end", reached=len(step.reached), k=step.k, exact_k=step.exact_k, allowed=step.allowed)


def _problem(found: Open, order: SetOrder) -> Problem:
    """The state, with the tokens that a control may hold."""
    from llmctl.reach.filters import allowed_tokens

    problem = Problem(order.state, position=order.position, controls=order.controls)
    if order.sample == 0:
        return problem
    allowed = allowed_tokens(problem, found.tokenizer, len(found.texts))
    drawn = random.Random(order.seed).sample(allowed, min(order.sample, len(allowed)))
    return replace(problem, candidates=sorted(drawn), controls="any")


def _base_logprobs(found: Open, order: SetOrder) -> Any:
    """Log-probabilities (V,) after the state alone."""
    import torch

    from llmctl.reach.scoring import Scorer

    scorer = Scorer(found.model, layout_of(found, order))
    _, logits = next(iter(scorer.next_logits(torch.empty(1, 0, dtype=torch.long))))
    return logits[0].float().log_softmax(-1).cpu()
