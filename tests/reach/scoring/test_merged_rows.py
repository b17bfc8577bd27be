import torch

from llmctl.reach.problem import Layout
from llmctl.reach.scoring.deferred import AskingScorer, GradientRequest, ScoreRequest
from llmctl.reach.scoring.merged_rows import PaddedBatch, by_target, left_rows, room_of, rows_of
from llmctl.reach.scoring.runner import Piece

SHORT = Layout((), (5, 6), (9,), (5, 6))
LONG = Layout((), (5, 6, 7, 8), (9, 10), (5, 6, 7, 8))
AFTER = Layout(tuple(range(11, 17)), (), (9,), tuple(range(11, 17)), "after")


def asking(model, layout):
    return AskingScorer(model, layout, lambda _: None)


def whole(*rows):
    return [Piece(one, slice(0, len(one.ids))) for one in rows]


def test_rows_hold_the_prompt_and_the_target_but_its_last_token(small_model):
    rows = rows_of(ScoreRequest(asking(small_model, LONG), torch.tensor([[1], [2]])))
    assert rows.ids.tolist() == [[1, 5, 6, 7, 8, 9], [2, 5, 6, 7, 8, 9]] and rows.width == 6
    assert rows.target.tolist() == [9, 10]


def test_a_long_left_side_need_not_go_through_the_model(small_model):
    scorer = asking(small_model, AFTER)
    rows = rows_of(ScoreRequest(scorer, torch.tensor([[1], [2]])))
    assert (rows.length, rows.width) == (7, 1)
    assert rows_of(ScoreRequest(scorer, torch.tensor([[1]]))).width == 7  # one row shares with nobody
    assert rows_of(GradientRequest(scorer, torch.tensor([1]))).width == 1
    assert left_rows(scorer).ids.tolist() == [list(AFTER.left_ids)]


def test_padding_stands_on_the_left_behind_a_mask(small_model):
    short = rows_of(ScoreRequest(asking(small_model, SHORT), torch.tensor([[1]])))
    long = rows_of(ScoreRequest(asking(small_model, LONG), torch.tensor([[2]])))
    batch = PaddedBatch(whole(long, short), torch.device("cpu"))
    assert batch.ids().tolist() == [[2, 5, 6, 7, 8, 9], [0, 0, 0, 1, 5, 6]]
    context = batch.context()
    assert context["attention_mask"].tolist() == [[1] * 6, [0, 0, 0, 1, 1, 1]]
    assert context["position_ids"].tolist()[1] == [0, 0, 0, 0, 1, 2]
    assert PaddedBatch(whole(long), torch.device("cpu")).context() == {}


def test_logits_are_grouped_by_the_length_of_the_target(small_model):
    short = rows_of(ScoreRequest(asking(small_model, SHORT), torch.tensor([[1], [3]])))
    long = rows_of(ScoreRequest(asking(small_model, LONG), torch.tensor([[2]])))
    batch = PaddedBatch(whole(long, short), torch.device("cpu"))
    logits = torch.arange(3.0)[:, None, None].expand(3, 2, 40)
    groups = by_target(batch, logits)
    assert [(where, own.shape[1], target.tolist()) for where, _, own, target in groups] == [
        ([1, 2], 1, [[9], [9]]),
        ([0], 2, [[9, 10]]),
    ]


def test_the_room_of_a_row_counts_the_cache_that_is_copied_for_it(small_model):
    scorer = asking(small_model, AFTER)
    rows = rows_of(ScoreRequest(scorer, torch.tensor([[1], [2]])))
    assert room_of(whole(rows), 1).cached == 0  # nothing is computed yet
    keys = torch.zeros(1, 2, 6, 8)
    scorer.left = [(keys, keys)]
    room = room_of(whole(rows), 1)
    assert (room.length, room.cached, room.token_bytes) == (1, 6, 2 * 2 * 8 * 4)


def test_rows_that_cannot_be_ranked_are_named(small_model):
    rows = rows_of(ScoreRequest(asking(small_model, SHORT), torch.tensor([[1], [3]])))
    rows.refuse(slice(0, 2), torch.tensor([False, True]))
    assert "ends in [3, 5, 6]" in str(rows.error)
