"""The recipe of a reachable set: one state, and how far to look."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from llmctl.reach.curves.recipe import CurveControlSettings
from llmctl.reach.settings import LoadSettings
from llmctl.runs import Recipe


class ExplorationSettings(Recipe):
    """How to go beyond one token; see `llmctl.reach.reachable_sets.explore.Exploration`."""

    forwards: int = Field(default=4096, ge=0)
    """Controls scored beyond the scan of k = 1."""
    strategy: Literal["push", "pull", "alternate", "random"] = "alternate"
    """Which controls are lengthened."""


class SetRecipe(Recipe):
    """One state, and how far to look."""

    kind: ClassVar[str] = "reach-set"

    model: str = "smollm2-135m"
    """Alias, folder or Hub name."""
    adapter: Path | None = None
    """A PEFT adapter on top."""
    load: LoadSettings = LoadSettings()
    """Device, dtype, quantization."""
    state: str = ""
    """Text; a JSON conversation where the position is "template"."""
    state_ids: tuple[int, ...] | None = None
    """Token ids in place of a text."""
    k: int = Field(default=1, ge=1)
    """The longest control."""
    exploration: ExplorationSettings = ExplorationSettings()
    """Beyond one token."""
    controls: CurveControlSettings = CurveControlSettings()
    """What a control may be."""
    seed: int = Field(default=0, ge=0)
    """Seed for everything that is drawn."""

    @model_validator(mode="after")
    def _has_one_state(self) -> SetRecipe:
        if bool(self.state) == (self.state_ids is not None):
            received = "both given" if self.state else "empty"
            raise ValueError(
                f"--state and --state-ids are {received}, but one is needed: give a text or token ids"
            )
        return self
