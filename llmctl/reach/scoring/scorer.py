"""Score many controls of one problem at once: every search method uses the model through this.

Only the logits that predict the target are computed. A prefix that all candidates share is read from its
keys and values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from llmctl.reach.problem import Layout
from llmctl.reach.scoring.embeddings import embed_row
from llmctl.reach.scoring.models import check_model, context_of, vocabulary_of
from llmctl.reach.scoring.prefix_cache import PrefixCache, supports_prefix
from llmctl.reach.scoring.prefix_plan import PrefixPlan, RowGroup
from llmctl.reach.scoring.records import BLANK, ControlScores, Meter, NotFiniteError, reduce_logits
from llmctl.reach.scoring.runner import Room, RowRunner

__all__ = [
    "BLANK",
    "ControlScores",
    "Meter",
    "NotFiniteError",
    "Scorer",
    "check_model",
    "context_of",
    "reduce_logits",
    "vocabulary_of",
]


class Scorer:
    """Scores controls of one layout on one model."""

    def __init__(
        self,
        model: Any,
        layout: Layout,
        *,
        batch: int | None = None,
        reuse_prefix: bool = True,
        meter: Meter | None = None,
        runner: RowRunner | None = None,
    ) -> None:
        """Wrap a model.

        Args:
            model: A causal language model of transformers in evaluation mode.
            layout: Where the control goes.
            batch: Most sequences per forward pass; None chooses by the device.
            reuse_prefix: Read shared prefixes from their keys and values.
            meter: Where to count; None starts a fresh one.
            runner: A runner to share with other scorers, in place of `batch` and `meter`.
        """
        check_model(model)
        self.model: Any = model
        self.layout = layout
        self._runner = runner or RowRunner(model, meter if meter is not None else Meter(), batch=batch)
        self.meter = self._runner.meter
        self.device: torch.device = model.device
        self._prefixes = PrefixCache(self._runner)
        self._plan = PrefixPlan(layout, reuse_prefix and supports_prefix(model))
        self._target = torch.tensor(layout.target_ids, dtype=torch.long, device=self.device)

    def score(self, controls: Tensor, base: Tensor | None = None) -> ControlScores:
        """Loss, hit and margin of each control.

        Args:
            controls: (N, K) token ids.
            base: (K,) the control that the candidates were made from: those that first differ from it at
                position i share the keys and values of its first i tokens.
        """
        count = len(controls)
        loss, margin = torch.empty(count), torch.empty(count)
        is_hit = torch.empty(count, dtype=torch.bool)
        end = [*self.layout.right_ids, *self.layout.target_ids[:-1]]
        for group in self._plan.groups(controls, base):
            for part, logits in self._run(group, controls, end, len(self.layout.target_ids)):
                values = reduce_logits(logits, self._target)
                where = group.rows[part]
                loss[where], is_hit[where], margin[where] = (value.cpu() for value in values)
        return ControlScores(loss, is_hit, margin)

    def next_logits(self, controls: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The logits of the token after each prompt, in batches; the target is not read.

        Args:
            controls: (N, K) token ids; K may be 0.

        Yields:
            A slice of the rows and their logits, (B, V).
        """
        group = self._plan.prompts(controls)
        for part, logits in self._run(group, controls, list(self.layout.right_ids), 1):
            yield part, logits[:, 0]

    def base(self) -> tuple[int, ControlScores]:
        """The state without control: rank of the first target token (0 is the argmax), and its scores."""
        empty = torch.empty(1, 0, dtype=torch.long)
        (group,) = self._plan.groups(empty)
        end = [*self.layout.right_ids, *self.layout.target_ids[:-1]]
        _, logits = next(iter(self._run(group, empty, end, len(self.layout.target_ids))))
        scores = ControlScores(*(value.cpu() for value in reduce_logits(logits, self._target)))
        first = logits[0, 0].float()
        return int((first > first[self._target[0]]).sum()), scores

    def gradient(self, control: Tensor) -> tuple[Tensor, float]:
        """Gradient of the loss by the one-hot vectors of the control's tokens.

        Args:
            control: (K,) token ids; `BLANK` stands for the mean embedding.

        Returns:
            (K, V) in float32 on the model's device, up to a positive factor in models that scale their
            embeddings; and the loss.
        """
        table = self.model.get_input_embeddings()
        left = self.layout.left_ids
        reads = self._plan.reads_left(len(control))
        start = () if reads else left
        cache = self._prefixes.expanded(left, 1) if reads else None
        embeds = embed_row(self.model, self.layout, control, start)
        place = slice(len(start), len(start) + len(control))
        controls = embeds[:, place].clone().requires_grad_(True)
        inputs = torch.cat([embeds[:, : place.start], controls, embeds[:, place.stop :]], 1)

        def loss_of(logits: Tensor) -> Tensor:
            return reduce_logits(logits, self._target)[0]

        keep = len(self._target)
        slope, losses = self._runner.gradient(controls, loss_of, keep=keep, cache=cache, inputs_embeds=inputs)
        with torch.no_grad():
            return slope[0].float() @ table.weight.detach().float().T, float(losses)

    def emits(self, prompt: list[int]) -> bool:
        """Whether greedy decoding of one prompt, alone and without a cache, emits the target.

        Raises:
            NotFiniteError: The model gave NaN or infinite logits.
        """
        ids = list(prompt)
        for token in self.layout.target_ids:
            row = torch.tensor([ids], device=self.device)
            logits = self._runner.forward(input_ids=row, keep=1)[0, -1]
            if not torch.isfinite(logits).all():
                raise NotFiniteError(f"the model gave NaN or infinite logits on the prompt {ids}")
            if int(logits.argmax()) != token:
                return False
            ids.append(token)
        return True

    def _run(
        self, group: RowGroup, controls: Tensor, end: list[int], keep: int
    ) -> Iterator[tuple[slice, Tensor]]:
        """Run a group of controls (N, K) in batches; yields slices of it and logits (B, keep, V)."""
        chosen = controls[group.rows]
        token_bytes = self._prefixes.hold(group.prefix)
        room = Room(group.width, keep, len(group.prefix), token_bytes)

        def run(part: slice) -> Tensor:
            rows = self._rows(chosen[part], end)[:, len(group.prefix) :]
            cache = self._prefixes.expanded(group.prefix, len(rows)) if group.prefix else None
            return self._runner.forward(
                input_ids=rows, keep=keep, cache=cache, check=lambda logits: refuse_not_finite(rows, logits)
            )

        yield from self._runner.batches(len(chosen), self._runner.rows(room), run)

    def _rows(self, controls: Tensor, end: list[int]) -> Tensor:
        """(B, T) ids of whole prompts, with `end` after the control."""
        left = torch.tensor(self.layout.left_ids, dtype=torch.long, device=self.device)
        right = torch.tensor(end, dtype=torch.long, device=self.device)
        rows = len(controls)
        return torch.cat([left.expand(rows, -1), controls.to(self.device), right.expand(rows, -1)], 1)


def refuse_not_finite(rows: Tensor, logits: Tensor) -> None:
    """Refuse rows (B, T) whose logits (B, M, V) cannot be ranked.

    Raises:
        NotFiniteError: Names the first of them.
    """
    if torch.isfinite(logits.sum()):  # NaN and infinity both survive a sum
        return
    bad = ~torch.isfinite(logits).all(-1).all(-1)
    if bad.any():  # the sum alone may have overflowed
        prompt = rows[bad.nonzero()[0, 0]].tolist()
        raise NotFiniteError(f"the model gave NaN or infinite logits on the prompt that ends in {prompt}")
