"""Score controls on many pairs at once: short prompts stacked in one batch, long ones by their own prefix.

Rows are padded on the right, where a causal model does not look before the logits that count, so that
neither a mask nor position ids are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from llmctl.reach.problem import Layout
from llmctl.reach.scoring.embeddings import blank_embedding
from llmctl.reach.scoring.records import BLANK, Meter, reduce_logits
from llmctl.reach.scoring.runner import Room, RowRunner
from llmctl.reach.scoring.scorer import Scorer, refuse_not_finite

# One call of the model costs about as much as this many tokens more in a batch (135M parameters, CPU).
_CALL_TOKENS = 64
# Prompts, or answers, of one stack differ by this many tokens at most: each costs a position of logits.
_SPREAD = 4
_GRADIENT_TOKENS = 1024  # a backward pass keeps every layer's activations


@dataclass(frozen=True)
class PairTable:
    """Of P pairs and N controls, on the CPU."""

    loss: Tensor  # (P, N) float64, mean cross-entropy over the answer's tokens in nats
    is_hit: Tensor  # (P, N) every answer token is the argmax
    margin: Tensor  # (P, N) the answer's logit minus the best other, the least over its tokens


class PairBatch:
    """Some pairs and one model. Prefixes of long prompts are kept for as long as this lives."""

    def __init__(self, model: Any, layouts: Sequence[Layout], meter: Meter | None = None) -> None:
        """Wrap a model.

        Args:
            model: A causal language model of transformers in evaluation mode.
            layouts: Of P pairs.
            meter: Where to count; None starts a fresh one.
        """
        self.model, self.layouts = model, layouts
        self.meter = meter if meter is not None else Meter()
        self._runner = RowRunner(model, self.meter)
        self._scorers: dict[int, Scorer] = {}

    def scorer(self, row: int) -> Scorer:
        """The scorer of one pair alone."""
        if row not in self._scorers:
            self._scorers[row] = Scorer(self.model, self.layouts[row], runner=self._runner)
        return self._scorers[row]

    def score(self, controls: Tensor, base: Tensor | None = None) -> PairTable:
        """Loss, hit and margin of every control on every pair.

        Args:
            controls: (N, K) token ids; K may be 0.
            base: (K,) the control that they were made from; see `Scorer.score`.
        """
        shape = (len(self.layouts), len(controls))
        loss, margin = torch.empty(shape, dtype=torch.float64), torch.empty(shape)
        is_hit = torch.empty(shape, dtype=torch.bool)
        # The prefix of a long prompt is better read once than N times, even at the price of a call.
        is_short = [(len(controls) - 1) * len(layout.left_ids) <= _CALL_TOKENS for layout in self.layouts]
        for row, short in enumerate(is_short):
            if not short:
                scores = self.scorer(row).score(controls, base)
                loss[row], is_hit[row], margin[row] = scores.loss.double(), scores.is_hit, scores.margin
        for stack in _stacks(self.layouts, [row for row, short in enumerate(is_short) if short]):
            self._score_stack(stack, controls, loss, is_hit, margin)
        return PairTable(loss, is_hit, margin)

    def gradient(self, control: Tensor) -> Tensor:
        """Gradient of the mean loss over the pairs by the one-hot vectors of the control's tokens.

        Args:
            control: (K,) token ids; `BLANK` stands for the mean embedding.

        Returns:
            (K, V) in float32 on the model's device, up to a positive factor in models that scale their
            embeddings.
        """
        weight = self.model.get_input_embeddings().weight.detach()
        slope = torch.zeros(len(control), weight.shape[1], device=weight.device)
        for stack in _stacks(self.layouts, range(len(self.layouts))):
            rows = max(_GRADIENT_TOKENS // stack.length(len(control)), 1)
            for _, part in self._runner.batches(len(stack.rows), rows, partial(self._slope, stack, control)):
                slope += part
        with torch.no_grad():
            return (slope / len(self.layouts)) @ weight.float().T

    def _score_stack(
        self, stack: _Stack, controls: Tensor, loss: Tensor, is_hit: Tensor, margin: Tensor
    ) -> None:
        """Fill in the rows of one stack."""
        count, k = controls.shape
        ids, columns = stack.ids(k)
        rows = ids[:, None].expand(-1, count, -1).clone()  # (P, N, T)
        shape = (len(ids), count, k)
        rows.scatter_(2, columns[:, None].expand(shape), controls[None].expand(shape))
        pair = torch.arange(len(ids)).repeat_interleave(count)  # (P * N,)
        control = torch.arange(count).repeat(len(ids))
        where = torch.tensor(stack.rows)[pair]
        flat = rows.flatten(0, 1)

        def run(part: slice) -> Tensor:
            ids = flat[part].to(self.model.device)
            check = partial(refuse_not_finite, ids)
            return self._runner.forward(input_ids=ids, keep=stack.kept(), check=check)

        fitting = self._runner.rows(Room(flat.shape[1], stack.kept()))
        for part, logits in self._runner.batches(len(flat), fitting, run):
            found = stack.reduce(logits, pair[part])
            for table, values in zip((loss, is_hit, margin), found, strict=True):
                table[where[part], control[part]] = values.to("cpu", table.dtype)

    def _slope(self, stack: _Stack, control: Tensor, part: slice) -> Tensor:
        """(K, D) the sum over some of a stack's pairs of the gradient by the control's embeddings."""
        stack = stack.part(part)
        table = self.model.get_input_embeddings()
        ids, columns = stack.ids(len(control))
        device = table.weight.device
        # Outside inference mode, since the embeddings carry a graph.
        embeds = table(ids.to(device)).detach()  # (P, T, D)
        own = table(control.clamp(min=0).to(device)).detach()  # (K, D)
        if len(blanks := (control == BLANK).nonzero().flatten()):
            # Over all tokens, since the embedding of a padding token may be zero.
            own[blanks.to(device)] = blank_embedding(self.model, embeds, ids.to(device)).to(own.dtype)
        own.requires_grad_(True)
        with torch.enable_grad():
            index = columns.to(device)[..., None].expand(-1, -1, embeds.shape[2])
            inputs = embeds.scatter(1, index, own[None].expand(index.shape))

        def loss_of(logits: Tensor) -> Tensor:
            return stack.reduce(logits, torch.arange(len(ids)))[0]

        slope, _ = self._runner.gradient(own, loss_of, keep=stack.kept(), inputs_embeds=inputs)
        return slope.float()


class _Stack:
    """Pairs whose rows are padded to one length."""

    def __init__(self, layouts: Sequence[Layout], rows: Sequence[int]) -> None:
        self._all, self.rows = layouts, list(rows)
        self.layouts = [layouts[row] for row in rows]
        prompts = torch.tensor([len(x.left_ids) + len(x.right_ids) for x in self.layouts])
        targets = [list(layout.target_ids) for layout in self.layouts]
        longest = max(map(len, targets))
        self._targets = torch.tensor([ids + [BLANK] * (longest - len(ids)) for ids in targets])  # (P, M)
        self._first = int(prompts.min())
        self._rest = max(layout.length(0) for layout in self.layouts) - 1
        # Where a row's answer is predicted, among the logits that are kept.
        place = (prompts - self._first)[:, None] + torch.arange(longest)  # (P, M)
        self._place = place.clamp(max=self.kept() - 1)

    def length(self, k: int) -> int:
        """T with a control of k tokens."""
        return self._rest + k

    def kept(self) -> int:
        """Positions at the end of a row whose logits are needed."""
        return self._rest - self._first + 1

    def part(self, rows: slice) -> _Stack:
        """A stack of some of these pairs."""
        return _Stack(self._all, self.rows[rows])

    def ids(self, k: int) -> tuple[Tensor, Tensor]:
        """(P, T) rows with room for a control, and the columns (P, k) where it goes."""
        rows = [[*x.prompt([0] * k), *x.target_ids[:-1]] for x in self.layouts]
        padded = torch.tensor([row + [0] * (self.length(k) - len(row)) for row in rows])
        left = torch.tensor([len(layout.left_ids) for layout in self.layouts])
        return padded, left[:, None] + torch.arange(k)

    def reduce(self, logits: Tensor, pair: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, hit and margin (B,) of rows with logits (B, W, V) that belong to the pairs (B,)."""
        place, targets = self._place[pair].to(logits.device), self._targets[pair].to(logits.device)
        own = logits.gather(1, place[..., None].expand(-1, -1, logits.shape[2]))  # (B, M, V)
        return reduce_logits(own, targets)


def _stacks(layouts: Sequence[Layout], rows: Sequence[int]) -> Iterator[_Stack]:
    """Pairs of about the same length together, so that little is padded."""
    if not rows:
        return

    def lengths(row: int) -> tuple[int, int]:
        return len(layouts[row].left_ids) + len(layouts[row].right_ids), len(layouts[row].target_ids)

    stack: list[int] = []
    for row in sorted(rows, key=lengths):
        if stack:
            prompt, target = lengths(row)
            targets = [lengths(other)[1] for other in stack]
            too_far = prompt - lengths(stack[0])[0] > _SPREAD
            if too_far or max(*targets, target) - min(*targets, target) > _SPREAD:
                yield _Stack(layouts, stack)
                stack = []
        stack.append(row)
    yield _Stack(layouts, stack)
