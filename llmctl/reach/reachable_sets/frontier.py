"""The reached tokens of one exploration, and the pool of controls that are lengthened next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from llmctl.reach.reachable_sets.records import Exploration, Growth, ReachableSet, Reached
from llmctl.reach.reachable_sets.scores import pull_score, push_score
from llmctl.reach.scoring.scan import ScanChunk, ScanResult, StateScan
from llmctl.reach.search.candidates import lengthen
from llmctl.reach.vocabulary import decode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Frontier:
    """Reached tokens, and the pool of controls that are lengthened next."""

    def __init__(
        self,
        scan: StateScan,
        settings: Exploration,
        k: int,
        on_reached: Callable[[int, tuple[int, ...]], None] | None = None,
    ) -> None:
        self.scan, self.settings, self.k = scan, settings, k
        self._on_reached = on_reached or (lambda token, control: None)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.tokens = torch.tensor(scan.pool.token_ids)
        self.witness: dict[int, tuple[int, ...]] = {}
        self.growth: list[Growth] = []
        self._seen: set[int] = set()
        self._controls: list[Tensor] = []  # the pool's controls, each (K,)
        self._logprobs = torch.empty(0)  # (pool, V) on the device
        self._spent = 0

    def grow(self, tokens: set[int]) -> None:
        """Note a point of the growth curve."""
        self._seen |= tokens
        meter = self.scan.scorer.meter
        self.growth.append(Growth(len(self._seen), meter.forwards, meter.forward_tokens))

    def take_chunk(self, chunk: ScanChunk) -> None:
        """Note what a chunk of the scan reached."""
        for place, token in enumerate(chunk.emitted):
            if token >= 0 and token not in self._seen:
                self._seen.add(token)
                self._on_reached(token, (self.scan.pool.token_ids[chunk.start + place],))
        self.grow(set())

    def take_scan(self, found: ScanResult) -> None:
        """Take over the exact set of k = 1."""
        self.witness = found.reachable()
        self._on_reached(found.base_token, ())
        self.grow(set(self.witness))

    def seed_pool(self) -> None:
        """Start from random single tokens; their distributions decide which are lengthened first."""
        order = torch.randperm(len(self.tokens), generator=self.generator)[: self.settings.pool]
        self._visit(self.tokens[order][:, None])

    def run(self) -> Iterator[Growth]:
        """Lengthen parents until the forwards are spent or no parent is left."""
        turn = 0
        while self._spent < self.settings.forwards:
            parent = self._pop(turn)
            if parent is None:
                return
            count = min(self.settings.sample, self.settings.forwards - self._spent)
            order = torch.randperm(len(self.tokens), generator=self.generator)[:count]
            self._visit(lengthen(parent, self.tokens[order], self.scan.layout))
            turn += 1
            yield self.growth[-1]

    def _visit(self, controls: Tensor) -> None:
        """Score controls (N, K), add what they reach, and keep the best of them as parents."""
        admitted = torch.tensor(self.scan.pool.admits(controls.tolist()), dtype=torch.bool)
        self._spent += len(controls)
        controls = controls[admitted]
        for part, logits in self.scan.scorer.next_logits(controls):
            logprobs = logits.float().log_softmax(-1)
            self._add(controls[part], logprobs.argmax(-1).tolist())
            if controls.shape[1] < self.k:
                self._keep(controls[part], logprobs)
        self.grow(set(self.witness))

    def _add(self, controls: Tensor, emitted: list[int]) -> None:
        for control, token in zip(controls, emitted, strict=True):
            # Alone, since a batch may round a near tie the other way.
            if token not in self.witness and self.scan.emitted_alone(control) == token:
                self.witness[token] = tuple(control.tolist())
                self._on_reached(token, self.witness[token])

    def _keep(self, controls: Tensor, logprobs: Tensor) -> None:
        rows = torch.cat([self._logprobs, logprobs]) if len(self._controls) else logprobs
        pool = [*self._controls, *controls]
        kept = self._scores(rows, self._turn_strategy(0)).argsort(descending=True)[: self.settings.pool]
        self._controls = [pool[row] for row in kept.tolist()]
        self._logprobs = rows[kept]

    def _pop(self, turn: int) -> Tensor | None:
        """The most promising parent, taken out of the pool."""
        if not self._controls:
            return None
        row = int(self._scores(self._logprobs, self._turn_strategy(turn)).argmax())
        rest = torch.arange(len(self._controls), device=self._logprobs.device) != row
        self._logprobs = self._logprobs[rest]
        return self._controls.pop(row)

    def _turn_strategy(self, turn: int) -> str:
        if self.settings.strategy != "alternate":
            return self.settings.strategy
        return "push" if turn % 2 == 0 else "pull"

    def _scores(self, logprobs: Tensor, strategy: str) -> Tensor:
        """How promising each control is, (N,); more is better."""
        if strategy == "random":
            return torch.rand(len(logprobs), generator=self.generator).to(logprobs.device)
        reached = torch.zeros(logprobs.shape[1], dtype=torch.bool, device=logprobs.device)
        reached[list(self.witness)] = True
        return push_score(logprobs, reached) if strategy == "push" else pull_score(logprobs, reached)

    def result(self, tokenizer: PreTrainedTokenizerBase) -> ReachableSet:
        """The set, each witness with its base rank and losses."""
        base = self._logprobs_after(())
        reached = []
        for token, control in self.witness.items():
            loss = -float(self._logprobs_after(control)[token])
            rank = int((base > base[token]).sum())
            text = decode([token], tokenizer)
            reached.append(Reached(token, text, control, rank, -float(base[token]), loss))
        meter, layout = self.scan.scorer.meter, self.scan.layout
        return ReachableSet(
            k=self.k,
            reached=tuple(sorted(reached, key=lambda entry: (entry.base_rank, entry.token))),
            is_exact=self.k == 1,
            exact_k=1,
            allowed=len(self.tokens),
            state_ids=layout.state_ids,
            position=layout.position,
            strategy=self.settings.strategy if self.k > 1 else "scan",
            seed=self.settings.seed,
            forwards=meter.forwards,
            forward_tokens=meter.forward_tokens,
            growth=tuple(self.growth),
        )

    def _logprobs_after(self, control: tuple[int, ...]) -> Tensor:
        _, logits = next(iter(self.scan.scorer.next_logits(torch.tensor([control], dtype=torch.long))))
        return logits[0].float().log_softmax(-1)
