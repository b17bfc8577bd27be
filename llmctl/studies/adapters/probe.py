"""A callback that records seconds of each step, peak memory, and validation losses during a training.

It writes one line per step to a file, so that a killed and resumed training has all of them at its end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from llmctl.studies.adapters.memory import PeakMemory

WARM_UP = 1  # number of first steps of a process, which are slower and not timed


class Probe(TrainerCallback):
    """A callback of `llmctl.training.run.train`.

    Args:
        path: The file. Lines of steps that are repeated after a kill replace the earlier ones.
        memory: The meter, made before the model was loaded; None measures no memory.
        validate: Function from the model to its validation loss; None records no curve.
        points: Number of evaluations between start and end.
    """

    def __init__(
        self,
        path: Path,
        memory: PeakMemory | None = None,
        validate: Callable[[Any], float] | None = None,
        points: int = 0,
    ) -> None:
        self.path, self.memory, self.validate, self.points = path, memory, validate, points
        self._began = 0.0
        self._since_start = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Read every weight, so that a memory-mapped file is loaded, and start measuring."""
        for parameter in kwargs["model"].parameters():
            parameter.detach().abs().max()
        if self.memory is not None:
            self.memory.reset()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock of the step."""
        _synchronize()
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the line of the step."""
        _synchronize()
        seconds, step = time.perf_counter() - self._began, state.global_step
        self._since_start += 1
        line: dict[str, Any] = {"step": step}
        if self._since_start > WARM_UP:
            line["seconds"] = seconds
        if self.memory is not None and (peak := self.memory.peak()) is not None:
            line["peak_mib"] = peak
        if self.validate is not None and step in curve_steps(state.max_steps, self.points):
            line["validation_loss"] = self.validate(kwargs["model"])
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def curve_steps(steps: int, points: int) -> set[int]:
    """Steps after which the validation loss is measured: evenly between start and end, both excluded."""
    return {round(steps * (n + 1) / (points + 1)) for n in range(points)} - {0, steps}


def read_probe(path: Path) -> dict[int, Mapping[str, Any]]:
    """The lines by step; an incomplete last line after a kill is left out."""
    found: dict[int, Mapping[str, Any]] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[entry["step"]] = entry
    return dict(sorted(found.items()))


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
