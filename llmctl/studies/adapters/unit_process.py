"""A unit in its own process, so that its peak memory can be measured."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.runs.files import write_json
from llmctl.studies.adapters.unit import run_unit
from llmctl.studies.adapters.unit_job import UnitJob
from llmctl.studies.adapters.unit_result import UnitResult

if TYPE_CHECKING:
    from llmctl.training.checkpoints import Progress

RESULT = "unit.json"


def spawn_unit(job: UnitJob, progress: Progress | None = None) -> UnitResult:
    """Run a unit in its own process, which ends with this one. A second call resumes where it stopped.

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
    return UnitResult.from_dict(read_json(result))


def main(arguments: Sequence[str]) -> int:
    """`python -m llmctl.studies.adapters job.json`: run one unit and write its result beside the job."""
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
        write_json(job.output / RESULT, run_unit(job, print_step, alone=True).to_dict())
    except UserError as error:
        print(f"{ERROR_PREFIX}{error}", file=sys.stderr, flush=True)
        return USER_ERROR
    return 0
