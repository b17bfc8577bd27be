"""Batch evaluation: models x tasks x protocols x seeds, in shards, in one process, several, or on Ray."""

from importlib import import_module
from typing import Any

_WHERE = {
    "JobRecipe": "spec",
    "Shard": "plan",
    "plan_shards": "plan",
    "run_job": "run",
    "summarize_results": "summary",
    "compare_jobs": "compare",
    "export_job": "export",
}
__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    """Import a part when it is asked for (PEP 562)."""
    if name in _WHERE:
        return getattr(import_module(f"llmctl.jobs.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
