"""Extension points: a registry maps a name to an object that is imported when it is first asked for.

A package of yours can add an entry by an entry point of the registry's group, for example

    [project.entry-points."llmctl.tasks"]
    my-task = "my_package.tasks:MyTask"

Installing such a package is what trusts its code; nothing of it is imported before its name is used.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from llmctl.errors import UserError

logger = logging.getLogger(__name__)
T = TypeVar("T")


class Registry(Generic[T]):
    """Named entries of one kind: built in, added by other packages, or added by this process.

    Args:
        kind: What an entry is, in the singular, for messages: "search method".
        group: The entry point group of other packages: "llmctl.methods".
        builtin: "package.module:ATTRIBUTE" by name, in the order in which they are listed.
    """

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str]) -> None:
        self.kind, self.group = kind, group
        self._builtin = dict(builtin)
        self._loaded: dict[str, T] = {}
        self._found: dict[str, EntryPoint] | None = None

    def __iter__(self) -> Iterator[str]:
        """All names: built-in ones first, in their order. Nothing is imported."""
        yield from self._builtin
        yield from (name for name in self._loaded if name not in self._builtin)
        yield from (name for name in self._others() if name not in self._builtin and name not in self._loaded)

    def __contains__(self, name: object) -> bool:
        return name in self._builtin or name in self._loaded or name in self._others()

    def __getitem__(self, name: str) -> T:
        """The entry of that name, imported where it is not yet.

        Raises:
            UserError: There is no such entry, or it cannot be imported.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(self.check(name))
        return self._loaded[name]

    def check(self, name: str) -> str:
        """The name itself, if there is such an entry. Nothing is imported.

        Raises:
            UserError: There is no such entry; the message names the nearest one and all of them.
        """
        if name in self:
            return name
        known = list(self)
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.0)
        hint = f"; the nearest is {near[0]!r}" if near else ""
        raise UserError(f"no {self.kind} {name!r}{hint}: known are {', '.join(known)}")

    def add(self, name: str, entry: T) -> None:
        """Add an entry for this process.

        Raises:
            UserError: The name is taken.
        """
        if name in self:
            raise UserError(f"there is a {self.kind} {name!r} already: choose another name")
        self._loaded[name] = entry

    def _others(self) -> dict[str, EntryPoint]:
        """Entry points of installed packages; read once per process."""
        if self._found is None:
            self._found = {}
            for point in entry_points(group=self.group):
                if point.name in self._builtin or point.name in self._found:
                    logger.warning("%s: the %s %r is there already", point.value, self.kind, point.name)
                    continue
                self._found[point.name] = point
        return self._found

    def _load(self, name: str) -> T:
        if name in self._builtin:
            module, _, attribute = self._builtin[name].partition(":")
            entry: T = getattr(import_module(module), attribute)
            return entry
        point = self._others()[name]
        try:
            loaded: T = point.load()
        except (ImportError, AttributeError) as error:
            package = point.dist.name if point.dist is not None else point.value
            raise UserError(
                f"the {self.kind} {name!r} of the package {package} cannot be imported ({error}): "
                f"reinstall {package}, or remove it"
            ) from error
        return loaded
