"""The checks of `llmctl doctor`. None of them raises: a broken package is a finding like any other."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

DEFAULT_MODEL = "smollm2-135m"

# Optional package -> what it is needed for. Hints name the package and not an extra of llmctl, because on the
# package index the name llmctl belongs to another project.
OPTIONAL: dict[str, str] = {
    "vllm": "fast sampling on a GPU",
    "openai": "sampling from an OpenAI-compatible server",
    "reasoning-gym": "tasks that need no network",
    "bitsandbytes": "QLoRA and quantized models",
    "ray": "evaluation jobs on several machines",
    "lm_eval": "tasks of lm-eval on any sampler",
}
REQUIRED = ("torch", "transformers", "accelerate", "peft", "trl", "datasets", "safetensors", "gguf")


class Status(StrEnum):
    """The outcome of a check."""

    OK = "ok"
    INFO = "-"
    OPTIONAL = "optional"  # not installed, and not needed
    MISSING = "MISSING"
    BROKEN = "BROKEN"


@dataclass(frozen=True)
class Check:
    """One finding."""

    name: str
    status: Status
    found: str
    remedy: str = ""  # what to do; empty if there is nothing to do

    def to_dict(self) -> dict[str, str]:
        """Plain values; the status is its name in lower case."""
        return {
            "name": self.name,
            "status": self.status.name.lower(),
            "found": self.found,
            "remedy": self.remedy,
        }


def check_all() -> list[Check]:
    """All checks, in the order in which they are shown."""
    packages = [check_required(name) for name in REQUIRED] + [check_optional(name) for name in OPTIONAL]
    return [
        check_python(),
        check_machine(),
        *packages,
        check_torchvision(),
        check_gpu(),
        check_engine(),
        check_model(),
    ]


def check_python() -> Check:
    """The versions of Python and llmctl."""
    import llmctl

    return Check("python", Status.INFO, f"{platform.python_version()}, llmctl {llmctl.__version__}")


def check_machine() -> Check:
    """The processors that this process may use, and the memory."""
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity is not None else os.cpu_count()
    memory = _memory_gib()
    words = f", {memory:.0f} GiB of memory" if memory is not None else ""
    return Check("machine", Status.INFO, f"{platform.system()} {platform.machine()}, {cpus} CPUs{words}")


def check_required(name: str) -> Check:
    """A required package, and whether its version is one that llmctl works with."""
    version = _version(name)
    if version is None:
        return Check(name, Status.MISSING, "not installed", f"pip install '{name}{_wanted(name)}'")
    wanted = _wanted(name)
    if wanted and not _fits(version, wanted):
        return Check(
            name, Status.BROKEN, f"{version}, but {wanted} is needed", f"pip install '{name}{wanted}'"
        )
    return Check(name, Status.OK, version)


def check_optional(name: str) -> Check:
    """A package that only some features need."""
    version = _version(name)
    if version is None:
        return Check(name, Status.OPTIONAL, "not installed", f"pip install {name}, for {OPTIONAL[name]}")
    return Check(name, Status.OK, version)


def check_torchvision() -> Check:
    """Whether an installed torchvision can be imported: transformers fails on a broken one."""
    if importlib.util.find_spec("torchvision") is None:
        return Check("torchvision", Status.OK, "not installed, and not needed")
    _, error = attempt(lambda: importlib.import_module("torchvision"))
    if error is None:
        return Check("torchvision", Status.OK, _version("torchvision") or "installed")
    remedy = (
        "pip uninstall torchvision torchaudio torchcodec (built for another torch; transformers fails on it)"
    )
    return Check("torchvision", Status.BROKEN, f"cannot be imported ({error})", remedy)


def check_gpu() -> Check:
    """The CUDA devices that torch sees."""
    devices, error = attempt(_cuda_devices)
    if error is not None:
        return Check("gpu", Status.BROKEN, f"torch cannot be imported ({error})", "install torch again")
    return Check("gpu", Status.OK if devices else Status.INFO, ", ".join(devices or ()) or "no CUDA device")


def check_engine() -> Check:
    """The engine that "auto" selects, and why."""
    from llmctl.sampling.open import choose_engine

    choice, error = attempt(choose_engine)
    if choice is None:
        return Check(
            "engine", Status.BROKEN, f"no engine can be chosen ({error})", "repair what is broken above"
        )
    engine, reason = choice
    return Check("engine", Status.OK, f"auto selects {engine}: {reason}")


def check_model() -> Check:
    """Whether the default model is available offline."""

    def find() -> Any:
        from llmctl.models import list_models

        return next((model for model in list_models() if model.name == DEFAULT_MODEL), None)

    name = f"model {DEFAULT_MODEL}"
    model, error = attempt(find)
    if error is not None:
        return Check(name, Status.BROKEN, f"models cannot be listed ({error})", "repair what is broken above")
    if model is None or not model.is_here:
        return Check(name, Status.OPTIONAL, "not downloaded", f"llmctl models pull {DEFAULT_MODEL}")
    return Check(name, Status.OK, str(model.path) if model.path is not None else "available")


def attempt(action: Callable[[], Any]) -> tuple[Any, str | None]:
    """Run an action: its result and None, or None and the error in one line."""
    try:
        return action(), None
    except Exception as error:  # a package may fail in any way; each failure is a finding
        line = " ".join(str(error).split())
        return None, f"{type(error).__name__}: {line[:200]}"


def _cuda_devices() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [f"{device.name}, {device.total_memory / 2**30:.0f} GiB" for device in found]


def _version(name: str) -> str | None:
    from llmctl.runs.manifest import installed_version

    return installed_version(name)


def _wanted(name: str) -> str:
    """The versions of a package that llmctl requires; empty if llmctl is not installed."""
    try:
        lines = importlib.metadata.requires("llmctl") or []
    except importlib.metadata.PackageNotFoundError:
        return ""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return ""  # it comes with transformers, whose own check says what is wrong
    wanted = [Requirement(line) for line in lines]
    return next((str(each.specifier) for each in wanted if each.name == name and each.marker is None), "")


def _fits(version: str, wanted: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(wanted).contains(version, prereleases=True)


def _memory_gib() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return None  # this system does not tell
