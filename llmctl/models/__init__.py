"""Models: an alias, a folder or a Hub name becomes weights, a tokenizer, a device and a dtype."""

from llmctl.models.registry import ModelInfo, cache_dir, is_here, list_models, pull, resolve

__all__ = ["ModelInfo", "cache_dir", "describe", "is_here", "list_models", "load", "pull", "resolve"]


def __getattr__(name: str) -> object:
    """Import torch only when a model is really loaded (PEP 562)."""
    if name == "load":
        from llmctl.models.loading import load

        return load
    if name == "describe":
        from llmctl.models.description import describe

        return describe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
