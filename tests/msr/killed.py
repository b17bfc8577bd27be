"""Run `llmctl msr run` and kill it in every phase: `python killed.py RECIPE FOLDER SEED`."""

import sys
from pathlib import Path

import llmctl.msr.run
import llmctl.sampling.image_text_engine
import llmctl.training.run  # noqa: F401

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.kill_runs import kill_in_every_phase

WATCHED = (
    "data/prepared.json",
    "journal/items.jsonl",
    "journal/items.jsonl",
    "journal/users-told.jsonl",
    "journal/users-told.jsonl",
    "journal/users-told.jsonl",
    "data/rows-told.jsonl",
    "models/told/checkpoints/*/complete.json",
    "models/told/adapter_model.safetensors",
    "journal/eval-told.jsonl",
    "journal/eval-told.jsonl",
    "journal/eval-seen.jsonl",
    "metrics.json",
)

if __name__ == "__main__":
    kill_in_every_phase(["msr", "run"], WATCHED)
