"""What the control of an optimize run is worth, and what it is compared with; scored once, at the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from llmctl.reach.universal.data import PairData
from llmctl.reach.universal.recipe import OptimizeRecipe
from llmctl.reach.universal.report import CONTROL, NO_CONTROL, RANDOM
from llmctl.reach.universal.result import PairScores, UniversalStep
from llmctl.runs import Run, progress
from llmctl.runs.timing import timed

if TYPE_CHECKING:
    from torch import Tensor

    from llmctl.reach.universal.search import Universal

RANDOM_CONTROLS = 8  # drawn and averaged, since a single one may be lucky
_TEXTS, _AS_TEXT, _WITHOUT = "tokens", "as text", "without each"  # keys of the journal, before the split


@dataclass(frozen=True)
class TextCheck:
    """What becomes of the prompts of one split when they are written as text and encoded again."""

    is_same: tuple[bool, ...]
    """For each pair, whether the ids stay the same."""
    is_match: tuple[bool, ...]
    """For each pair, whether greedy decoding still emits the answer."""


@dataclass(frozen=True)
class Evaluation:
    """Everything that was scored at the end."""

    scores: Mapping[str, Mapping[str, PairScores]]
    """By name of what was scored, then by split."""
    as_text: Mapping[str, TextCheck]
    """By split."""
    loss_without: Mapping[str, tuple[float, ...]]
    """By split: for each token of the control, the mean loss when it is left out, nats."""
    text: str
    """The control as text."""
    token_texts: tuple[str, ...]
    """Each of its tokens as text."""

    @classmethod
    def from_journal(cls, found: Mapping[str, Any]) -> Evaluation:
        """From the journal's records, by "<what>/<split>"."""
        scores: dict[str, dict[str, PairScores]] = defaultdict(dict)
        as_text, without = {}, {}
        for key, value in found.items():
            name, _, split = key.rpartition("/")
            if name == _AS_TEXT:
                as_text[split] = TextCheck(*(tuple(marks) for marks in value))
            elif name == _WITHOUT:
                without[split] = tuple(value)
            elif name:
                scores[name][split] = PairScores.from_dict(value)
        texts = found[_TEXTS]
        return cls(dict(scores), as_text, without, texts["whole"], tuple(texts["each"]))


def evaluate(
    run: Run,
    recipe: OptimizeRecipe,
    search: Universal,
    data: PairData,
    paths: Mapping[str, Sequence[UniversalStep]],
    *,
    quiet: bool = False,
) -> Evaluation:
    """Score everything at the end; this is the only look at the held-out pairs.

    Args:
        run: Open; its journal `evaluate` is filled.
        recipe: Resolved.
        search: The search that found the control.
        data: The pairs.
        paths: Steps by method; the last one of the recipe's method holds the control.
        quiet: Show no progress.
    """
    from llmctl.reach.universal import score

    control = search.found(paths[recipe.search.method][-1])
    sides = {"train": search.layouts, "held_out": search.lay_out(data.held_out)}
    units: dict[str, Callable[[], Any]] = {_TEXTS: partial(_texts, search, control.tolist())}
    for split, layouts in sides.items():
        if not layouts:
            continue
        for name, controls in _controls(recipe, search, control, paths).items():
            units[f"{name}/{split}"] = partial(score.score_pairs, search.model, layouts, controls)
        units[f"{_WITHOUT}/{split}"] = partial(score.score_without_each, search.model, layouts, control)
        units[f"{_AS_TEXT}/{split}"] = partial(
            score.match_as_text, search.model, search.tokenizer, layouts, control.tolist()
        )
    book = run.journal("evaluate")
    with progress(len(units), "evaluate", "scores", done=len(book), quiet=quiet) as bar:
        for key, unit in units.items():
            if key in book:
                continue
            with timed(run, f"evaluate/{key}"):
                book.append(key, {"found": unit()})
            bar.advance()
    return Evaluation.from_journal({line["key"]: line["found"] for line in book})


def _controls(
    recipe: OptimizeRecipe,
    search: Universal,
    control: Tensor,
    paths: Mapping[str, Sequence[UniversalStep]],
) -> dict[str, Tensor]:
    """(N, K) controls by name; of several the mean counts."""
    import torch

    from llmctl.reach.universal import candidates as proposals
    from llmctl.sampling.common import derive_seed

    generator = torch.Generator().manual_seed(derive_seed(recipe.seed, "random controls"))
    named = {
        NO_CONTROL: control[None, :0],
        RANDOM: proposals.whole(search.tokens, len(control), RANDOM_CONTROLS, generator),
    }
    for text in recipe.compare:
        ids = search.tokenizer.encode(text, add_special_tokens=False)
        named[f"by hand: {text!r}"] = torch.tensor([ids])
    if recipe.baseline is not None and paths[recipe.baseline][-1].loss is not None:
        named[f"search {recipe.baseline}"] = search.found(paths[recipe.baseline][-1])[None]
    return {**named, CONTROL: control[None]}


def _texts(search: Universal, ids: list[int]) -> dict[str, Any]:
    """The control as text, whole and each token."""
    from llmctl.reach.vocabulary import decode

    return {"whole": decode(ids, search.tokenizer), "each": [decode([i], search.tokenizer) for i in ids]}
