"""The recipe of `llmctl reach optimize`: the model, the data, what a control may be, and how to search."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from llmctl.reach.settings import ControlRules, LoadSettings
from llmctl.runs import Recipe

SLOT = "{question}"  # where the question goes in `data.prompt` and in `control.template`
SearchMethod = Literal["gcg", "swap", "random"]


class PairSettings(Recipe):
    """Where the pairs of question and answer come from: exactly one of `path`, `task`, `pairs`."""

    path: Path | None = None
    """A JSONL file with one object per line, or a folder with train*.jsonl."""
    held_out_path: Path | None = None
    """Where the held-out pairs lie apart; null takes them from `path`."""
    question: str = "question"
    """The field of a row that holds the question."""
    answer: str = "answer"
    """The field of a row that holds the answer; for a task, "answer" or "solution"."""
    task: str | None = None
    """Name of a task, as shown by `llmctl tasks list`."""
    options: dict[str, Any] = {}
    """Options of the task."""
    train_split: str = "train"
    """Split of the task on which the control is chosen."""
    held_out_split: str = "test"
    """Split of the task that it is evaluated on."""
    pairs: tuple[tuple[str, str], ...] | None = None
    """A small data set in the recipe itself: lists of a question and an answer."""
    prompt: str = SLOT
    """How a question is shown to the model, e.g. "Q: {question}\\nA:"."""
    reply: str = "{answer}"
    """What the model should emit; mind the leading space that most tokenizers want (" {answer}")."""
    train: int = Field(default=64, ge=1)
    """Pairs on which the control is chosen."""
    held_out: int = Field(default=64, ge=0)
    """Pairs on which it is evaluated, once, at the end; no question is in both."""
    split_seed: int = Field(default=1, ge=0)
    """Seed for the order in which pairs are drawn; 0 keeps the order of the data."""

    @model_validator(mode="after")
    def _one_source(self) -> PairSettings:
        given = [name for name in ("path", "task", "pairs") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"{' and '.join(given) or 'nothing'} is given, but the pairs come from exactly one of path, "
                "task and pairs: give one of them"
            )
        if self.held_out_path is not None and self.path is None:
            raise ValueError("held_out_path is given, but it goes with path only: leave it out")
        if SLOT not in self.prompt:
            raise ValueError(f"prompt is {self.prompt!r}, but it must hold {SLOT}")
        if "{answer}" not in self.reply:
            raise ValueError(f"reply is {self.reply!r}, but it must hold {{answer}}")
        if self.task is not None and self.answer not in ("answer", "solution"):
            raise ValueError(f"answer is {self.answer!r}, but of a task it must be answer or solution")
        return self


class ControlSettings(ControlRules):
    """What the control is and where it goes."""

    k: int = Field(default=4, ge=1)
    """Tokens of the control at most."""
    template: tuple[dict[str, str], ...] | None = None
    """Position template: a conversation with {control} once in it, and {question}."""
    allowed: tuple[int, ...] | None = None
    """The only token ids that it may hold; null is the whole vocabulary."""

    @model_validator(mode="after")
    def _template_fits(self) -> ControlSettings:
        if (self.position == "template") != (self.template is not None):
            raise ValueError(
                f"position is {self.position!r} and template is {'given' if self.template else 'null'}, but "
                "position template needs a template and no other takes one"
            )
        if self.template is not None and not any(SLOT in str(m.get("content")) for m in self.template):
            raise ValueError(f"template has no {SLOT} in any message: put it where the question goes")
        return self


class SearchSettings(Recipe):
    """How the control is searched for."""

    method: SearchMethod = "gcg"
    """Swaps that the gradient proposes (gcg), random swaps (swap), or whole controls at random (random)."""
    steps: int = Field(default=64, ge=1)
    """Steps at length k, at most."""
    warm_steps: int = Field(default=4, ge=1)
    """Steps at every shorter length, each of which starts from the best of the length before."""
    candidates: int = Field(default=64, ge=1)
    """Controls scored on the minibatch in a step."""
    top_k: int = Field(default=128, ge=1)
    """Number of tokens that the gradient proposes per position."""
    minibatch: int = Field(default=16, ge=1)
    """Training pairs of a step's gradient and candidates, drawn anew each step."""
    finalists: int = Field(default=4, ge=1)
    """The best of the minibatch that are then judged on all judging pairs."""
    judge: int | None = Field(default=None, ge=1)
    """Training pairs, always the same, that decide what is kept; null is all of them."""
    patience: int = Field(default=0, ge=0)
    """Leave a length after this many steps without improvement; 0 never does."""
    stop_when_matched: bool = False
    """Stop once every judging pair's answer is emitted."""


class OptimizeSettings(Recipe):
    """What `llmctl.reach.optimize` needs to know besides model and pairs."""

    control: ControlSettings = ControlSettings()
    """What the control is and where it goes."""
    search: SearchSettings = SearchSettings()
    """How it is searched for."""
    seed: int = Field(default=0, ge=0)
    """Root of all randomness."""


class OptimizeRecipe(OptimizeSettings):
    """A whole run of `llmctl reach optimize`."""

    kind: ClassVar[str] = "reach-optimize"

    model: str = "smollm2-135m"
    """Alias, folder or Hub name."""
    adapter: Path | None = None
    """A PEFT adapter on the model."""
    load: LoadSettings = LoadSettings()
    """Device, dtype, quantization."""
    data: PairSettings
    """Pairs of question and answer."""
    baseline: SearchMethod | None = None
    """A second search with as many tokens through the model as the first one took."""
    compare: tuple[str, ...] = ()
    """Controls written by hand, scored beside the one that is found."""

    @model_validator(mode="after")
    def _baseline_differs(self) -> OptimizeRecipe:
        if self.baseline == self.search.method:
            raise ValueError(
                f"baseline and search.method are both {self.baseline!r}, but a baseline must be another "
                "method: change it, or leave it out"
            )
        return self
