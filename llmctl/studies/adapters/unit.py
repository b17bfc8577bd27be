"""One unit of a comparison: train one arm with one seed, then measure it. Runs in a process of its own."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from llmctl.runs.files import write_json
from llmctl.studies.adapters.memory import PeakMemory
from llmctl.studies.adapters.recipe import Accuracy, Curve
from llmctl.training.config import TrainSettings
from llmctl.training.data import Prepared, prepare, read_rows
from llmctl.training.recipe import Architecture, DataSettings
from llmctl.training.result import TrainResult

if TYPE_CHECKING:
    from llmctl.training.checkpoints import Progress
    from llmctl.training.validation import RowLosses

RESULT, PROBE = "unit.json", "probe.jsonl"


class UnitJob(BaseModel):
    """What a unit is told; a file, where it runs in a process of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """Folder of the model, or from scratch the name of the one whose tokenizer is taken."""
    architecture: Architecture | None = None
    """From scratch."""
    settings: TrainSettings
    """How to train, or only how to evaluate."""
    is_trained: bool = True
    """False measures the model as it came."""
    training: Path
    """Training rows."""
    validation: Path
    """Validation rows."""
    fit: Path
    """The training rows that the training loss is taken on."""
    output: Path
    """Folder of what is trained."""
    curve: Curve = Curve()
    """Validation loss on the way."""
    data: DataSettings = DataSettings()
    """Where the problems of `accuracy` come from."""
    accuracy: Accuracy = Accuracy()
    """Accuracy on a task."""


@dataclass(frozen=True)
class _Trained:
    """What there is to measure."""

    model: str
    adapter: Path | None
    result: TrainResult | None


def spawn_unit(job: UnitJob, progress: Progress | None = None) -> dict[str, Any]:
    """Run a unit in a process of its own; it ends with this one, and goes on where it was when run again.

    Raises:
        UserError: As `run_unit`.
        LlmctlError: The process failed otherwise.
    """
    from llmctl.runs.files import read_json
    from llmctl.training.launcher import STOP_WITH_PARENT, run_child

    job.output.mkdir(parents=True, exist_ok=True)
    file = job.output / "job.json"
    write_json(file, job.model_dump(mode="json"))
    result = job.output / RESULT
    result.unlink(missing_ok=True)
    run_child([sys.executable, "-m", "llmctl.studies.adapters", str(file), STOP_WITH_PARENT], progress)
    found: dict[str, Any] = read_json(result)
    return found


def run_unit(job: UnitJob, progress: Progress | None = None, *, alone: bool = False) -> dict[str, Any]:
    """Run a unit in this process.

    Args:
        job: What to do.
        progress: Called after every step.
        alone: Whether this process does nothing else, so that its memory is the unit's.

    Returns:
        Plain values: losses, losses row by row, seconds a step, peak memory, accuracy.

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
        by_file = {  # a trial is judged on one file alone
            rows: row_losses(loaded.model, _prepare(rows, loaded.tokenizer, job), job.settings.batch_size)
            for rows in dict.fromkeys(files.values())
        }
        losses = {name: by_file[rows] for name, rows in files.items()}
        del loaded
        return _findings(job, trained, losses)


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


def _findings(job: UnitJob, trained: _Trained, losses: dict[str, RowLosses]) -> dict[str, Any]:
    result = trained.result
    found: dict[str, Any] = {name: part.to_dict() for name, part in losses.items()}
    found["validation_loss"], found["train_loss"] = losses["validation"].loss, losses["fit"].loss
    found["accuracy"] = _measure_accuracy(job, trained) if job.accuracy.problems else None
    found["trainable_parameters"] = result.trainable_parameters if result is not None else 0
    if result is None:
        return found | {"seconds_per_step": None, "peak_memory": None}
    from llmctl.studies.adapters.probe import read_probe

    steps = read_probe(job.output / PROBE).values()
    seconds = [line["seconds"] for line in steps if "seconds" in line]
    peaks = [line["peak_mib"] for line in steps if "peak_mib" in line]
    return found | {
        "losses": list(result.losses),
        "steps": result.steps,
        "rows": result.rows,
        "dropped_rows": result.dropped_rows,
        "tokens": result.tokens,
        "seconds": round(result.seconds, 2),
        "seconds_per_step": statistics.median(seconds) if seconds else None,
        "peak_memory": max(peaks) if peaks else None,
        "curve": [[line["step"], line["validation_loss"]] for line in steps if "validation_loss" in line],
    }


def _measure_accuracy(job: UnitJob, trained: _Trained) -> dict[str, Any]:
    """Greedy replies to the first validation problems, checked by their task."""
    from llmctl.sampling import Settings, open_sampler
    from llmctl.tasks import get_task
    from llmctl.training.sources import get_rows

    task = job.data.task
    if task is None:
        raise ValueError("accuracy without a task: the recipe refuses this")
    path = task.validation_path or task.path
    checker = get_task(task.name, **({} if path is None else {"path": path}), **task.options)
    problems = get_rows(job.data).problems[: job.accuracy.problems]
    # vLLM can not run Sparse-GIN, and all arms must decode alike.
    sampler = open_sampler(trained.model, engine="transformers", adapter=trained.adapter)
    try:
        settings = Settings(n=1, temperature=0.0, max_tokens=job.accuracy.max_tokens, seed=0)
        replies = sampler.chat([checker.conversation(problem) for problem in problems], settings)
    finally:
        sampler.close()
    right = [_is_right(checker, problem, reply) for problem, (reply,) in zip(problems, replies, strict=True)]
    return {"right": right, "value": sum(right) / len(right)}


def _is_right(task: Any, problem: Any, reply: Any) -> bool:
    return not reply.is_error and bool(task.check(problem, reply.text).is_correct)


def main(arguments: Sequence[str]) -> int:
    """`python -m llmctl.studies.adapters job.json`: one unit, its result beside the job."""
    from llmctl.errors import UserError
    from llmctl.training.launcher import (
        ERROR_PREFIX,
        STOP_WITH_PARENT,
        USER_ERROR,
        print_step,
        stop_with_parent,
    )
    from llmctl.trust.permissions import take_arguments

    arguments = take_arguments(arguments)
    if STOP_WITH_PARENT in arguments:
        stop_with_parent()
    (file,) = (argument for argument in arguments if argument != STOP_WITH_PARENT)
    try:
        job = UnitJob.model_validate_json(Path(file).read_text())
        write_json(job.output / RESULT, run_unit(job, print_step, alone=True))
    except UserError as error:
        print(f"{ERROR_PREFIX}{error}", file=sys.stderr, flush=True)
        return USER_ERROR
    return 0
