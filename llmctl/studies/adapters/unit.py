"""One unit of a comparison: train one arm with one seed, then measure it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.studies.adapters.accuracy import measure_accuracy
from llmctl.studies.adapters.memory import PeakMemory
from llmctl.studies.adapters.unit_job import UnitJob
from llmctl.studies.adapters.unit_result import LossSums, TrainingRecord, UnitResult
from llmctl.training.data import Prepared, prepare
from llmctl.training.data.rows import read_rows
from llmctl.training.result import TrainResult

if TYPE_CHECKING:
    from llmctl.training.checkpoints import Progress
    from llmctl.training.validation import RowLosses

PROBE = "probe.jsonl"


@dataclass(frozen=True)
class _Trained:
    """The model to measure."""

    model: str
    adapter: Path | None
    result: TrainResult | None


def run_unit(job: UnitJob, progress: Progress | None = None, *, alone: bool = False) -> UnitResult:
    """Run a unit in this process.

    Args:
        job: The unit.
        progress: Called after each step.
        alone: Whether this process runs nothing else, so that its memory is that of the unit.

    Returns:
        Losses in total and row by row, seconds per step, peak memory, accuracy.

    Raises:
        UserError: As `llmctl.training.run.train`.
    """
    from llmctl.models.quiet import quiet_libraries

    with quiet_libraries():
        from llmctl.models.loading import load
        from llmctl.studies.adapters.probe import Probe
        from llmctl.training.run import train
        from llmctl.training.validation import row_losses

        memory = PeakMemory()
        start = _start_model(job)
        trained = _Trained(start, None, None)
        if job.is_trained:
            job.output.mkdir(parents=True, exist_ok=True)
            probe = Probe(
                job.output / PROBE,
                memory if alone or memory.is_cuda else None,
                partial(_curve_loss, job, start) if job.curve.points else None,
                job.curve.points,
            )
            result = train(
                start, job.training, job.settings, job.output, callbacks=[probe], progress=progress
            )
            trained = _as_trained(start, result)
        loaded = load(trained.model, adapter=trained.adapter, dtype=job.settings.dtype)
        files = {"validation": job.validation, "fit": job.fit}
        by_file = {  # a trial of a learning rate has one file for both
            rows: row_losses(loaded.model, _prepare(rows, loaded.tokenizer, job), job.settings.batch_size)
            for rows in dict.fromkeys(files.values())
        }
        losses = {name: by_file[rows] for name, rows in files.items()}
        del loaded
        return _result(job, trained, losses)


def _start_model(job: UnitJob) -> str:
    if job.architecture is None:
        return job.model
    from llmctl.training.scratch import load_scratch_tokenizer, make_model

    tokenizer = load_scratch_tokenizer(job.architecture, job.model)
    job.output.mkdir(parents=True, exist_ok=True)
    return str(make_model(job.output / "start", job.architecture, tokenizer, job.settings.seed))


def _as_trained(start: str, result: TrainResult) -> _Trained:
    if result.is_adapter:
        return _Trained(start, result.output, result)
    return _Trained(str(result.output), None, result)


def _prepare(rows: Path, tokenizer: Any, job: UnitJob, first: int | None = None) -> Prepared:
    settings = job.settings
    return prepare(
        read_rows(rows)[:first], tokenizer, loss_on=settings.loss_on, max_length=settings.max_length
    )


def _curve_loss(job: UnitJob, start: str, model: Any) -> float:
    from llmctl.models.loading import load_tokenizer
    from llmctl.training.validation import row_losses

    data = _prepare(job.validation, load_tokenizer(start), job, job.curve.rows)
    return row_losses(model, data, job.settings.batch_size).loss


def _result(job: UnitJob, trained: _Trained, losses: dict[str, RowLosses]) -> UnitResult:
    training, seconds, peaks = _read_training(job, trained.result)
    accuracy = measure_accuracy(job, trained.model, trained.adapter) if job.accuracy.problems else None
    return UnitResult(
        validation=LossSums.of(losses["validation"]),
        fit=LossSums.of(losses["fit"]),
        validation_loss=losses["validation"].loss,
        train_loss=losses["fit"].loss,
        accuracy=accuracy,
        trainable_parameters=trained.result.trainable_parameters if trained.result is not None else 0,
        seconds_per_step=statistics.median(seconds) if seconds else None,
        peak_memory=max(peaks) if peaks else None,
        training=training,
    )


def _read_training(
    job: UnitJob, result: TrainResult | None
) -> tuple[TrainingRecord | None, list[float], list[float]]:
    """The record of the training, seconds of each step, and peaks of memory in MiB."""
    if result is None:
        return None, [], []
    from llmctl.studies.adapters.probe import read_probe

    steps = read_probe(job.output / PROBE).values()
    curve = tuple((line["step"], line["validation_loss"]) for line in steps if "validation_loss" in line)
    record = TrainingRecord(
        losses=tuple(result.losses),
        steps=result.steps,
        rows=result.rows,
        dropped_rows=result.dropped_rows,
        tokens=result.tokens,
        seconds=round(result.seconds, 2),
        curve=curve,
    )
    seconds = [line["seconds"] for line in steps if "seconds" in line]
    return record, seconds, [line["peak_mib"] for line in steps if "peak_mib" in line]
