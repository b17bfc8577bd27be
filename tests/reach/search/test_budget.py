"""A search spends its plan or solves its pair, and an unknown says how rare a hit can be at most."""

import json
from dataclasses import replace

import pytest
import torch

from llmctl.reach import Phase, Problem, Result, Schedule, solve
from llmctl.reach.describe import notes, verdict
from llmctl.reach.search import schedule as schedules
from llmctl.reach.search.methods.registry import METHODS
from llmctl.reach.search.prepare import start_search
from tests.reach.oracle import FEW, STATE, truth


def missed(model, tokens, max_k, position):
    """A token that no control of up to max_k tokens reaches."""
    least = truth(model, tokens, max_k, position)
    return next(token for token in range(40) if token not in least)


@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize("effort", [0.25, 1, 8])
def test_the_default_spends_its_whole_plan_on_what_can_not_be_reached(small_model, letters, position, effort):
    few = FEW[:7]
    target = missed(small_model, few, 3, position)
    problem = Problem(STATE, [target], position=position, candidates=few)
    result = solve(small_model, letters, problem, schedules.default(3, effort=effort))
    assert result.verdict == "unknown"
    assert sum(result.spent.values()) >= 0.95 * sum(result.planned.values())
    assert all(result.spent.get(k, 0) <= n for k, n in result.planned.items())


def test_where_controls_abound_effort_multiplies_what_is_spent(small_model, letters, monkeypatch):
    # A target that is never hit: its margin is lowered far below any tie.
    from llmctl.reach.scoring.records import ControlScores
    from llmctl.reach.scoring.scorer import Scorer

    score = Scorer.score

    def missing(self, controls, base=None):
        found = score(self, controls, base)
        return ControlScores(found.loss, torch.zeros_like(found.is_hit), found.margin - 100)

    monkeypatch.setattr(Scorer, "score", missing)
    problem = Problem(STATE, [7], position="after")
    base = solve(small_model, letters, problem, schedules.default(4))
    more = solve(small_model, letters, problem, schedules.default(4, effort=4))
    assert base.k is None and more.k is None
    for result in (base, more):
        assert all(result.spent[k] >= 0.95 * n for k, n in result.planned.items())
    assert sum(more.spent.values()) >= 3 * sum(base.spent.values())  # k = 1 has 40 controls at any effort


@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("scan", "copying")])
def test_every_method_spends_what_it_plans(small_model, letters, name):
    few = FEW[:7]
    target = missed(small_model, few, 3, "before")
    problem = Problem(STATE, [target], candidates=few)
    result = solve(small_model, letters, problem, schedules.single(name, 3, candidates=8, steps=5))
    assert result.planned[1] == 7  # no more controls of one token exist
    assert sum(result.spent.values()) >= 0.95 * sum(result.planned.values())


def test_a_filter_that_refuses_everything_ends_the_search(model, tokenizer):
    halves = tokenizer.encode("é")[:1]  # never survives decoding
    problem = Problem("hi", "q", candidates=halves, must_roundtrip=True)
    for name in ("gcg", "random"):
        result = solve(model, tokenizer, problem, schedules.single(name, 2, candidates=4, steps=4))
        assert (result.k, result.spent) == (None, {})


def test_what_is_found_up_to_k_does_not_depend_on_the_longest_control(small_model, letters):
    for target in range(0, 40, 7):
        problem = Problem(STATE, [target], candidates=FEW)
        # Without shortening, which looks at parts of longer witnesses.
        plans = (replace(schedules.default(k), shorten=False) for k in (2, 4))
        short, long = (solve(small_model, letters, problem, plan) for plan in plans)
        if short.is_reached:
            assert (short.k, short.control_ids, short.spent) == (long.k, long.control_ids, long.spent)
        else:
            assert {k: long.spent[k] for k in short.spent} == dict(short.spent)
            assert long.path[: len(short.path)] == short.path


def test_uniform_draws_without_a_hit_bound_the_density_of_hits(small_model, letters):
    few = FEW[:7]
    target = missed(small_model, few, 3, "before")
    problem = Problem(STATE, [target], candidates=few)
    draws = Schedule("draws", (Phase("random", 3, candidates=60),))
    result = solve(small_model, letters, problem, draws)
    assert result.uniform_draws == {3: 60} and result.density_bound == {3: 3 / 60}
    said = verdict(result)
    assert "unknown" in said and "at most 5 %" in said and "none of 60 uniform draws" in said
    scanned = solve(small_model, letters, problem, schedules.default(1, certify=True))
    assert scanned.certified_k == 1 and scanned.density_bound == {}  # a certificate says more


def test_the_bound_of_a_default_search_stands_at_every_length(small_model, letters):
    target = missed(small_model, FEW, 2, "before")
    result = solve(small_model, letters, Problem(STATE, [target], candidates=FEW), schedules.default(2))
    assert result.k is None
    assert set(result.density_bound) <= {1, 2} and 2 in result.density_bound
    for k, bound in result.density_bound.items():
        assert bound == min(3 / result.uniform_draws[k], 1)
    assert "controls scored of those planned" in " ".join(notes(result, letters))


def test_a_hit_at_some_length_leaves_bounds_for_shorter_lengths_alone(small_model, letters):
    least = truth(small_model, FEW, 2)
    target = next(token for token, k in least.items() if k == 2)
    phases = tuple(Phase("random", k, candidates=c) for k, c in ((1, 5), (2, 196)))
    result = solve(small_model, letters, Problem(STATE, [target], candidates=FEW), Schedule("r", phases))
    assert result.k == 2 and result.density_bound == {1: 3 / 5}


def test_a_draw_that_was_scored_before_counts_and_is_not_scored_again(small_model, letters):
    target = missed(small_model, range(40), 1, "before")
    search = start_search(small_model, letters, Problem(STATE, [target]), 3)
    wanted = search.draw(50, 3)
    search.generator.manual_seed(0)
    search.evaluate(search.fresh(search.draw(50, 3)), "first", stop_early=False)
    before = search.spent[3]
    search.generator.manual_seed(0)  # the same fifty again
    search.evaluate_uniform(50, 3, "again", stop_early=False)
    assert len(wanted) == 50 and search.spent[3] == before and search.uniform == {3: 50}


def test_the_margin_is_that_of_the_control(small_model, letters):
    for target in (7, 9, 20):
        result = solve(small_model, letters, Problem(STATE, [target], candidates=FEW))
        with torch.no_grad():
            logits = small_model(torch.tensor([list(result.prompt_ids)])).logits[0, -1]
        others = torch.cat([logits[:target], logits[target + 1 :]])
        assert result.margin == pytest.approx(float(logits[target] - others.max()), abs=1e-4)


def test_the_counts_survive_json_and_records_without_them_load(small_model, letters):
    target = missed(small_model, FEW, 2, "before")
    result = solve(small_model, letters, Problem(STATE, [target], candidates=FEW), max_k=2)
    entry = json.loads(json.dumps(result.to_dict()))
    assert Result.from_dict(entry) == result and set(entry["planned"]) == {"1", "2"}
    for name in ("margin", "planned", "spent", "uniform_draws", "density_bound"):
        del entry[name]
    old = Result.from_dict(entry)
    assert (old.planned, old.density_bound, old.verdict) == ({}, {}, "unknown")
    assert old.margin != old.margin and "uniform draws" not in verdict(old)
    assert Result.from_dict(json.loads(json.dumps(old.to_dict()))).to_dict() == old.to_dict()


def test_a_shared_scan_counts_as_every_control_of_one_token(small_model, letters):
    from llmctl.reach import solve_state

    (result,) = solve_state(small_model, letters, Problem(STATE), [9], schedules.default(1))
    assert result.spent[1] == result.planned[1] == 40 or result.k == 0
