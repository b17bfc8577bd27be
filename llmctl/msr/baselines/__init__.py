"""What a recommender must beat, on the same frozen candidate lists."""

from importlib import import_module
from typing import Any

_WHERE = {
    "Baseline": "base",
    "Popularity": "counting",
    "Random": "counting",
    "ItemKNN": "counting",
    "TextKNN": "text",
    "Gru4Rec": "sequence",
    "SasRec": "sequence",
    "make_baseline": "run",
    "run_baselines": "run",
}
__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    """Import a part when it is asked for (PEP 562)."""
    if name in _WHERE:
        return getattr(import_module(f"llmctl.msr.baselines.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
