"""What lies in the runs folder: read only, with bounds, and nothing outside it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.explorer.files.episode_index import EpisodeIndex
from llmctl.explorer.files.file_cache import FileCache
from llmctl.explorer.files.pair_index import PairIndex
from llmctl.explorer.files.readers import read_object, read_recipe

_DEPTH = 4  # folders below the runs folder that are looked into
_MOST = 5_000  # folders that are looked at
_FRESH = 2.0  # seconds for which models and adapters are offered from an earlier listing
_RECIPES = 5_000  # recipes that are kept
_PAIRS = 4_000_000  # pairs whose places are kept, 8 bytes each
_EPISODES = 400_000  # episodes whose flags are kept, some 300 bytes each
_LONGEST = 1_000  # characters of a model's name
_SKIP = {"journal", "figures", "data", "checkpoints", "jobs", "node_modules"}


class RunNotFound(UserError):
    """A run, or a file of it, is not in the runs folder (any more), or cannot be read."""


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn every failure of the disk inside the block into `RunNotFound`.

    A run can vanish at any moment: before it is asked for, while it is read, or between the two.

    Args:
        name: The run, as the page names it.

    Raises:
        RunNotFound: The disk failed, or a file was removed.
    """
    try:
        yield
    except OSError as error:
        raise _not_found(name, error) from error
    except UserError as error:
        if isinstance(error.__cause__, OSError):  # the same failure, as the reader of the file words it
            raise _not_found(name, error.__cause__) from error
        raise


def _not_found(name: str, error: OSError) -> RunNotFound:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return RunNotFound(f"{name} is no longer in the runs folder: reload the page and choose another run")
    reason = error.strerror or type(error).__name__
    return RunNotFound(f"{name} cannot be read ({reason}): check its files, then reload the page")


@dataclass(frozen=True)
class FoundFolder:
    """A run, model or adapter below the runs folder."""

    name: str  # relative, with forward slashes
    kind: str  # "run", "model" or "adapter"


class Library:
    """The runs folder.

    Args:
        root: The folder; it need not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._listing: tuple[float, list[FoundFolder]] = (-1e9, [])
        self._recipes: FileCache[dict[str, Any]] = FileCache(read_recipe, lambda _: 1, _RECIPES)
        self._pairs = FileCache(lambda path: PairIndex(path), lambda index: index.total, _PAIRS)
        self._episodes = FileCache(EpisodeIndex, lambda index: len(index.evaluations), _EPISODES)

    def inside(self, name: str) -> Path:
        """A place in the runs folder, links resolved.

        Raises:
            RunNotFound: The name leads out of it, or there is nothing.
        """
        # One answer for both, so that nobody learns what lies outside.
        refusal = RunNotFound(f"{name!r} is not in the runs folder: choose a run from the list")
        if "\0" in name or name.startswith(("/", "~")) or ".." in Path(name).parts:
            raise refusal
        try:
            path = (self.root / name).resolve()
            is_here = path.is_relative_to(self.root) and path.exists()
        except (OSError, RuntimeError) as error:  # unreadable, too long, or links in a circle
            raise refusal from error
        if not is_here:
            raise refusal
        return path

    def model_folders(self) -> list[str]:
        """Names of whole models that runs have left."""
        return [found.name for found in self._list() if found.kind == "model"]

    def adapter_folders(self) -> list[str]:
        """Names of PEFT adapters that runs have left."""
        return [found.name for found in self._list() if found.kind == "adapter"]

    def runs(self) -> list[dict[str, Any]]:
        """Every run: name, kind of its recipe, model, whether it is finished, when it last changed."""
        entries = []
        # Always a fresh look: a run that has just been made is in the list.
        for found in self._list(fresh_s=0.0):
            if found.kind != "run":
                continue
            try:
                entries.append(self._entry(found.name))
            except (UserError, OSError):  # removed since it was listed, or its recipe cannot be read
                continue
        return sorted(entries, key=lambda entry: str(entry["name"]))

    def _entry(self, name: str) -> dict[str, Any]:
        folder = self.inside(name)
        recipe = self.recipe(name)
        metrics = folder / "metrics.json"
        is_done = metrics.is_file()
        return {
            "name": name,
            "kind": str(recipe.get("kind", ""))[:100],
            "model": self.offer_name(recipe.get("model")),
            "is_done": is_done,
            "changed": (metrics if is_done else folder).stat().st_mtime,
        }

    def offer_name(self, path: Any) -> str:
        """What the page calls a model or an adapter that a recipe names.

        A folder of the runs folder is offered as `runs:name`; of any other folder the last two names are
        told, and not where it lies.
        """
        if not isinstance(path, str | Path) or not str(path) or len(str(path)) > _LONGEST:
            return ""
        place = Path(path)
        if place.is_dir() and place.resolve().is_relative_to(self.root):
            return f"runs:{place.resolve().relative_to(self.root).as_posix()}"
        return "/".join(place.parts[-2:]) if place.is_absolute() else str(path)

    def recipe(self, name: str) -> Mapping[str, Any]:
        """The recipe of a run.

        Raises:
            UserError: There is none, or it leads out of the runs folder.
        """
        with reading(name):
            return self._recipes.get(self._file(name, "recipe.yaml"))

    def metrics(self, name: str) -> dict[str, Any]:
        """What `metrics.json` of a finished run holds.

        Raises:
            UserError: The run is not finished, or the file leads out of the runs folder.
        """
        with reading(name):
            return read_object(self._file(name, "metrics.json"))

    def episodes(self, name: str, stage: int) -> EpisodeIndex:
        """The episodes of one evaluation of a RISE run, indexed once for as long as the file stays as it is.

        Raises:
            UserError: The run has no such evaluation, or a line of it cannot be read.
        """
        with reading(name):
            return self._episodes.get(self._file(name, f"journal/evaluate-{stage}.jsonl"))

    def journals(self, name: str) -> list[str]:
        """The names of the journals of a run, without their ending.

        Raises:
            RunNotFound: The run is gone, or cannot be read.
        """
        folder = self.inside(name)
        with reading(name):
            if not (folder / "journal").exists():
                return []
            return sorted(path.stem for path in (folder / "journal").iterdir() if path.suffix == ".jsonl")

    def pairs(self, name: str) -> PairIndex:
        """The pairs of a finished curve, indexed once for as long as the file stays as it is.

        Raises:
            RunNotFound: The run has no pairs, or is gone.
        """
        with reading(name):
            return self._pairs.get(self._file(name, "pairs.jsonl"))

    def _file(self, name: str, file: str) -> Path:
        folder = self.inside(name)
        with reading(name):
            path = (folder / file).resolve()
            if not path.is_relative_to(self.root):
                raise UserError(f"{file} of {name} leads out of the runs folder: it is not shown")
            if not path.is_file():
                raise RunNotFound(f"{name} has no {file}: choose a finished run, or run it again")
            return path

    def _list(self, fresh_s: float = _FRESH) -> list[FoundFolder]:
        when, listing = self._listing
        if (began := time.monotonic()) - when > fresh_s:
            listing = list(self._walk())
            self._listing = (began, listing)
        return listing

    def _walk(self) -> Iterator[FoundFolder]:
        seen = 0
        for place, folders, files in os.walk(self.root):  # does not follow links
            seen += 1
            name = Path(place).relative_to(self.root).as_posix()
            depth = 0 if name == "." else name.count("/") + 1
            is_run = "manifest.json" in files and "recipe.yaml" in files
            folders[:] = sorted(
                folder
                for folder in folders
                if folder not in _SKIP and not folder.startswith((".", "checkpoint-"))
            )
            if depth >= _DEPTH or seen > _MOST:
                folders.clear()
            if name == ".":
                continue
            if is_run:
                yield FoundFolder(name, "run")
            if "adapter_config.json" in files and "adapter_model.safetensors" in files:
                yield FoundFolder(name, "adapter")
            elif "config.json" in files and any(file.endswith(".safetensors") for file in files):
                yield FoundFolder(name, "model")
