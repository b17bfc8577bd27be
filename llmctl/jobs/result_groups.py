"""Per-problem numbers of every (model, task, protocol, seed), streamed from a results file.

Text never enters: memory grows with problems, not with samples. Rows come by problem, and a row group
holds whole problems of one cell (`results.write_results`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmctl.jobs.results import read_groups

Floats = NDArray[np.float64]
Key = tuple[str, str, str, int]  # model, task, protocol, seed

_READ = ("model", "task", "protocol", "seed", "problem", "reward", "tokens", "is_correct", "answer", "error")
FLOWS = ("wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong")


@dataclass
class Cell:
    """One model on one task under one protocol and seed, problem by problem."""

    problems: str = ""  # a hash of their ids, in order
    values: dict[str, Floats] = field(default_factory=dict)  # (P,) each
    errors: int = 0
    unreadable: int = 0
    flows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FLOWS, 0))

    @property
    def count(self) -> int:
        """P, problems."""
        return len(self.values["samples"])


def read_cells(path: Path, rankings: Collection[str] = ()) -> dict[Key, Cell]:
    """Every cell of a results file.

    Args:
        path: The file.
        rankings: The protocols that rank candidates; their cells have the metrics of each user, too.

    Returns:
        For each cell arrays (P,): `samples`, `correct`, `first` (whether the first sample is right), `last`,
        `any`, `share` (of samples that are right), `vote` (the chance that a majority vote is right, ties
        broken at random), `tokens` and `reward` (sums over samples). Of a ranking also `answer_mass` (mean
        over candidates) and the metrics of `msr.user_metrics`.

    Raises:
        UserError: The file can not be read.
    """
    parts: dict[Key, list[dict[str, Floats]]] = {}
    hashes: dict[Key, Any] = {}
    cells: dict[Key, Cell] = {}
    for table in read_groups(path, _READ):
        key: Any = tuple(table[name][0].as_py() for name in ("model", "task", "protocol", "seed"))
        cell = cells.setdefault(key, Cell())
        hashes.setdefault(key, hashlib.blake2b(digest_size=12))
        taken = _take(table, cell, hashes[key])
        if key[2] in rankings:
            taken |= _user_values(table, taken["samples"])
        parts.setdefault(key, []).append(taken)
    for key, cell in cells.items():
        cell.problems = hashes[key].hexdigest()
        cell.values = {name: np.concatenate([p[name] for p in parts[key]]) for name in parts[key][0]}
    return cells


def _take(table: Any, cell: Cell, digest: Any) -> dict[str, Floats]:
    """The numbers of one row group; counts of the cell go up."""
    problem = table["problem"].combine_chunks().dictionary_encode()
    ids = problem.dictionary.to_pylist()
    codes = problem.indices.to_numpy()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(codes)) + 1])  # (P,) first row of each problem
    digest.update("\n".join([*map(ids.__getitem__, codes[starts]), ""]).encode())
    correct = table["is_correct"].to_numpy().astype(float)
    answers, readable = _codes(table["answer"])
    errors = len(table) - table["error"].null_count
    cell.errors += errors
    cell.unreadable += int((~readable).sum()) - errors
    ends = np.concatenate([starts[1:], [len(codes)]]) - 1
    _count_flows(cell, correct, starts)
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


def _user_values(table: Any, sizes: Floats) -> dict[str, Floats]:
    """The metrics of each user (P,) from a row a candidate.

    Args:
        table: Whole users.
        sizes: (P,) candidates of each; all the same.
    """
    from llmctl.msr.evaluation.metrics import rank_counts, user_metrics

    shape = len(sizes), int(sizes[0])
    scores, labels, mass = (
        table[name].cast("float64").to_numpy().reshape(shape) for name in ("reward", "is_correct", "answer")
    )
    return {**user_metrics(rank_counts(scores, labels)), "answer_mass": mass.mean(1)}


def votes(unit: NDArray[Any], answers: NDArray[Any], correct: Floats, units: int) -> Floats:
    """The chance of each unit that a majority vote is right, as `rise.metrics.vote`, all at once.

    Args:
        unit: (S,) which unit a sample belongs to, rising.
        answers: (S,) number of the sample's answer.
        correct: (S,) 1 where it is right.
        units: P.

    Returns:
        (P,); 0 where nothing was voted for.
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
    """Numbers of a column's texts, and which rows have one."""
    encoded = column.combine_chunks().dictionary_encode()
    readable = encoded.indices.is_valid().to_numpy(zero_copy_only=False)
    return encoded.indices.fill_null(0).to_numpy().astype(np.int64), readable


def _count_flows(cell: Cell, correct: Floats, starts: NDArray[Any]) -> None:
    """What became of the sample before, within a problem; means something for turns."""
    inside = np.ones(len(correct), dtype=bool)
    inside[starts] = False
    now, was = correct[inside] > 0, np.roll(correct, 1)[inside] > 0
    counts: Mapping[str, NDArray[np.bool_]] = dict(
        zip(FLOWS, (~was & now, was & ~now, was & now, ~was & ~now), strict=True)
    )
    for name, flow in counts.items():
        cell.flows[name] += int(flow.sum())
