"""RISE, Recursive Introspection: teach a model to repair its own wrong answers over turns.

Qu, Zhang, Garg, Kumar, "Recursive Introspection: Teaching Language Model Agents How to Self-Improve"
(arXiv 2407.18219). A problem becomes an episode of several attempts; at every state that followed a
failure an improved response is found, and the model is fine-tuned on it, weighted by its reward.
"""

from importlib import import_module
from typing import Any

_WHERE = {
    "RiseRecipe": "recipe",
    "Attempt": "turns",
    "next_conversation": "turns",
    "rollout": "rollout",
    "collect_episodes": "collect",
    "training_rows": "dataset",
    "evaluate_problems": "evaluate",
    "summarize": "metrics",
    "run_rise": "loop",
    "compare_runs": "compare",
}
__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    """Import a part when it is asked for (PEP 562)."""
    if name in _WHERE:
        return getattr(import_module(f"llmctl.rise.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
