"""Sampling rates of models on this machine: measured by jobs, kept in the cache, read by `--dry-run`."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llmctl.jobs.spec import JobRecipe
from llmctl.models import cache_dir
from llmctl.runs import read_journal
from llmctl.runs.files import make_folder, write_json

_FILE = "eval-rates.json"


def journal_rates(recipe: JobRecipe, lines: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """New tokens per second of one worker, by model, from the journal of a job."""
    samples = {name for name, spec in recipe.protocols.items() if spec.definition.samples_text}
    totals: dict[str, tuple[int, float]] = {}
    for line in lines:
        if line["protocol"] not in samples:
            continue
        tokens, seconds = totals.get(line["model"], (0, 0.0))
        totals[line["model"]] = (tokens + line["tokens"], seconds + line["seconds"])
    return {model: tokens / seconds for model, (tokens, seconds) in totals.items() if tokens and seconds}


def known_rates(recipe: JobRecipe, folder: Path) -> dict[str, float]:
    """New tokens per second of one worker, by model: from this job's folder or an earlier job."""
    kept = _read()
    found = {
        name: kept[key] for name in recipe.models if (key := _key(recipe, name)) in kept and kept[key] > 0
    }
    return found | journal_rates(recipe, read_journal(folder / "journal" / "shards.jsonl"))


def keep_rates(recipe: JobRecipe, lines: Iterable[Mapping[str, Any]]) -> None:
    """Keep the rates of a job for the estimates of later jobs."""
    rates = journal_rates(recipe, lines)
    kept = _read() | {_key(recipe, name): round(rate, 3) for name, rate in rates.items()}
    make_folder(cache_dir())
    write_json(cache_dir() / _FILE, kept)


def _key(recipe: JobRecipe, name: str) -> str:
    spec = recipe.models[name]
    return f"{platform.node()} {'adapter ' if spec.adapter else ''}{spec.base}"


def _read() -> dict[str, float]:
    """The kept rates; without a readable file there are none, which only costs an estimate."""
    try:
        content = json.loads((cache_dir() / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
