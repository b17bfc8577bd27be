"""Vision weights of the demo model between its two training stages, so that a stopped start can go on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def vision_weights(model: Any) -> dict[str, Any]:
    """The weights of vision encoder and projector, by name."""
    parts = {"tower": model.model.vision_tower, "projector": model.model.multi_modal_projector}
    return {
        f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()
    }


def save_vision_weights(model: Any, path: Path, stamp: Mapping[str, str]) -> None:
    """Save the vision weights, complete or not at all.

    Args:
        model: A LLaVA.
        path: The file.
        stamp: The settings that the weights were trained with.
    """
    from safetensors.torch import save_file

    temporary = path.with_name(f".{path.name}")
    weights = {name: value.contiguous() for name, value in vision_weights(model).items()}
    save_file(weights, temporary, metadata=dict(stamp))
    os.replace(temporary, path)


def load_vision_weights(model: Any, path: Path, stamp: Mapping[str, str]) -> bool:
    """Load vision weights that a stopped start saved with the same settings.

    Args:
        model: A LLaVA; its weights are replaced.
        path: The file.
        stamp: The settings.

    Returns:
        Whether there was such a file.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            if file.metadata() != dict(stamp):
                return False
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no dict
    except SafetensorError:  # damaged by a power cut: the stage is repeated
        return False
    import torch

    with torch.no_grad():
        for name, value in vision_weights(model).items():
            value.copy_(found[name])
    return True
