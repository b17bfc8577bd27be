"""RISE, Recursive Introspection: teach a model to correct its own wrong answers over several turns.

Qu, Zhang, Garg, Kumar, "Recursive Introspection: Teaching Language Model Agents How to Self-Improve"
(arXiv 2407.18219). A problem becomes an episode of several turns; at every state an
improved response is looked for, and the model is fine-tuned on it, weighted by its reward.
"""

from llmctl.lazy import lazy_names

_WHERE = {
    "RiseRecipe": "recipe",
    "Turn": "records",
    "State": "records",
    "Episode": "records",
    "Evaluation": "records",
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

__getattr__ = lazy_names(__name__, _WHERE)
