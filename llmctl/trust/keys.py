"""The user's key goes only to servers that the user named: on the command line, or in a configuration file.

A recipe or job may name a server, and is asked without a key until the user has named its host as well. Keys
come from the environment, and are never read from a recipe or written to a file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llmctl.errors import UserError

KEY = "OPENAI_API_KEY"
_SECRET = ("api_key", "password", "token", "secret", "authorization")
_named: set[str] = set()


def allow_host(address: str) -> None:
    """Note that the user named a server in person, so that it may be sent the key.

    Args:
        address: A URL, or a host with or without a port.

    Raises:
        UserError: There is no host in it.
    """
    _named.add(host_of(address))


def key_for(address: str) -> str | None:
    """The key for a server: the environment's, where the user named the server's host; else None.

    Args:
        address: The server's URL.

    Raises:
        UserError: There is no host in it, or the user's own configuration cannot be read.
    """
    key = os.environ.get(KEY)
    return key if key and host_of(address) in _named | _configured() else None


def withheld(address: str) -> str:
    """What to say where a server refuses a request without a key; "" where none was held back."""
    if not os.environ.get(KEY) or key_for(address) is not None:
        return ""
    return (
        f"{KEY} was not sent, since {host_of(address)} is named by a recipe alone: "
        f"add --allow-host {host_of(address)}"
    )


def check_options(options: Mapping[str, Any], where: str) -> None:
    """Refuse a key inside a recipe or job.

    Args:
        options: Of an engine, as the recipe has them.
        where: Their place in the recipe, for the message: "sampler.options".

    Raises:
        UserError: An option's name is that of a secret.
    """
    for name in options:
        if str(name).lower().replace("-", "_") in _SECRET:
            raise UserError(
                f"{where}.{name} is a secret in a recipe, which is stored and passed on: "
                f"remove it, and set {KEY} in the environment"
            )


def host_of(address: str) -> str:
    """The host of a URL in lower case, with its port where one is given.

    Raises:
        UserError: There is none.
    """
    try:
        parts = urlsplit(address if "//" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UserError(f"{address!r} is no address of a server ({error}): give https://HOST/v1") from error
    if not host:
        raise UserError(f"{address!r} names no host: give https://HOST/v1")
    return host if port is None else f"{host}:{port}"


def config_file() -> Path:
    """The user's own configuration; `hosts = ["api.example.org"]` in it names servers that may get a key."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "llmctl" / "config.toml"


def _configured() -> set[str]:
    path = config_file()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return set()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): mend or remove it") from error
    hosts = content.get("hosts", [])
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        raise UserError(
            f'{path}: hosts is {hosts!r}, but a list of names is needed: hosts = ["api.example.org"]'
        )
    return {host_of(host) for host in hosts}
