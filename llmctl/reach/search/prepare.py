"""Before a search: check a problem against a model, lay it out, and decide how long a control may get."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmctl.errors import UserError
from llmctl.reach.problem import Layout, Problem, lay_out
from llmctl.reach.scoring.scorer import Meter, Scorer, check_model, context_of, vocabulary_of
from llmctl.reach.search.config import Schedule
from llmctl.reach.search.state import Search
from llmctl.reach.vocabulary import Pool, survive

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_MAX_K = 4
Plan = Schedule | Callable[[float], Schedule]  # what to run, or a function that plans it from the base loss


def start_search(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    problem: Problem,
    max_k: int,
    *,
    meter: Meter | None = None,
) -> Search:
    """Check a problem against a model and make ready to search.

    Raises:
        UserError: The model is no decoder, the problem does not fit it, or the target is empty.
    """
    layout = check_problem(model, tokenizer, problem, max_k)
    pool = Pool(problem, layout, tokenizer, vocabulary_of(model))
    if problem.must_roundtrip and not survive([layout.prompt(())], tokenizer)[0]:
        raise UserError(
            "must_roundtrip is on, but the state itself changes when it is decoded and encoded again: "
            "give the state as text"
        )
    return Search(Scorer(model, layout, meter=meter), pool)


def check_problem(model: Any, tokenizer: PreTrainedTokenizerBase, problem: Problem, max_k: int) -> Layout:
    """Lay a problem out for a model; what a control may hold is not looked at.

    Raises:
        UserError: The model is no decoder, the problem does not fit it, or the target is empty.
    """
    check_model(model)
    if len(problem.target) == 0:
        raise UserError("the target is empty, but it needs at least one token: give a text or token ids")
    length = context_of(model)
    return lay_out(problem, tokenizer, vocabulary=vocabulary_of(model), context_length=length, max_k=max_k)


def longest(schedule: Plan | None, max_k: int | None) -> int:
    """The longest control that a call of `solve` may try.

    Raises:
        UserError: max_k is below 1.
    """
    if max_k is None:
        max_k = schedule.max_k if isinstance(schedule, Schedule) else DEFAULT_MAX_K
    if max_k < 1:
        raise UserError(f"k is {max_k}, but a control needs at least 1 token: give k >= 1")
    return max_k
