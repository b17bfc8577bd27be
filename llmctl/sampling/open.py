"""Open a sampler by name: which engine, and why."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.models.description import reads_images
from llmctl.sampling.types import Sampler

ENGINES = ("auto", "transformers", "vllm", "server")
IMAGE_TEXT = "image-text"  # what the engine transformers is for a model that reads pictures
# Where the classes live; imported when asked for.
_CLASSES = {
    "transformers": ("llmctl.sampling.transformers_engine", "TransformersSampler"),
    IMAGE_TEXT: ("llmctl.sampling.image_text_engine", "ImageTextSampler"),
    "vllm": ("llmctl.sampling.vllm_engine", "VllmSampler"),
    "server": ("llmctl.sampling.server_engine", "ServerSampler"),
}


def choose_engine(engine: str = "auto") -> tuple[str, str]:
    """The engine that `engine` stands for, and the reason in words.

    Returns:
        A pair (engine, reason); for a name other than "auto" the reason is that it was asked for.

    Raises:
        UserError: No such engine.
    """
    if engine not in ENGINES:
        raise UserError(f"engine is {engine!r}, but it must be one of {', '.join(ENGINES)}")
    if engine != "auto":
        return engine, "asked for by name"
    if importlib.util.find_spec("vllm") is None:
        return "transformers", "vllm is not installed"
    import torch

    if not torch.cuda.is_available():
        return "transformers", "vllm is installed, but there is no CUDA device"
    return "vllm", "vllm is installed and a CUDA device is there"


def open_sampler(
    model: str, *, engine: str = "auto", adapter: str | Path | None = None, **options: Any
) -> Sampler:
    """Open a sampler on a model.

    Args:
        model: An alias (`llmctl models list`), a folder or a Hub name; for engine "server" the name that
            the server knows the model by.
        engine: "auto" (vLLM where it is installed and a GPU is there, else transformers), "transformers",
            "vllm" or "server" (any OpenAI-compatible server; give `base_url`).
        adapter: A folder with a PEFT adapter to sample with.
        **options: Passed to the engine: see `TransformersSampler`, `VllmSampler` and `ServerSampler`.

    Returns:
        The sampler; close it, or use it as a context manager, to free its memory.

    Raises:
        UserError: No such engine, model, adapter or option, or the engine's package is missing.
    """
    name, _ = choose_engine(engine)
    check_options(name, options)
    if name == "transformers" and reads_images(model):
        name = IMAGE_TEXT
    sampler: Sampler = _class(name)(model, adapter=str(adapter) if adapter is not None else None, **options)
    return sampler


def check_options(engine: str, options: Mapping[str, Any]) -> None:
    """Refuse options that an engine does not know.

    Args:
        engine: As `choose_engine` gives it.
        options: By name.

    Raises:
        UserError: An unknown option; names the known ones.
    """
    known = [
        name for name in inspect.signature(_class(engine)).parameters if name not in ("model", "adapter")
    ]
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UserError(f"engine {engine} has no option {option!r}: {hint}it takes {', '.join(known)}")


def _class(engine: str) -> Callable[..., Sampler]:
    module, attribute = _CLASSES[engine]
    make: Callable[..., Sampler] = getattr(importlib.import_module(module), attribute)
    return make
