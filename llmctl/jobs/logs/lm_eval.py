"""Samples of lm-eval: the `samples_<task>_<date>.jsonl` files that `--log_samples` writes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.jobs.logs.records import EvaluationLog, ScoreCollector, score_of

TOOL = "lm-eval"
_NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.:-]+)\.jsonl")


def is_samples_file(path: Path) -> bool:
    """Whether a file has the name of lm-eval's samples."""
    return _NAME.fullmatch(path.name) is not None


def latest_samples(paths: Sequence[Path]) -> list[Path]:
    """Of each task the newest file: lm-eval writes another beside the old ones at every run."""
    newest: dict[tuple[Path, str], tuple[str, Path]] = {}
    for path in paths:
        if match := _NAME.fullmatch(path.name):
            key = (path.parent, match["task"])
            newest[key] = max(newest.get(key, ("", path)), (match["date"], path))
    return sorted(path for _, path in newest.values())


def read_samples(paths: Sequence[Path], name: str) -> EvaluationLog:
    """Files of samples of one model, one for each task.

    Args:
        paths: In any order.
        name: What the user gave, for messages.

    Raises:
        UserError: A line is broken, or nothing is scored.
    """
    scores = ScoreCollector()
    for path in paths:
        match = _NAME.fullmatch(path.name)
        task = match["task"] if match else path.stem
        for line in _lines(path):
            _add(scores, task, line)
    return scores.finish(name, TOOL, _model_name(paths[0]))


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise UserError(f"{path}, line {number}: not JSON ({error}): make the file again") from error
            if not isinstance(line, dict) or "doc_id" not in line:
                raise UserError(f"{path}, line {number}: no doc_id, so this is no file of lm-eval's samples")
            yield line


def _add(scores: ScoreCollector, task: str, line: Mapping[str, Any]) -> None:
    """One line: a document under one filter, with a value for each of `metrics`."""
    filter_name = str(line.get("filter", "none"))
    found = {}
    for metric in line.get("metrics") or _guess_metrics(line):
        if (value := score_of(line.get(metric))) is not None:
            found[metric if filter_name == "none" else f"{metric},{filter_name}"] = value
    sample = str(line["doc_id"])
    if not found:
        scores.add_error(task, sample)
        return
    # doc_hash is of the document, the same for every model; prompt_hash covers the chat template as well.
    scores.add(task, sample, found, line.get("doc_hash") or line.get("doc"))


def _guess_metrics(line: Mapping[str, Any]) -> list[str]:
    """Older versions do not list their metrics: they are the numbers beside the known keys."""
    return [key for key, value in line.items() if key != "doc_id" and isinstance(value, (bool, int, float))]


def _model_name(path: Path) -> str:
    """From the results file beside the samples, or the folder's name."""
    for results in sorted(path.parent.glob("results_*.json"), reverse=True):
        try:
            content = json.loads(results.read_bytes())
            arguments = content.get("config", {}).get("model_args")
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
        return str(content.get("model_name") or arguments or path.parent.name)
    return path.parent.name
