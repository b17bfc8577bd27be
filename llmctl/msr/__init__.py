"""MLLM-MSR: multimodal sequential recommendation.

Ye et al., "Harnessing Multimodal Large Language Models for Multimodal Sequential Recommendation"
(arXiv 2408.09698). This package holds its data, frozen candidate lists, metrics and baselines.
"""

from importlib import import_module
from typing import Any

_WHERE = {
    "Item": "types",
    "History": "types",
    "CandidateList": "types",
    "MsrRecipe": "recipe",
    "Prepared": "prepare",
    "prepare_data": "prepare",
    "open_prepared": "prepare",
    "rank_counts": "metrics",
    "user_metrics": "metrics",
    "calibrate": "calibration",
    "Baseline": "baselines",
    "make_baseline": "baselines",
    "run_baselines": "baselines",
    "ModelScores": "scores",
    "record_scores": "scores",
}
__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    """Import a part when it is asked for (PEP 562)."""
    if name in _WHERE:
        return getattr(import_module(f"llmctl.msr.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
