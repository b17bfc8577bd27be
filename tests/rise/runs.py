"""A tiny run, and what must be equal in two folders of the same run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from llmctl.runs import read_journal
from llmctl.training.result import read_result


def tiny_recipe(model: Path, **changes: Any) -> dict[str, Any]:
    """A run of seconds on a tiny random model; every phase has several chunks, training several steps."""
    recipe = {
        "kind": "rise",
        "model": str(model),
        "task": {"name": "sort", "options": {"min_length": 2, "max_length": 2}},
        "sampling": {"temperature": 1.0, "max_tokens": 6, "window": 2},
        "iterations": 1,
        "collect": {"problems": 10, "turns": 2, "samples": 2, "improve": ["self", "reference"], "chunk": 4},
        "train": {"learning_rate": 1e-3, "batch_size": 4, "save": {"save_steps": 1}},
        "evaluate": {"problems": 10, "turns": 3, "parallel": 3, "chunk": 4},
    }
    return recipe | changes


def write_recipe(path: Path, recipe: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(recipe))
    return path


def facts(folder: Path) -> dict[str, Any]:
    """Everything that a run has found out, seconds and paths aside."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("journal/*.jsonl")):
        lines = list(read_journal(path))
        found[path.stem] = [line["key"] for line in lines] if path.stem == "timing" else lines
    for path in sorted(folder.glob("data/*.json*")):
        found[path.name] = path.read_text()
    for path in sorted(folder.glob("models/*")):
        result = read_result(path)
        assert result is not None, f"{path} is not trained whole"
        found[f"losses {path.name}"] = result[0].losses
        found[f"counts {path.name}"] = (
            result[0].steps,
            result[0].tokens,
            result[0].label_tokens,
            result[0].rows,
        )
    metrics = json.loads((folder / "metrics.json").read_text())
    found["phases with seconds"] = sorted(metrics.pop("seconds"))
    found["metrics"] = metrics
    return found


def leftovers(folder: Path) -> list[str]:
    """Files that a finished run has no use for."""
    names = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    return [
        name for name in names if "tmp" in name or "checkpoint" in name or name.endswith((".raw", ".scaled"))
    ]
