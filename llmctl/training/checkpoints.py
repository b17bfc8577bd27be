"""Checkpoints that survive a kill at any instant, and the counters of a run.

transformers writes a checkpoint file by file. Here a checkpoint is valid only if it contains a marker, which
is written last, by one rename. The older checkpoint is removed after that. So there is a complete checkpoint
at any instant after the first one, and an incomplete one is ignored and removed.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from llmctl.errors import UserError
from llmctl.runs.files import write_json
from llmctl.training.weighted import WeightedTrainer

MARKER = "complete.json"
_NAME = re.compile(r"checkpoint-(\d+)")

Progress = Callable[[int, int, float], None]  # step, total steps, loss


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint and the counters of the run when it was written."""

    path: Path
    step: int
    processes: int
    seconds: float
    tokens: int
    label_tokens: float


def last_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest complete checkpoint of a folder, or None."""
    whole = [path for path in _checkpoints(folder) if (path / MARKER).is_file()]
    if not whole:
        return None
    newest = max(whole, key=_step)
    return Checkpoint(newest, _step(newest), **json.loads((newest / MARKER).read_text()))


def remove_checkpoints(folder: Path, *, but: Path | None = None) -> None:
    """Remove all checkpoints of a folder except one, also incomplete ones."""
    for path in _checkpoints(folder):
        if path != but:
            shutil.rmtree(path)


def _checkpoints(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if path.is_dir() and _NAME.fullmatch(path.name)]


def _step(path: Path) -> int:
    return int(path.name.removeprefix("checkpoint-"))


class Bookkeeper(TrainerCallback):
    """Marks checkpoints, sets the sampler's epoch, reports progress, stops at a loss that is not finite."""

    def __init__(
        self, trainer: WeightedTrainer, progress: Progress | None, logging_steps: int, keep: bool
    ) -> None:
        self.trainer = trainer
        self.progress = progress
        self.logging_steps = logging_steps
        self.keep = keep
        self.started = time.monotonic()
        self.seconds_before = 0.0

    @property
    def seconds(self) -> float:
        """Seconds in the training loop, including killed runs up to their last checkpoint."""
        return self.seconds_before + time.monotonic() - self.started

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore the counters from a checkpoint."""
        self.seconds_before = checkpoint.seconds
        self.trainer.total_tokens = checkpoint.tokens
        self.trainer.label_tokens = checkpoint.label_tokens

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self.started = time.monotonic()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Set the epoch of the sampler, because not all wrappers of accelerate pass it on."""
        self.trainer.order.set_epoch(int(state.epoch or 0))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate in the last step of an epoch, and skip the checkpoint of the very last step.

        An evaluation within the step is part of the checkpoint that follows. An evaluation after the epoch
        would be lost if the run is killed between the two. The last step saves the trained model itself.
        """
        is_last = state.global_step >= state.max_steps
        if self.trainer.eval_dataset is not None and (is_last or float(state.epoch).is_integer()):
            control.should_evaluate = True
        if is_last and not self.keep:
            control.should_save = False

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report the loss of the step.

        Raises:
            UserError: The loss is not finite.
        """
        logs: dict[str, float] = kwargs["logs"]
        if "loss" not in logs:
            return
        loss, step = logs["loss"], state.global_step
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} at step {step}: lower learning_rate, or look for extreme weights in "
                "the rows"
            )
        is_due = step % self.logging_steps == 0 or step >= state.max_steps
        if self.progress is not None and is_due and state.is_world_process_zero:
            self.progress(step, state.max_steps, loss)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the checkpoint that was just written, and remove the previous one."""
        self.trainer.accelerator.wait_for_everyone()  # every process has written its part
        if not state.is_world_process_zero:
            return
        folder = Path(args.output_dir)
        path = folder / f"checkpoint-{state.global_step}"
        counts = {
            "processes": args.world_size,
            "seconds": self.seconds,
            "tokens": self.trainer.total_tokens,
            "label_tokens": self.trainer.label_tokens,
        }
        write_json(path / MARKER, counts)
        remove_checkpoints(folder, but=path)
