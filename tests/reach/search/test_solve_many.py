"""Searches in company against the same searches alone."""

import copy
import dataclasses
import threading

import pytest
import torch

from llmctl.errors import UserError
from llmctl.models.tiny import make_tiny_model
from llmctl.reach import Phase, Problem, Schedule, lay_out, solve, solve_as_completed, solve_many
from llmctl.reach.scoring.deferred import AskingScorer, GradientRequest, ScoreRequest
from llmctl.reach.scoring.merged import Merger
from llmctl.reach.scoring.scorer import BLANK, Scorer
from llmctl.reach.search import schedule
from tests.reach.oracle import STATE, truth


@pytest.fixture(scope="module")
def exact_model(any_model):
    """In double precision, so that a difference is a mistake and not rounding."""
    return copy.deepcopy(any_model).double()


def mixed_problems():
    """States and targets of several lengths, controls at several places."""
    return [
        Problem(state="hello there", target="y", position="before", id="a"),
        Problem(state="a state that is a good deal longer", target="yz", position="after", id="b"),
        Problem(state="hi", target="abc", position="user_end", id="c"),
        Problem(state="ok", target="q", position="before", must_roundtrip=True, id="d"),
        Problem(state="x", target="!", position="after", id="f"),
    ]


def assert_same(one, two):
    """Equal in all but the last digits of floats."""
    first, second = dataclasses.asdict(one), dataclasses.asdict(two)
    paths = first.pop("path"), second.pop("path")
    pairs = [(first, second), *zip(*paths, strict=True)]
    for left, right in pairs:
        assert left == {
            key: pytest.approx(value, abs=1e-5) if isinstance(value, float) else value
            for key, value in right.items()
        }


SHORT = Schedule("short", tuple(Phase("gcg", k, candidates=10, steps=3) for k in (1, 2)))


def test_results_equal_those_of_solve_in_every_family(exact_model, tokenizer):
    problems = mixed_problems()
    alone = [solve(exact_model, tokenizer, problem, SHORT) for problem in problems]
    found = solve_many(exact_model, tokenizer, problems, SHORT, together=4)
    for one, two in zip(alone, found, strict=True):
        assert_same(one, two)


@pytest.mark.parametrize("method", ["greedy", "beam", "random", "gcg", "default"])
def test_results_equal_those_of_solve_for_every_method(small_model, letters, method):
    model = copy.deepcopy(small_model).double()
    problems = [
        Problem(state=STATE[: 1 + target % 4], target=[target], position=("before", "after")[target % 2])
        for target in range(0, 40, 4)
    ]
    plan = schedule.single(method, 3, candidates=12, steps=3) if method != "default" else None
    alone = [solve(model, letters, problem, plan, 2) for problem in problems]
    found = solve_many(model, letters, problems, plan, 2, together=5)
    assert any(result.is_reached and result.k > 0 for result in found)
    assert any(not result.is_reached for result in found)
    for one, two in zip(alone, found, strict=True):
        assert_same(one, two)


class Calls:
    """What a model was called with."""

    def __init__(self, model, monkeypatch):
        self.rows, self.tokens, self.cached, self.threads = [], [], [], set()
        forward = model.forward

        def spy(*args, **options):
            ids = options.get("input_ids", options.get("inputs_embeds"))
            cache = options.get("past_key_values")
            self.rows.append(len(ids))
            self.tokens.append(ids.shape[0] * ids.shape[1])
            self.cached.append(0 if cache is None else cache.get_seq_length())
            self.threads.add(threading.current_thread())
            return forward(*args, **options)

        monkeypatch.setattr(model, "forward", spy)


def search_threads():
    return [thread for thread in threading.enumerate() if thread.name == "llmctl-reach"]


def test_searches_share_passes_in_one_thread_and_witnesses_are_checked_alone(
    small_model, letters, monkeypatch
):
    problems = [Problem(state=STATE, target=[target]) for target in range(12)]
    calls = Calls(small_model, monkeypatch)
    alone = [solve(small_model, letters, problem, SHORT) for problem in problems]
    before = len(calls.rows)
    lone_checks = []
    emits = Scorer.emits

    def watched(scorer, prompt):
        start = len(calls.rows)
        answer = emits(scorer, prompt)
        lone_checks.extend(calls.rows[start:])
        return answer

    monkeypatch.setattr(Scorer, "emits", watched)
    found = solve_many(small_model, letters, problems, SHORT)
    merged = len(calls.rows) - before - len(lone_checks)
    assert set(lone_checks) == {1} and len(lone_checks) >= sum(result.is_reached for result in found)
    assert merged < (before - len(lone_checks)) / 3
    assert calls.threads == {threading.main_thread()} and search_threads() == []
    assert [result.verdict for result in found] == [result.verdict for result in alone]


def requests_of(model, tokenizer, families):
    """A score and a gradient request on each layout, and what lone scorers say."""
    generator = torch.Generator().manual_seed(1)
    asked, expected = [], []
    for number, (state, target, position, k) in enumerate(families):
        layout = lay_out(Problem(state=state, target=target, position=position), tokenizer)
        controls = torch.randint(3, 259, (5 + number, k), generator=generator)
        control = controls[0].clone()
        control[number % k] = BLANK
        scorer = AskingScorer(model, layout, lambda _: None)
        asked.append((ScoreRequest(scorer, controls), GradientRequest(scorer, control)))
        lone = Scorer(model, layout)
        expected.append((lone.score(controls), lone.gradient(control)))
    return asked, expected


FAMILIES = [
    ("hello there", "y", "before", 3),
    ("a state that is a good deal longer than others", "yz", "after", 2),
    ("ok", "abc", "after", 4),
    ("some more", "z", "user_end", 1),
    ("x", "!", "before", 2),
]


def check_merged(model, tokenizer, merger, atol=1e-6):
    asked, expected = requests_of(model, tokenizer, FAMILIES)
    scores = merger.answer([score for score, _ in asked])
    slopes = merger.answer([gradient for _, gradient in asked])
    for (lone, (slope, loss)), (found, _), (merged_slope, merged_loss) in zip(
        expected, scores, slopes, strict=True
    ):
        torch.testing.assert_close(found.loss, lone.loss, atol=atol, rtol=1e-6)
        torch.testing.assert_close(found.margin, lone.margin, atol=atol, rtol=1e-6)
        assert torch.equal(found.is_hit, lone.is_hit)
        torch.testing.assert_close(merged_slope, slope, atol=atol, rtol=1e-4)
        assert merged_loss == pytest.approx(loss, abs=atol)


def test_merged_requests_equal_lone_ones_in_every_family(exact_model, tokenizer):
    check_merged(exact_model, tokenizer, Merger(exact_model))


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "mistral"])
def test_prefixes_longer_than_a_sliding_window_merge_as_they_run_alone(family, tmp_path, tokenizer):
    from transformers import AutoModelForCausalLM

    folder = make_tiny_model(tmp_path / family, family, sliding_window=16)
    model = AutoModelForCausalLM.from_pretrained(folder).eval().double()
    check_merged(model, tokenizer, Merger(model))


@pytest.mark.gpu
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_padding_leaves_no_trace_in_the_kernels_of_a_gpu(family, tmp_path, tokenizer):
    from transformers import AutoModelForCausalLM

    folder = make_tiny_model(tmp_path / family, family)
    model = AutoModelForCausalLM.from_pretrained(folder).eval().to("cuda")
    check_merged(model, tokenizer, Merger(model), atol=1e-3)


def test_a_left_side_goes_through_the_model_once_a_search(model, tokenizer, monkeypatch):
    problems = [Problem(state="a long state " * n, target="qy", position="after") for n in (2, 3, 4)]
    calls = Calls(model, monkeypatch)
    solve_many(model, tokenizer, problems, SHORT)
    shared = [cached for cached in calls.cached if cached]
    lengths = [len(tokenizer.encode(problem.state)) for problem in problems]
    # Rows of a search at k and its neighbours at other lengths: all but a few tokens come from the cache.
    assert max(lengths) - 4 <= max(shared) <= max(lengths)
    assert calls.rows[1] == 3 and len(shared) > len(calls.rows) / 4


def test_a_scan_wider_than_a_batch_is_cut_and_put_together(model, tokenizer, monkeypatch):
    monkeypatch.setattr("llmctl.reach.scoring.runner.BATCH_TOKENS", {"cpu": 128})
    calls = Calls(model, monkeypatch)
    scan = Schedule("scan", (Phase("scan", 1, stop_early=False, ordered=False),))
    problems = mixed_problems()[:2]
    found = solve_many(model, tokenizer, problems, scan, max_k=1)
    assert 100 < max(calls.tokens) <= 128
    for one, two in zip([solve(model, tokenizer, p, scan, max_k=1) for p in problems], found, strict=True):
        assert (one.verdict, one.forwards, one.forward_tokens) == (
            two.verdict,
            two.forwards,
            two.forward_tokens,
        )


def test_the_batch_is_halved_until_it_fits_and_results_stay_the_same(small_model, letters, monkeypatch):
    model = copy.deepcopy(small_model).double()
    problems = [Problem(state=STATE, target=[target], position="after") for target in range(0, 40, 8)]
    expected = solve_many(model, letters, problems, SHORT)
    forward, seen = model.forward, []

    def crowded(*args, **options):
        rows = len(options.get("input_ids", options.get("inputs_embeds")))
        if rows > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        seen.append(rows)
        return forward(*args, **options)

    monkeypatch.setattr(model, "forward", crowded)
    for one, two in zip(expected, solve_many(model, letters, problems, SHORT), strict=True):
        assert_same(one, two)
    assert max(seen) > 2


def test_nan_logits_end_only_the_searches_that_met_them(small_model, letters):
    broken = copy.deepcopy(small_model)
    broken.model.embed_tokens.weight.data[11] = float("nan")
    problems = [Problem(state=STATE, target=[t], candidates=range(0, 11 + t % 2)) for t in range(20, 30)]
    scan = Schedule("scan", (Phase("scan", 1, ordered=False),))
    found = solve_many(broken, letters, problems, scan)
    alone = [solve(broken, letters, problem, scan) for problem in problems]
    assert [bool(result.error) for result in found] == [bool(result.error) for result in alone]
    assert not any(result.error for result in found[::2])
    assert any("NaN" in result.error for result in found)


def test_a_problem_that_does_not_fit_is_refused_by_name_before_any_search(small_model, letters, monkeypatch):
    calls = Calls(small_model, monkeypatch)
    problems = [Problem(state=STATE, target=[3]), Problem(state=STATE, target=[400], id="far")]
    with pytest.raises(UserError, match="problem far: the target holds token 400"):
        solve_many(small_model, letters, problems)
    with pytest.raises(UserError, match="together is 0"):
        solve_many(small_model, letters, problems[:1], together=0)
    assert calls.rows == []


@pytest.mark.parametrize("error", [UserError("late"), KeyboardInterrupt(), RuntimeError("bad kernel")])
@pytest.mark.parametrize("place", ["model", "search"])
def test_an_error_rises_and_leaves_no_thread(small_model, letters, monkeypatch, error, place):
    problems = [Problem(state=STATE, target=[target]) for target in range(20)]

    def fail(*_, **__):
        raise error

    if place == "model":
        calls = iter(range(8))
        forward = small_model.forward
        monkeypatch.setattr(
            small_model, "forward", lambda *a, **o: forward(*a, **o) if next(calls, 9) < 7 else fail()
        )
    else:
        monkeypatch.setattr("llmctl.reach.search.methods.gcg._candidates", fail)
    with pytest.raises(type(error)):
        solve_many(small_model, letters, problems)
    assert search_threads() == []


def test_results_come_as_they_are_found_and_closing_ends_the_rest(small_model, letters):
    problems = [Problem(state=STATE, target=[target]) for target in range(20)]
    completed = solve_as_completed(small_model, letters, problems, together=4)
    first, result = next(completed)
    assert result.target_ids == (first,)
    assert len(search_threads()) == 3
    completed.close()
    assert search_threads() == []
    assert sorted(number for number, _ in solve_as_completed(small_model, letters, problems)) == [*range(20)]


def test_no_problems_give_no_results(small_model, letters):
    assert solve_many(small_model, letters, []) == []


def test_nothing_reachable_is_missed_in_company(small_model, letters):
    least = truth(small_model, range(40), 1)
    scan = Schedule("scan", (Phase("scan", 1),))
    found = solve_many(small_model, letters, [Problem(state=STATE, target=[t]) for t in range(40)], scan)
    assert {t: r.k for t, r in enumerate(found) if r.is_reached} == least
    assert all(r.is_reached or (r.verdict, r.certified_k) == ("unreachable", 1) for r in found)
