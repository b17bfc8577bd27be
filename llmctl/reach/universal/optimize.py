"""Optimize one control for a whole data set, from Python: plain inputs, one result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llmctl.reach.problem import Layout
from llmctl.reach.universal.data import Pairs, TextPair, check_disjoint
from llmctl.reach.universal.recipe import OptimizeSettings
from llmctl.reach.universal.result import Optimized, PairScores, UniversalStep
from llmctl.reach.universal.score import score_pairs
from llmctl.reach.universal.search import Universal
from llmctl.reach.vocabulary import decode

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


def optimize(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Pairs,
    settings: OptimizeSettings | None = None,
    held_out: Pairs = (),
) -> Optimized:
    """Find one control that makes a model answer many questions.

    Args:
        model: A decoder-only model of transformers in evaluation mode.
        tokenizer: The tokenizer of that model.
        pairs: Prompts and the texts that should follow them (note the leading space); the control is
            chosen on these.
        settings: Control, search, seed.
        held_out: Other pairs; the control is scored on them once it is found.

    Raises:
        UserError: There are no pairs, one does not fit the model, a question is in both sets, or no token
            is left for the control.
    """
    *_, result = optimize_steps(model, tokenizer, pairs, settings, held_out)
    if not isinstance(result, Optimized):
        raise RuntimeError("the search ended without a result")
    return result


def optimize_steps(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Pairs,
    settings: OptimizeSettings | None = None,
    held_out: Pairs = (),
) -> Iterator[UniversalStep | Optimized]:
    """As `optimize`, but an iterator over the steps, with the result as its last item.

    Raises:
        UserError: As `optimize`, at the call and not at the first item.
    """
    settings = settings if settings is not None else OptimizeSettings()
    check_disjoint(*([TextPair(*pair) for pair in side] for side in (pairs, held_out)))
    search = Universal(model, tokenizer, pairs, settings)
    return _events(search, search.lay_out(held_out))


def _events(search: Universal, held_out: Sequence[Layout]) -> Iterator[UniversalStep | Optimized]:
    path = []
    for step in search.steps():
        path.append(step)
        yield step
    last = path[-1]
    control = search.found(last)
    empty = control[:0]

    def score(layouts: Sequence[Layout], one: Tensor) -> PairScores:
        return score_pairs(search.model, layouts, one[None])

    yield Optimized(
        control_ids=last.control_ids,
        control_text=decode(last.control_ids, search.tokenizer),
        method=last.method,
        train=score(search.layouts, control),
        held_out=score(held_out, control) if held_out else None,
        base_train=score(search.layouts, empty),
        base_held_out=score(held_out, empty) if held_out else None,
        forwards=last.forwards,
        forward_tokens=last.forward_tokens,
        backward_tokens=last.backward_tokens,
        seed=search.settings.seed,
        path=tuple(path),
    )
