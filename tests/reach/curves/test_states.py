import json
from itertools import pairwise

import pytest

from llmctl.errors import UserError
from llmctl.reach.curves.recipe import StateSettings, TargetSettings
from llmctl.reach.curves.states import SourceState, draw_targets, read_plan, read_states

SETTINGS = StateSettings(count=0, lengths=(3, 5))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_text_is_cut_into_excerpts_that_follow_each_other(tokenizer, tmp_path):
    text = "abcdefghijklmnopqrstuvwxyz"
    (tmp_path / "t.txt").write_text(text)
    states = read_states(SETTINGS.model_copy(update={"path": tmp_path / "t.txt"}), tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert [len(state.ids) for state in states[:4]] == [3, 5, 3, 5]
    assert [token for state in states for token in state.ids] == ids[: sum(len(s.ids) for s in states)]
    assert all(state.next_ids[0] == following.ids[0] for state, following in pairwise(states))
    assert states[-1].next_ids  # the last excerpt has a true next token too


def test_lines_keep_their_number_whatever_is_drawn(tokenizer, tmp_path):
    path = write(tmp_path / "s.jsonl", [{"state": f"state {i}", "next": f" {i}"} for i in range(20)])
    drawn = read_states(StateSettings(path=path, count=5, seed=1), tokenizer)
    assert len(drawn) == 5 and [s.number for s in drawn] == sorted(s.number for s in drawn)
    for state in drawn:
        assert tokenizer.decode(list(state.ids)) == f"state {state.number - 1}"
    assert drawn == read_states(StateSettings(path=path, count=5, seed=1), tokenizer)
    assert drawn != read_states(StateSettings(path=path, count=5, seed=2), tokenizer)


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ('{"state": "a", "next": "b"}\n{"state": ""}\n', {}, "line 2: 'state' is ''"),
        ('{"text": "a"}\n', {}, "line 1: 'state' is None.*states.state_key"),
        ('{"state": "a", "next": 3}\n', {}, "line 1: 'next' is 3, no text"),
        ("[1]\n", {}, "line 1: a JSON object is needed, not a list"),
        ("{\n", {}, "line 1: broken JSON"),
        ('{"state": "a"}\n', {"count": 2}, "states.count is 2, but .* gives 1"),
        ("\n", {}, "holds no states"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tokenizer, tmp_path, content, settings, message):
    path = tmp_path / "s.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_states(StateSettings(path=path, **{"count": 0, **settings}), tokenizer)


def test_a_missing_file_and_lengths_of_zero_are_refused(tokenizer, tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        read_states(StateSettings(path=tmp_path / "none.jsonl"), tokenizer)
    with pytest.raises(UserError, match="at least 1 token"):
        read_states(StateSettings(lengths=(0,)), tokenizer)


def test_targets_are_what_their_kind_says():
    state = SourceState(3, (1, 2), (7, 8, 9))
    order = list(range(99, -1, -1))
    assert draw_targets(state, TargetSettings(), 100, None) == ((7,),)
    assert draw_targets(state, TargetSettings(tokens=2), 100, None) == ((7, 8),)
    assert draw_targets(state, TargetSettings(draw="top", count=3), 100, order) == ((99,), (98,), (97,))
    drawn = [t for (t,) in draw_targets(state, TargetSettings(draw="vocabulary", count=50), 100, None)]
    assert len(set(drawn)) == 50 and max(drawn) < 100
    ranks = [99 - t for (t,) in draw_targets(state, TargetSettings(draw="ranks", count=10), 100, order)]
    assert [rank // 10 for rank in ranks] == list(range(10))  # one in each band


def test_targets_depend_on_the_state_and_the_seed_alone():
    settings = TargetSettings(draw="vocabulary", count=5)
    one = draw_targets(SourceState(1, (1,), ()), settings, 100, None)
    assert one == draw_targets(SourceState(1, (5, 6), ()), settings, 100, None)
    assert one != draw_targets(SourceState(2, (1,), ()), settings, 100, None)
    assert one != draw_targets(SourceState(1, (1,), ()), settings.model_copy(update={"seed": 1}), 100, None)


def test_too_few_tokens_for_the_targets_are_refused():
    with pytest.raises(UserError, match="followed by 1 tokens, but targets.tokens is 2"):
        draw_targets(SourceState(1, (1,), (7,)), TargetSettings(tokens=2), 100, None)
    with pytest.raises(UserError, match="targets.count is 75, but the vocabulary has 40"):
        draw_targets(SourceState(1, (1,), ()), TargetSettings(draw="vocabulary"), 40, None)


def test_a_plan_is_taken_over_by_text_where_the_tokenizer_differs(tokenizer, tmp_path):
    ids = tokenizer.encode("ab", add_special_tokens=False)
    target = tokenizer.encode("c", add_special_tokens=False)
    rows = [
        {"id": "4/0", "state_ids": ids, "state_text": "ab", "target_ids": target, "target_text": "c"},
        {"id": "4/1", "state_ids": ids, "state_text": "ab", "target_ids": [99999], "target_text": "d"},
    ]
    (state,) = read_plan(write(tmp_path / "pairs.jsonl", rows), tokenizer, 0)
    assert state.ids == tuple(ids) and state.pair_ids == ("4/0", "4/1")
    assert state.targets == (tuple(target), tuple(tokenizer.encode("d", add_special_tokens=False)))
    with pytest.raises(UserError, match="line 1 has no 'id'"):
        read_plan(write(tmp_path / "other.jsonl", [{"a": 1}]), tokenizer, 0)
