"""Numbers per problem of every (model, task, protocol, seed), streamed from a results file.

Texts are not read, so memory grows with problems, not with samples. Rows are ordered by problem, and a row
group holds whole problems of one result group (`results.write_results`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmctl.jobs.records import GroupKey
from llmctl.jobs.results import read_groups

Floats = NDArray[np.float64]
ProblemValues = Callable[[Any, Floats], dict[str, Floats]]  # more numbers per problem from a table

_READ = ("model", "task", "protocol", "seed", "problem", "reward", "tokens", "is_correct", "answer", "error")
FLOWS = ("wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong")


@dataclass
class ResultGroup:
    """The results of one model on one task under one protocol and seed, problem by problem."""

    problems: str = ""
    """A hash of the problems' ids, in order."""
    values: dict[str, Floats] = field(default_factory=dict)
    """Numbers per problem by name, (P,) each."""
    errors: int = 0
    """Samples that the engine failed on."""
    unreadable: int = 0
    """Samples without a readable answer."""
    flows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FLOWS, 0))
    """How many samples became right or wrong after the sample before, within a problem."""

    @property
    def count(self) -> int:
        """P, the number of problems."""
        return len(self.values["samples"])


def read_result_groups(
    path: Path, extra: Mapping[str, ProblemValues] | None = None
) -> dict[GroupKey, ResultGroup]:
    """Every group of a results file.

    Args:
        path: The file.
        extra: By protocol, what makes more numbers per problem (`JobProtocol.problem_values`).

    Returns:
        For each group arrays (P,): `samples`, `correct`, `first` (whether the first sample is right),
        `last`, `any`, `share` (of samples that are right), `vote` (the probability that a majority vote is
        right, ties broken at random), `tokens` and `reward` (sums over samples), and those of `extra`.

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
            taken |= extra[key[2]](table, taken["samples"])
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
    digest.update("\n".join([*map(ids.__getitem__, codes[starts]), ""]).encode())
    correct = table["is_correct"].to_numpy().astype(float)
    answers, readable = _codes(table["answer"])
    errors = len(table) - table["error"].null_count
    group.errors += errors
    group.unreadable += int((~readable).sum()) - errors
    ends = np.concatenate([starts[1:], [len(codes)]]) - 1
    _count_flows(group, correct, starts)
    right = np.add.reduceat(correct, starts)
    unit = np.repeat(np.arange(len(starts)), ends - starts + 1)
    return {
        "samples": (ends - starts + 1).astype(float),
        "correct": right,
        "first": correct[starts],
        "last": correct[ends],
        "share": right / (ends - starts + 1),
        "any": (right > 0).astype(float),
        "vote": votes(unit[readable], answers[readable], correct[readable], len(starts)),
        "tokens": np.add.reduceat(table["tokens"].to_numpy().astype(float), starts),
        "reward": np.add.reduceat(table["reward"].to_numpy(), starts),
    }


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


def _count_flows(group: ResultGroup, correct: Floats, starts: NDArray[Any]) -> None:
    """Count how the sample before changed, within a problem; this is about turns."""
    inside = np.ones(len(correct), dtype=bool)
    inside[starts] = False
    now, was = correct[inside] > 0, np.roll(correct, 1)[inside] > 0
    counts: Mapping[str, NDArray[np.bool_]] = dict(
        zip(FLOWS, (~was & now, was & ~now, was & now, ~was & ~now), strict=True)
    )
    for name, flow in counts.items():
        group.flows[name] += int(flow.sum())
