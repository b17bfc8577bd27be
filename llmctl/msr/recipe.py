"""What a run of sequential recommendation is told: data, baselines, summaries, recommenders."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from llmctl.msr.settings import (
    Arm,
    CacheSettings,
    ItemSettings,
    Overlay,
    RecommenderSettings,
    UserSettings,
    overlay,
)
from llmctl.runs import Recipe

BASELINES = ("random", "popularity", "item-knn", "text-knn", "gru4rec", "sasrec")


class Columns(Recipe):
    """Names of the columns, for `format: files`."""

    user: str = "user"
    """Of the interactions."""
    item: str = "item"
    """Of the interactions and of the items."""
    timestamp: str = "timestamp"
    """Of the interactions."""
    title: str = "title"
    """Of the items."""
    text: str = "text"
    """Of the items; may be missing."""
    image: str = "image"
    """Of the items, a path; may be missing."""


class DataSettings(Recipe):
    """Where interactions and items come from."""

    format: Literal["microlens", "amazon", "files"] = "files"
    """MicroLens pairs and titles, Amazon Reviews 2023, or any pair of files."""
    interactions: Path
    """Who chose what, and when."""
    items: Path
    """Their titles, texts and images."""
    images: Path | None = None
    """Folder of pictures that are named after their items."""
    columns: Columns = Columns()
    """Names of columns, for `files`."""


class FilterSettings(Recipe):
    """Which interactions are kept; counts are taken before and after each filter."""

    unknown_items: Literal["drop", "refuse"] = "drop"
    """Interactions with items that the items file does not know."""
    empty_titles: Literal["keep", "drop"] = "keep"
    """Items whose title is empty."""
    item_core: int = Field(default=5, ge=1)
    """Interactions that an item must have."""
    user_core: int = Field(default=5, ge=1)
    """Interactions that a user must have."""
    min_history: int = Field(default=4, ge=1)
    """Items that must come before a user's last one; 6 in the MLLM-MSR paper."""


class SplitSettings(Recipe):
    """Which users are learned from, and which are tested."""

    by: Literal["user", "time"] = "user"
    """At random, or by the time of a user's last interaction, the latest being tested."""
    train: float = Field(default=0.8, gt=0, lt=1)
    """Share of the users."""
    valid: float = Field(default=0.1, ge=0, lt=1)
    """Share of the users; the rest are test users."""
    max_valid: int | None = Field(default=None, ge=1)
    """Validation users at most, drawn at random."""
    max_test: int | None = Field(default=None, ge=1)
    """Test users at most, drawn at random."""

    @model_validator(mode="after")
    def _leaves_some_for_the_test(self) -> SplitSettings:
        if self.train + self.valid >= 1:
            raise ValueError(
                f"split.train and split.valid are {self.train} and {self.valid}, which leaves no test users: "
                "their sum must be below 1"
            )
        return self


class CandidateSettings(Recipe):
    """The frozen lists that every model ranks."""

    negatives: int = Field(default=20, ge=1)
    """Items a user never touched, beside the true next one."""
    draw: Literal["uniform", "popularity"] = "uniform"
    """How likely an item is drawn: all alike, or by its number of interactions."""
    path: Path | None = None
    """Lists of another run on the same data (its candidates.parquet), in place of drawing them."""


class SequenceSettings(Recipe):
    """How GRU4Rec and SASRec are trained (by cornac); other settings are that library's defaults."""

    width: int = Field(default=64, ge=1)
    """Embedding and hidden width."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the training histories."""
    batch_size: int = Field(default=128, ge=2)
    """Examples of a step."""
    negatives: int = Field(default=512, ge=1)
    """Shared negatives of a step."""
    max_history: int = Field(default=20, ge=1)
    """Last items of a history that SASRec sees; its time grows with it."""


class BaselineSettings(Recipe):
    """What the recommender is compared with, on the same lists."""

    names: tuple[str, ...] = BASELINES
    """Some of random, popularity, item-knn, text-knn, gru4rec, sasrec."""
    gru4rec: SequenceSettings = SequenceSettings()
    """Training of GRU4Rec."""
    sasrec: SequenceSettings = SequenceSettings()
    """Training of SASRec."""
    full_ranking: bool = True
    """Also rank the true next item among all items that the user never touched."""

    @field_validator("names")
    @classmethod
    def _are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in BASELINES:
                raise ValueError(f"no baseline {name!r}: there are {', '.join(BASELINES)}")
        return tuple(dict.fromkeys(names))


class MsrRecipe(Recipe):
    """A run of sequential recommendation."""

    kind: ClassVar[str] = "msr"
    free_keys: ClassVar[tuple[str, ...]] = ("cache",)

    data: DataSettings
    """Interactions and items."""
    filters: FilterSettings = FilterSettings()
    """Which of them are kept."""
    split: SplitSettings = SplitSettings()
    """Training, validation and test users."""
    candidates: CandidateSettings = CandidateSettings()
    """What is ranked."""
    items: ItemSettings = ItemSettings()
    """Descriptions of pictures."""
    users: UserSettings = UserSettings()
    """Summaries of preferences."""
    recommender: RecommenderSettings = RecommenderSettings()
    """The model that answers yes or no."""
    arms: dict[str, Overlay] = {}
    """Several recommenders on the same lists: a name, and what each does otherwise; none is one, `msr`."""
    claims: dict[str, tuple[str, str]] = {}
    """Sentences to check: each is that the first of two models has a greater AUC than the second."""
    baselines: BaselineSettings = BaselineSettings()
    """What to compare with."""
    cache: CacheSettings = CacheSettings()
    """Summaries of earlier runs."""
    seed: int = Field(default=0, ge=0)
    """Root of all randomness of the run."""

    @model_validator(mode="after")
    def _arms_and_claims_fit(self) -> MsrRecipe:
        models = [*self.baselines.names, *(model for arm in self.resolved_arms for model in arm.models)]
        for name in self.arms:
            if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) or name in BASELINES:
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
    def resolved_arms(self) -> tuple[Arm, ...]:
        """Every arm in full.

        Raises:
            ValueError: An arm has a key or a value that does not fit.
        """
        if not self.arms:
            return (Arm(name="msr", users=self.users, recommender=self.recommender),)
        base = {"users": self.users.model_dump(), "recommender": self.recommender.model_dump()}
        return tuple(_resolve_arm(name, base, changes) for name, changes in self.arms.items())

    def summaries_of(self, arm: Arm) -> str:
        """The journal of an arm's summaries: that of the first arm with the same."""

        def key(one: Arm) -> tuple[Any, ...]:
            r = one.recommender
            return one.users, one.reads_descriptions, r.train is None, r.train_users

        first = next(one for one in self.resolved_arms if key(one) == key(arm))
        return f"users-{first.name}"

    def arm(self, name: str) -> Arm:
        """An arm in full, by its name.

        Raises:
            KeyError: There is none.
        """
        return {arm.name: arm for arm in self.resolved_arms}[name]


def _resolve_arm(name: str, base: Mapping[str, Any], changes: Overlay) -> Arm:
    try:
        return Arm.model_validate({"name": name, **overlay(base, changes.model_dump())})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        reason = "unknown key" if first["type"] == "extra_forbidden" else first["msg"]
        raise ValueError(f"arms.{name}.{place}: {reason}") from error
