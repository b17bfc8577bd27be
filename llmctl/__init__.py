"""llmctl: steer language models and teach them to correct themselves.

Importing this package loads nothing heavy; torch, transformers, trl and vllm are imported by the
functions that need them.
"""

__version__ = "0.1.0"
