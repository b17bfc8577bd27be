"""What the user allowed, as a value: a process hands it to the workers that it starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llmctl.trust.code import FLAG, allow_code, is_code_allowed
from llmctl.trust.keys import allow_host, forget_hosts, named_hosts


@dataclass(frozen=True)
class Permissions:
    """What this process may do with the files of others."""

    code: bool = False
    """Whether code that a recipe names may run."""
    hosts: frozenset[str] = frozenset()
    """Servers that the user named, which may get the key."""

    def adopt(self) -> None:
        """Make these the permissions of this process."""
        allow_code(self.code)
        forget_hosts()
        for host in self.hosts:
            allow_host(host)


def permissions() -> Permissions:
    """The permissions of this process."""
    return Permissions(is_code_allowed(), named_hosts())


def child_arguments() -> list[str]:
    """What to add to the command of a child process of llmctl, so that it may do what this one may."""
    return [FLAG] if is_code_allowed() else []


def take_arguments(arguments: Sequence[str]) -> list[str]:
    """Adopt what a parent process allowed on the command line; gives the other arguments."""
    if FLAG in arguments:
        allow_code()
    return [argument for argument in arguments if argument != FLAG]
