"""Logs of evaluations that llmctl or other tools made: read as scores per sample, and compared in pairs."""

from llmctl.lazy import lazy_names

_WHERE = {
    "EvaluationLog": "records",
    "Scores": "records",
    "LogComparison": "paired",
    "PairedDifference": "paired",
    "compare_logs": "paired",
    "read_log": "read",
}
__all__ = list(_WHERE)

__getattr__ = lazy_names(__name__, _WHERE)
