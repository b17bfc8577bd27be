"""A run is a folder: recipe, manifest, journals, metrics, report, figures.

Killed at any instant and started again with the same command, a run does only what its journals lack
and ends with the same files as an uninterrupted run. `manifest.json` lists what llmctl made in the folder;
nothing else in the folder is ever changed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, ClassVar

from pydantic import BaseModel, ValidationError

from llmctl.errors import UserError
from llmctl.runs.files import (
    TEMPORARY_SUFFIX,
    disk_errors_as_user_errors,
    make_folder,
    read_json,
    to_json,
    write_bytes,
    write_json,
    write_text,
)
from llmctl.runs.journal import Journal
from llmctl.runs.lock import LOCK_NAME, FolderLock
from llmctl.runs.manifest import describe_environment
from llmctl.runs.recipe import differences, dump_recipe, read_recipe_file, recipe_content
from llmctl.trust.names import inside, refuse_link, refuse_links_below

logger = logging.getLogger(__name__)

RECIPE, MANIFEST, METRICS = "recipe.yaml", "manifest.json", "metrics.json"


class Run:
    """A run's folder, open for work and locked against a second process; made by `Run.open`."""

    was_opened: ClassVar[bool] = False
    """Whether this process has opened a run, so that what it has finished is kept."""

    def __init__(self, folder: Path, lock: FolderLock, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self._lock = lock
        self._manifest = manifest
        self._journals: dict[str, Journal] = {}

    @classmethod
    def open(cls, folder: str | Path, recipe: BaseModel, command: str, fresh: bool = False) -> Run:
        """Start a run, or continue one.

        Args:
            folder: The folder of the run; it is made if it is missing.
            recipe: Everything that the results depend on. Its class may name `free_keys`, which may change
                between starts.
            command: The command that makes the run, e.g. "rise run"; for the manifest.
            fresh: Delete what llmctl made in the folder and start over; other files stay.

        Returns:
            The run; close it, or use it as a context manager.

        Raises:
            UserError: The folder is in use, holds something that is not a run, or holds a run of another
                recipe (the message names the keys that differ); or the disk refused.
        """
        folder = Path(folder)
        _refuse_foreign(folder)
        make_folder(folder)
        lock = FolderLock(folder)
        try:
            run = cls(folder, lock, _read_manifest(folder))
            run._start(recipe, command, fresh)
            Run.was_opened = True
        except BaseException:
            lock.release()
            raise
        return run

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The content of `manifest.json`."""
        return self._manifest

    def journal(self, name: str) -> Journal:
        """The journal `journal/<name>.jsonl`, opened once and closed with the run.

        Raises:
            UserError: A line of the journal is broken.
        """
        if name not in self._journals:
            self._journals[name] = Journal(self.path(f"journal/{name}.jsonl"))
        return self._journals[name]

    def path(self, name: str) -> Path:
        """The path for a file or a folder that the caller makes in the run.

        The name is listed in the manifest before it is made, so that `fresh` can delete it and all below it.

        Args:
            name: Relative path with forward slashes, e.g. "adapter" or "figures/curve.png".

        Raises:
            UserError: The name belongs to something that llmctl did not make, is not a name inside the
                folder (names of models and arms become names of files), or leads out of it through a link.
        """
        self.claim(name)
        path = self.folder / PurePosixPath(name)
        inside(self.folder, name)
        refuse_link(path)
        make_folder(path.parent)
        return path

    def claim(self, *names: str) -> None:
        """List several names in the manifest in one write, for callers that make several files.

        Raises:
            UserError: One of the names belongs to something that llmctl did not make.
        """
        new = [relative for relative in map(_inside, names) if not self._has_made(relative)]
        for relative in new:
            path = self.folder / relative
            if path.exists() or path.is_symlink():
                raise UserError(
                    f"{path} was not made by llmctl, and a file of that name is needed: move it away"
                )
        if new:
            self._manifest["made"] = sorted({*self._manifest["made"], *(one.as_posix() for one in new)})
            self._write_manifest()

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file of the run atomically; see `path`."""
        path = self.path(name)
        write_text(path, text)
        return path

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write a file of the run atomically; see `path`."""
        path = self.path(name)
        write_bytes(path, data)
        return path

    def write_json(self, name: str, value: Any) -> Path:
        """Write a JSON file of the run atomically; see `path` and `files.to_json`."""
        path = self.path(name)
        write_json(path, value)
        return path

    def write_metrics(self, metrics: Mapping[str, Any]) -> Path:
        """Write `metrics.json`; the values may be `Estimate` objects."""
        return self.write_json(METRICS, metrics)

    def note(self, **entries: Any) -> None:
        """Add entries to the manifest under "notes"; they replace entries of the same name."""
        self._note({**self._manifest["notes"], **_plain(entries)})

    def pin(self, **entries: Any) -> None:
        """Note entries that must not change while the run exists, e.g. the fingerprint of a model.

        Raises:
            UserError: An entry differs from that of an earlier start; results would be mixed.
        """
        new, old = _plain(entries), self._manifest["notes"]
        changed = differences(
            {key: old[key] for key in new if key in old}, {k: new[k] for k in new if k in old}
        )
        if changed:
            raise UserError(
                f"{self.folder} was started with other inputs: {', '.join(changed)}; "
                "choose another --run, or start over with --fresh"
            )
        self._note({**old, **new})

    def close(self) -> None:
        """Close the journals and release the folder; calling it twice is harmless."""
        for journal in self._journals.values():
            journal.close()
        self._lock.release()

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, recipe: BaseModel, command: str, fresh: bool) -> None:
        """Write the recipe and the manifest, or refuse."""
        _remove_temporaries(self.folder)  # first, since one that is a link would be refused
        if fresh or self._manifest.get("is_emptying"):
            self._empty()
        with disk_errors_as_user_errors(f"read {self.folder}"):
            for name in self._manifest.get("made", ()):
                refuse_links_below(self.folder, name)
        started_with = self._recipe_on_disk()
        if started_with is not None:
            free = getattr(type(recipe), "free_keys", ())
            if changed := differences(_completed(recipe, started_with), recipe_content(recipe), free):
                raise UserError(
                    f"{self.folder} was made with another recipe: {', '.join(changed)}; "
                    "choose another --run, or start over with --fresh"
                )
        self._update_manifest(recipe, command)
        text = dump_recipe(recipe)
        path = self.path(RECIPE)
        if started_with is None or path.read_text(encoding="utf-8") != text:
            write_text(path, text)

    def _recipe_on_disk(self) -> dict[str, Any] | None:
        """The recipe that the run was started with; None if there is no run yet."""
        path = self.folder / RECIPE
        if self._has_made(PurePosixPath(RECIPE)) and path.exists():
            return read_recipe_file(path, is_link_allowed=False)
        work = [name for name in self._manifest.get("made", ()) if name != RECIPE]
        if any((self.folder / name).exists() for name in work):
            raise UserError(
                f"{path} is missing, but the run has begun: put it back, or start over with --fresh"
            )
        return None

    def _update_manifest(self, recipe: BaseModel, command: str) -> None:
        """Fill in a new manifest; in an old one, record the changes of the environment."""
        before = dict(self._manifest)
        environment = describe_environment()
        if "commands" not in self._manifest:
            seed = recipe.model_dump(mode="json").get("seed")
            self._manifest = {
                "commands": [],
                **environment,
                "seed": seed,
                "changes": [],
                "notes": {},
                "made": [],
            }
        old = {key: self._manifest.get(key) for key in environment}
        if changed := differences(old, environment):
            logger.warning("%s continues in another environment: %s", self.folder, ", ".join(changed))
            self._manifest["changes"] = [*self._manifest["changes"], *changed]
            self._manifest.update(environment)
        if command not in self._manifest["commands"]:
            self._manifest["commands"] = [*self._manifest["commands"], command]
        if self._manifest != before:
            self._write_manifest()

    def _empty(self) -> None:
        """Delete what llmctl made; if this is killed, the next start completes it."""
        made = self._manifest.get("made", [])
        if self._manifest:
            self._manifest["is_emptying"] = True
            self._write_manifest()
        for name in made:
            with disk_errors_as_user_errors(f"remove {self.folder / name}"):
                _remove(inside(self.folder, name))
        for parent in {PurePosixPath(name).parent for name in made} - {PurePosixPath(".")}:
            with contextlib.suppress(OSError):  # not empty: the user put something into it
                (self.folder / parent).rmdir()
        self._manifest = {}  # on the disk, the old one stays until the new one replaces it

    def _has_made(self, relative: PurePosixPath) -> bool:
        made = self._manifest.get("made", [])
        return any(str(place) in made for place in (relative, *relative.parents))

    def _note(self, notes: dict[str, Any]) -> None:
        if notes != self._manifest["notes"]:
            self._manifest["notes"] = notes
            self._write_manifest()

    def _write_manifest(self) -> None:
        write_json(self.folder / MANIFEST, self._manifest)


def _completed(recipe: BaseModel, stored: dict[str, Any]) -> dict[str, Any]:
    """A stored recipe with the defaults of keys that are newer than it; as it is where it does not fit."""
    kind = {key: stored[key] for key in ("kind",) if key in stored}
    try:
        filled = type(recipe).model_validate({key: stored[key] for key in stored if key not in kind})
    except ValidationError:
        return stored
    return recipe_content(filled) | kind


def _inside(name: str) -> PurePosixPath:
    """A name as a path below the folder; a caller that passes any other name has a defect."""
    relative = PurePosixPath(name)
    if (
        relative.is_absolute()
        or ".." in relative.parts
        or not relative.parts
        or relative.parts[0] in (LOCK_NAME, MANIFEST)
        or "\0" in name
    ):
        raise UserError(
            f"{name!r} is not a name inside a run folder: models, tasks and arms give their names to files; "
            "rename it"
        )
    return relative


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder that holds something else, before a lock file is made in it."""
    with disk_errors_as_user_errors(f"use {folder} as a run folder"):
        if not folder.exists():
            return
        names = {path.name for path in folder.iterdir()}
    left_by_a_crash = {LOCK_NAME, f".{MANIFEST}{TEMPORARY_SUFFIX}"}
    if MANIFEST in names or names <= left_by_a_crash:
        return
    raise UserError(
        f"{folder} is not empty and is not a run of llmctl: choose an empty or a new folder for --run"
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest, and check all that it says of the folder; empty if there is none.

    Raises:
        UserError: It is not a manifest of llmctl, or a name in it is not one of a thing inside the folder.
    """
    path = folder / MANIFEST
    if not path.exists() and not path.is_symlink():
        return {}
    manifest = read_json(path)
    if not isinstance(manifest, dict) or "llmctl" not in manifest or not _is_well_formed(manifest):
        raise UserError(f"{path} is not a manifest of llmctl: choose another folder for --run")
    for name in manifest["made"]:
        _inside(name)
        inside(folder, name)
    if "commands" in manifest:
        manifest.setdefault("notes", {})
        manifest.setdefault("changes", [])
    return manifest


def _is_well_formed(manifest: Mapping[str, Any]) -> bool:
    """Whether the entries that a run works with are of their types."""
    made, notes = manifest.get("made"), manifest.get("notes", {})
    lists = [manifest.get(name, []) for name in ("commands", "changes")]
    return (
        isinstance(made, list)
        and all(isinstance(name, str) for name in made)
        and isinstance(notes, dict)
        and all(isinstance(found, list) for found in lists)
    )


def _remove_temporaries(folder: Path) -> None:
    """Delete the temporary files of writes that were killed; of a link, only the link."""
    with disk_errors_as_user_errors(f"clean up {folder}"):
        inner = [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]
        for place in (folder, *inner):
            for path in place.glob(f".*{TEMPORARY_SUFFIX}"):
                path.unlink()


def _remove(path: Path) -> None:
    """Delete a file or a folder; of a symbolic link, only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _plain(entries: Mapping[str, Any]) -> dict[str, Any]:
    """The entries as JSON returns them, so that new entries compare with old ones."""
    plain: dict[str, Any] = json.loads(to_json(entries))
    return plain
