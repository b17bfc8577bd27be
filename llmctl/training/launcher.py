"""Training on several GPUs or machines: a job file, and `accelerate launch` around it.

A caller that trains in its own process calls `train`. A caller that needs several GPUs writes the same call
to a file and launches it:

    job = write_job("round-1/job.json", model="mistral-7b", rows="round-1/rows.jsonl", output="round-1/model",
                    settings=TrainSettings(adapter="full", learning_rate=1e-6))
    result = launch(job, "recipes/accelerate/fsdp2.yaml")

`launch` blocks and reports the progress of the child. It can be called again after a kill: the children end
with their parent, and the job resumes from its last checkpoint, or its stored result is returned at once. By
hand:

    accelerate launch --config_file recipes/accelerate/fsdp2.yaml -m llmctl.training round-1/job.json
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pydantic import ValidationError

from llmctl.errors import LlmctlError, UserError
from llmctl.runs.files import write_json
from llmctl.training.checkpoints import Progress
from llmctl.training.config import TrainJob
from llmctl.training.result import TrainResult, read_result
from llmctl.trust.permissions import child_arguments

USER_ERROR = 2  # exit code of a child that stopped because of a mistake of the user
ERROR_PREFIX = "llmctl: "
STOP_WITH_PARENT = "--stop-with-parent"  # end when stdin is closed, which happens when the parent is killed


def write_job(path: str | Path, *, rows: Sequence[Mapping[str, Any]] | str | Path, **fields: Any) -> Path:
    """Write a job file; rows given as a list are written beside it as JSONL.

    Args:
        path: Path of the JSON file.
        rows: A list of rows or a JSONL file.
        **fields: The other fields of `TrainJob`.

    Raises:
        UserError: A field is missing, unknown or malformed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(rows, (str, Path)):
        lines = path.with_suffix(".rows.jsonl")
        lines.write_text("".join(json.dumps(dict(row)) + "\n" for row in rows), encoding="utf-8")
        rows = lines
    try:
        job = TrainJob(rows=Path(rows), **fields)
    except ValidationError as error:
        raise UserError(f"the training job is malformed: {_first_problem(error)}") from error
    write_json(path, _absolute(job).model_dump(mode="json"))
    return path


def read_job(path: str | Path) -> TrainJob:
    """Read a job file.

    Raises:
        UserError: No such file, no JSON, or a field that is missing, unknown or malformed.
    """
    try:
        return TrainJob.model_validate_json(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the job file {path} cannot be read ({error.strerror}): check the path") from error
    except ValidationError as error:
        raise UserError(f"the job file {path} is malformed: {_first_problem(error)}") from error


def launch(
    job_file: str | Path,
    accelerate_config: str | Path | None = None,
    *,
    arguments: Sequence[str] = (),
    progress: Progress | None = None,
) -> TrainResult:
    """Run a job through `accelerate launch` and wait for it.

    Args:
        job_file: From `write_job`.
        accelerate_config: YAML for accelerate (recipes/accelerate); None uses its default.
        arguments: Further options of `accelerate launch`, for example `["--num_processes", "2"]`; they
            override the file.
        progress: Called as `progress(step, total_steps, loss)`.

    Raises:
        UserError: The configuration file is missing, or the child reported a mistake of the user.
        LlmctlError: The child failed otherwise; the end of what it wrote is in the message.
    """
    output = Path(read_job(job_file).output)
    if accelerate_config is not None and not Path(accelerate_config).is_file():
        raise UserError(f"the accelerate configuration {accelerate_config} does not exist: check the path")
    config = [] if accelerate_config is None else ["--config_file", str(accelerate_config)]
    command = [sys.executable, "-m", "accelerate.commands.launch", *config, *arguments]
    command += ["-m", "llmctl.training", str(job_file), STOP_WITH_PARENT]
    run_child(command, progress)
    done = read_result(output)
    if done is None:
        raise LlmctlError(f"the training of {job_file} ended without a result in {output}")
    return done[0]


def run_child(command: list[str], progress: Progress | None) -> None:
    """Run a command of this package in a child process, and wait for it.

    Args:
        command: It contains `STOP_WITH_PARENT`, so that the child ends when this process is killed.
        progress: Called for every line {"step": ..., "total": ..., "loss": ...} of its output.

    Raises:
        UserError: The child reported a mistake of the user.
        LlmctlError: It failed otherwise.
    """
    import llmctl

    # The children import the package that is running, installed or not.
    home = str(Path(llmctl.__file__).parents[1])
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    child = subprocess.Popen(
        [*command, *child_arguments()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    if child.stdout is None or child.stderr is None:
        raise LlmctlError("the child has no pipes")
    tail: deque[str] = deque(maxlen=200)
    reader = threading.Thread(target=_drain, args=(child.stderr, tail), daemon=True)
    reader.start()
    try:
        for line in child.stdout:
            _pass_on(line, progress)
        code = child.wait()
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    reader.join()
    if code != 0:
        _fail(code, list(tail))


def stop_with_parent() -> None:
    """End this process when its stdin is closed: an orphan would go on writing to the output folder."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def print_step(step: int, total: int, loss: float) -> None:
    """Print the progress of a step for `run_child` in the parent."""
    print(json.dumps({"step": step, "total": total, "loss": loss}), flush=True)


def _drain(stream: IO[str], tail: deque[str]) -> None:
    for line in stream:
        tail.append(line.rstrip())


def _pass_on(line: str, progress: Progress | None) -> None:
    if progress is None or not line.startswith('{"step"'):
        return
    entry = json.loads(line)
    progress(entry["step"], entry["total"], entry["loss"])


def _fail(code: int, tail: list[str]) -> None:
    mistakes = [line.removeprefix(ERROR_PREFIX) for line in tail if line.startswith(ERROR_PREFIX)]
    if mistakes:
        raise UserError(mistakes[0])
    raise LlmctlError(f"the training processes failed with code {code}:\n" + "\n".join(tail[-30:]))


def _absolute(job: TrainJob) -> TrainJob:
    """The job with absolute paths, so that it works from any directory."""
    model = str(Path(job.model).resolve()) if Path(job.model).is_dir() else job.model
    paths = {name: getattr(job, name) for name in ("rows", "output", "init_adapter", "eval_rows")}
    places = {name: path.expanduser().resolve() for name, path in paths.items() if path is not None}
    return job.model_copy(update={"model": model, **places})


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(str(part) for part in problem['loc']) or 'file'}: {problem['msg']}"
