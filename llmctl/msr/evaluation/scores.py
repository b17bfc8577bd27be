"""What every model and baseline leaves: its scores in Parquet, its figures in `metrics.json`.

    scores/<model>.parquet      user, item, label, score
    scores.parquet              the same of all models, with a column model
    journal/scores.jsonl        one line a model that is done: its figures
    metrics.json                one object a model, with the hash of the candidate lists

The lists are the run's own, so figures of one file may be compared with each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmctl.msr.data.prepare import Prepared
from llmctl.msr.data.store import SCORES, read_table, write_table
from llmctl.msr.evaluation.metrics import RankCounts, rank_counts, summarize, user_metrics
from llmctl.runs import Run
from llmctl.runs.files import read_json

JOURNAL = "scores"


@dataclass(frozen=True)
class ModelScores:
    """The scores of one model for the test users."""

    name: str  # of the model or baseline; also of its file
    scores: NDArray[np.float64]  # (U, N) in the order of the run's test lists, the greater the better
    full: RankCounts | None = None  # ranks among all items that the user never touched
    facts: Mapping[str, Any] = field(default_factory=dict)  # more to tell of it, such as seconds


def record_scores(run: Run, prepared: Prepared, found: ModelScores, seed: int) -> dict[str, Any]:
    """Store a model's scores and figures; `metrics.json` is up to date afterwards.

    Args:
        run: Open.
        prepared: Its data.
        found: The model's scores.
        seed: Of the bootstrap.

    Returns:
        The model's figures, as `metrics.json` has them.

    Raises:
        ValueError: The scores are not one a candidate of the test users, or one is NaN.
    """
    labels = np.array([candidates.labels for _, candidates in prepared.cases("test")], dtype=np.int8)
    counts = rank_counts(found.scores, labels)

    def rows() -> Iterator[tuple[Any, ...]]:
        for (_, one), scores in zip(prepared.cases("test"), found.scores.tolist(), strict=True):
            for item, label, score in zip(one.items, one.labels, scores, strict=True):
                yield one.user, item, label, score

    figures: dict[str, Any] = dict(summarize(user_metrics(counts), seed))
    figures["candidate_hash"] = prepared.candidate_hash
    if found.full is not None:
        figures["full_ranking"] = {
            **summarize(user_metrics(found.full), seed),
            "mean_items": float(found.full.others.mean()) + 1,
        }
    write_table(run.path(f"scores/{found.name}.parquet"), SCORES, rows())
    run.journal(JOURNAL).append(found.name, {"figures": figures, "facts": dict(found.facts)})
    update_metrics(run)
    return figures


def is_recorded(run: Run, name: str) -> bool:
    """Whether a model's scores and figures are there."""
    return name in run.journal(JOURNAL)


def update_metrics(run: Run) -> dict[str, Any]:
    """Put the figures of every model that is done into `metrics.json`, beside what else is there."""
    path = run.path("metrics.json")
    metrics = read_json(path) if path.is_file() else {}
    metrics |= {line["key"]: line["figures"] for line in run.journal(JOURNAL)}
    run.write_metrics(metrics)
    return dict(metrics)


def combine_scores(run: Run) -> int:
    """Write `scores.parquet` from the files of all models that are done; gives its rows."""
    names = run.journal(JOURNAL).keys

    def rows() -> Iterator[tuple[Any, ...]]:
        for name in names:
            for row in read_table(run.folder / f"scores/{name}.parquet", SCORES):
                yield (name, *row.values())

    return write_table(run.path("scores.parquet"), {"model": "string", **SCORES}, rows())


def user_values(run: Run, prepared: Prepared, name: str) -> dict[str, NDArray[np.float64]]:
    """(U,) metrics of each test user of a model that is done, for `metrics.compare`."""
    rows = read_table(run.folder / f"scores/{name}.parquet", SCORES)
    size = int(prepared.facts["negatives"]) + 1
    flat = np.array([(row["score"], row["label"]) for row in rows]).reshape(-1, size, 2)
    return user_metrics(rank_counts(flat[..., 0], flat[..., 1]))
