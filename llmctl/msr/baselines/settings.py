"""The section `baselines` of a recipe: which ones, and a subsection for each that has settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, ValidationError, create_model, field_validator, model_validator

from llmctl.errors import UserError
from llmctl.msr.baselines.registry import BASELINES, BUILT_IN
from llmctl.runs import Recipe


class BaselineSection(Recipe):
    """The baselines that the recommender is compared with, on the same candidate lists."""

    # Subsections of baselines from other packages are extra keys; `_read_sections` checks them.
    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    names: tuple[str, ...] = BUILT_IN
    """Names of baselines: built-in ones, or those of installed packages."""
    full_ranking: bool = True
    """Also rank the true next item among all items that the user never interacted with."""

    @field_validator("names")
    @classmethod
    def _are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(dict.fromkeys(BASELINES.check(name) for name in names))
        except UserError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="before")
    @classmethod
    def _read_sections(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        names = content.get("names")
        chosen = names if isinstance(names, list | tuple) else ()
        wanted: dict[str, Any] = {name: {} for name in chosen if name in BASELINES and name not in BUILT_IN}
        extra = {key: value for key, value in content.items() if key not in cls.model_fields}
        sections = {name: _read_section(name, value) for name, value in (wanted | extra).items()}
        return {**content, **{name: found for name, found in sections.items() if found is not None}}

    def section(self, name: str) -> Any:
        """The settings of a baseline; None where it has none."""
        return getattr(self, name) if BASELINES[name].settings is not None else None


def _read_section(name: str, content: Any) -> Recipe | None:
    """The settings of a baseline from another package; None where it has none and none are given.

    Raises:
        ValueError: There is no such baseline, it has no settings, or they do not fit.
    """
    cls = BASELINES[name].settings if name in BASELINES else None
    if cls is None:
        if not content and name in BASELINES:
            return None
        with_settings = [one for one in BUILT_IN if BASELINES[one].settings is not None]
        known = ", ".join(["names", "full_ranking", *with_settings])
        raise ValueError(f"unknown key {name!r}: known are {known}, and baselines of installed packages")
    try:
        return cls.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in (name, *first["loc"]))
        reason = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
        raise ValueError(f"{key}: {reason}") from error


if TYPE_CHECKING:
    BaselineSettings = BaselineSection
else:
    # A field for each built-in baseline that has settings, so that a resolved recipe always holds them.
    _CLASSES = {name: BASELINES[name].settings for name in BUILT_IN}
    BaselineSettings = create_model(
        "BaselineSettings",
        __base__=BaselineSection,
        __doc__=BaselineSection.__doc__,
        **{name: (cls, cls()) for name, cls in _CLASSES.items() if cls is not None},
    )
