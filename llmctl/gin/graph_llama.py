"""Stub."""


def register_graph_llama() -> None:
    """Stub."""
