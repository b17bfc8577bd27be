"""Read the result files that Magic Words published (arXiv 2310.04444), to draw them beside one's own.

One row per pair: question (the state) and answer (the target) as text and ids, base_loss, search_method
("base" or "None_" for k = 0, "greedy", "gcg"), best_prompt and its ids, prompt_length, prompted_loss,
prompt_correct. Some files have more columns, lengths as floats, or a bare id where others have a list.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from llmctl.errors import UserError
from llmctl.reach.curves.epsilon import Pair

COLUMNS = (
    "question_ids",
    "answer_ids",
    "base_loss",
    "search_method",
    "best_prompt_ids",
    "prompt_length",
    "prompted_loss",
    "prompt_correct",
)
_BASE = ("base", "none", "none_", "")


def read_published(paths: str | Path | Iterable[str | Path]) -> list[Pair]:
    """The pairs of one result file, of several shards, or of every CSV in a folder.

    A pair that several shards hold with the same outcome counts once; within one file every row counts,
    as it did in the published figures.

    Raises:
        UserError: No such file, a column is missing, a row cannot be read (named by file and line), or
            two shards disagree on a pair.
    """
    found: dict[str, Pair] = {}
    for path in _files(paths):
        for pair in _numbered(_read_file(path)):
            known = found.setdefault(pair.id, pair)
            if (known.k, known.method) != (pair.k, pair.method):
                raise UserError(
                    f"{path}: the pair {pair.id!r:.80} has another outcome in another file: "
                    "import files of one experiment"
                )
    return list(found.values())


def _files(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    named = [paths] if isinstance(paths, (str, Path)) else list(paths)
    files: list[Path] = []
    for name in named:
        path = Path(name)
        inside = sorted(path.glob("*.csv")) if path.is_dir() else [path]
        if not inside or not inside[0].is_file():
            raise UserError(f"{path} is no CSV file and holds none: give a result file or its folder")
        files += inside
    return files


def _numbered(pairs: Iterable[Pair]) -> Iterable[Pair]:
    """Tell equal pairs of one file apart by their count."""
    seen: Counter[str] = Counter()
    for pair in pairs:
        seen[pair.id] += 1
        yield pair if seen[pair.id] == 1 else replace(pair, id=f"{pair.id}#{seen[pair.id]}")


def _read_file(path: Path) -> Iterable[Pair]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise UserError(
                f"{path} has no column {missing[0]!r}: a Magic Words result file has {', '.join(COLUMNS)}"
            )
        for row in reader:
            try:
                yield _pair(row)
            except (ValueError, TypeError) as error:
                raise UserError(
                    f"{path}, line {reader.line_num}: the row cannot be read ({error})"
                ) from error


def _pair(row: dict[str, str]) -> Pair:
    state, target = _ids(row["question_ids"]), _ids(row["answer_ids"])
    control = _ids(row["best_prompt_ids"])
    is_base = row["search_method"].strip().lower() in _BASE
    is_solved = _truth(row["prompt_correct"])
    length = int(float(row["prompt_length"]))
    if length != len(control):
        raise ValueError(f"prompt_length is {length}, but best_prompt_ids holds {len(control)} ids")
    key = " ".join(map(str, state))
    return Pair(
        id=f"{key}|{' '.join(map(str, target))}",
        state=key,
        k=length if is_solved else None,
        method="base" if is_base else row["search_method"].strip().lower(),
        base_loss=float(row["base_loss"]),
        loss=float(row["base_loss"] if is_base else row["prompted_loss"]),
        control_ids=control,
        verdict="reached" if is_solved else "unknown",
    )


def _ids(text: str) -> tuple[int, ...]:
    """A list of ids in brackets, or one bare id."""
    value = json.loads(text)
    ids = value if isinstance(value, list) else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
        raise ValueError(f"{text!r:.40} is no list of token ids")
    return tuple(ids)


def _truth(text: str) -> bool:
    if text.strip() not in ("True", "False"):
        raise ValueError(f"prompt_correct is {text!r}, but it must be True or False")
    return text.strip() == "True"
