"""A run of seconds on tiny random models, and what must be equal in two folders of the same run."""

import json

import yaml

from llmctl.models.tiny import make_tiny_model, make_tiny_vlm
from llmctl.runs import read_journal
from llmctl.training.result import read_result
from tests.msr.made_data import write_files, write_pictures

ARMS = {
    "titles": {"users": {"mode": "none", "history": 4}, "recommender": {"variant": "text"}},
    "told": {},
    "at-once": {"users": {"mode": "direct"}, "recommender": {"untuned": False}},
    "seen": {"recommender": {"variant": "image", "model": "VLM", "untuned": False}},
}


def tiny_world(folder):
    """Data with pictures, a language model and one that sees."""
    write_pictures(write_files(folder / "data"))
    make_tiny_model(folder / "llm", can_answer=True, initializer_range=0.3, max_position_embeddings=2048)
    make_tiny_vlm(folder / "vlm", initializer_range=0.3, max_position_embeddings=2048)
    return folder


def tiny_recipe(world, cache=None, **changes):
    """All arms; every phase has several chunks, training several steps."""
    arms = json.loads(json.dumps(ARMS).replace("VLM", str(world / "vlm")))
    recipe = {
        "kind": "msr",
        "data": {
            "interactions": str(world / "data/interactions.csv"),
            "items": str(world / "data/items.csv"),
        },
        "candidates": {"negatives": 4},
        "items": {"vlm": str(world / "vlm"), "max_tokens": 4, "chunk": 15},
        "users": {"llm": str(world / "llm"), "max_tokens": 5, "chunk": 6},
        "recommender": {
            "model": str(world / "llm"),
            "train_users": 5,
            "chunk": 4,
            "train": {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, "save": {"save_steps": 1}},
        },
        "arms": arms,
        "claims": {"pictures beat titles": ["told", "titles"]},
        "baselines": {"names": ["popularity", "item-knn"]},
        "cache": {"megabytes": 0} if cache is None else {"path": str(cache), "megabytes": 1},
    }
    return recipe | changes


def write_recipe(path, recipe):
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def facts(folder):
    """Everything that a run has found out, seconds and paths aside."""
    found = {}
    for path in sorted(folder.glob("journal/*.jsonl")):
        lines = list(read_journal(path))
        found[path.stem] = [line["key"] for line in lines] if path.stem == "timing" else lines
    for line in found["scores"]:
        line["facts"] = sorted(line["facts"])
    for path in sorted(folder.glob("models/*")):
        result = read_result(path)
        assert result is not None, f"{path} is not trained whole"
        found[f"losses {path.name}"] = (result[0].losses, result[0].rows, result[0].tokens)
    for name in ("metrics.json", "comparisons.json", "calibration.json"):
        found[name] = json.loads((folder / name).read_text())
    for path in sorted(folder.glob("data/rows-*.jsonl")):
        found[path.name] = path.read_text()
    return found
