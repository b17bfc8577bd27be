"""What the recommender is demonstrated on: rendered items, users with a known taste, a small model that sees.

The data set says what the truth is, so a report on it can tell whether pictures help and whether drift is
followed.
"""

from llmctl.lazy import lazy_names

_WHERE = {
    "DemoData": "catalogue",
    "DemoSettings": "catalogue",
    "DemoUser": "users",
    "Look": "attributes",
    "make_demo": "catalogue",
    "open_demo": "catalogue",
    "ORACLES": "oracles",
    "oracle_scores": "oracles",
    "measure_oracles": "oracles",
    "ensure_demo_model": "vision",
    "demo_model_report": "vision",
    "ensure_demo_writer": "writer",
    "demo_writer_report": "writer",
}
__all__ = list(_WHERE)

__getattr__ = lazy_names(__name__, _WHERE)
