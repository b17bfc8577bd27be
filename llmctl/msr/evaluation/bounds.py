"""Upper bounds of a data set: metrics of scores that were computed with knowledge of the ground truth.

A data set may ship a file `bounds.parquet` in the folder of its interactions file. It has the columns `user`
and `item` (strings), and one column of numbers per bound. A column's name is the name of its bound, and its
numbers are scores of the item for the user, higher is better. The report of a run evaluates each bound on the
run's own candidate lists, as it does every model. A file that lacks a pair of a list, or that cannot be read,
gives no table, and a warning says why.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llmctl.errors import UserError
from llmctl.msr.evaluation.metrics import rank_counts, summarize, user_metrics
from llmctl.msr.evaluation.tables import show
from llmctl.msr.types import CandidateList
from llmctl.runs import Estimate, Table
from llmctl.runs.parquet import new_parquet, open_parquet

logger = logging.getLogger(__name__)

FILE = "bounds.parquet"
METRICS = ("auc", "hr@3", "hr@5", "ndcg@5")
_PAIR = ("user", "item")
_ROWS = 16_384  # of a row group: what is held in memory at a time

BoundMetrics = Mapping[str, Mapping[str, Estimate]]  # by bound, by metric


def write_bounds(path: Path, bounds: Sequence[str], rows: Iterable[tuple[str, str, Sequence[float]]]) -> None:
    """Write a file of bounds, whole or not at all.

    Args:
        path: The file, named `FILE` beside the interactions.
        bounds: Names of the bounds.
        rows: User, item, and the score of each bound; every pair that a candidate list may hold.

    Raises:
        UserError: The disk refused.
    """
    import pyarrow as pa

    names = [*_PAIR, *bounds]
    kinds = [pa.string(), pa.string(), *(pa.float64() for _ in bounds)]
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    source = iter(rows)
    with new_parquet(path, schema) as writer:
        while part := list(islice(source, _ROWS)):
            columns = zip(*((user, item, *scores) for user, item, scores in part), strict=True)
            arrays = [pa.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def read_bounds(path: Path, lists: Sequence[CandidateList]) -> dict[str, NDArray[np.float64]]:
    """The scores of every bound on candidate lists.

    Args:
        path: A file as `write_bounds` writes it.
        lists: U lists of N items each.

    Returns:
        (U, N) scores by bound.

    Raises:
        UserError: The file cannot be read, lacks a column or a pair, or a score is no number.
    """
    cells = {
        (one.user, item): (row, column)
        for row, one in enumerate(lists)
        for column, item in enumerate(one.items)
    }
    shape = len(lists), len(lists[0].items) if lists else 0
    with open_parquet(path, "write it again, or remove it") as file:
        names = list(file.schema_arrow.names)
        if missing := [name for name in _PAIR if name not in names]:
            raise UserError(f"{path} has no column {missing[0]!r}: add it, or remove the file")
        found = {name: np.full(shape, np.nan) for name in names if name not in _PAIR}
        for batch in file.iter_batches(_ROWS):
            columns = {name: batch.column(name).to_pylist() for name in names}
            for number, pair in enumerate(zip(columns["user"], columns["item"], strict=True)):
                if (cell := cells.get(pair)) is not None:
                    for name, scores in found.items():
                        scores[cell] = columns[name][number]
    for name, scores in found.items():
        for row, column in islice(zip(*np.nonzero(np.isnan(scores)), strict=True), 1):
            user, item = lists[row].user, lists[row].items[column]
            raise UserError(
                f"{path} has no score {name!r} of item {item!r} for user {user!r}: it needs one for every "
                "pair of the candidate lists"
            )
    return found


def measure_bounds(
    scores: Mapping[str, NDArray[np.float64]], lists: Sequence[CandidateList]
) -> dict[str, dict[str, Estimate]]:
    """Every metric of every bound, with a bootstrap interval over users.

    Args:
        scores: (U, N) by bound.
        lists: U lists of N items each.
    """
    labels = np.array([one.labels for one in lists])
    return {name: summarize(user_metrics(rank_counts(own, labels))) for name, own in scores.items()}


def bounds_table(metrics: BoundMetrics, negatives: int = 20) -> Table:
    """What `measure_bounds` found.

    Args:
        metrics: By bound.
        negatives: Negatives per candidate list.
    """
    rows = [[name, *(show(one[metric]) for metric in METRICS)] for name, one in metrics.items()]
    users = next(iter(metrics.values()))["auc"].n
    caption = (
        f"Upper bounds, from scores that know the ground truth or a part of it: {users} users, "
        f"{negatives} negatives each; 95 % intervals by bootstrap over users."
    )
    return Table(["bound", *METRICS], rows, caption)


def bounds_of_run(interactions: Path, lists: Iterable[CandidateList]) -> Table | None:
    """The bounds that a run's data set ships, on the run's own candidate lists.

    Args:
        interactions: The run's interactions file; the file of bounds lies beside it.
        lists: The run's candidate lists.

    Returns:
        None where the data set ships no bounds, or bounds that do not fit: a report goes without them then.
    """
    path, known = interactions.parent / FILE, list(lists)
    if not path.is_file() or not known:
        return None
    try:
        scores = read_bounds(path, known)
    except UserError as error:
        logger.warning("the report has no table of upper bounds: %s", error)
        return None
    return bounds_table(measure_bounds(scores, known), len(known[0].items) - 1) if scores else None
