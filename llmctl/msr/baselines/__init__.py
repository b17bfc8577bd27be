"""What a recommender must beat, on the same frozen candidate lists."""

from llmctl.lazy import lazy_names

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

__getattr__ = lazy_names(__name__, _WHERE)
