"""The reachable set of a state: exact for one token, a lower bound that grows for more.

Forward exploration (arXiv 2310.04444, appendix): keep a pool of controls, lengthen one, add whatever the
model then emits, and choose the next by push (away from what is reached) or pull (sharp on what is not).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from llmctl.errors import UserError
from llmctl.reach.problem import Problem
from llmctl.reach.scoring.scan import ScanChunk, ScanResult, StateScan
from llmctl.reach.scoring.scorer import Meter
from llmctl.reach.search.candidates import lengthen
from llmctl.reach.vocabulary import decode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Strategy = Literal["push", "pull", "alternate", "random"]
STRATEGIES = ("push", "pull", "alternate", "random")


@dataclass(frozen=True)
class Reached:
    """A token that some control makes the model emit."""

    token: int
    text: str
    control_ids: tuple[int, ...]  # a witness, checked alone where it was found by exploration
    base_rank: int  # of the token after the state alone; 0 is the argmax
    base_loss: float  # nats
    loss: float  # with the witness, nats


@dataclass(frozen=True)
class Growth:
    """How far an exploration has come."""

    reached: int  # tokens
    forwards: int
    forward_tokens: int


@dataclass(frozen=True)
class ReachableSet:
    """R_k(x0), or what is known of it."""

    k: int
    reached: tuple[Reached, ...]  # by base rank
    is_exact: bool  # k = 1 by exhaustion; for k > 1 more tokens may be reachable
    exact_k: int  # up to this length the set is exact
    allowed: int  # tokens that a control may hold
    state_ids: tuple[int, ...]
    position: str
    strategy: str
    seed: int
    forwards: int
    forward_tokens: int
    growth: tuple[Growth, ...]

    def tokens(self, k: int | None = None) -> frozenset[int]:
        """The reached tokens, those with a witness of at most k tokens."""
        return frozenset(r.token for r in self.reached if k is None or len(r.control_ids) <= k)

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        entry = asdict(self)
        entry["reached"] = [asdict(r) | {"control_ids": list(r.control_ids)} for r in self.reached]
        return entry | {"state_ids": list(self.state_ids), "growth": [asdict(g) for g in self.growth]}


@dataclass(frozen=True)
class Exploration:
    """How to explore beyond one token."""

    forwards: int = 4096
    """Controls scored beyond the scan of k = 1."""
    strategy: Strategy = "alternate"
    """Score parents by "push", by "pull", by each in turn, or not at all ("random")."""
    sample: int = 128
    """Tokens by which a parent is lengthened at a time."""
    pool: int = 128
    """Controls kept as parents."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise UserError(f"strategy is {self.strategy!r}, but it must be one of {', '.join(STRATEGIES)}")
        for name in ("sample", "pool"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}, but at least 1 is needed")


def reachable_set(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    problem: Problem,
    k: int = 1,
    exploration: Exploration | None = None,
) -> ReachableSet:
    """The tokens that controls of at most k tokens reach; see `explore`."""
    *_, found = explore(model, tokenizer, problem, k, exploration)
    if not isinstance(found, ReachableSet):
        raise RuntimeError("the exploration ended without a set")
    return found


def explore(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    problem: Problem,
    k: int = 1,
    exploration: Exploration | None = None,
    *,
    done: Sequence[ScanChunk] = (),
    keep: Callable[[ScanChunk], None] | None = None,
    on_reached: Callable[[int, tuple[int, ...]], None] | None = None,
    chunk: int | None = None,
) -> Iterator[Growth | ReachableSet]:
    """Scan k = 1 whole, then explore longer controls.

    Args:
        model: A decoder-only model of transformers in evaluation mode.
        tokenizer: The tokenizer of that model.
        problem: State, position and what a control may hold; its target is not read.
        k: The longest control.
        exploration: How to go beyond one token.
        done: Chunks of the scan that an earlier call has given to `keep`, the first ones.
        keep: Called with every new chunk of the scan.
        on_reached: Called with a token and its witness as soon as they are known; again for the token that
            the state alone emits, whose witness is empty in the end.
        chunk: Controls between two points of growth within the scan; None is `scan.CHUNK`.

    Yields:
        The growth so far, then the set.

    Raises:
        UserError: k is below 1, or the problem does not fit the model.
        NotFiniteError: The model gave NaN logits.
    """
    if k < 1:
        raise UserError(f"k is {k}, but a control needs at least 1 token: give k >= 1")
    settings = exploration or Exploration()
    meter = Meter()
    scan = StateScan(model, tokenizer, problem, meter=meter, max_k=k, chunk=chunk)
    frontier = _Frontier(scan, settings, k, on_reached)
    chunks = []
    for part in _chain(scan, done, keep):
        chunks.append(part)
        frontier.take_chunk(part)
        yield frontier.growth[-1]
    frontier.take_scan(scan.finish(chunks))
    if k > 1:
        frontier.seed_pool()
        yield from frontier.run()
    yield frontier.result(tokenizer)


def _chain(
    scan: StateScan, done: Sequence[ScanChunk], keep: Callable[[ScanChunk], None] | None
) -> Iterator[ScanChunk]:
    """The chunks that are there, counted as if they had just been made, then the rest."""
    for chunk in done:
        scan.scorer.meter.add(chunk.forwards, chunk.forward_tokens)
        yield chunk
    for chunk in scan.chunks(sum(len(chunk.emitted) for chunk in done)):
        if keep is not None:
            keep(chunk)
        yield chunk


class _Frontier:
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


def push_score(logprobs: Tensor, reached: Tensor) -> Tensor:
    """Cross-entropy of each next-token distribution against the uniform one over the reached tokens.

    Args:
        logprobs: (N, V) natural logs.
        reached: (V,) True for a reached token.

    Returns:
        (N,) in nats; high means that the distribution lies away from what is reached.
    """
    return -logprobs[:, reached].mean(1)


def pull_score(logprobs: Tensor, reached: Tensor) -> Tensor:
    """Negative entropy of each next-token distribution restricted to the tokens not reached.

    Args:
        logprobs: (N, V) natural logs.
        reached: (V,) True for a reached token.

    Returns:
        (N,) in nats; high means that the distribution is sharp on something new.
    """
    if bool(reached.all()):
        return torch.zeros(len(logprobs), device=logprobs.device)
    rest = logprobs[:, ~reached].log_softmax(1)
    return (rest.exp() * rest).sum(1)
