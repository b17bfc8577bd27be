"""What every model and baseline leaves in a run: its scores in Parquet, its metrics in `metrics.json`.

    scores/<model>.parquet      user, item, label, score
    scores.parquet              the same for all models, with a column model
    journal/scores.jsonl        one line per finished model: its metrics
    metrics.json                one object per model, with the hash of the candidate lists

All models of a run rank the same candidate lists, so the metrics of one file can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmctl.msr.data.prepared import PreparedData
from llmctl.msr.data.store import SCORES, read_table, write_table
from llmctl.msr.evaluation.metrics import RankCounts, rank_counts, summarize, user_metrics
from llmctl.runs import Estimate, Run
from llmctl.runs.files import read_json

JOURNAL = "scores"


@dataclass(frozen=True)
class ModelScores:
    """The scores of one model for the test users."""

    name: str  # of the model or baseline, and of its file
    scores: NDArray[np.float64]  # (U, N) in the order of the run's test lists, higher is better
    full: RankCounts | None = None  # ranks among all items that the user never interacted with
    facts: Mapping[str, Any] = field(default_factory=dict)  # further numbers to record, such as seconds


@dataclass(frozen=True)
class FullRanking:
    """Metrics of ranking the true next item among all items that the user never interacted with."""

    metrics: Mapping[str, Estimate]
    mean_items: float  # ranked items per user, the true one included

    def to_dict(self) -> dict[str, Any]:
        """The layout of metrics.json."""
        return {**self.metrics, "mean_items": self.mean_items}


@dataclass(frozen=True)
class ModelMetrics:
    """The metrics of one model, as metrics.json holds them."""

    metrics: Mapping[str, Estimate]  # on the candidate lists
    candidate_hash: str
    full: FullRanking | None = None

    def to_dict(self) -> dict[str, Any]:
        """The layout of metrics.json."""
        full = {} if self.full is None else {"full_ranking": self.full.to_dict()}
        return {**self.metrics, "candidate_hash": self.candidate_hash, **full}


def record_scores(run: Run, prepared: PreparedData, found: ModelScores, seed: int) -> ModelMetrics:
    """Store a model's scores and metrics; `metrics.json` is up to date afterwards.

    Args:
        run: Open.
        prepared: The run's data.
        found: The model's scores.
        seed: Seed of the bootstrap.

    Raises:
        ValueError: There is not one score per candidate of the test users, or a score is NaN.
    """
    labels = np.array([candidates.labels for _, candidates in prepared.cases("test")], dtype=np.int8)
    counts = rank_counts(found.scores, labels)

    def rows() -> Iterator[tuple[Any, ...]]:
        for (_, one), scores in zip(prepared.cases("test"), found.scores.tolist(), strict=True):
            for item, label, score in zip(one.items, one.labels, scores, strict=True):
                yield one.user, item, label, score

    full = None
    if found.full is not None:
        mean_items = float(found.full.others.mean()) + 1
        full = FullRanking(summarize(user_metrics(found.full), seed), mean_items)
    metrics = ModelMetrics(summarize(user_metrics(counts), seed), prepared.candidate_hash, full)
    write_table(run.path(f"scores/{found.name}.parquet"), SCORES, rows())
    # The journal's key "figures" is from the first version of the format, and runs made then still open.
    run.journal(JOURNAL).append(found.name, {"figures": metrics.to_dict(), "facts": dict(found.facts)})
    update_metrics(run)
    return metrics


def is_recorded(run: Run, name: str) -> bool:
    """Whether a model's scores and metrics are stored."""
    return name in run.journal(JOURNAL)


def update_metrics(run: Run) -> dict[str, Any]:
    """Put the metrics of every finished model into `metrics.json`, beside what else the file holds."""
    path = run.path("metrics.json")
    metrics = read_json(path) if path.is_file() else {}
    metrics |= {line["key"]: line["figures"] for line in run.journal(JOURNAL)}
    run.write_metrics(metrics)
    return dict(metrics)


def combine_scores(run: Run) -> int:
    """Write `scores.parquet` from the files of all finished models; gives the number of rows."""
    names = run.journal(JOURNAL).keys

    def rows() -> Iterator[tuple[Any, ...]]:
        for name in names:
            for row in read_table(run.folder / f"scores/{name}.parquet", SCORES):
                yield (name, *row.values())

    return write_table(run.path("scores.parquet"), {"model": "string", **SCORES}, rows())


def user_values(run: Run, prepared: PreparedData, name: str) -> dict[str, NDArray[np.float64]]:
    """(U,) metrics of each test user for a finished model, as `metrics.compare` takes them."""
    rows = read_table(run.folder / f"scores/{name}.parquet", SCORES)
    size = prepared.summary.negatives + 1
    flat = np.array([(row["score"], row["label"]) for row in rows]).reshape(-1, size, 2)
    return user_metrics(rank_counts(flat[..., 0], flat[..., 1]))
