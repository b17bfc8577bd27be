"""Jobs of llmctl, read from their `results.parquet`: whether each sample is right, averaged by problem."""

from __future__ import annotations

from pathlib import Path

from llmctl.errors import UserError
from llmctl.jobs.logs.records import EvaluationLog, ScoreCollector

TOOL = "llmctl"
METRIC = "accuracy"
_COLUMNS = ["model", "task", "protocol", "problem", "is_correct", "error"]


def is_job(folder: Path) -> bool:
    """Whether a folder holds the results of a job."""
    return (folder / "results.parquet").is_file()


def read_job_log(folder: Path, model: str | None = None) -> EvaluationLog:
    """One model of a job; each protocol is a task of its own: "gsm8k parallel".

    Args:
        folder: Of the job.
        model: Its name there; None takes the only one.

    Raises:
        UserError: There are several models and none is named, no such model, or the file is broken.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(folder / "results.parquet", columns=_COLUMNS)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"{folder / 'results.parquet'} cannot be read ({error}): run the job again"
        ) from error
    models = sorted(set(table.column("model").to_pylist()))
    chosen = _choose(folder, models, model)
    scores = ScoreCollector()
    for batch in table.to_batches():
        for row in batch.to_pylist():
            if row["model"] != chosen:
                continue
            task = f"{row['task']} {row['protocol']}"
            if row["error"] is not None:
                scores.add_error(task, row["problem"])
            else:
                scores.add(task, row["problem"], {METRIC: float(row["is_correct"])})
    return scores.finish(f"{folder}:{chosen}", TOOL, chosen)


def _choose(folder: Path, models: list[str], model: str | None) -> str:
    if model is None and len(models) == 1:
        return models[0]
    if model in models:
        return str(model)
    what = "no model is named" if model is None else f"it has no model {model!r}"
    names = ", ".join(f"{folder}:{name}" for name in models)
    raise UserError(f"{folder} holds {len(models)} models, and {what}: give one of {names}")
