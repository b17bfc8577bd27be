"""Batch evaluation: models x tasks x protocols x seeds, in shards, in one process, in several, or on Ray."""

from llmctl.lazy import lazy_names

_WHERE = {
    "JobRecipe": "spec",
    "Shard": "records",
    "PROTOCOLS": "protocols.registry",
    "JobProtocol": "protocols.base",
    "plan_shards": "plan",
    "run_job": "run",
    "summarize_results": "summary",
    "compare_jobs": "compare",
    "export_job": "export",
}
__all__ = list(_WHERE)

__getattr__ = lazy_names(__name__, _WHERE)
