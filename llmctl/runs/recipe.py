"""Recipes: typed YAML files with everything that the results of a run depend on.

A recipe class derives from `Recipe`; `load_recipe` finds the file by path or by name, applies the overrides
of `--set`, and reports every mistake in one line.
"""

from __future__ import annotations

import copy
import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from llmctl.errors import UserError
from llmctl.runs.files import disk_errors_as_user_errors
from llmctl.runs.yaml_text import BrokenYamlError, dump_yaml, parse_yaml
from llmctl.trust.keys import allow_host, check_options, hosts_in
from llmctl.trust.limits import read_limited

R = TypeVar("R", bound="Recipe")

SUFFIXES = (".yaml", ".yml")
NO_RECIPES = "accelerate"  # a folder of configurations for `accelerate launch`, beside the recipes


class Recipe(BaseModel):
    """Base class of all recipes and of their sections: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: ClassVar[str | None] = None
    """The value of `kind:` in a recipe file, e.g. "rise"; None for sections."""

    free_keys: ClassVar[tuple[str, ...]] = ()
    """Dotted keys (or sections) that do not affect results, so that they may change when a run continues."""

    @model_validator(mode="before")
    @classmethod
    def _holds_no_secret(cls, content: Any) -> Any:
        try:
            check_options(content, "")
        except UserError as error:
            raise ValueError(str(error)) from error
        return content


def load_recipe(cls: type[R], name_or_path: str | Path, overrides: Sequence[str] = ()) -> R:
    """Read a recipe.

    Args:
        cls: The class of the recipe.
        name_or_path: A YAML file, or a name like "rise/default", which is looked up in `./recipes`, then
            beside the package in a source checkout, then in the package itself.
        overrides: Assignments "a.b=value" that replace values of the file. Values are read as YAML; an empty
            value is null.

    Returns:
        The checked recipe, defaults filled in.

    Raises:
        UserError: The file does not exist, is broken YAML or of another kind, or has an unknown key or a
            wrong value.
    """
    path = find_recipe(name_or_path)
    content = read_recipe_file(path)
    kind = content.pop("kind", None)
    if kind is not None and cls.kind is not None and kind != cls.kind:
        raise UserError(
            f"{path} is a recipe of kind {kind!r}, but this command needs one of kind {cls.kind!r}"
        )
    if kind is not None and cls.kind is None:
        content["kind"] = kind  # the class has no kind: refused below as an unknown key
    return build_recipe(cls, content, str(path), overrides)


def build_recipe(cls: type[R], content: Mapping[str, Any], source: str, overrides: Sequence[str] = ()) -> R:
    """Apply overrides to a mapping and check it, e.g. for a command with options instead of a file.

    Args:
        cls: The recipe's class.
        content: Nested keys and values; not changed.
        source: Where they come from, for error messages.
        overrides: As in `load_recipe`.

    Raises:
        UserError: A key is unknown or a value is wrong.
    """
    changed_content = copy.deepcopy(dict(content))
    changed = [_override(changed_content, override) for override in overrides]
    return parse_recipe(cls, changed_content, source, changed)


def parse_recipe(cls: type[R], content: Mapping[str, Any], source: str, overrides: Iterable[str] = ()) -> R:
    """Check a mapping against a recipe class.

    Args:
        cls: The recipe's class.
        content: Nested keys and values.
        source: Where it comes from, for error messages.
        overrides: Dotted keys that came from `--set`, for error messages.

    Raises:
        UserError: There is a mistake; the message has the first one and the number of others.
    """
    try:
        return cls.model_validate(content)
    except ValidationError as error:
        mistakes = error.errors(include_url=False)
        first = mistakes[0]
        key = _dotted(first["loc"])
        is_override = any(f"{key}.".startswith(f"{override}.") for override in overrides)
        origin = f"--set {key}" if is_override else source
        rest = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        raise UserError(f"{origin}: {' '.join(_explain(cls, first).split())}{rest}") from error


def dump_recipe(recipe: BaseModel) -> str:
    """Write the resolved recipe as YAML: its kind first, then the keys in the order of the class."""
    return dump_yaml(recipe_content(recipe))


def recipe_content(recipe: BaseModel) -> dict[str, Any]:
    """The resolved recipe as plain values, with its kind first."""
    kind = getattr(type(recipe), "kind", None)
    head = {"kind": kind} if isinstance(kind, str) else {}
    return {**head, **recipe.model_dump(mode="json")}


def differences(old: Mapping[str, Any], new: Mapping[str, Any], free: Sequence[str] = ()) -> list[str]:
    """List the dotted keys in which two recipes differ, each as "key old -> new".

    Args:
        old: Nested plain values.
        new: Nested plain values.
        free: Dotted keys to ignore, with everything below them.
    """
    before, after = _flatten(old), _flatten(new)
    lines = []
    for key in [*before, *(key for key in after if key not in before)]:
        if any(key == name or key.startswith(f"{name}.") for name in free):
            continue
        if before.get(key, _ABSENT) != after.get(key, _ABSENT):
            lines.append(f"{key} {_show(before.get(key, _ABSENT))} -> {_show(after.get(key, _ABSENT))}")
    return lines


def recipe_folders() -> list[Path]:
    """The folders in which recipes are looked up by name, in this order."""
    package = Path(__file__).resolve().parent.parent
    folders = [Path("recipes"), package.parent / "recipes", package / "_recipes"]
    unique = {folder.resolve(): folder for folder in reversed(folders)}
    return [folder for folder in folders if unique[folder.resolve()] is folder]


def list_recipes() -> list[str]:
    """The names of all available recipes, sorted."""
    return sorted(
        {
            path.relative_to(folder).with_suffix("").as_posix()
            for folder in recipe_folders()
            for path in folder.rglob("*")
            if path.suffix in SUFFIXES and path.parent.name != NO_RECIPES
        }
    )


def find_recipe(name_or_path: str | Path) -> Path:
    """Find the file of a recipe.

    Raises:
        UserError: There is no such recipe; the message lists the available ones.
    """
    given = Path(name_or_path)
    if given.is_file() or (given.suffix in SUFFIXES and given.exists() and not given.is_dir()):
        return given  # a pipe or a device is refused where it is read
    if given.suffix not in SUFFIXES:
        for folder in recipe_folders():
            for suffix in SUFFIXES:
                path = folder / f"{given}{suffix}"
                if path.is_file():
                    return path
    names = list_recipes()
    near = difflib.get_close_matches(str(given), names, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    known = f"known are {', '.join(names)}" if names else "there are no recipes here; give a YAML file"
    raise UserError(f"no recipe {str(given)!r}: {hint}{known}")


def recipe_name(name_or_path: str | Path) -> str:
    """The name of a recipe's run folder: "rise/default" stays, "my/own.yaml" becomes "own"."""
    given = Path(name_or_path)
    is_file = given.suffix in SUFFIXES or given.is_absolute()
    return given.stem if is_file else given.as_posix()


def read_recipe_file(path: Path, *, is_link_allowed: bool = True) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Args:
        path: The file.
        is_link_allowed: False for the recipe in a run's folder, where llmctl makes no links.

    Raises:
        UserError: The file cannot be read, is larger or deeper than a recipe may be, or does not hold a
            mapping (with the line).
    """
    with disk_errors_as_user_errors(f"read {path}"):
        data = read_limited(path, is_link_allowed=is_link_allowed)
    try:
        content = parse_yaml(data.decode(), str(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: save it as UTF-8") from error
    except BrokenYamlError as error:
        line = f", line {error.line}" if error.line is not None else ""
        raise UserError(f"{path}{line}: broken YAML: {error.problem}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(
            f"{path} holds a {type(content).__name__}, but a recipe is a mapping of keys to values"
        )
    return content


class _Absent:
    def __repr__(self) -> str:
        return "(absent)"


_ABSENT = _Absent()


def _show(value: Any) -> str:
    return "null" if value is None else repr(value)


def _flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; an empty mapping is a value."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _override(content: dict[str, Any], override: str) -> str:
    """Apply "a.b=value" to nested keys in place; returns the dotted key."""
    key, equals, text = override.partition("=")
    key = key.strip()
    parts = key.split(".")
    if not equals or not all(parts):
        raise UserError(f"--set {override!r} is not of the form key=value, e.g. --set sampling.n=8")
    try:
        value = parse_yaml(text, f"--set {key}")
    except BrokenYamlError as error:
        raise UserError(f"--set {override!r}: the value is broken YAML; put it in quotes") from error
    section = content
    for depth, part in enumerate(parts[:-1], start=1):
        inner = section.get(part)
        if inner is None:
            inner = section[part] = {}
        if not isinstance(inner, dict):
            raise UserError(
                f"--set {override!r}: {'.'.join(parts[:depth])} is {inner!r}, which has no keys below it"
            )
        section = inner
    section[parts[-1]] = value
    for host in hosts_in({parts[-1]: value}):  # --set is the command line: the user named it in person
        allow_host(host)
    return key


def _dotted(location: Iterable[int | str]) -> str:
    return ".".join(str(part) for part in location)


def _explain(cls: type[BaseModel], mistake: Mapping[str, Any]) -> str:
    """Explain a mistake that Pydantic found: what was received, and what is needed."""
    key, kind, message = _dotted(mistake["loc"]), mistake["type"], mistake["msg"]
    if kind == "extra_forbidden":
        return f"unknown key {key!r}{_nearest(cls, key)}"
    if kind == "missing":
        return f"the key {key!r} is missing, and it has no default"
    need = message.removeprefix("Input should be ").removeprefix("Value error, ")
    if kind in ("value_error", "assertion_error"):
        return f"{key}: {need}" if key else need
    received = mistake["input"]
    word = "null" if received is None else f"{received!r} ({type(received).__name__})"
    if len(word) > 80:
        word = f"a {type(received).__name__}"
    verb = "but it should be " if message.startswith("Input should be ") else ""
    return f"{key} is {word}, {verb}{need}"


def _nearest(cls: type[BaseModel], key: str) -> str:
    """Suggest the known key that is most similar to `key`, in the same section first."""
    known = list(_known_keys(cls))
    section, _, name = key.rpartition(".")
    siblings = [other for other in known if other.rpartition(".")[0] == section]
    for group in (siblings, known):
        by_name = {other.rpartition(".")[2]: other for other in reversed(group)}
        if found := difflib.get_close_matches(name, by_name, n=1):
            return f": did you mean {by_name[found[0]]!r}?"
    return f": known are {', '.join(siblings)}" if siblings else ""


def _known_keys(cls: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys of a recipe class, including those of nested sections."""
    for name, field in cls.model_fields.items():
        yield f"{prefix}{field.alias or name}"
        for section in _sections(field.annotation):
            yield from _known_keys(section, f"{prefix}{field.alias or name}.")


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The recipe classes in an annotation such as `Section | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _sections(inner)
