import pytest
import torch

from llmctl.reach.universal.data import TextPair, lay_out_pairs
from llmctl.reach.universal.recipe import ControlSettings
from llmctl.reach.universal.score import match_as_text, score_pairs, score_table, score_without_each


@pytest.fixture(scope="module")
def layouts(letters):
    pairs = [TextPair("5A", "B"), TextPair("@2", "C7"), TextPair("123", "D")]
    return lay_out_pairs(pairs, ControlSettings(k=2), letters, 40, None)


def test_a_match_is_what_greedy_decoding_emits(small_model, layouts):
    controls = torch.arange(40)[:, None]
    losses, matches = score_table(small_model, layouts, controls)
    assert losses.shape == matches.shape == (3, 40)
    for row, layout in enumerate(layouts):
        for column in (0, 17, 39):
            ids = layout.prompt([column])
            for token in layout.target_ids:
                with torch.no_grad():
                    emitted = int(small_model(torch.tensor([ids])).logits[0, -1].argmax())
                if emitted != token:
                    break
                ids.append(token)
            assert bool(matches[row, column]) == (
                len(ids) == len(layout.prompt([0])) + len(layout.target_ids)
            )


def test_several_controls_count_as_their_mean(small_model, layouts):
    controls = torch.tensor([[3], [4]])
    both = score_pairs(small_model, layouts, controls)
    each = [score_pairs(small_model, layouts, control[None]) for control in controls]
    assert both.losses == pytest.approx(
        [(a + b) / 2 for a, b in zip(*(one.losses for one in each), strict=True)]
    )


def test_leaving_out_a_token_scores_the_other(small_model, layouts):
    without = score_without_each(small_model, layouts, torch.tensor([3, 4]))
    others = [score_pairs(small_model, layouts, torch.tensor([[token]])).loss for token in (4, 3)]
    assert without == pytest.approx(others)


def test_text_that_reads_back_the_same_matches_as_its_ids(small_model, letters, layouts):
    same, matches = match_as_text(small_model, letters, layouts, [3, 4])
    assert same == [True] * 3
    assert matches == [bool(m) for m in score_pairs(small_model, layouts, torch.tensor([[3, 4]])).matches]
