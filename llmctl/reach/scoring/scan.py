"""One scan of the vocabulary at a fixed state answers k = 1 for every target at once.

What the model emits after each control of one token gives R_1(x0) exactly, a certificate of
unreachability for every other token, and the best control for each target of interest. The
published code scans once for every target.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from llmctl.errors import UserError
from llmctl.reach.problem import Problem, lay_out
from llmctl.reach.scoring.scorer import Meter, Scorer, check_model, context_of, vocabulary_of
from llmctl.reach.scoring.ties import tie_of
from llmctl.reach.vocabulary import Pool

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 1024  # controls between two points at which a scan can be resumed


@dataclass(frozen=True)
class ScanChunk:
    """What consecutive controls of a scan gave; one line of a journal."""

    start: int  # place of the first control in the scan
    emitted: tuple[int, ...]  # the token after each control; -1 where the control did not survive
    best_loss: tuple[float, ...]  # least loss of each target within the chunk, nats
    best_control: tuple[int, ...]  # the control that gave it
    forwards: int
    forward_tokens: int

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> ScanChunk:
        """Read back what `to_dict` wrote, or the line of a journal that holds it."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in entry.items()
            if key != "key"
        }
        return cls(**fields)


@dataclass(frozen=True)
class ScanResult:
    """The answer of a whole scan."""

    controls: tuple[int, ...]  # the M allowed tokens, ascending
    emitted: tuple[int, ...]  # the token that greedy decoding emits after each
    targets: tuple[int, ...]
    base_token: int  # what the state alone emits
    base_loss: tuple[float, ...]  # of each target, nats
    base_rank: tuple[int, ...]
    best_control: tuple[int, ...]  # the control of least loss for each target
    best_loss: tuple[float, ...]
    forwards: int
    forward_tokens: int

    def reachable(self) -> dict[int, tuple[int, ...]]:
        """R_1(x0): every reached token with a witness of 0 or 1 tokens; exact for the allowed controls."""
        found: dict[int, tuple[int, ...]] = {self.base_token: ()}
        for control, token in zip(self.controls, self.emitted, strict=True):
            if token >= 0:
                found.setdefault(token, (control,))
        return found

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}


class StateScan:
    """A scan of one state that can stop and go on at any chunk."""

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        problem: Problem,
        targets: Sequence[int] = (),
        *,
        meter: Meter | None = None,
        max_k: int = 1,
        chunk: int | None = None,
    ) -> None:
        """Check the problem against the model.

        Args:
            model: A decoder-only model of transformers in evaluation mode.
            tokenizer: The tokenizer of that model.
            problem: The state, its position and what a control may hold; its target is not read.
            targets: Token ids whose best control and base rank are wanted.
            meter: Where to count; None starts a fresh one.
            max_k: The longest control that will be tried after the scan; the context must hold it.
            chunk: Controls between two points at which the scan can be resumed; None is `CHUNK`.

        Raises:
            UserError: The problem does not fit the model, or a target is outside the vocabulary.
        """
        check_model(model)
        vocabulary = vocabulary_of(model)
        if (outside := next((t for t in targets if not 0 <= t < vocabulary), None)) is not None:
            raise UserError(f"targets holds token {outside}, but the vocabulary is 0 to {vocabulary - 1}")
        problem = replace(problem, target=())
        self.layout = lay_out(
            problem, tokenizer, vocabulary=vocabulary, context_length=context_of(model), max_k=max_k
        )
        self.pool = Pool(problem, self.layout, tokenizer, vocabulary)
        self.scorer = Scorer(model, self.layout, meter=meter)
        self.targets = tuple(targets)
        self._size = CHUNK if chunk is None else chunk
        self._columns = torch.tensor(self.targets, dtype=torch.long, device=model.device)
        self._tie = tie_of(model)

    def chunks(self, done: int = 0) -> Iterator[ScanChunk]:
        """Scan on from the control at place `done`.

        Raises:
            NotFiniteError: The model gave NaN logits.
        """
        tokens = torch.tensor(self.pool.token_ids)
        for start in range(done, len(tokens), self._size):
            yield self._chunk(start, tokens[start : start + self._size])

    def finish(self, chunks: Iterable[ScanChunk]) -> ScanResult:
        """Put the chunks of a whole scan together.

        Raises:
            UserError: A chunk is missing or there twice.
        """
        parts = sorted(chunks, key=lambda chunk: chunk.start)
        expected = 0
        for part in parts:
            if part.start != expected:
                what = "missing" if part.start > expected else "there twice"
                raise UserError(
                    f"the scan's chunk at control {min(part.start, expected)} is {what}: scan it again"
                )
            expected += len(part.emitted)
        if expected != len(self.pool.token_ids):
            raise UserError(f"the scan's chunk at control {expected} is missing: scan it again")
        base_token, base_loss, base_rank = self._base()
        losses = torch.tensor([part.best_loss for part in parts]).view(len(parts), -1)
        best_loss, where = losses.min(0)
        best = [parts[int(part)].best_control[column] for column, part in enumerate(where.tolist())]
        return ScanResult(
            controls=self.pool.token_ids,
            emitted=tuple(token for part in parts for token in part.emitted),
            targets=self.targets,
            base_token=base_token,
            base_loss=base_loss,
            base_rank=base_rank,
            best_control=tuple(best),
            best_loss=tuple(best_loss.tolist()),
            forwards=sum(part.forwards for part in parts) + 1,
            forward_tokens=sum(part.forward_tokens for part in parts) + self.layout.length(0),
        )

    def _chunk(self, start: int, tokens: Tensor) -> ScanChunk:
        meter = self.scorer.meter
        before = (meter.forwards, meter.forward_tokens)
        survives = torch.tensor(self.pool.admits(tokens[:, None].tolist()), dtype=torch.bool)
        emitted = torch.full((len(tokens),), -1)
        margin = torch.full((len(tokens),), float("inf"))
        best_loss = torch.full((len(self.targets),), float("inf"))
        best_control = torch.full((len(self.targets),), -1)
        kept = tokens[survives]
        places = survives.nonzero().flatten()
        for part, logits in self.scorer.next_logits(kept[:, None]):
            top, ids = logits.float().topk(2, dim=-1)
            emitted[places[part]] = ids[:, 0].cpu()
            margin[places[part]] = (top[:, 0] - top[:, 1]).cpu()
            if self.targets:
                self._improve(logits, kept[part], best_loss, best_control)
        for row in (margin < self._tie).nonzero().flatten().tolist():
            emitted[row] = self.emitted_alone(tokens[row : row + 1])
        return ScanChunk(
            start,
            tuple(emitted.tolist()),
            tuple(best_loss.tolist()),
            tuple(best_control.tolist()),
            meter.forwards - before[0],
            meter.forward_tokens - before[1],
        )

    def _improve(self, logits: Tensor, controls: Tensor, best_loss: Tensor, best_control: Tensor) -> None:
        """Note where a batch of controls (B,) beats the best losses so far, in place."""
        logits = logits.float()
        loss = logits.logsumexp(-1, keepdim=True) - logits[:, self._columns]  # (B, targets)
        least, row = loss.min(0)
        least, row = least.cpu(), row.cpu()
        better = least < best_loss
        best_loss[better] = least[better]
        best_control[better] = controls[row[better]]

    def emitted_alone(self, control: Tensor) -> int:
        """What greedy decoding emits after one control (K,), alone: settles ties that a batch may round."""
        _, logits = next(iter(self.scorer.next_logits(control[None])))
        return int(logits[0].argmax())

    def _base(self) -> tuple[int, tuple[float, ...], tuple[int, ...]]:
        empty = torch.empty(1, 0, dtype=torch.long)
        _, logits = next(iter(self.scorer.next_logits(empty)))
        row = logits[0].float()
        chosen = row[self._columns]
        rank = (row[None] > chosen[:, None]).sum(1)
        return int(row.argmax()), tuple((row.logsumexp(0) - chosen).tolist()), tuple(rank.tolist())


def scan_state(
    model: Any, tokenizer: PreTrainedTokenizerBase, problem: Problem, targets: Sequence[int] = ()
) -> ScanResult:
    """Scan every allowed control of one token at a fixed state; see `StateScan`.

    Returns:
        What each control makes the model emit, and for each target the best control, its loss, and the
        base rank and loss.

    Raises:
        UserError: As `StateScan`.
        NotFiniteError: The model gave NaN logits.
    """
    scan = StateScan(model, tokenizer, problem, targets)
    return scan.finish(scan.chunks())
