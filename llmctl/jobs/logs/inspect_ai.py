"""Logs of inspect_ai: `.eval` archives and `.json` files, read without the package.

Only the summaries of an archive are read, in which inspect_ai keeps every score and the beginning of every
input; an archive without them is read sample by sample.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.jobs.logs.archive import read_member
from llmctl.jobs.logs.records import EvaluationLog, ScoreCollector, score_of

TOOL = "inspect_ai"


def read_eval(path: Path) -> EvaluationLog:
    """An `.eval` archive.

    Raises:
        UserError: It is broken, not finished, or holds no score.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "header.json" not in names:
                raise UserError(f"{path} has no header yet: its evaluation was stopped, or still runs")
            header = json.loads(read_member(archive, "header.json"))
            return _collect(path, header, _samples(archive, names))
    except (zipfile.BadZipFile, ValueError, KeyError) as error:
        raise UserError(f"{path} is no log of inspect_ai ({error}): make it again") from error


def is_json_log(content: Any) -> bool:
    """Whether a JSON document is a log of inspect_ai."""
    return isinstance(content, dict) and isinstance(content.get("eval"), dict) and "status" in content


def read_json_log(path: Path, content: Mapping[str, Any]) -> EvaluationLog:
    """A `.json` log.

    Raises:
        UserError: It holds no samples or no score.
    """
    return _collect(path, content, content.get("samples") or [])


def _samples(archive: zipfile.ZipFile, names: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """The summaries of an archive's samples, or the samples themselves."""
    if "summaries.json" in names:
        yield from json.loads(read_member(archive, "summaries.json"))
        return
    for name in names:
        if name.startswith("samples/") and name.endswith(".json"):
            yield json.loads(read_member(archive, name))


def _collect(path: Path, header: Mapping[str, Any], samples: Iterable[Mapping[str, Any]]) -> EvaluationLog:
    about = header["eval"]
    task, model = str(about.get("task", path.stem)), str(about.get("model", "unknown"))
    scores = ScoreCollector()
    for sample in samples:
        name = str(sample.get("id"))
        found = _scores(sample.get("scores") or {})
        if sample.get("error") or not found:
            scores.add_error(task, name)
        else:
            scores.add(task, name, found, sample.get("input"))
    return scores.finish(str(path), TOOL, model)


def _scores(given: Mapping[str, Any]) -> dict[str, float]:
    """Numbers by metric; a scorer that gives several values has one metric for each: scorer/key."""
    found: dict[str, float] = {}
    for scorer, score in given.items():
        value = score.get("value") if isinstance(score, Mapping) else score
        parts = (
            {f"{scorer}/{key}": inner for key, inner in value.items()}
            if isinstance(value, Mapping)
            else {scorer: value}
        )
        for name, inner in parts.items():
            if (number := score_of(inner)) is not None:
                found[str(name)] = number
    return found
