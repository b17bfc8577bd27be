"""From a curve's recipe to what a search takes: a problem template, a schedule, the pairs."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmctl.errors import UserError
from llmctl.reach.curves.recipe import CurveControlSettings, CurveRecipe, CurveSearchSettings
from llmctl.reach.curves.states import PlannedState, draw_targets, read_plan, read_states
from llmctl.reach.problem import Problem
from llmctl.reach.search import schedule as schedules
from llmctl.reach.search.config import Schedule
from llmctl.reach.vocabulary import allowed_tokens, decode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from llmctl.reach.search.prepare import Plan


def search_plan(search: CurveSearchSettings, *, certify: bool = False) -> Plan:
    """The schedule that a recipe's search asks for."""
    s = search
    if s.schedule == schedules.DEFAULT:
        return schedules.default(s.max_k, effort=s.effort, certify=certify, seed=s.seed)
    if s.schedule == schedules.PUBLISHED:
        return schedules.published(
            s.ks_greedy, s.ks_gcg, candidates=s.candidates, steps=s.steps, top_k=128, seed=s.seed
        )
    return schedules.single(s.schedule, s.max_k, candidates=s.candidates, steps=s.steps, seed=s.seed)


def planned_forwards(search: CurveSearchSettings) -> int:
    """The most controls that a search scores for a hard target; 0 means the whole vocabulary."""
    plan = search_plan(search)
    schedule = plan if isinstance(plan, Schedule) else plan(float("inf"))
    if any(phase.candidates == 0 for phase in schedule.phases):
        return 0
    return sum(phase.candidates * phase.steps for phase in schedule.phases)


def problem_template(
    controls: CurveControlSettings, seed: int, tokenizer: PreTrainedTokenizerBase, vocabulary: int
) -> Problem:
    """Position and controls of a recipe, with a state that `problem_at` replaces.

    Raises:
        UserError: No token is left for the control, or the dictionary is missing.
    """
    problem = Problem(
        state="a",
        position=controls.position,
        controls=controls.tokens,
        dictionary=controls.words(),
        forbidden=controls.forbidden,
        must_roundtrip=controls.must_roundtrip,
    )
    allowed = allowed_tokens(problem, tokenizer, min(vocabulary, len(tokenizer)))
    if controls.sample > len(allowed):
        raise UserError(
            f"controls.sample is {controls.sample}, but only {len(allowed)} tokens are allowed: lower it"
        )
    if controls.sample:
        allowed = tuple(sorted(random.Random(seed).sample(allowed, controls.sample)))
    # Filtered once here, and not again for every problem.
    is_whole = len(allowed) == min(vocabulary, len(tokenizer))
    return Problem(
        state="a",
        position=controls.position,
        candidates=None if is_whole else allowed,
        must_roundtrip=controls.must_roundtrip,
    )


def plan_pairs(
    recipe: CurveRecipe, model: Any, tokenizer: PreTrainedTokenizerBase, template: Problem
) -> list[PlannedState]:
    """The states of this shard, each with its targets.

    Raises:
        UserError: The states or targets of the recipe cannot be found.
    """
    if recipe.states.pairs is not None:
        plan = read_plan(recipe.states.pairs, tokenizer, recipe.states.count)
    else:
        plan = []
        for state in read_states(recipe.states, tokenizer):
            order = None
            if recipe.targets.draw in ("top", "ranks"):
                order = token_order(model, tokenizer, problem_at(template, state.ids, tokenizer))
            limit = _limit(model, tokenizer)
            targets = draw_targets(state, recipe.targets, limit, order)
            plan.append(PlannedState(state.number, state.ids, targets))
    shard = recipe.shard
    return [state for place, state in enumerate(plan) if place % shard.of == shard.index]


def token_order(model: Any, tokenizer: PreTrainedTokenizerBase, problem: Problem) -> list[int]:
    """All tokens that text can hold, by falling probability after the state without a control."""
    import torch

    from llmctl.reach.scoring.scan import StateScan

    scan = StateScan(model, tokenizer, problem)
    _, logits = next(iter(scan.scorer.next_logits(torch.empty(1, 0, dtype=torch.long))))
    row = logits[0, : _limit(model, tokenizer)].float()
    return [int(token) for token in row.argsort(descending=True, stable=True)]


def _limit(model: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """How many tokens both the model and the tokenizer know."""
    from llmctl.reach.scoring.scorer import vocabulary_of  # imports torch, which an estimate can do without

    return min(vocabulary_of(model), len(tokenizer))


def problem_at(
    template: Problem,
    state: tuple[int, ...],
    tokenizer: PreTrainedTokenizerBase,
    target: tuple[int, ...] = (),
    name: str = "",
) -> Problem:
    """The template at one state and target; slots of a chat template take the state as text."""
    is_plain = template.position in ("before", "after")
    return replace(template, state=state if is_plain else decode(state, tokenizer), target=target, id=name)
