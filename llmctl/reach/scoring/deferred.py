"""A scorer that runs no model but asks whoever runs one for several searches; and what it asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llmctl.reach.problem import Layout
from llmctl.reach.scoring.prefix_cache import Layers, PrefixCount
from llmctl.reach.scoring.scorer import NotFiniteError, Scorer, Scores


@dataclass(frozen=True, eq=False)
class ScoreRequest:
    """`Scorer.score`, or `Scorer.base` where the control is empty: answered with `Scores` and that rank."""

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


class AskingScorer(Scorer):
    """A scorer that runs no model: it asks whoever runs one for several searches.

    It counts as `Scorer` does, so that a search costs the same figures alone and in company. Tokens that
    a merged pass repeats to bring its rows to one width are padding, and not counted.
    """

    def __init__(self, model: Any, layout: Layout, ask: Callable[[Request], Any]) -> None:
        super().__init__(model, layout)
        self.left: Layers | None = None  # keys and values of the left side, once computed
        self._ask = ask
        self._counted = PrefixCount(lambda tokens: self.meter.add(0, tokens))

    def score(self, controls: Tensor, base: Tensor | None = None) -> Scores:
        """See `Scorer.score`."""
        scores, _ = self._ask(ScoreRequest(self, controls, base))
        return scores

    def base(self) -> tuple[int, Scores]:
        """See `Scorer.base`."""
        scores, rank = self._ask(ScoreRequest(self, torch.empty(1, 0, dtype=torch.long)))
        return rank, scores

    def gradient(self, control: Tensor) -> tuple[Tensor, float]:
        """See `Scorer.gradient`."""
        slopes, loss = self._ask(GradientRequest(self, control))
        return slopes, loss

    def emits(self, prompt: list[int]) -> bool:
        """See `Scorer.emits`: alone here too."""
        return bool(self._ask(LoneRequest(partial(super().emits, prompt))))

    def job(self, request: ScoreRequest | GradientRequest) -> Job:
        """The rows of a request."""
        is_gradient = isinstance(request, GradientRequest)
        controls = request.control[None] if isinstance(request, GradientRequest) else request.controls
        left, rows = self.layout.left_ids, len(controls)
        end = (*self.layout.right_ids, *self.layout.target_ids[:-1])
        parts = [
            torch.tensor(left, dtype=torch.long).expand(rows, -1),
            controls.cpu().clamp(min=0),
            torch.tensor(end, dtype=torch.long).expand(rows, -1),
        ]
        reads = self._reads_left(controls.shape[1]) and (is_gradient or rows > 1)
        return Job(self, torch.cat(parts, 1), self.layout.target_ids, len(left) if reads else 0, request)

    def left_job(self) -> Job:
        """The left side, whose keys and values are wanted."""
        return Job(self, torch.tensor([self.layout.left_ids]), (0,), 0, None)

    def embed(self, control: Tensor) -> Tensor:
        """(L, D) embeddings of the whole row of a gradient."""
        return self._embed(control, self.layout.left_ids)[0]

    def count_score(self, controls: Tensor, base: Tensor | None) -> None:
        """Count what `Scorer.score` would have."""
        keep = len(self.layout.target_ids)
        total = self.layout.length(controls.shape[1]) - 1
        for rows, shared in self._groups(controls, base):
            prefix = (*self.layout.left_ids, *controls[int(rows[0]), :shared].tolist())
            read = self._readable(len(prefix), len(rows), total, keep)
            if read:
                self._counted.note(prefix[:read])
            self.meter.add(len(rows), len(rows) * (total - read))

    def count_gradient(self, control: Tensor) -> None:
        """Count what `Scorer.gradient` would have."""
        reads, left = self._reads_left(len(control)), self.layout.left_ids
        if reads:
            self._counted.note(left)
        tokens = self.layout.length(len(control)) - 1 - (len(left) if reads else 0)
        self.meter.add(1, tokens)
        self.meter.backward_tokens += tokens


class Job:
    """The rows of one request, all of one length, and what becomes of them."""

    def __init__(
        self,
        scorer: AskingScorer,
        ids: Tensor,
        target: Sequence[int],
        skip: int,
        request: ScoreRequest | GradientRequest | None,
    ) -> None:
        self.scorer, self.request = scorer, request
        self.ids = ids  # (N, L) on the CPU
        self.target = torch.tensor(target)  # (M,): the last M positions predict it
        self.rest = ids.shape[1] - skip  # tokens of a row that must go through the model
        self.answer: Any = None
        self.error: NotFiniteError | None = None

    @property
    def length(self) -> int:
        """Tokens of a row."""
        return self.ids.shape[1]
