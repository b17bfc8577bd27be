"""A runs folder with small real runs on a tiny model, and things that must not be shown."""

import json
from pathlib import Path

from llmctl.models.tiny import make_tiny_model
from llmctl.reach.curves.recipe import CurveRecipe
from llmctl.reach.curves.run import run_curve
from llmctl.reach.reachable_sets.run import SetRecipe, find_set
from llmctl.rise.loop import run_rise
from llmctl.rise.recipe import RiseRecipe
from llmctl.runs import Run
from llmctl.runs.recipe import parse_recipe

HOSTILE = "<img src=x onerror=alert(1)>"


def make_runs(folder: Path) -> Path:
    """`curve`, `set`, `rise`, an adapter that is only a name, and a link out of the folder to `secret`."""
    model = str(make_tiny_model(folder / "models" / "tiny", initializer_range=0.3))
    curve = {
        "model": model,
        "states": {"count": 6, "lengths": [4, 6]},
        "search": {"schedule": "random", "max_k": 2, "candidates": 8, "steps": 2},
    }
    recipe = parse_recipe(CurveRecipe, curve, "a test")
    with Run.open(folder / "curve", recipe, "reach curve") as run:
        run_curve(run, recipe, quiet=True)
    given = {"model": model, "state": HOSTILE, "k": 2, "exploration": {"forwards": 64}}
    find_set(parse_recipe(SetRecipe, given, "a test"), folder / "set", quiet=True)
    rise = {
        "model": model,
        "task": {"name": "sort", "options": {"min_length": 2, "max_length": 2}},
        "sampling": {"temperature": 1.0, "max_tokens": 6},
        "iterations": 0,
        "evaluate": {"problems": 4, "turns": 3, "parallel": 2},
    }
    recipe = parse_recipe(RiseRecipe, rise, "a test")
    with Run.open(folder / "rise", recipe, "rise run") as run:
        run_rise(run, recipe, quiet=True)
    adapter = folder / "a-run-whose-name-is-rather-long" / "models" / "an-adapter-with-a-long-name"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "smollm2-135m"}')
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    secret = folder.parent / "secret"
    secret.mkdir()
    (secret / "metrics.json").write_text(json.dumps({"epsilon": {"0": {"value": 0.0}}}))
    (secret / "manifest.json").write_text("{}")
    (secret / "recipe.yaml").write_text("kind: reach-curve\n")
    (folder / "link").symlink_to(secret)
    return folder


def make_big_curve(folder: Path, pairs: int) -> Path:
    """A finished curve of so many pairs, as a merge of shards would leave it.

    It is written beside the runs folder and moved there in one step: a server that looks meanwhile sees
    all of it or nothing.
    """
    place, folder = folder, folder.parent.parent / f"{folder.name}-unfinished"
    folder.mkdir(parents=True)
    counts = {k: pairs // 5 for k in range(4)}
    with (folder / "pairs.jsonl").open("w") as file:
        for number in range(pairs):
            k = number % 5 if number % 5 < 4 else None
            pair = {
                "verdict": "unknown" if k is None else "reached",
                "k": k,
                "control_ids": list(range(k or 0)),
                "control_text": " word" * (k or 0),
                "prompt_text": f"state {number} " * 12,
                "method": "gcg",
                "base_rank": number % 1000,
                "base_loss": 3.5,
                "loss": 1.25,
                "forwards": 100,
                "forward_tokens": 1200,
                "roundtrips": True,
                "state_ids": list(range(100, 132)),
                "target_ids": [7],
                "state_text": f"state {number} {HOSTILE} " * 4,
                "target_text": " target",
                "id": f"{number}/0",
                "control_tokens": [" word"] * (k or 0),
            }
            file.write(json.dumps(pair) + "\n")
    left, epsilon = pairs, {}
    for k in range(4):
        left -= counts[k]
        value = left / pairs
        epsilon[str(k)] = {
            "value": value,
            "low": value - 0.01,
            "high": value + 0.01,
            "n": pairs,
            "clusters": pairs,
            "methods": {"gcg": counts[k]},
            "is_switch": False,
        }
    metrics = {
        "model": "smollm2-135m",
        "targets": "next",
        "pairs": pairs,
        "states": pairs,
        "epsilon": epsilon,
    }
    (folder / "metrics.json").write_text(json.dumps({**metrics, "verdicts": {}, "seeds": {}}))
    (folder / "manifest.json").write_text("{}")
    (folder / "recipe.yaml").write_text("kind: reach-curve\nmodel: smollm2-135m\n")
    return folder.rename(place)
