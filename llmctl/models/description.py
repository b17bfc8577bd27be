"""What a model is, in numbers that go into manifests: architecture, size, context, fingerprint."""

from __future__ import annotations

import hashlib
import math
import struct
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.models.registry import resolve
from llmctl.trust.limits import parse_json


def describe(name: str | Path) -> dict[str, Any]:
    """Read a model's folder without loading its weights.

    Returns:
        architecture, parameters (count), layers, width, heads, vocabulary, context_length,
        has_chat_template, folder, fingerprint.

    Raises:
        UserError: No such model.
    """
    folder = resolve(name)
    config = _read(folder / "config.json")
    text = config.get("text_config", config)
    return {
        "architecture": (config.get("architectures") or ["unknown"])[0],
        "parameters": sum(math.prod(shape) for shape in _shapes(folder)),
        "layers": text.get("num_hidden_layers", text.get("n_layer")),
        "width": text.get("hidden_size", text.get("n_embd")),
        "heads": text.get("num_attention_heads", text.get("n_head")),
        "vocabulary": text.get("vocab_size"),
        "context_length": text.get("max_position_embeddings", text.get("n_positions")),
        "has_chat_template": _has_chat_template(folder),
        "folder": str(folder),
        "fingerprint": fingerprint(folder),
    }


def reads_images(name: str | Path) -> bool:
    """Whether a model takes pictures beside text, as its configuration says.

    Raises:
        UserError: No such model.
    """
    return isinstance(_read(resolve(name) / "config.json").get("vision_config"), dict)


def fingerprints(model: str | Path | None, adapter: Path | None = None) -> dict[str, str]:
    """What a run pins, so that it never goes on with other weights: of a model and of an adapter, if any.

    Raises:
        UserError: No such model.
    """
    found = {} if model is None else {"model_fingerprint": fingerprint(resolve(model))}
    if adapter is not None:
        found["adapter_fingerprint"] = fingerprint(adapter, "adapter_config.json")
    return found


def check_adapter(adapter: Path | None, name: str = "adapter") -> None:
    """Refuse an adapter that is not there, before any work; None is none.

    Raises:
        UserError: The folder holds no saved PEFT adapter.
    """
    if adapter is not None and not (adapter / "adapter_config.json").is_file():
        raise UserError(
            f"{name} is {adapter}, which has no adapter_config.json: give the folder of a saved PEFT adapter"
        )


def fingerprint(folder: Path, config: str = "config.json") -> str:
    """A hash that changes with any weight file: config, safetensors headers, and samples of the data.

    Hashing 16 GB would take a minute; a megabyte at the start, middle and end of every file tells
    fine-tuned weights apart and takes milliseconds.
    """
    digest = hashlib.sha256((folder / config).read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as file:
            for start in sorted({0, size // 2, max(0, size - 2**20)}):
                file.seek(start)
                digest.update(file.read(2**20))
    return digest.hexdigest()[:16]


def _shapes(folder: Path) -> list[list[int]]:
    shapes = []
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            try:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > path.stat().st_size:
                    raise ValueError("its header is longer than the file")
                header = parse_json(file.read(length))
            except (struct.error, ValueError) as error:
                raise UserError(f"{path} is not a safetensors file: fetch or save the model again") from error
        shapes += [entry["shape"] for key, entry in header.items() if key != "__metadata__"]
    return shapes


def _has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file():
        return True
    path = folder / "tokenizer_config.json"
    return path.is_file() and "chat_template" in _read(path)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): fetch or save the model again") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path} holds a {type(content).__name__}, but an object is needed: save the model again"
        )
    return content
