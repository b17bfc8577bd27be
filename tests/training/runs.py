"""A small fine-tuning, and what must be equal in two folders of it; killed by `python runs.py ...`."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from llmctl.runs import Run, read_journal
from llmctl.runs.recipe import parse_recipe


def sft_recipe(model: Path | str, **changes: Any) -> dict[str, Any]:
    recipe = {
        "model": str(model),
        "data": {"rows": 12, "validation_rows": 5},
        "train": {"learning_rate": 1e-2, "epochs": 2, "batch_size": 4, "save": {"save_steps": 1}},
    }
    return recipe | changes


def run_sft_in(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    from llmctl.training.recipe import SftRecipe
    from llmctl.training.sft import run_sft

    recipe = parse_recipe(SftRecipe, content, "test")
    with Run.open(folder, recipe, "train sft") as run:
        return run_sft(run, recipe, quiet=True)


def compare_recipe(model: Path | str, **changes: Any) -> dict[str, Any]:
    recipe = {
        "model": str(model),
        "budget": 9000,
        "data": {"rows": 8, "validation_rows": 4},
        "train": {"learning_rate": 1e-2, "batch_size": 4, "epochs": 2, "save": {"save_steps": 1}},
        "seeds": [0, 1],
        "curve": {"points": 1, "rows": 2},
        "isolate": False,
    }
    return recipe | changes


def run_compare_in(folder: Path, content: dict[str, Any]) -> dict[str, Any]:
    from llmctl.studies.adapters.loop import run_comparison
    from llmctl.studies.adapters.recipe import AdapterCompareRecipe

    recipe = parse_recipe(AdapterCompareRecipe, content, "test")
    with Run.open(folder, recipe, "gin compare") as run:
        return run_comparison(run, recipe, quiet=True)


_COSTS = ("seconds", "seconds_per_step", "peak_memory", "seconds_per_step_ratio", "peak_memory_ratio")


def facts(folder: Path) -> dict[str, Any]:
    """Everything that a run has found out, time and memory aside."""
    found = {
        path.stem: [without_costs(line) for line in read_journal(path)] for path in folder.glob("journal/*")
    }
    found["metrics"] = without_costs(json.loads((folder / "metrics.json").read_text()))
    found["data"] = {path.name: path.read_text() for path in sorted(folder.glob("data/*"))}
    found["files"] = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    return found


def without_costs(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_costs(item) for key, item in value.items() if key not in _COSTS}
    return [without_costs(item) for item in value] if isinstance(value, list) else value


def _die_at(output: str, step: int) -> None:
    """Kill this process at a step of the training into a folder of that name."""
    from transformers import TrainerCallback

    import llmctl.training.run as trainer

    real = trainer.train

    class Die(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == step:
                os.kill(os.getpid(), signal.SIGKILL)

    def train(model: Any, rows: Any, settings: Any, folder: Any, *, callbacks: Any = (), **rest: Any) -> Any:
        last = [Die()] if Path(folder).name == output else []
        return real(model, rows, settings, folder, callbacks=[*callbacks, *last], **rest)

    trainer.train = train


if __name__ == "__main__":
    kind, recipe_file, target, *kills = sys.argv[1:]
    start = {"sft": run_sft_in, "compare": run_compare_in}[kind]
    import llmctl.models.loading
    import llmctl.studies.adapters.probe
    import llmctl.training.run  # noqa: F401  # before forking, which makes every start cheap

    codes = []
    for kill in [*kills, ""]:
        if (pid := os.fork()) == 0:
            if kill:
                _die_at(kill.split(":")[0], int(kill.split(":")[1]))
            start(Path(target), json.loads(Path(recipe_file).read_text()))
            os._exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    print(json.dumps(codes))
