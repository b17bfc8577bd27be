"""Which rows of a request share a prefix, and how much of it is read from keys and values. No model.

A `Scorer` runs such a plan. Searches that share their passes are counted by the same plan, so that a search
costs the same alone and in company.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from llmctl.reach.problem import Layout
from llmctl.reach.scoring.prefix_cache import PrefixCount
from llmctl.reach.scoring.records import Meter


@dataclass(frozen=True, eq=False)
class RowGroup:
    """Rows of one request that share a prefix."""

    rows: Tensor  # (n,) their places among the controls
    prefix: tuple[int, ...]  # tokens read from keys and values; empty where all tokens are run
    width: int  # tokens of each row that go through the model

    @property
    def tokens(self) -> int:
        """Tokens that go through the model, the prefix aside."""
        return len(self.rows) * self.width


@dataclass(frozen=True)
class PrefixPlan:
    """Plans the passes over the controls of one layout."""

    layout: Layout
    reuses: bool
    """Whether prefixes are read from keys and values at all."""

    def groups(self, controls: Tensor, base: Tensor | None = None) -> list[RowGroup]:
        """The passes that score controls (N, K) made from `base` (K,); see `Scorer.score`."""
        keep = len(self.layout.target_ids)
        end = self.layout.length(controls.shape[1]) - 1
        return [
            self._group(rows, controls, shared, end, keep) for rows, shared in self._shared(controls, base)
        ]

    def prompts(self, controls: Tensor) -> RowGroup:
        """The passes that read prompts with controls (N, K), without a target."""
        end = self.layout.length(controls.shape[1]) - len(self.layout.target_ids)
        return self._group(torch.arange(len(controls)), controls, _common(controls), end, 1)

    def reads_left(self, k: int) -> bool:
        """Whether the left side is worth reading from its keys and values, for controls of k tokens."""
        return self.reuses and _is_worth(len(self.layout.left_ids), self.layout.length(k) - 1)

    def gradient_tokens(self, k: int) -> int:
        """Tokens of the pass that gives the gradient of a control of k tokens."""
        return self.layout.length(k) - 1 - (len(self.layout.left_ids) if self.reads_left(k) else 0)

    def _group(self, rows: Tensor, controls: Tensor, shared: int, total: int, keep: int) -> RowGroup:
        own = controls[int(rows[0]), :shared].tolist() if len(rows) else []
        prefix = (*self.layout.left_ids, *own)
        read = self._readable(len(prefix), len(rows), total, keep)
        return RowGroup(rows, prefix[:read], total - read)

    def _shared(self, controls: Tensor, base: Tensor | None) -> Iterator[tuple[Tensor, int]]:
        """Row numbers that share a prefix of the control, and the length of that prefix."""
        if base is None or not self.reuses:
            yield torch.arange(len(controls)), _common(controls)
            return
        equal = (controls.cpu() == base.cpu()).long().cumprod(1).sum(1)  # (N,) shared tokens
        equal[~self._is_worth_each(equal)] = 0
        for shared in equal.unique().tolist():
            yield (equal == shared).nonzero().flatten(), int(shared)

    def _is_worth_each(self, shared: Tensor) -> Tensor:
        """Which shared lengths save enough over the left side alone to be a batch of their own."""
        rest = self.layout.length(0) - len(self.layout.left_ids)
        return shared * 8 >= (rest + shared.max())

    def _readable(self, prefix: int, rows: int, total: int, keep: int) -> int:
        """Tokens of a shared prefix to read from their keys and values; the last `keep` must be computed."""
        length = min(prefix, total - keep) if self.reuses and rows > 1 else 0
        return length if _is_worth(length, total) else 0


class PlanMeter:
    """Counts what one search would run alone, by the plan that its own scorer would follow."""

    def __init__(self, plan: PrefixPlan, meter: Meter) -> None:
        self._plan, self._meter = plan, meter
        self._prefixes = PrefixCount(lambda tokens: meter.add(0, tokens))

    def count_score(self, controls: Tensor, base: Tensor | None) -> None:
        """Count what `Scorer.score` would run for controls (N, K)."""
        for group in self._plan.groups(controls, base):
            if group.prefix:
                self._prefixes.note(group.prefix)
            self._meter.add(len(group.rows), group.tokens)

    def count_gradient(self, control: Tensor) -> None:
        """Count what `Scorer.gradient` would run for a control (K,)."""
        if self._plan.reads_left(len(control)):
            self._prefixes.note(self._plan.layout.left_ids)
        self._meter.add(1, self._plan.gradient_tokens(len(control)), is_backward=True)


def _common(controls: Tensor) -> int:
    """Tokens that all controls begin with; 0 for a single one, which shares nothing."""
    if len(controls) < 2 or controls.shape[1] == 0:
        return 0
    return int((controls == controls[:1]).all(0).long().cumprod(0).sum())


def _is_worth(shared: int, total: int) -> bool:
    """A mask and a copy of keys cost about what an eighth of the tokens cost."""
    return 0 < shared and shared * 8 >= total
