"""From solved pairs to a k-epsilon curve. This needs no model.

epsilon(k) is the fraction of pairs that no control of at most k tokens was found for. Since a search can
miss, it is an upper bound on the true one. Pairs that share a state are not independent, so the interval
that is reported is clustered by state; Wilson's stands beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmctl.errors import UserError
from llmctl.reach.curves.paired import rate_difference
from llmctl.runs.stats import Estimate, rank_correlation, rate_by_state, wilson


@dataclass(frozen=True)
class Pair:
    """What a curve uses of one solved or unsolved pair."""

    id: str
    state: str  # pairs with the same state are one cluster
    k: int | None  # length of the witness, 0 where the state suffices; None: not reached
    method: str  # that found it
    base_loss: float | None  # nats; None where the model gave NaN
    base_rank: int | None = None
    loss: float | None = None
    forwards: int = 0
    forward_tokens: int = 0
    control_ids: tuple[int, ...] = ()
    verdict: str = ""

    @classmethod
    def from_result(cls, entry: Mapping[str, Any]) -> Pair:
        """From a result's JSON object (`Result.to_dict`, a line of pairs.jsonl)."""
        state = " ".join(map(str, entry["state_ids"])) or str(entry.get("prompt_text", ""))
        target = " ".join(map(str, entry["target_ids"]))
        return cls(
            id=entry.get("id") or f"{entry.get('position', '')}|{state}|{target}",
            state=state,
            k=entry["k"],
            method=entry["method"],
            base_loss=entry["base_loss"],
            base_rank=entry["base_rank"],
            loss=entry["loss"],
            forwards=entry["forwards"],
            forward_tokens=entry["forward_tokens"],
            control_ids=tuple(entry["control_ids"]),
            verdict=entry["verdict"],
        )


@dataclass(frozen=True)
class Point:
    """epsilon at one k (or one budget)."""

    at: int  # k, or tokens
    value: float
    low: float  # clustered by state
    high: float
    wilson_low: float
    wilson_high: float
    n: int
    clusters: int
    methods: Mapping[str, int]  # how many pairs were newly solved here, by method
    is_switch: bool = False  # other methods than at the k before: a step that is not the effect of k alone

    def estimate(self) -> Estimate:
        """The value with its clustered interval."""
        return Estimate(self.value, self.low, self.high, self.n, self.clusters)

    def to_dict(self) -> dict[str, Any]:
        """A JSON object, as it stands under its k."""
        entry = asdict(self)
        del entry["at"]
        return entry


def epsilon_curve(pairs: Sequence[Pair], ks: Iterable[int] | None = None) -> list[Point]:
    """Epsilon by control length.

    Args:
        pairs: All pairs, solved or not.
        ks: Lengths to report; None takes 0 and every length that a witness has.

    Raises:
        UserError: There are no pairs, or two with the same id.
    """
    check_unique(pairs)
    lengths = sorted({0, *(pair.k for pair in pairs if pair.k is not None)} if ks is None else set(ks))
    points: list[Point] = []
    before: set[str] = set()
    last = -1
    for k in lengths:
        new = Counter(p.method for p in pairs if p.k is not None and last < p.k <= k)
        searched = set(new) - {"base"}
        is_switch = bool(before and searched and searched != before)
        points.append(_point(pairs, k, [not _within(pair, k) for pair in pairs], new, is_switch))
        before = searched or before
        last = k
    return points


def epsilon_by_tokens(pairs: Sequence[Pair], budgets: Sequence[int]) -> list[Point]:
    """Epsilon by forward tokens spent per pair: the share not solved within each budget."""
    check_unique(pairs)
    points = []
    last = -1
    for budget in sorted(budgets):
        failed = [pair.k is None or pair.forward_tokens > budget for pair in pairs]
        new = Counter(
            pair.method for pair in pairs if pair.k is not None and last < pair.forward_tokens <= budget
        )
        points.append(_point(pairs, budget, failed, new, False))
        last = budget
    return points


def summarize(pairs: Sequence[Pair], ks: Iterable[int] | None = None) -> dict[str, Any]:
    """The `metrics.json` of a curve.

    Returns:
        `epsilon` by k, `pairs`, `states`, `verdicts`, `solved_by`, `rank_correlation` of base loss and
        base rank with k among solved pairs, `frequent_tokens`, `forwards`, `forward_tokens`.
    """
    solved = [pair for pair in pairs if pair.k is not None]
    controlled = [pair for pair in solved if pair.k]
    tokens = Counter(token for pair in controlled for token in pair.control_ids)
    return {
        "epsilon": {str(point.at): point.to_dict() for point in epsilon_curve(pairs, ks)},
        "pairs": len(pairs),
        "states": len({pair.state for pair in pairs}),
        "verdicts": dict(Counter(pair.verdict for pair in pairs)),
        "solved_by": dict(Counter(pair.method for pair in solved)),
        "rank_correlation": {
            "base_loss_k": _correlation(
                [p for p in controlled if p.base_loss is not None],
                [p.base_loss for p in controlled if p.base_loss is not None],
            ),
            "base_rank_k": _correlation(
                [p for p in controlled if p.base_rank is not None],
                [float(p.base_rank) for p in controlled if p.base_rank is not None],
            ),
            "n": len(controlled),
        },
        "frequent_tokens": tokens.most_common(20),
        "forwards": sum(pair.forwards for pair in pairs),
        "forward_tokens": sum(pair.forward_tokens for pair in pairs),
    }


def epsilon_difference(first: Sequence[Pair], second: Sequence[Pair], k: int) -> Estimate:
    """epsilon(k) of the second minus that of the first on the same pairs; see `rate_difference`.

    Raises:
        UserError: The two do not hold the same pairs, or the pairs share a single state.
    """
    one, two = ({pair.id: pair for pair in pairs} for pairs in (first, second))
    if one.keys() != two.keys():
        odd = sorted(one.keys() ^ two.keys())
        raise UserError(
            f"the two curves differ in {len(odd)} pairs ({odd[0]!r:.60}, ...): compare runs of the same pairs"
        )
    ids = sorted(one)
    if (states := len({pair.state for pair in first})) < 2:
        raise UserError(f"{states} states give no interval for a difference: compare on at least two")
    first_missed, second_missed = ([not _within(pairs[i], k) for i in ids] for pairs in (one, two))
    return rate_difference(first_missed, second_missed, [one[i].state for i in ids])


def check_unique(pairs: Sequence[Pair]) -> None:
    """Refuse an empty list and pairs that are there twice.

    Raises:
        UserError: No pairs, or a doubled id.
    """
    if not pairs:
        raise UserError("there are no pairs: a curve needs at least one")
    doubled = [key for key, count in Counter(pair.id for pair in pairs).items() if count > 1]
    if doubled:
        raise UserError(
            f"{len(doubled)} pairs are there twice (first: {doubled[0]!r:.80}): give each pair once"
        )


def _within(pair: Pair, k: int) -> bool:
    return pair.k is not None and pair.k <= k


def _point(pairs: Sequence[Pair], at: int, failed: list[bool], new: Counter[str], is_switch: bool) -> Point:
    states = [pair.state for pair in pairs]
    low, high = rate_by_state(failed, states).bounds()
    wilson_low, wilson_high = wilson(sum(failed), len(failed)).bounds()
    return Point(
        at,
        sum(failed) / len(failed),
        low,
        high,
        wilson_low,
        wilson_high,
        len(pairs),
        len(set(states)),
        dict(new),
        is_switch,
    )


def _correlation(pairs: Sequence[Pair], values: Sequence[float]) -> float | None:
    """Rank correlation with k, or None where it is not defined."""
    if len(pairs) < 3:
        return None
    return rank_correlation(values, [float(pair.k or 0) for pair in pairs])
