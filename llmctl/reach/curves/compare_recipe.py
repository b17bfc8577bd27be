"""The recipe of `llmctl reach compare`: several models, and one set of states and targets."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field, model_validator

from llmctl.reach.curves.recipe import CurveRecipe, CurveSettings, StateSettings
from llmctl.runs import Recipe


class ArmSettings(Recipe):
    """One model of a comparison."""

    model: str = "smollm2-135m"
    """Alias, folder or Hub name."""
    adapter: Path | None = None
    """A PEFT adapter on top: LoRA, Sparse-GIN, or what RISE trained."""


class CurveComparisonRecipe(CurveSettings):
    """Several models on the pairs of the first."""

    kind: ClassVar[str] = "reach-compare"

    arms: dict[str, ArmSettings] = Field(min_length=2)
    """Models by name. The first is the reference: it draws the targets, and the others take them over."""

    @model_validator(mode="after")
    def _names_are_plain(self) -> CurveComparisonRecipe:
        for name in self.arms:
            if not name or not all(letter.isalnum() or letter in "-_" for letter in name):
                raise ValueError(
                    f"arms has the name {name!r}, which becomes a folder: use letters, digits, - and _"
                )
        return self

    def curve(self, name: str, reference: Path | None) -> CurveRecipe:
        """The recipe of one arm; `reference` is pairs.jsonl of the first."""
        shared = {key: getattr(self, key) for key in CurveSettings.model_fields}
        if reference is not None:
            shared["states"] = StateSettings(pairs=reference, count=0)
        arm = self.arms[name]
        return CurveRecipe(model=arm.model, adapter=arm.adapter, **shared)
