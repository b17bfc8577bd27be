"""Every search method against brute force on a vocabulary of forty tokens."""

import json

import pytest
import torch

from llmctl.errors import UserError
from llmctl.reach import Phase, Problem, Result, Schedule, Step, solve, solve_steps
from llmctl.reach.search import schedule as schedules
from llmctl.reach.search.solve_run import SolveRun
from tests.reach.oracle import FEW, STATE, emitted, truth


def exhaustive(k, **options):
    """A beam that keeps everything is a search by exhaustion."""
    return Schedule("all", tuple(Phase("beam", j, width=10**6) for j in range(1, k + 1)), **options)


def problem(target, **options):
    return Problem(state=STATE, target=[target] if isinstance(target, int) else target, **options)


@pytest.mark.parametrize("position", ["before", "after"])
def test_a_beam_that_keeps_everything_finds_exactly_what_brute_force_finds(small_model, letters, position):
    least = truth(small_model, FEW, 2, position)
    assert len(set(least.values())) == 3  # some need 0, some 1, some 2: the model is worth searching
    for target in range(40):
        result = solve(
            small_model, letters, problem(target, candidates=FEW, position=position), exhaustive(2)
        )
        assert (result.verdict == "reached") == (target in least)
        assert result.k == least.get(target)


@pytest.mark.parametrize("name", ["greedy", "gcg", "beam", "random"])
def test_no_method_claims_what_is_false_or_misses_what_one_token_reaches(small_model, letters, name):
    least = truth(small_model, FEW, 3)
    found = {}
    for target in range(0, 40, 2):
        schedule = schedules.single(name, 3, candidates=14, steps=8)
        result = solve(small_model, letters, problem(target, candidates=FEW), schedule)
        if result.is_reached:
            found[target] = result.k
            assert least[target] <= result.k
            control = torch.tensor([result.control_ids], dtype=torch.long)
            assert int(emitted(small_model, control)) == target
            assert set(result.control_ids) <= set(FEW)
    # 14 candidates a step cover all single tokens, so k <= 1 must be exact for every method
    assert {t: k for t, k in found.items() if k <= 1} == {
        t: k for t, k in least.items() if k <= 1 and t % 2 == 0
    }


def test_gcg_beats_random_search_at_equal_forwards(small_model, letters):
    reached = {}
    for name in ("gcg", "random"):
        schedule = schedules.single(name, 4, candidates=16, steps=6)
        results = [solve(small_model, letters, problem(t), schedule) for t in range(40)]
        reached[name] = sum(result.is_reached for result in results)
    assert reached["gcg"] > reached["random"]


def test_the_default_schedule_reaches_most_of_what_two_tokens_can_reach(small_model, letters):
    least = truth(small_model, range(40), 2)
    results = {t: solve(small_model, letters, problem(t), max_k=4) for t in least}
    assert sum(result.is_reached for result in results.values()) >= 0.9 * len(least)
    for target, result in results.items():
        assert not result.is_reached or result.k >= least[target]


def test_a_target_of_several_tokens_is_reached_only_when_greedy_decoding_emits_all(small_model, letters):
    controls = torch.cartesian_prod(torch.tensor(FEW), torch.tensor(FEW))
    first = emitted(small_model, controls)
    state = torch.tensor(STATE).expand(len(controls), -1)
    with torch.no_grad():
        second = small_model(torch.cat([controls, state, first[:, None]], 1)).logits[:, -1].argmax(-1)
    truth_pairs = set(zip(first.tolist(), second.tolist(), strict=True))
    reached = sorted(truth_pairs)[:6]
    missed = [(a, b) for a in range(0, 40, 9) for b in range(0, 40, 7) if (a, b) not in truth_pairs][:6]
    for pair in reached + missed:
        result = solve(
            small_model, letters, problem(list(pair), candidates=FEW), exhaustive(2, shorten=False)
        )
        if result.k == 2 or not result.is_reached:
            assert result.is_reached == (pair in truth_pairs)


def test_a_scan_that_finds_nothing_certifies_one_token_and_no_more(small_model, letters):
    least = truth(small_model, range(40), 1)
    target = next(token for token in range(40) if token not in least)
    certify = Schedule("scan", (Phase("scan", 1),))
    one = solve(small_model, letters, problem(target), certify)
    assert (one.verdict, one.certified_k, one.k) == ("unreachable", 1, None)
    assert one.forwards >= 40
    longer = solve(small_model, letters, problem(target), certify, max_k=3)
    assert (longer.verdict, longer.certified_k) == ("unknown", 1)


def test_a_scan_cut_short_certifies_nothing(small_model, letters):
    least = truth(small_model, range(40), 1)
    target = next(token for token in range(40) if token not in least)
    short = Schedule("short", (Phase("scan", 1, candidates=20),))
    result = solve(small_model, letters, problem(target), short)
    assert (result.verdict, result.certified_k) == ("unknown", 0)
    finished = solve(small_model, letters, problem(target), Schedule("s", short.phases, certify=True))
    assert finished.verdict == "unreachable"
    assert finished.forwards == 1 + 40 + 1 + 1  # the base, every token once, two gradients


def test_the_base_is_measured_and_solves_what_needs_no_control(small_model, letters):
    with torch.no_grad():
        logits = small_model(torch.tensor([STATE])).logits[0, -1]
    order, logprobs = logits.argsort(descending=True), logits.log_softmax(-1)
    solved = solve(small_model, letters, problem(int(order[0])))
    assert (solved.k, solved.method, solved.base_rank, solved.certified_k) == (0, "base", 0, None)
    assert (
        solved.loss == solved.base_loss == pytest.approx(-float(logits.log_softmax(-1)[order[0]]), abs=1e-5)
    )
    second = solve(small_model, letters, problem(int(order[1])))
    assert second.base_rank == 1
    assert second.base_loss == pytest.approx(-float(logprobs[order[1]]), abs=1e-5)


def test_a_long_witness_is_shortened_where_that_is_possible(small_model, letters):
    wide = (Phase("random", 4, candidates=128, steps=2),)
    lengths = []
    for target in range(40):
        plain = solve(small_model, letters, problem(target), Schedule("wide", wide, shorten=False))
        short = solve(small_model, letters, problem(target), Schedule("wide", wide))
        assert plain.is_reached == short.is_reached
        if plain.k:
            lengths.append((plain.k, short.k))
            kept = iter(plain.control_ids)  # what is left is the witness with tokens dropped
            assert all(token in kept for token in short.control_ids)
    assert {long for long, _ in lengths} == {4}
    assert min(short for _, short in lengths) < 4


def test_events_are_the_path_and_end_in_the_result(small_model, letters):
    *steps, result = solve_steps(small_model, letters, problem(9), max_k=2)
    assert isinstance(result, Result) and all(isinstance(step, Step) for step in steps)
    assert result.path == tuple(steps)
    assert steps[0].method == "base"
    tokens = [step.forward_tokens for step in steps]
    assert tokens == sorted(tokens) and tokens[-1] <= result.forward_tokens
    plain = solve(small_model, letters, problem(9), max_k=2)
    assert plain == result  # the same seed gives the same search


def test_the_result_survives_json(small_model, letters):
    result = solve(small_model, letters, problem(9), max_k=2)
    assert Result.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_forbidden_tokens_are_in_no_control_that_is_tried(small_model, letters):
    for name in ("greedy", "gcg", "beam", "random"):
        forbidden = set(range(0, 40, 2))
        *steps, result = solve_steps(
            small_model,
            letters,
            problem(9, forbidden=sorted(forbidden)),
            schedules.single(name, 3, candidates=8, steps=3),
        )
        assert not forbidden & {token for step in steps for token in step.control_ids}


def test_the_published_schedule_runs_every_phase_to_its_end(small_model, letters):
    least = truth(small_model, range(40), 2)
    target = next(token for token in range(40) if token not in least)
    schedule = schedules.published(ks_gcg=(4,), top_k=16, candidates=10, steps=3)
    result = solve(small_model, letters, problem(target), schedule)
    ran = {step.method for step in result.path}
    assert ran >= {"base", "greedy"}
    if result.k is None:  # three scans, the GCG start, three gradients, thirty candidates, checks of ties
        assert result.forwards >= 1 + 3 * 40 + 1 + 3 + 30


def test_nan_logits_end_the_search_with_the_reason(letters, small_model):
    import copy

    broken = copy.deepcopy(small_model)
    broken.model.embed_tokens.weight.data[11] = float("nan")
    target = next(t for t in range(40) if t not in truth(small_model, range(40), 1))
    result = solve(broken, letters, problem(target), Schedule("scan", (Phase("scan", 1, ordered=False),)))
    assert result.verdict == "unknown"
    assert "NaN" in result.error


@pytest.mark.parametrize(
    ("options", "max_k", "message"),
    [
        ({"target": []}, 2, "target is empty"),
        ({"target": [4]}, 0, "k is 0, but a control needs at least 1 token"),
        ({"target": [4]}, 125, "the model's context is 128"),
        ({"target": [400]}, 2, "target holds token 400"),
        ({"target": [4], "forbidden": range(40)}, 2, "no token is left"),
    ],
)
def test_bad_input_is_refused_at_the_call(small_model, letters, options, max_k, message):
    with pytest.raises(UserError, match=message):
        solve_steps(small_model, letters, Problem(state=STATE, **options), max_k=max_k)


def test_a_witness_that_only_holds_as_ids_is_marked(model, tokenizer):
    first, second = tokenizer.encode("é")  # two halves of one character
    with torch.no_grad():
        target = int(model(torch.tensor([[first, 40, 41]])).logits[0, -1].argmax())
    halves = problem_of(target, candidates=[first])
    result = solve(model, tokenizer, halves, Schedule("scan", (Phase("scan", 1),)))
    again = tokenizer.encode(result.prompt_text)
    with torch.no_grad():
        as_text = int(model(torch.tensor([again])).logits[0, -1].argmax()) == target
    assert result.is_reached
    if result.k == 1:
        assert again != [first, 40, 41]
        assert result.roundtrips == as_text


def problem_of(target, **options):
    return Problem(state=[40, 41], target=[target], **options)


def test_must_roundtrip_gives_only_controls_that_survive(model, tokenizer):
    whole = tokenizer.encode("é") + tokenizer.encode("ab")
    for target in range(40, 60):
        result = solve(
            model, tokenizer, problem_of(target, candidates=whole, must_roundtrip=True), exhaustive(2)
        )
        assert tokenizer.encode(result.prompt_text) == [*result.control_ids, 40, 41]
        if result.is_reached:
            assert result.roundtrips


def test_must_roundtrip_refuses_a_state_that_does_not_survive_itself(model, tokenizer):
    half = tokenizer.encode("é")[:1]
    with pytest.raises(UserError, match="give the state as text"):
        solve(model, tokenizer, Problem(state=half, target="a", must_roundtrip=True))


def test_the_same_problem_is_solved_in_every_position(model, tokenizer):
    for position in ("before", "after", "system", "user_start", "user_end", "reply_start"):
        result = solve(model, tokenizer, Problem(state="hi", target="q", position=position), max_k=1)
        assert result.position == position
        assert result.base_rank >= 0 and result.forwards >= 3


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        ({"method": "magic", "k": 1}, "no search method 'magic'; the nearest is"),
        ({"method": "gcg", "k": 0, "candidates": 4}, "k is 0"),
        ({"method": "scan", "k": 2}, "exhausts k = 1 only"),
        ({"method": "gcg", "k": 2}, "gcg needs at least 1 per step"),
        ({"method": "beam", "k": 2, "width": 0}, "width is 0"),
    ],
)
def test_a_phase_that_can_not_run_is_refused(phase, message):
    with pytest.raises(UserError, match=message):
        Phase(**phase)


def test_a_search_that_is_left_in_the_middle_concludes_with_what_it_knows(small_model, letters):
    run = SolveRun(small_model, letters, problem(7, candidates=FEW), exhaustive(2), 2)
    nothing_yet = run.conclude()
    assert (nothing_yet.verdict, nothing_yet.k, nothing_yet.control_ids) == ("unknown", None, ())
    events = run.events()
    next(events)
    best = next(events)
    events.close()
    left = run.conclude(is_checked=False)
    assert left.verdict == ("reached" if best.is_hit else "unknown")
    assert left.loss <= best.loss and left.path[-1] == best
    assert left.forwards == best.forwards
