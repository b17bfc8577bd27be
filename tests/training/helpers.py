"""Rows and readers that the tests of training share."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from llmctl.training import SaveSettings, TrainSettings


def chat(*texts: str, weight: float = 1.0) -> dict[str, Any]:
    """A row whose messages alternate between user and assistant."""
    roles = ["user", "assistant"] * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return {"messages": messages, "weight": weight}


def some_rows(count: int = 12) -> list[dict[str, Any]]:
    """Rows of different lengths and weights, some with two turns."""
    rows = []
    for i in range(count):
        turns = (f"add {i} and {i}", "x" * (i % 5 + 1), "wrong", f"it is {2 * i}")
        rows.append(chat(*(turns if i % 2 else turns[:2]), weight=0.25 + i % 4))
    return rows


def settings(**changes: Any) -> TrainSettings:
    """Settings of a short run: six steps of four rows unless changed."""
    fields: dict[str, Any] = {
        "adapter": "full",
        "learning_rate": 1e-2,
        "epochs": 2,
        "batch_size": 4,
        "save": SaveSettings(save_steps=2),
    }
    return TrainSettings(**(fields | changes))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a saved model or adapter."""
    (path,) = folder.glob("*.safetensors")
    return load_file(path)


def assert_same_weights(one: Path, other: Path, tolerance: float = 0.0) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=tolerance, msg=name)
