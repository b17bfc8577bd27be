"""The recipe of a k-epsilon curve: which states, which targets, which controls, which search."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from llmctl.errors import UserError
from llmctl.reach.search.methods.registry import METHODS
from llmctl.reach.settings import ControlRules, LoadSettings
from llmctl.runs import Recipe
from llmctl.runs.recipe import parse_recipe, read_recipe_file


class StateSettings(Recipe):
    """Where the states come from."""

    path: Path | None = None
    """A JSONL file (per line a state and what follows it), or a text file that is cut into excerpts. null: a
    passage that comes with llmctl."""
    pairs: Path | None = None
    """Instead: pairs.jsonl of another curve, whose states and targets are taken over as they are."""
    state_key: str = "state"
    """Key of the state in a JSONL file."""
    next_key: str = "next"
    """Key of the text that follows it; needed for targets "next"."""
    count: int = Field(default=40, ge=0)
    """States, drawn at random by the seed; 0 takes all."""
    lengths: tuple[int, ...] = (8, 10, 16, 22, 32)
    """Tokens of an excerpt, in turn, where they are cut from a text."""
    seed: int = Field(default=0, ge=0)
    """Seed for the draw."""


class TargetSettings(Recipe):
    """Which target outputs are tried at each state."""

    draw: Literal["next", "top", "vocabulary", "ranks"] = "next"
    """The true next token; the most likely ones; tokens drawn uniformly from the vocabulary; or one from
    each of `count` equal bands of base ranks."""
    count: int = Field(default=75, ge=1)
    """Targets per state; "next" always has one."""
    tokens: int = Field(default=1, ge=1)
    """Tokens of a true continuation (draw "next")."""
    seed: int = Field(default=0, ge=0)
    """Seed for the draw."""


class CurveControlSettings(ControlRules):
    """What a control may be, and where it stands; position "template" is for single problems."""

    sample: int = Field(default=0, ge=0)
    """Controls hold only that many tokens of those allowed, drawn by the search's seed; 0 is no limit."""


class CurveSearchSettings(Recipe):
    """How controls are searched for."""

    schedule: str = "default"
    """llmctl's own schedule ("default"), the paper's ("published"), or one search method at every k, by its
    name: scan, greedy, gcg, beam, random, or one that an installed package adds."""
    max_k: int = Field(default=4, ge=1)
    """The longest control."""
    effort: float = Field(default=1.0, gt=0)
    """Multiplies the steps of the default schedule."""
    candidates: int = Field(default=128, ge=1)
    """Controls per step, for single methods and for GCG in the published schedule."""
    steps: int = Field(default=8, ge=1)
    """Steps at each k, for single methods and for GCG in the published schedule."""
    ks_greedy: tuple[int, ...] = (1, 2, 3)
    """Control lengths of greedy back-generation in the published schedule."""
    ks_gcg: tuple[int, ...] = (4, 6, 8, 10)
    """Control lengths of GCG in the published schedule."""
    share_scan: bool = False
    """Scan all allowed tokens once for each state, and answer k = 1 for all its targets from that."""
    at_once: int = Field(default=1, ge=1)
    """Problems searched in lockstep and scored in one batch; for GPUs. Results are the same up to near ties
    in floating point. No effect with share_scan."""
    seed: int = Field(default=0, ge=0)
    """Seed for everything that a search draws."""

    @model_validator(mode="after")
    def _schedule_is_known(self) -> CurveSearchSettings:
        if self.schedule not in ("default", "published"):
            try:
                limit = METHODS[self.schedule].max_k
            except UserError as error:
                raise ValueError(f"schedule: {error}; or take default or published") from error
            if limit is not None and self.max_k > limit:
                raise ValueError(
                    f"schedule is {self.schedule} and max_k is {self.max_k}, but {self.schedule} finds "
                    f"controls of at most {limit} token(s): set max_k={limit}, or take another schedule"
                )
        return self


class ShardSettings(Recipe):
    """A part of a curve: every `of`-th state, from `index`."""

    index: int = Field(default=0, ge=0)
    """Which shard, from 0."""
    of: int = Field(default=1, ge=1)
    """How many shards there are."""

    @model_validator(mode="after")
    def _index_is_inside(self) -> ShardSettings:
        if self.index >= self.of:
            raise ValueError(
                f"index is {self.index} and of is {self.of}, but shards count from 0: "
                f"give an index of at most {self.of - 1}"
            )
        return self


class CurveSettings(Recipe):
    """A curve, whatever the model."""

    load: LoadSettings = LoadSettings()
    """Device, dtype, quantization."""
    states: StateSettings = StateSettings()
    """Which states."""
    targets: TargetSettings = TargetSettings()
    """Which outputs."""
    controls: CurveControlSettings = CurveControlSettings()
    """What a control may be."""
    search: CurveSearchSettings = CurveSearchSettings()
    """How it is searched for."""
    baseline: Literal["random", "none"] = "random"
    """Random controls with as many tokens through the model as the search spent on the same pair."""
    recheck: tuple[Literal["float32", "bfloat16", "float16", "vllm"], ...] = ()
    """Where witnesses are checked again: in another dtype, or on vLLM."""
    keep_paths: bool = False
    """Keep every step of every search in pairs.jsonl."""

    @model_validator(mode="after")
    def _parts_fit(self) -> CurveSettings:
        if self.controls.position == "template":
            raise ValueError(
                'controls.position is "template", but a curve\'s states are plain texts: '
                "take a slot such as user_start, or solve single problems"
            )
        if self.states.pairs is not None and self.states.path is not None:
            raise ValueError(
                "states.path and states.pairs are both given, but states come from one place: drop one"
            )
        if self.search.share_scan and self.targets.draw == "next" and self.targets.tokens > 1:
            raise ValueError(
                f"search.share_scan is on and targets.tokens is {self.targets.tokens}, but a shared scan "
                "answers targets of one token: set targets.tokens=1 or share_scan=false"
            )
        return self

    @property
    def max_k(self) -> int:
        """The longest control that the search tries."""
        if self.search.schedule == "published":
            return max((*self.search.ks_greedy, *self.search.ks_gcg), default=1)
        return self.search.max_k

    @property
    def ks(self) -> list[int]:
        """The control lengths at which epsilon is reported."""
        if self.search.schedule == "published":
            return sorted({0, *self.search.ks_greedy, *self.search.ks_gcg})
        return list(range(self.search.max_k + 1))


class CurveRecipe(CurveSettings):
    """The curve of one model."""

    kind: ClassVar[str] = "reach-curve"
    free_keys: ClassVar[tuple[str, ...]] = ("beside",)

    model: str = "smollm2-135m"
    """Alias, folder or Hub name."""
    adapter: Path | None = None
    """A PEFT adapter on top."""
    beside: tuple[str, ...] = ()
    """Curves to draw beside: published ones by name, CSV files of Magic Words, folders of other runs."""
    shard: ShardSettings = ShardSettings()
    """Which part of the curve; `llmctl reach merge` puts parts together."""


def read_curve_recipe(folder: Path) -> CurveRecipe:
    """Read the recipe in the folder of a curve's run.

    Raises:
        UserError: The folder is not the run of a curve.
    """
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is no run: give the folder of a finished `llmctl reach curve`")
    content = read_recipe_file(path, is_link_allowed=False)
    if (kind := content.pop("kind", None)) != CurveRecipe.kind:
        raise UserError(f"{folder} is a run of kind {kind!r}, but one of kind {CurveRecipe.kind!r} is needed")
    return parse_recipe(CurveRecipe, content, str(path))
