"""Run `llmctl rise run` and kill it in every phase: `python killed.py RECIPE FOLDER SEED`."""

import sys
from pathlib import Path

import llmctl.models.loading
import llmctl.rise.loop
import llmctl.sampling.transformers_engine
import llmctl.training.run  # noqa: F401

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.kill_runs import kill_in_every_phase

WATCHED = (
    "manifest.json",
    "journal/evaluate-0.jsonl",
    "journal/collect-1.jsonl",
    "data/iteration-1.jsonl",
    "models/1/checkpoints/*/trainer_state.json",
    "models/1/checkpoints/*/complete.json",
    "models/1/adapter_model.safetensors",
    "journal/evaluate-1.jsonl",
    "metrics.json",
)

if __name__ == "__main__":
    kill_in_every_phase(["rise", "run"], WATCHED)
