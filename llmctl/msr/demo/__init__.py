"""What the recommender is demonstrated on: rendered items, users with a known taste, a small model that sees.

The data set says what the truth is, so a report on it can tell whether pictures help and whether drift is
followed.
"""

from importlib import import_module
from typing import Any

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


def __getattr__(name: str) -> Any:
    """Import a part when it is asked for (PEP 562)."""
    if name in _WHERE:
        return getattr(import_module(f"llmctl.msr.demo.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
