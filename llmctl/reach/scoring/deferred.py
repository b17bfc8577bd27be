"""A scorer that defers its forward passes, so that several searches can share them, and its requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llmctl.reach.problem import Layout
from llmctl.reach.scoring.embeddings import embed_row
from llmctl.reach.scoring.prefix_cache import Layers, supports_prefix
from llmctl.reach.scoring.prefix_plan import PlanMeter, PrefixPlan
from llmctl.reach.scoring.records import ControlScores, Meter
from llmctl.reach.scoring.scorer import Scorer


@dataclass(frozen=True, eq=False)
class ScoreRequest:
    """`Scorer.score`, or `Scorer.base` where the control is empty: answered with scores and that rank."""

    scorer: AskingScorer
    controls: Tensor  # (N, K)
    base: Tensor | None = None


@dataclass(frozen=True, eq=False)
class GradientRequest:
    """`Scorer.gradient`: answered with the slopes (K, V) and the loss."""

    scorer: AskingScorer
    control: Tensor  # (K,)


@dataclass(frozen=True, eq=False)
class LoneRequest:
    """What must run alone: the check of a witness."""

    run: Callable[[], Any]


Request = ScoreRequest | GradientRequest | LoneRequest


class AskingScorer:
    """Looks like a `Scorer` to a search, and hands every forward pass on as a request.

    Its meter counts what a `Scorer` would run alone, so that a search costs the same alone and in company;
    what really goes through the model is counted by the `Merger`.
    """

    def __init__(self, model: Any, layout: Layout, ask: Callable[[Request], Any]) -> None:
        """Stand in for the scorer of one search.

        Args:
            model: A causal language model of transformers in evaluation mode.
            layout: Where the control goes.
            ask: Hands a request to whoever runs the model, and returns the answer or raises it.
        """
        self.model: Any = model
        self.layout = layout
        self.meter = Meter()
        self.device: torch.device = model.device
        self.plan = PrefixPlan(layout, supports_prefix(model))
        self.costs = PlanMeter(self.plan, self.meter)
        self.left: Layers | None = None  # keys and values of the left side, once computed
        self._alone = Scorer(model, layout, meter=self.meter)
        self._ask = ask

    def score(self, controls: Tensor, base: Tensor | None = None) -> ControlScores:
        """See `Scorer.score`."""
        scores: ControlScores
        scores, _ = self._ask(ScoreRequest(self, controls, base))
        return scores

    def base(self) -> tuple[int, ControlScores]:
        """See `Scorer.base`."""
        scores, rank = self._ask(ScoreRequest(self, torch.empty(1, 0, dtype=torch.long)))
        return rank, scores

    def gradient(self, control: Tensor) -> tuple[Tensor, float]:
        """See `Scorer.gradient`."""
        slopes, loss = self._ask(GradientRequest(self, control))
        return slopes, loss

    def emits(self, prompt: list[int]) -> bool:
        """See `Scorer.emits`: a prompt is decoded alone here too."""
        return bool(self._ask(LoneRequest(partial(self._alone.emits, prompt))))

    def embed(self, control: Tensor) -> Tensor:
        """(L, D) embeddings of the whole row of a gradient."""
        return embed_row(self.model, self.layout, control, self.layout.left_ids)[0]
