"""The recipe of a run of sequential recommendation: data, baselines, summaries, recommenders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from llmctl.msr.baselines.registry import BUILT_IN
from llmctl.msr.baselines.settings import BaselineSettings
from llmctl.msr.settings import (
    ArmOverrides,
    CacheSettings,
    ItemSummarySettings,
    RecommenderArm,
    RecommenderSettings,
    UserSummarySettings,
    merge_nested,
)
from llmctl.runs import Recipe


class ColumnNames(Recipe):
    """Names of the columns, for `format: files`."""

    user: str = "user"
    """Column of the interactions file with the user."""
    item: str = "item"
    """Column of both files with the item."""
    timestamp: str = "timestamp"
    """Column of the interactions file with the time."""
    title: str = "title"
    """Column of the items file with the title."""
    text: str = "text"
    """Column of the items file with the description; may be missing."""
    image: str = "image"
    """Column of the items file with the path of a picture; may be missing."""


class SourceSettings(Recipe):
    """The files with interactions and items."""

    format: Literal["microlens", "amazon", "files"] = "files"
    """MicroLens pairs and titles, Amazon Reviews 2023, or any pair of files."""
    interactions: Path
    """File of interactions: user, item, time."""
    items: Path
    """File of items: titles, texts, images."""
    images: Path | None = None
    """Folder of pictures whose file names are item ids."""
    columns: ColumnNames = ColumnNames()
    """Names of the columns, for `format: files`."""


class FilterSettings(Recipe):
    """Which interactions are kept; counts are reported before and after each filter."""

    unknown_items: Literal["drop", "refuse"] = "drop"
    """What to do with interactions whose item is not in the items file."""
    empty_titles: Literal["keep", "drop"] = "keep"
    """What to do with items whose title is empty."""
    item_core: int = Field(default=5, ge=1)
    """Fewest interactions of an item."""
    user_core: int = Field(default=5, ge=1)
    """Fewest interactions of a user."""
    min_history: int = Field(default=4, ge=1)
    """Fewest items before a user's last one; 6 in the MLLM-MSR paper."""


class SplitSettings(Recipe):
    """How users are split into training, validation and test users."""

    by: Literal["user", "time"] = "user"
    """At random, or by the time of a user's last interaction, the latest being test users."""
    train: float = Field(default=0.8, gt=0, lt=1)
    """Share of training users."""
    valid: float = Field(default=0.1, ge=0, lt=1)
    """Share of validation users; the rest are test users."""
    max_valid: int | None = Field(default=None, ge=1)
    """Most validation users, drawn at random."""
    max_test: int | None = Field(default=None, ge=1)
    """Most test users, drawn at random."""

    @model_validator(mode="after")
    def _leaves_some_for_the_test(self) -> SplitSettings:
        if self.train + self.valid >= 1:
            raise ValueError(
                f"split.train and split.valid are {self.train} and {self.valid}, which leaves no test users: "
                "their sum must be below 1"
            )
        return self


class CandidateSettings(Recipe):
    """The fixed candidate lists that every model ranks."""

    negatives: int = Field(default=20, ge=1)
    """Items that the user never interacted with, beside the true next one."""
    draw: Literal["uniform", "popularity"] = "uniform"
    """Whether negatives are drawn uniformly, or in proportion to their numbers of interactions."""
    path: Path | None = None
    """The candidates.parquet of another run on the same data, in place of drawing lists."""


class MsrRecipe(Recipe):
    """A run of sequential recommendation."""

    kind: ClassVar[str] = "msr"
    free_keys: ClassVar[tuple[str, ...]] = ("cache",)

    data: SourceSettings
    """Interactions and items."""
    filters: FilterSettings = FilterSettings()
    """Which interactions are kept."""
    split: SplitSettings = SplitSettings()
    """Training, validation and test users."""
    candidates: CandidateSettings = CandidateSettings()
    """The candidate lists that are ranked."""
    items: ItemSummarySettings = ItemSummarySettings()
    """Item summaries: descriptions of pictures."""
    users: UserSummarySettings = UserSummarySettings()
    """User summaries: what each user prefers."""
    recommender: RecommenderSettings = RecommenderSettings()
    """The model that answers yes or no per candidate."""
    arms: dict[str, ArmOverrides] = {}
    """Several recommenders on the same lists, by name, each with its overrides; {} is one arm, `msr`."""
    claims: dict[str, tuple[str, str]] = {}
    """Claims to test, by sentence: that the first of two models has a higher AUC than the second."""
    baselines: BaselineSettings = BaselineSettings()
    """Other recommenders to compare with."""
    cache: CacheSettings = CacheSettings()
    """The cache of summaries that runs share."""
    seed: int = Field(default=0, ge=0)
    """Seed that all randomness of the run is derived from."""

    @model_validator(mode="after")
    def _arms_and_claims_fit(self) -> MsrRecipe:
        models = [*self.baselines.names, *(model for arm in self.resolved_arms for model in arm.models)]
        reserved = {*BUILT_IN, *self.baselines.names}
        for name in self.arms:
            if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) or name in reserved:
                raise ValueError(
                    f"arms has the name {name!r}: small letters, digits and hyphens, and no baseline's name"
                )
        if twice := [model for model in models if models.count(model) > 1]:
            raise ValueError(f"two models would be called {twice[0]!r}: rename an arm")
        for sentence, pair in self.claims.items():
            for model in pair:
                if model not in models:
                    raise ValueError(
                        f"claims names {model!r} in {sentence!r}, but the models are {', '.join(models)}"
                    )
        return self

    @property
    def resolved_arms(self) -> tuple[RecommenderArm, ...]:
        """Every arm with its overrides applied.

        Raises:
            ValueError: An arm has an unknown key or a wrong value.
        """
        if not self.arms:
            return (RecommenderArm(name="msr", users=self.users, recommender=self.recommender),)
        base = {"users": self.users.model_dump(), "recommender": self.recommender.model_dump()}
        return tuple(_resolve_arm(name, base, changes) for name, changes in self.arms.items())

    def summaries_of(self, arm: RecommenderArm) -> str:
        """The journal of an arm's user summaries; arms that read the same summaries share the first one's."""

        def key(one: RecommenderArm) -> tuple[Any, ...]:
            r = one.recommender
            return one.users, one.reads_descriptions, r.train is None, r.train_users

        first = next(one for one in self.resolved_arms if key(one) == key(arm))
        return f"users-{first.name}"

    def arm(self, name: str) -> RecommenderArm:
        """The arm of that name, with its overrides applied.

        Raises:
            KeyError: There is no such arm.
        """
        return {arm.name: arm for arm in self.resolved_arms}[name]


def _resolve_arm(name: str, base: Mapping[str, Any], changes: ArmOverrides) -> RecommenderArm:
    try:
        return RecommenderArm.model_validate({"name": name, **merge_nested(base, changes.model_dump())})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        reason = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
        raise ValueError(f"arms.{name}.{place}: {reason}") from error
