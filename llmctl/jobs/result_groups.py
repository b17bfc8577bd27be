"""Numbers per problem of every (model, task, protocol, seed), streamed from a results file.

Texts are not read, so memory grows with problems, not with samples. Rows are ordered by problem, and a row
group holds whole problems of one result group (`results.write_results`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmctl.jobs.records import GroupKey
from llmctl.jobs.results import read_groups
from llmctl.sampling.types import STATUSES

Floats = NDArray[np.float64]
ProblemValues = Callable[[Any, Floats], dict[str, Floats]]  # more numbers per problem from a table

_READ_FIRST = ("model", "task", "protocol", "seed", "problem", "reward", "tokens", "is_correct")
_READ = (*_READ_FIRST, "answer", "turn", "error", "status")
FLOWS = ("wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong")


@dataclass
class ResultGroup:
    """The results of one model on one task under one protocol and seed, problem by problem."""

    problems: str = ""
    """A hash of the problems' ids, in order."""
    values: dict[str, Floats] = field(default_factory=dict)
    """Numbers per problem by name, (P,) each."""
    ids: list[str] = field(default_factory=list)
    """The problems' ids, in order."""
    flows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FLOWS, 0))
    """How many samples became right or wrong after the sample before, within a problem."""

    @property
    def count(self) -> int:
        """P, the number of problems."""
        return len(self.values["samples"])

    def total(self, name: str) -> int:
        """The sum over all problems, of numbers that are counts."""
        return int(self.values[name].sum())

    def take(self, ids: Sequence[str]) -> ResultGroup:
        """The same for some of the problems, in the given order; flows stay those of all problems."""
        places = {problem: place for place, problem in enumerate(self.ids)}
        chosen = np.array([places[problem] for problem in ids], dtype=np.int64)
        digest = hashlib.blake2b("\n".join(ids).encode(), digest_size=12).hexdigest()
        values = {name: numbers[chosen] for name, numbers in self.values.items()}
        return ResultGroup(digest, values, list(ids), self.flows)


def read_result_groups(
    path: Path, extra: Mapping[str, ProblemValues] | None = None
) -> dict[GroupKey, ResultGroup]:
    """Every group of a results file.

    Args:
        path: The file.
        extra: By protocol, what makes more numbers per problem (`JobProtocol.problem_values`).

    Returns:
        For each group arrays (P,): `samples` (without those that failed), `asked` (with them), `correct`,
        `first` (whether the first sample is right), `last`, `any`, `share` (of samples that are right),
        `vote` (the probability that a majority vote is right, ties broken at random), `tokens` and `reward`
        (sums over samples), one count per status, `unreadable`, and those of `extra`. A number that would
        need a sample that failed is NaN.

    Raises:
        UserError: The file cannot be read.
    """
    parts: dict[GroupKey, list[dict[str, Floats]]] = {}
    hashes: dict[GroupKey, Any] = {}
    groups: dict[GroupKey, ResultGroup] = {}
    for table in read_groups(path, _READ):
        key: Any = tuple(table[name][0].as_py() for name in ("model", "task", "protocol", "seed"))
        group = groups.setdefault(key, ResultGroup())
        hashes.setdefault(key, hashlib.blake2b(digest_size=12))
        taken = _take(table, group, hashes[key])
        if extra is not None and key[2] in extra:
            taken |= extra[key[2]](table, taken["asked"])
        parts.setdefault(key, []).append(taken)
    for key, group in groups.items():
        group.problems = hashes[key].hexdigest()
        group.values = {name: np.concatenate([p[name] for p in parts[key]]) for name in parts[key][0]}
    return groups


def _take(table: Any, group: ResultGroup, digest: Any) -> dict[str, Floats]:
    """The numbers of one row group; the counts of `group` are raised."""
    problem = table["problem"].combine_chunks().dictionary_encode()
    ids = problem.dictionary.to_pylist()
    codes = problem.indices.to_numpy()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(codes)) + 1])  # (P,) first row of each problem
    names = [ids[code] for code in codes[starts]]
    digest.update("\n".join([*names, ""]).encode())
    group.ids += names
    counts = _count_statuses(table, starts)
    answers, readable = _codes(table["answer"])
    failed = np.array(table["status"].to_pylist()) == "error"
    correct = np.where(failed, 0.0, table["is_correct"].to_numpy().astype(float))
    ends = np.concatenate([starts[1:], [len(codes)]]) - 1
    _count_flows(group, correct, starts, failed)
    right = np.add.reduceat(correct, starts)
    unit = np.repeat(np.arange(len(starts)), ends - starts + 1)
    samples = counts["asked"] - counts["error"]
    # An episode that an error cut short has a first turn, and nothing else that other episodes have.
    is_episode = np.maximum.reduceat(table["turn"].to_numpy(), starts) > 1
    has_result = (samples > 0) & ~(is_episode & (counts["error"] > 0))
    last_answered = np.maximum.reduceat(np.where(failed, -1, np.arange(len(failed))), starts)
    found = {
        "first": np.where(failed[starts], np.nan, correct[starts]),
        "last": correct[last_answered],
        "share": right / np.maximum(samples, 1),
        "any": (right > 0).astype(float),
        "vote": votes(unit[readable], answers[readable], correct[readable], len(starts)),
    }
    found |= {name: np.where(has_result, found[name], np.nan) for name in ("last", "share", "any", "vote")}
    sums = {
        name: np.where(failed, 0.0, table[name].to_numpy().astype(float)) for name in ("tokens", "reward")
    }
    return {
        **counts,
        "samples": samples,
        "correct": right,
        **found,
        **{name: np.add.reduceat(numbers, starts) for name, numbers in sums.items()},
    }


def _count_statuses(table: Any, starts: NDArray[Any]) -> dict[str, Floats]:
    """Samples per problem: all, of each status, and those with a text but no readable answer; (P,) each."""
    statuses = np.array(table["status"].to_pylist())
    has_text = table["error"].is_null().to_numpy(zero_copy_only=False)
    unread = table["answer"].is_null().to_numpy(zero_copy_only=False) & has_text
    marks = {"asked": np.ones(len(statuses)), "unreadable": unread}
    marks |= {status: statuses == status for status in STATUSES}
    return {name: np.add.reduceat(mark.astype(float), starts) for name, mark in marks.items()}


def votes(unit: NDArray[Any], answers: NDArray[Any], correct: Floats, units: int) -> Floats:
    """The probability per unit that a majority vote is right; `rise.metrics.vote` for all units at once.

    Args:
        unit: (S,) index of the unit that a sample belongs to, ascending.
        answers: (S,) index of the sample's answer.
        correct: (S,) 1 where it is right.
        units: P, the number of units.

    Returns:
        (P,); 0 where no sample has an answer.
    """
    found = np.zeros(units)
    if not len(unit):
        return found
    kinds = int(answers.max()) + 1
    pairs, which, counts = np.unique(unit * kinds + answers, return_inverse=True, return_counts=True)
    is_right = np.bincount(which, correct) > 0
    owner = pairs // kinds
    most = np.zeros(units, dtype=counts.dtype)
    np.maximum.at(most, owner, counts)
    top = counts == most[owner]
    rights = np.bincount(owner[top], is_right[top], units)
    tops = np.bincount(owner[top], minlength=units)
    voted = tops > 0
    found[voted] = rights[voted] / tops[voted]
    return found


def _codes(column: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Indices of a column's distinct texts, and which rows have a text."""
    encoded = column.combine_chunks().dictionary_encode()
    readable = encoded.indices.is_valid().to_numpy(zero_copy_only=False)
    return encoded.indices.fill_null(0).to_numpy().astype(np.int64), readable


def _count_flows(
    group: ResultGroup, correct: Floats, starts: NDArray[Any], failed: NDArray[np.bool_]
) -> None:
    """Count how the sample before changed, within a problem; this is about turns that did not fail."""
    inside = ~failed
    inside[starts] = False
    now, was = correct[inside] > 0, np.roll(correct, 1)[inside] > 0
    counts: Mapping[str, NDArray[np.bool_]] = dict(
        zip(FLOWS, (~was & now, was & ~now, was & now, ~was & ~now), strict=True)
    )
    for name, flow in counts.items():
        group.flows[name] += int(flow.sum())
