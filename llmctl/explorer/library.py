"""What lies in the runs folder: read only, and nothing outside it."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.runs.files import disk_error, read_json

_DEPTH = 4  # folders below the runs folder that are looked into
_MOST = 5_000  # folders that are looked at
_FRESH = 2.0  # seconds that a listing is good for
_SKIP = {"journal", "figures", "data", "checkpoints", "jobs", "node_modules"}
_CHUNK = 2**24  # bytes read at a time
_BEGINS = re.compile(rb'\{"verdict": "[a-z]{1,20}", "k": (null|[0-9]{1,6}),')


@dataclass(frozen=True)
class Found:
    """A folder of interest below the runs folder."""

    name: str  # relative, with forward slashes
    kind: str  # "run", "model" or "adapter"


class Library:
    """The runs folder.

    Args:
        root: The folder; it need not exist.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._listing: tuple[float, list[Found]] = (-1e9, [])
        self._pairs: dict[str, PairIndex] = {}

    def inside(self, name: str) -> Path:
        """A place in the runs folder, links resolved.

        Raises:
            UserError: The name leads out of it, or there is nothing.
        """
        refusal = UserError(f"{name!r} is not in the runs folder: choose a run of the list")
        if "\0" in name or name.startswith(("/", "~")) or ".." in Path(name).parts:
            raise refusal
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root) or not path.exists():
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
        for found in self._list():
            if found.kind != "run":
                continue
            try:
                entries.append(self._entry(found.name))
            except (UserError, OSError):  # removed since it was listed, or no recipe that can be read
                continue
        return sorted(entries, key=lambda entry: str(entry["name"]))

    def _entry(self, name: str) -> dict[str, Any]:
        folder = self.inside(name)
        recipe = self.recipe(name)
        metrics = folder / "metrics.json"
        is_done = metrics.is_file()
        return {
            "name": name,
            "kind": str(recipe.get("kind", "")),
            "model": self.offer_name(recipe.get("model")),
            "is_done": is_done,
            "changed": (metrics if is_done else folder).stat().st_mtime,
        }

    def offer_name(self, path: Any) -> str:
        """What the page calls a model or an adapter that a recipe names.

        A folder of the runs folder is offered as `runs:name`; of any other folder the last two names are
        told, and not where it lies.
        """
        if not path:
            return ""
        place = Path(str(path))
        if place.is_dir() and place.resolve().is_relative_to(self.root):
            return f"runs:{place.resolve().relative_to(self.root).as_posix()}"
        return "/".join(place.parts[-2:]) if place.is_absolute() else str(path)

    def recipe(self, name: str) -> Mapping[str, Any]:
        """The recipe of a run.

        Raises:
            UserError: There is none, or it leads out of the runs folder.
        """
        from llmctl.runs.recipe import read_recipe_file

        return read_recipe_file(self._file(name, "recipe.yaml"))

    def metrics(self, name: str) -> dict[str, Any]:
        """What `metrics.json` of a finished run holds.

        Raises:
            UserError: The run is not finished, or the file leads out of the runs folder.
        """
        content = read_json(self._file(name, "metrics.json"))
        if not isinstance(content, dict):
            raise UserError(f"metrics.json of {name} is not an object: run it again")
        return content

    def journal(self, name: str, journal: str) -> Iterator[dict[str, Any]]:
        """The lines of a journal.

        Raises:
            UserError: There is none, or it leads out of the runs folder.
        """
        from llmctl.runs import read_journal

        return read_journal(self._file(name, f"journal/{journal}.jsonl"))

    def pairs(self, name: str) -> PairIndex:
        """The pairs of a finished curve, indexed once for as long as the file stays as it is.

        Raises:
            UserError: The run has no pairs.
        """
        path = self._file(name, "pairs.jsonl")
        index = self._pairs.get(name)
        if index is None or index.is_old():
            if len(self._pairs) >= 8:
                self._pairs.pop(next(iter(self._pairs)))
            index = self._pairs[name] = PairIndex(path)
        return index

    def _file(self, name: str, file: str) -> Path:
        folder = self.inside(name)
        path = (folder / file).resolve()
        if not path.is_relative_to(self.root):
            raise UserError(f"{file} of {name} leads out of the runs folder: it is not shown")
        if not path.is_file():
            raise UserError(f"{name} has no {file}: is the run finished?")
        return path

    def _list(self) -> list[Found]:
        when, listing = self._listing
        if time.monotonic() - when > _FRESH:
            listing = list(self._walk())
            self._listing = (time.monotonic(), listing)
        return listing

    def _walk(self) -> Iterator[Found]:
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
                yield Found(name, "run")
            if "adapter_config.json" in files and "adapter_model.safetensors" in files:
                yield Found(name, "adapter")
            elif "config.json" in files and any(file.endswith(".safetensors") for file in files):
                yield Found(name, "model")


class PairIndex:
    """Where each pair of a curve lies in its file, by the k that reached it.

    A file is read through once, 100,000 pairs in a fraction of a second; a page of pairs is then read by
    offset.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp = self._now()
        self._offsets: dict[int | None, list[int]] = {}
        self.total = 0
        self._read()

    def is_old(self) -> bool:
        """Whether the file has changed since."""
        return self._stamp != self._now()

    @property
    def counts(self) -> dict[int | None, int]:
        """Pairs by the k that reached them; None holds those that were not reached."""
        return {k: len(offsets) for k, offsets in self._offsets.items()}

    def page(self, k: int | None, offset: int, limit: int) -> list[dict[str, Any]]:
        """Pairs that exactly k tokens reached (None: not reached), in the order of the file."""
        wanted = self._offsets.get(k, [])[offset : offset + limit]
        with self._path.open("rb") as file:
            found = []
            for place in wanted:
                file.seek(place)
                found.append(json.loads(file.readline()))
        return found

    def _now(self) -> tuple[int, int]:
        stat = self._path.stat()
        return stat.st_mtime_ns, stat.st_size

    def _read(self) -> None:
        place = 0
        try:
            with self._path.open("rb", buffering=_CHUNK) as file:
                for number, line in enumerate(file, 1):
                    # As llmctl writes it, k stands at the start: parsing the rest would take seconds.
                    k = (
                        _short_k(begins[1])
                        if (begins := _BEGINS.match(line))
                        else self._parse_k(number, line)
                    )
                    self._offsets.setdefault(k, []).append(place)
                    place += len(line)
                    self.total = number
        except OSError as error:
            raise disk_error(error, f"read {self._path.name}") from error

    def _parse_k(self, number: int, line: bytes) -> int | None:
        try:
            k: int | None = json.loads(line)["k"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"line {number} of {self._path.name} is no pair: run it again") from error
        return k


def _short_k(text: bytes) -> int | None:
    return None if text == b"null" else int(text)
