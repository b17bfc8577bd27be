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
_SECRET = (  # without "_" and "-"; tokens of text, such as pad_token, are no secrets
    "apikey",
    "accesstoken",
    "authtoken",
    "authorization",
    "bearertoken",
    "hftoken",
    "openaiapikey",
    "password",
    "secret",
    "secretkey",
    "token",
)
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


def scrub(text: str) -> str:
    """A text of others without the user's key, which a server may send back in an error."""
    key = os.environ.get(KEY)
    return text.replace(key, "(the key)") if key else text


def check_options(options: Any, where: str) -> None:
    """Refuse a key inside a recipe or job, at any depth.

    Args:
        options: Nested plain values, as the recipe has them.
        where: Their place in the recipe, for the message: "sampler.options"; "" for a whole recipe.

    Raises:
        UserError: A name is that of a secret, or an address holds a password.
    """
    if isinstance(options, Mapping):
        for name, value in options.items():
            place = f"{where}.{name}" if where else str(name)
            if _is_secret(name) and value is not None:
                raise UserError(
                    f"{place} is a secret in a recipe, which is stored and passed on: "
                    f"remove it, and set {KEY} in the environment"
                )
            check_options(value, place)
    elif isinstance(options, (list, tuple)):
        for index, value in enumerate(options):
            check_options(value, f"{where}.{index}")
    elif isinstance(options, str) and where.rpartition(".")[2] == "base_url":
        check_address(options)


def check_address(address: str) -> None:
    """Refuse an address that holds a name and password, or that two readers may read differently.

    Raises:
        UserError: It has "@", a backslash, a blank or a control character.
    """
    if "@" in address:
        raise UserError(f"base_url holds a name or password before '@': remove it, and set {KEY}")
    if "\\" in address or not address.isprintable() or " " in address:
        raise UserError(f"base_url is {address!r}, which is not a plain address: give https://HOST/v1")


def hosts_in(content: Any) -> list[str]:
    """The servers that a value of the command line names, as {"base_url": ...} at any depth."""
    if isinstance(content, Mapping):
        return [
            host
            for name, value in content.items()
            for host in ([value] if name == "base_url" and isinstance(value, str) else hosts_in(value))
        ]
    if isinstance(content, (list, tuple)):
        return [host for value in content for host in hosts_in(value)]
    return []


def named_hosts() -> frozenset[str]:
    """The hosts that the user named in this process, for a worker process."""
    return frozenset(_named)


def forget_hosts() -> None:
    """Name no host in this process any more."""
    _named.clear()


def _is_secret(name: Any) -> bool:
    return str(name).lower().replace("-", "").replace("_", "") in _SECRET


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
