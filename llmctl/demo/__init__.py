"""The demo of the recommender: a drawn catalogue, simulated users, and two small models.

The ground truth of the data set is known, so a report on it can show whether pictures help, and whether the
recommender follows a change of taste.
"""

from llmctl.lazy import lazy_names

_WHERE = {
    "DemoData": "data",
    "DemoSettings": "catalogue",
    "DemoUser": "users",
    "Look": "attributes",
    "make_demo": "catalogue",
    "open_demo": "data",
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
