"""Which controls copy a target, by position and by length of the target."""

import pytest
import torch

from llmctl.reach import Phase, Problem, Schedule, solve
from llmctl.reach.problem import Layout
from llmctl.reach.search.methods.copying import copies, copying_controls
from llmctl.reach.search.prepare import start_search
from tests.reach.oracle import FEW, STATE

Y = 9


def before(state, target=(Y,)):
    return Layout((), tuple(state), tuple(target), tuple(state), "before")


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (1, [(9,)]),
        (2, [(28, 9), (9, 9)]),
        (3, [(3, 28, 9), (9, 28, 9), (9, 9, 9)]),
        (4, [(17, 3, 28, 9), (9, 3, 28, 9), (28, 9, 28, 9), (9, 9, 9, 9)]),
    ],
)
def test_before_the_state_the_target_follows_the_states_last_tokens(k, expected):
    assert copies(before(STATE), k) == expected


def test_after_the_state_the_control_ends_where_the_target_comes_next():
    after = Layout(tuple(STATE), (), (Y,), tuple(STATE), "after")
    assert copies(after, 1) == [(9,)]
    assert copies(after, 2) == [(9, 28), (9, 9)]
    assert copies(after, 3) == [(9, 3, 28), (28, 9, 28), (9, 9, 9)]


def test_a_target_of_several_tokens_is_copied_whole_where_it_fits_and_else_from_its_beginning():
    layout = before([1, 2, 3], [7, 8])
    assert copies(layout, 1) == [(7,)]
    assert copies(layout, 2) == [(3, 7), (7, 8)]
    assert copies(layout, 3) == [(2, 3, 7), (3, 7, 8), (8, 7, 8)]


def test_in_a_template_the_ends_of_the_template_and_of_the_state_are_tried():
    layout = Layout((50,), (5, 60), (Y,), (4, 5), "user_start")
    assert copies(layout, 2) == [(60, 9), (9, 9), (5, 9)]


def test_a_context_shorter_than_the_control_is_not_padded():
    assert copies(before([4]), 4) == [(4, 9, 4, 9), (9, 9, 9, 9)]


def test_controls_with_tokens_that_are_not_allowed_are_left_out(small_model, letters):
    search = start_search(small_model, letters, Problem(STATE, [Y], candidates=FEW), 3)
    found = copying_controls(search, 3)  # of the state, 3 is allowed and 28 is not
    assert found.tolist() == [[9, 9, 9]]
    none = start_search(small_model, letters, Problem(STATE, [7], candidates=FEW), 3)
    assert copying_controls(none, 3).shape == (0, 3)
    assert list(run_of(none)) == []


def run_of(search):
    from llmctl.reach.search.methods.copying import run_copying

    return run_copying(search, Phase("copying", 3))


def test_a_model_that_repeats_what_followed_last_time_is_solved_by_copying_alone(letters, small_model):
    class Induction(torch.nn.Module):
        """Emits what followed the latest earlier occurrence of the last token."""

        config, device, dtype = small_model.config, small_model.device, small_model.dtype

        def can_generate(self):
            return True

        def get_input_embeddings(self):
            return small_model.get_input_embeddings()

        def forward(self, input_ids=None, logits_to_keep=1, **_):
            logits = torch.zeros(*input_ids.shape, 40)
            for row, ids in enumerate(input_ids.tolist()):
                for end in range(len(ids)):
                    earlier = [i for i in range(end) if ids[i] == ids[end]]
                    logits[row, end, ids[earlier[-1] + 1] if earlier else 0] = 5.0
            return type("Out", (), {"logits": logits[:, -logits_to_keep:]})()

    schedule = Schedule("copies", tuple(Phase("copying", k) for k in (1, 2)))
    result = solve(Induction(), letters, Problem(STATE, [Y]), schedule)
    assert (result.verdict, result.method, result.control_ids) == ("reached", "copying", (28, 9))
    assert (result.planned, result.spent) == ({1: 1, 2: 2}, {1: 1, 2: 2})
