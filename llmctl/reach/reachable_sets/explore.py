"""The reachable set of a state: exact for one token, a lower bound that grows for more.

Forward exploration (arXiv 2310.04444, appendix): keep a pool of controls, lengthen one, add whatever the
model then emits, and choose the next by push (away from what is reached) or pull (sharp on what is not).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llmctl.errors import UserError
from llmctl.reach.problem import Problem
from llmctl.reach.reachable_sets.frontier import Frontier
from llmctl.reach.reachable_sets.records import STRATEGIES, Exploration, Growth, ReachableSet, Reached
from llmctl.reach.scoring.records import Meter
from llmctl.reach.scoring.scan import ScanChunk, StateScan

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["STRATEGIES", "Exploration", "Growth", "ReachableSet", "Reached", "explore", "reachable_set"]


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
    frontier = Frontier(scan, settings, k, on_reached)
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
