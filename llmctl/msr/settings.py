"""Settings of the models of a run: item summaries, user summaries, the recommender, and arms."""

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


class ItemSummarySettings(Recipe):
    """How a vision-language model describes each picture, once (the item summarizer of MLLM-MSR)."""

    vlm: str | None = None
    """Alias, folder or Hub name of a vision-language model; null describes no pictures."""
    sampler: EngineSettings = EngineSettings()
    """The engine of this model."""
    prompt: str = prompts.ITEM
    """The prompt beside the picture; {title} is the item's title."""
    max_tokens: int = Field(default=200, ge=1)
    """Most new tokens per description."""
    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy decoding."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Probability mass that nucleus sampling keeps."""
    max_side: int = Field(default=672, ge=8)
    """Longest side of a picture in pixels; larger pictures are scaled down."""
    max_megapixels: float = Field(default=64.0, gt=0)
    """Larger pictures are not opened; their items fall back to text."""
    title_chars: int = Field(default=prompts.TITLE_CHARS, ge=8)
    """Most characters of a title in a prompt."""
    text_chars: int = Field(default=prompts.TEXT_CHARS, ge=8)
    """Most characters of a description, or of an item's own text, in a prompt."""
    chunk: int = Field(default=32, ge=1)
    """Items per journal line, which is the most work that a kill can lose."""


class UserSummarySettings(Recipe):
    """How a language model summarizes a user's preferences (the user summarizer of MLLM-MSR)."""

    mode: Mode = "recurrent"
    """recurrent reads block by block with the summary so far, direct reads all items at once, and none makes
    no summary: the recommender reads the items themselves."""
    llm: str = "smollm2-135m"
    """Alias, folder or Hub name."""
    sampler: EngineSettings = EngineSettings()
    """The engine of this model."""
    block: int = Field(default=3, ge=1)
    """Items per block, for mode recurrent."""
    history: int | None = Field(default=None, ge=1)
    """Number of last items that are read; null reads all."""
    max_tokens: int = Field(default=200, ge=1)
    """Most new tokens per summary."""
    temperature: float = Field(default=0.6, ge=0)
    """0 is greedy decoding."""
    top_p: float = Field(default=0.9, gt=0, le=1)
    """Probability mass that nucleus sampling keeps."""
    first_prompt: str = prompts.FIRST_BLOCK
    """Prompt for a summary of the first block, or of all items where mode is direct; {items} is the list."""
    next_prompt: str = prompts.NEXT_BLOCK
    """Prompt for a new summary from the previous one, {summary}, and the next block, {items}."""
    chunk: int = Field(default=128, ge=1)
    """Users read in lockstep; each of their blocks is one call of the engine and one journal line."""

    @field_validator("next_prompt")
    @classmethod
    def _has_summary(cls, text: str) -> str:
        return _with_fields(text, ("summary", "items"))

    @field_validator("first_prompt")
    @classmethod
    def _has_items(cls, text: str) -> str:
        return _with_fields(text, ("items",))


class RecommenderSettings(Recipe):
    """The model that answers yes or no per candidate (the recommender of MLLM-MSR)."""

    variant: Variant = "summary"
    """What the model sees of an item: its title alone (text), also its description (summary), or also its
    picture (image)."""
    model: str = "smollm2-135m"
    """Alias, folder or Hub name; for variant image, a vision-language model."""
    sampler: EngineSettings = EngineSettings()
    """The engine of this model in the evaluation."""
    prompt: str = prompts.RECOMMEND
    """The prompt; {preferences} comes before {candidate}, so that it is computed once per user."""
    train: TrainSettings | None = TrainSettings()
    """Fine-tuning on yes and no; null evaluates the base model only."""
    negatives: Literal["redrawn", "fixed"] = "redrawn"
    """Whether every epoch draws new negatives."""
    negatives_per_positive: int = Field(default=1, ge=1)
    """Negative examples per positive example."""
    train_users: int | None = Field(default=None, ge=1)
    """Most training users, drawn at random; null takes all."""
    untuned: bool = True
    """Evaluate the base model as well."""
    chunk: int = Field(default=16, ge=1)
    """Users per journal line of the evaluation."""

    @field_validator("prompt")
    @classmethod
    def _preferences_come_first(cls, text: str) -> str:
        _with_fields(text, ("preferences", "candidate"))
        if text.index("{preferences}") > text.index("{candidate}"):
            raise ValueError("{candidate} comes before {preferences}: name the preferences first")
        return text


class ArmOverrides(Recipe):
    """The settings in which an arm differs from the recipe."""

    users: dict[str, Any] = {}
    """Keys of the section `users`."""
    recommender: dict[str, Any] = {}
    """Keys of the section `recommender`."""


class CacheSettings(Recipe):
    """The cache of summaries; a run reuses those of the same model, prompt, input and settings."""

    path: Path | None = None
    """The file; null is one in llmctl's own cache folder."""
    megabytes: float = Field(default=512.0, ge=0)
    """Most megabytes of entries; the least recently used ones are dropped. 0 is no cache."""


class RecommenderArm(Recipe):
    """One recommender of a run, with the user summaries that it reads."""

    name: str
    """Name of the arm in files and tables."""
    users: UserSummarySettings
    """How its user summaries are made."""
    recommender: RecommenderSettings
    """How it is trained and evaluated."""

    @property
    def reads_descriptions(self) -> bool:
        """Whether histories and candidates are shown with descriptions of their pictures."""
        return self.recommender.variant != "text"

    @property
    def models(self) -> tuple[str, ...]:
        """The names of its models in metrics.json: the untuned one first."""
        tuned = self.recommender.train is not None
        untuned = self.recommender.untuned or not tuned
        return ((f"{self.name}-untuned",) if untuned else ()) + ((self.name,) if tuned else ())


def merge_nested(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge nested keys, `changes` winning; neither mapping is changed."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        is_nested = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge_nested(old, value) if is_nested and old is not None else value
    return merged


def _with_fields(text: str, fields: tuple[str, ...]) -> str:
    """Refuse a template that lacks a field."""
    for name in fields:
        if f"{{{name}}}" not in text:
            raise ValueError(f"the prompt lacks {{{name}}}: add it where it belongs")
    return text
