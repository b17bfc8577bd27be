"""Which tool made a log, found by its name and content."""

from __future__ import annotations

import json
from pathlib import Path

from llmctl.errors import UserError
from llmctl.jobs.logs import inspect_ai, lm_eval
from llmctl.jobs.logs.job import is_job, read_job_log
from llmctl.jobs.logs.records import EvaluationLog, Scores
from llmctl.runs.files import disk_errors_as_user_errors

_FORMS = (
    "an .eval or .json log of inspect_ai, a samples_*.jsonl file of lm-eval (--log_samples), a folder of "
    "either, or the folder of an llmctl job"
)


def read_log(given: str | Path) -> EvaluationLog:
    """The scores of one model.

    Args:
        given: A file or folder; of a job of llmctl with several models, FOLDER:MODEL.

    Raises:
        UserError: There is nothing there, or nothing that is known; the message lists the forms.
    """
    path, model = _split(str(given))
    with disk_errors_as_user_errors(f"read {path}"):
        if path.is_dir():
            return _read_folder(path, model)
        if model is not None:
            raise UserError(f"{given}: only the folder of an llmctl job takes a model's name: give {path}")
        return _read_file(path)


def _split(given: str) -> tuple[Path, str | None]:
    """A path, and the model behind a colon, where the path does not have that colon itself."""
    if Path(given).exists():
        return Path(given), None
    before, colon, model = given.rpartition(":")
    if colon and model and Path(before).is_dir():
        return Path(before), model
    raise UserError(f"{given}: there is no such file or folder: give {_FORMS}")


def _read_file(path: Path) -> EvaluationLog:
    if path.suffix == ".eval":
        return inspect_ai.read_eval(path)
    if path.suffix == ".jsonl":
        return lm_eval.read_samples([path], str(path))
    if path.suffix == ".json":
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is no JSON ({error}): make it again") from error
        if inspect_ai.is_json_log(content):
            return inspect_ai.read_json_log(path, content)
        if isinstance(content, dict) and "results" in content and "config" in content:
            raise UserError(
                f"{path} has lm-eval's results but no samples: run lm-eval with --log_samples, and give the "
                "samples_*.jsonl file, or this folder"
            )
    raise UserError(f"{path} is no log that is known here: give {_FORMS}")


def _read_folder(folder: Path, model: str | None) -> EvaluationLog:
    if is_job(folder):
        return read_job_log(folder, model)
    if model is not None:
        raise UserError(f"{folder} is no job of llmctl, so it takes no model's name: give {folder}")
    samples = lm_eval.latest_samples(sorted(folder.rglob("samples_*.jsonl")))
    if len({path.parent for path in samples}) > 1:
        names = ", ".join(str(one) for one in sorted({path.parent for path in samples}))
        raise UserError(f"{folder} holds the samples of several models: give one of {names}")
    if samples:
        return lm_eval.read_samples(samples, str(folder))
    logs = [_read_file(path) for path in sorted(folder.iterdir()) if _is_inspect_log(path)]
    if not logs:
        raise UserError(f"{folder} holds no log that is known here: give {_FORMS}")
    return _join(folder, logs)


def _is_inspect_log(path: Path) -> bool:
    if path.suffix == ".eval":
        return True
    # The names of inspect_ai begin with a date; its eval sets leave other JSON files beside the logs.
    return path.suffix == ".json" and path.name[:4].isdigit()


def _join(folder: Path, logs: list[EvaluationLog]) -> EvaluationLog:
    """Logs of one model's tasks as one; of a task that was logged again, the last counts."""
    if len(models := sorted({log.model for log in logs})) > 1:
        raise UserError(
            f"{folder} holds logs of several models ({', '.join(models)}): give one log of each instead"
        )
    found: dict[tuple[str, str], Scores] = {}
    for log in logs:
        found |= {(one.task, one.metric): one for one in log.scores}
    return EvaluationLog(str(folder), logs[0].tool, logs[0].model, tuple(found.values()))
