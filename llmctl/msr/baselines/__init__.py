"""Baselines: other recommenders, evaluated on the same candidate lists. One file per baseline or family."""

from llmctl.lazy import lazy_names

_WHERE = {
    "BASELINES": "registry",
    "Baseline": "base",
    "BaselineEntry": "registry",
    "ItemIndex": "base",
    "make_baseline": "run",
    "run_baselines": "run",
    "score_candidates": "base",
}
__all__ = list(_WHERE)

__getattr__ = lazy_names(__name__, _WHERE)
