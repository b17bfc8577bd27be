"""Score many controls at once: the one loop through which every search method asks the model.

Only the logits that predict the target are computed. A prefix that all candidates share is read from its
keys and values. The batch is halved when memory runs out, and stays so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmctl.errors import EngineError, UserError
from llmctl.reach.problem import Layout
from llmctl.reach.scoring.prefix_cache import PrefixCache, supports_prefix

logger = logging.getLogger(__name__)

# Tokens per forward pass: beyond these, a bigger batch is no faster and only takes memory.
_BATCH_TOKENS = {"cpu": 1024, "cuda": 32768}
_MAX_LOGITS = 2**28  # entries of one block of logits (1 GiB in float32)
BLANK = -1  # in a control: not a token yet, stands for the mean embedding (gradients only)


class NotFiniteError(EngineError):
    """The model gave NaN or infinite logits, which cannot be ranked."""


@dataclass
class Meter:
    """What a search has cost so far. Counts do not depend on the machine."""

    forwards: int = 0  # sequences scored
    forward_tokens: int = 0  # tokens that went through the model, shared prefixes once
    backward_tokens: int = 0  # tokens of gradient steps

    def add(self, sequences: int, tokens: int) -> None:
        """Count one forward pass."""
        self.forwards += sequences
        self.forward_tokens += tokens


@dataclass(frozen=True)
class Scores:
    """Of N controls, in their order, on the CPU."""

    loss: Tensor  # (N,) mean cross-entropy over the target tokens, nats
    is_hit: Tensor  # (N,) every target token is the argmax
    margin: Tensor  # (N,) the target's logit minus the best other, the least over the target tokens


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
    ) -> None:
        """Wrap a model.

        Args:
            model: A causal language model of transformers in evaluation mode.
            layout: Where the control goes.
            batch: Most sequences per forward pass; None chooses by the device.
            reuse_prefix: Read shared prefixes from their keys and values.
            meter: Where to count; None starts a fresh one.
        """
        check_model(model)
        self.model = model
        self.layout = layout
        self.meter = meter if meter is not None else Meter()
        self.device = model.device
        self._batch = batch
        self._prefixes = PrefixCache(model, lambda tokens: self.meter.add(0, tokens))
        self._reuses = reuse_prefix and supports_prefix(model)
        self._target = torch.tensor(layout.target_ids, dtype=torch.long, device=self.device)

    def score(self, controls: Tensor, base: Tensor | None = None) -> Scores:
        """Loss, hit and margin of each control.

        Args:
            controls: (N, K) token ids.
            base: (K,) the control that the candidates were made from: those that first differ from it at
                position i share the keys and values of its first i tokens.
        """
        count = len(controls)
        loss, margin = torch.empty(count), torch.empty(count)
        is_hit = torch.empty(count, dtype=torch.bool)
        for rows, shared in self._groups(controls, base):
            for part, logits in self._forward(controls[rows], shared, len(self.layout.target_ids)):
                values = reduce_logits(logits, self._target)
                where = rows[part]
                loss[where], is_hit[where], margin[where] = (value.cpu() for value in values)
        return Scores(loss, is_hit, margin)

    def next_logits(self, controls: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """The logits of the token after each prompt, in batches; the target is not read.

        Args:
            controls: (N, K) token ids; K may be 0.

        Yields:
            A slice of the rows and their logits, (B, V).
        """
        for part, logits in self._forward(controls, self._common(controls), 1, with_target=False):
            yield part, logits[:, 0]

    def base(self) -> tuple[int, Scores]:
        """The state without control: rank of the first target token (0 is the argmax), and its scores."""
        empty = torch.empty(1, 0, dtype=torch.long)
        _, logits = next(iter(self._forward(empty, 0, len(self.layout.target_ids))))
        scores = Scores(*(value.cpu() for value in reduce_logits(logits, self._target)))
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
        reuses = self._reads_left(len(control))
        start = () if reuses else left
        cache = self._prefixes.expanded(left, 1) if reuses else None
        embeds = self._embed(control, start)
        place = slice(len(start), len(start) + len(control))
        controls = embeds[:, place].clone().requires_grad_(True)
        inputs = torch.cat([embeds[:, : place.start], controls, embeds[:, place.stop :]], 1)
        with torch.enable_grad():
            logits = self._call(inputs_embeds=inputs, past_key_values=cache, keep=len(self._target))
            losses, _, _ = reduce_logits(logits, self._target)
            (slope,) = torch.autograd.grad(losses.sum(), controls)
        self.meter.add(1, inputs.shape[1])
        self.meter.backward_tokens += inputs.shape[1]
        with torch.no_grad():
            return slope[0].float() @ table.weight.detach().float().T, float(losses)

    def _embed(self, control: Tensor, start: tuple[int, ...]) -> Tensor:
        """(1, T, D) embeddings, without a graph, of `start`, a control with its blanks, and what follows."""
        table = self.model.get_input_embeddings()
        right = (*self.layout.right_ids, *self.layout.target_ids[:-1])
        ids = torch.tensor([[*start, *control.clamp(min=0).tolist(), *right]], device=self.device)
        # Outside inference mode, since the embeddings will carry a graph.
        embeds = table(ids).detach()
        blanks = (control == BLANK).nonzero().flatten().to(self.device) + len(start)
        if len(blanks):
            embeds[0, blanks] = (table.weight.mean(0) * self._embedding_scale()).to(embeds.dtype)
        return embeds

    def _embedding_scale(self) -> Tensor:
        """What the model multiplies its embeddings by, read off all tokens of the layout.

        The place of a blank holds a padding token, whose embedding may be zero, and says nothing.
        """
        table = self.model.get_input_embeddings()
        layout = self.layout
        ids = torch.tensor([*layout.left_ids, *layout.right_ids, *layout.target_ids], device=self.device)
        return table(ids).detach().norm() / table.weight[ids].detach().norm()

    def _reads_left(self, k: int) -> bool:
        """Whether the left side is worth reading from its keys and values, for controls of k tokens."""
        return self._reuses and self._worth(len(self.layout.left_ids), self.layout.length(k) - 1)

    @torch.inference_mode()
    def emits(self, prompt: list[int]) -> bool:
        """Whether greedy decoding of one prompt, alone and without a cache, emits the target."""
        ids = list(prompt)
        for token in self.layout.target_ids:
            logits = self._call(input_ids=torch.tensor([ids], device=self.device), keep=1)[0, -1]
            self.meter.add(1, len(ids))
            if not torch.isfinite(logits).all():
                raise NotFiniteError(f"the model gave NaN or infinite logits on the prompt {ids}")
            if int(logits.argmax()) != token:
                return False
            ids.append(token)
        return True

    def _groups(self, controls: Tensor, base: Tensor | None) -> Iterator[tuple[Tensor, int]]:
        """Row numbers that share a prefix of the control, and the length of that prefix."""
        if base is None or not self._reuses:
            yield torch.arange(len(controls)), self._common(controls)
            return
        equal = (controls.cpu() == base.cpu()).long().cumprod(1).sum(1)  # (N,) shared tokens
        equal[~self._worth_each(equal)] = 0
        for shared in equal.unique().tolist():
            yield (equal == shared).nonzero().flatten(), int(shared)

    def _common(self, controls: Tensor) -> int:
        if len(controls) < 2 or controls.shape[1] == 0:
            return 0
        return int((controls == controls[:1]).all(0).long().cumprod(0).sum())

    def _worth_each(self, shared: Tensor) -> Tensor:
        """Which shared lengths save enough over the left side alone to be a batch of their own."""
        left = len(self.layout.left_ids)
        rest = self.layout.length(0) - left
        return shared * 8 >= (rest + shared.max())

    def _readable(self, prefix: int, rows: int, total: int, keep: int) -> int:
        """Tokens of a shared prefix to read from their keys and values; the last `keep` must be computed."""
        length = min(prefix, total - keep) if self._reuses and rows > 1 else 0
        return length if self._worth(length, total) else 0

    def _worth(self, shared: int, total: int) -> bool:
        """A mask and a copy of keys cost about what an eighth of the tokens cost."""
        return 0 < shared and shared * 8 >= total

    def _forward(
        self, controls: Tensor, shared: int, keep: int, *, with_target: bool = True
    ) -> Iterator[tuple[slice, Tensor]]:
        """Run the rows in batches, from the end of the shared prefix on; (slice, logits (B, keep, V))."""
        layout = self.layout
        right = [*layout.right_ids, *(layout.target_ids[:-1] if with_target else ())]
        prefix = [*layout.left_ids, *(controls[0, :shared].tolist() if len(controls) else [])]
        total = len(layout.left_ids) + controls.shape[1] + len(right)
        shared_length = self._readable(len(prefix), len(controls), total, keep)

        def rows_of(part: slice) -> Tensor:
            return self._rows_of(controls[part], right)[:, shared_length:]

        yield from self._batches(len(controls), total - shared_length, rows_of, prefix[:shared_length], keep)

    def run_rows(self, rows: Tensor, keep: int) -> Iterator[tuple[slice, Tensor]]:
        """Run whole rows of any layout, in batches that are halved when memory runs out.

        Args:
            rows: (N, T) token ids.
            keep: Logits at the end of each row.

        Yields:
            A slice of the rows and their logits, (B, keep, V).
        """
        return self._batches(len(rows), rows.shape[1], lambda part: rows[part].to(self.device), [], keep)

    def _batches(
        self, count: int, length: int, rows_of: Callable[[slice], Tensor], prefix: list[int], keep: int
    ) -> Iterator[tuple[slice, Tensor]]:
        start = 0
        while start < count:
            part = slice(start, min(start + self._rows(length, keep), count))
            rows = rows_of(part)
            try:
                logits = self._run(rows, prefix, keep)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                self._halve(part.stop - part.start, error)
                continue
            self.meter.add(len(rows), rows.numel())
            yield part, logits
            start = part.stop

    def _rows_of(self, controls: Tensor, right: list[int]) -> Tensor:
        """(B, T) ids of whole prompts."""
        controls = controls.to(self.device)
        left = torch.tensor(self.layout.left_ids, dtype=torch.long, device=self.device)
        end = torch.tensor(right, dtype=torch.long, device=self.device)
        rows = len(controls)
        return torch.cat([left.expand(rows, -1), controls, end.expand(rows, -1)], 1)

    @torch.inference_mode()
    def _run(self, rows: Tensor, prefix: list[int], keep: int) -> Tensor:
        cache = self._prefixes.expanded(prefix, len(rows)) if prefix else None
        logits = self._call(input_ids=rows, past_key_values=cache, keep=keep)
        if not torch.isfinite(logits.sum()):  # NaN and infinity both survive a sum
            self._refuse(rows, logits)
        return logits

    def _call(self, *, keep: int, past_key_values: Any = None, **inputs: Tensor) -> Tensor:
        # Without a cache no padding is left to mask, so the model takes its plain causal path.
        out = self.model(
            **inputs,
            past_key_values=past_key_values,
            use_cache=past_key_values is not None,
            logits_to_keep=keep,
        )
        return out.logits

    def _refuse(self, rows: Tensor, logits: Tensor) -> None:
        bad = ~torch.isfinite(logits).all(-1).all(-1)
        if bad.any():  # the sum alone may have overflowed
            prompt = rows[bad.nonzero()[0, 0]].tolist()
            raise NotFiniteError(f"the model gave NaN or infinite logits on the prompt that ends in {prompt}")

    def _rows(self, length: int, keep: int) -> int:
        """Sequences per batch."""
        return rows_that_fit(self.model, length, keep) if self._batch is None else self._batch

    def _halve(self, rows: int, error: Exception) -> None:
        """Lower the batch after running out of memory; any other error goes on up."""
        self._batch = halved(rows, error)


def rows_that_fit(model: Any, length: int, keep: int) -> int:
    """Sequences per forward pass, by their tokens and by the positions whose logits are kept."""
    budget = _BATCH_TOKENS.get(model.device.type, _BATCH_TOKENS["cpu"])
    return max(min(budget // max(length, 1), _MAX_LOGITS // (vocabulary_of(model) * keep)), 1)


def halved(rows: int, error: Exception) -> int:
    """Sequences to go on with after `rows` of them ran out of memory; any other error goes on up."""
    words = ("not enough memory", "can't allocate memory")  # of the CPU, by system
    is_memory = isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)
    if not is_memory or rows <= 1:
        raise error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    logger.warning("out of memory with %d sequences: going on with %d", rows, rows // 2)
    return rows // 2


def reduce_logits(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, hit and margin of each row.

    Args:
        logits: (B, M, V) at the M positions that predict the target.
        target: (M,) token ids of all rows alike, or (B, M) of each; `BLANK` where a target has ended.

    Returns:
        Mean cross-entropy in nats (B,), whether every target token is the argmax (B,), and the least
        margin of the target over the best other token (B,).
    """
    logits = logits.float()
    target = target.expand(len(logits), -1)  # (B, M)
    has_ended = target == BLANK
    own = logits.gather(-1, target.clamp(min=0)[..., None])[..., 0]  # (B, M)
    losses = (logits.logsumexp(-1) - own).masked_fill(has_ended, 0)
    top, ids = logits.topk(2, dim=-1)
    is_best = ids[..., 0] == target
    margin = own - torch.where(is_best, top[..., 1], top[..., 0])
    loss = losses.sum(-1) / (~has_ended).sum(-1)
    return loss, (is_best | has_ended).all(-1), margin.masked_fill(has_ended, torch.inf).amin(-1)


def check_model(model: Any) -> None:
    """Refuse a model that does not decode from left to right.

    Raises:
        UserError: The model is an encoder, or an encoder with a decoder.
    """
    config = model.config
    if config.is_encoder_decoder or not model.can_generate():
        raise UserError(
            f"the model is a {type(model).__name__} ({config.model_type}), but reach needs a decoder-only "
            "language model: load one with AutoModelForCausalLM"
        )


def vocabulary_of(model: Any) -> int:
    """Rows of the model's input embedding."""
    return int(model.get_input_embeddings().weight.shape[0])


def context_of(model: Any) -> int | None:
    """Tokens that the model can read, or None where its configuration does not say."""
    config = model.config.get_text_config()
    length = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return int(length) if length else None
