"""Models: an alias, a folder or a Hub name becomes weights, a tokenizer, a device and a dtype."""

from llmctl.lazy import lazy_names
from llmctl.models.registry import ModelInfo, cache_dir, is_here, list_models, pull, resolve

__all__ = ["ModelInfo", "cache_dir", "describe", "is_here", "list_models", "load", "pull", "resolve"]

# torch is imported only when a model is really loaded
__getattr__ = lazy_names(__name__, {"load": "loading", "describe": "description"})
