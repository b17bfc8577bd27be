"""One training inside a run: in this process, or in child processes through `accelerate launch`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmctl.models.quiet import quiet_libraries
from llmctl.runs import Run, progress
from llmctl.training.config import TrainSettings
from llmctl.training.result import TrainResult

if TYPE_CHECKING:
    from llmctl.runs import Progress


@dataclass(frozen=True)
class Training:
    """What to train, and where in the run's folder the result goes."""

    name: str
    """Name of the job file, for a training in child processes: `jobs/<name>.json`."""
    model: str
    """Alias, folder or Hub name of the model that training starts from."""
    rows: Sequence[Mapping[str, Any]] | Path
    """Training rows, or the JSONL file that holds them."""
    settings: TrainSettings
    output: str
    """Name of the folder in the run, e.g. "models/1"."""
    init_adapter: str | Path | None = None
    """An adapter to continue training."""
    eval_rows: Path | None = None
    """JSONL file of rows to evaluate after every epoch."""
    launch: Path | None = None
    """An accelerate configuration; None trains in this process."""


def fit(run: Run, training: Training, *, label: str = "train", quiet: bool = False) -> TrainResult:
    """Train into the run's folder, from the last checkpoint where there is one.

    Args:
        run: The open run.
        training: What to train.
        label: Label of the progress bar.
        quiet: Show no progress.

    Raises:
        UserError: As `llmctl.training.train`.
        LlmctlError: A training process failed.
    """
    output = run.path(training.output)
    with progress(None, label, "steps", quiet=quiet) as bar, quiet_libraries():
        report = step_reporter(bar)
        shared: dict[str, Any] = {"init_adapter": training.init_adapter, "eval_rows": training.eval_rows}
        if training.launch is not None:
            from llmctl.training.launcher import launch, write_job

            job = write_job(
                run.path(f"jobs/{training.name}.json"),
                rows=training.rows,
                model=training.model,
                settings=training.settings,
                output=output,
                **shared,
            )
            return launch(job, training.launch, progress=report)
        from llmctl.training.run import train

        return train(training.model, training.rows, training.settings, output, progress=report, **shared)


def step_reporter(bar: Progress) -> Callable[[int, int, float], None]:
    """The function that `train` calls after a step; it moves a progress bar."""

    def report(step: int, total: int, loss: float) -> None:
        bar.total = total
        bar.advance(step - bar.done, note=f"loss {loss:.3f}")

    return report
