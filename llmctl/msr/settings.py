"""What a run is told about its models: item summaries, user summaries, the recommender, and arms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from llmctl.msr import prompts
from llmctl.runs import Recipe
from llmctl.sampling.settings import EngineSettings
from llmctl.training.config import TrainSettings

Mode = Literal["recurrent", "direct", "none"]
Variant = Literal["text", "summary", "image"]


class ItemSettings(Recipe):
    """How a vision-language model describes each picture, once (MLLM-MSR, item summarizer)."""

    vlm: str | None = None
    """Alias, folder or Hub name of a model that reads pictures; null describes none."""
    sampler: EngineSettings = EngineSettings()
    """Its engine."""
    prompt: str = prompts.ITEM
    """What is asked beside the picture; {title} is the item's title."""
    max_tokens: int = Field(default=200, ge=1)
    """New tokens of a description at most."""
    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy decoding."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus mass kept."""
    max_side: int = Field(default=672, ge=8)
    """Longer side of a picture in pixels; larger ones are made smaller in proportion."""
    max_megapixels: float = Field(default=64.0, gt=0)
    """Pictures of more are not opened, and their items fall back to text."""
    title_chars: int = Field(default=prompts.TITLE_CHARS, ge=8)
    """Characters of a title that a prompt shows at most."""
    text_chars: int = Field(default=prompts.TEXT_CHARS, ge=8)
    """Characters of a description, or of an item's own text, that a prompt shows at most."""
    chunk: int = Field(default=32, ge=1)
    """Items a journal line, so this much work a kill can lose."""


class UserSettings(Recipe):
    """How a language model sums up what a user likes (MLLM-MSR, user summarizer)."""

    mode: Mode = "recurrent"
    """Block by block with the summary so far, all items at once, or none: the recommender reads the items."""
    llm: str = "smollm2-135m"
    """Alias, folder or Hub name."""
    sampler: EngineSettings = EngineSettings()
    """Its engine."""
    block: int = Field(default=3, ge=1)
    """Items of a block, for recurrent."""
    history: int | None = Field(default=None, ge=1)
    """Last items that are read; null reads all."""
    max_tokens: int = Field(default=200, ge=1)
    """New tokens of a summary at most."""
    temperature: float = Field(default=0.6, ge=0)
    """0 is greedy decoding."""
    top_p: float = Field(default=0.9, gt=0, le=1)
    """Nucleus mass kept."""
    first_prompt: str = prompts.FIRST_BLOCK
    """Asks for a summary of a first block, or of all items where mode is direct; {items} are listed."""
    next_prompt: str = prompts.NEXT_BLOCK
    """Asks for a new summary from the old one, {summary}, and a block, {items}."""
    chunk: int = Field(default=128, ge=1)
    """Users in lockstep; each of their blocks is one call of the engine and one journal line."""

    @field_validator("next_prompt")
    @classmethod
    def _has_summary(cls, text: str) -> str:
        return _with_fields(text, ("summary", "items"))

    @field_validator("first_prompt")
    @classmethod
    def _has_items(cls, text: str) -> str:
        return _with_fields(text, ("items",))


class RecommenderSettings(Recipe):
    """The model that answers yes or no to a candidate (MLLM-MSR, recommender)."""

    variant: Variant = "summary"
    """What is known of an item: its title alone, also its description, or also its picture."""
    model: str = "smollm2-135m"
    """Alias, folder or Hub name; for the image variant one that reads pictures."""
    sampler: EngineSettings = EngineSettings()
    """Its engine in the evaluation."""
    prompt: str = prompts.RECOMMEND
    """What is asked; {preferences} comes before {candidate}, so that it is computed once a user."""
    train: TrainSettings | None = TrainSettings()
    """Fine-tuning on yes and no; null evaluates the model as it came."""
    negatives: Literal["redrawn", "fixed"] = "redrawn"
    """Whether every pass over the users draws other negatives."""
    negatives_per_positive: int = Field(default=1, ge=1)
    """Rows that answer no, for each that answers yes."""
    train_users: int | None = Field(default=None, ge=1)
    """Training users at most, drawn at random; null takes all."""
    untuned: bool = True
    """Evaluate the model as it came, too."""
    chunk: int = Field(default=16, ge=1)
    """Users a journal line of the evaluation."""

    @field_validator("prompt")
    @classmethod
    def _preferences_come_first(cls, text: str) -> str:
        _with_fields(text, ("preferences", "candidate"))
        if text.index("{preferences}") > text.index("{candidate}"):
            raise ValueError("{candidate} comes before {preferences}: name the preferences first")
        return text


class Overlay(Recipe):
    """What an arm does otherwise than the recipe."""

    users: dict[str, Any] = {}
    """Keys of `users`, nested where they are."""
    recommender: dict[str, Any] = {}
    """Keys of `recommender`, nested where they are."""


class CacheSettings(Recipe):
    """Summaries that any run may use again: same model, prompt, input and settings."""

    path: Path | None = None
    """A file; null is one in llmctl's own cache."""
    megabytes: float = Field(default=512.0, ge=0)
    """What it may hold; the least recently used go first. 0 is no cache."""


class Arm(Recipe):
    """One recommender of a run, with the summaries that it reads."""

    name: str
    """Of its files and figures."""
    users: UserSettings
    """How users are summed up for it."""
    recommender: RecommenderSettings
    """How it is trained and evaluated."""

    @property
    def reads_descriptions(self) -> bool:
        """Whether histories and candidates come with what is said of their pictures."""
        return self.recommender.variant != "text"

    @property
    def models(self) -> tuple[str, ...]:
        """The names that its figures have: untuned first."""
        tuned = self.recommender.train is not None
        untuned = self.recommender.untuned or not tuned
        return ((f"{self.name}-untuned",) if untuned else ()) + ((self.name,) if tuned else ())


def overlay(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested keys laid over others; neither is changed."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        is_nested = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = overlay(old, value) if is_nested and old is not None else value
    return merged


def _with_fields(text: str, fields: tuple[str, ...]) -> str:
    """Refuse a template that lacks a field."""
    for name in fields:
        if f"{{{name}}}" not in text:
            raise ValueError(f"the prompt lacks {{{name}}}: say where it belongs")
    return text
