"""Which tokens are read and which are run, counted by hand."""

import torch

from llmctl.reach.problem import Layout
from llmctl.reach.scoring.prefix_plan import PlanMeter, PrefixPlan
from llmctl.reach.scoring.records import Meter

AFTER = Layout(
    tuple(range(10)), (), (7, 8), tuple(range(10)), "after"
)  # the state stands left of the control
BEFORE = Layout((), (1, 2, 3, 4), (7,), (1, 2, 3, 4))


def test_a_state_left_of_the_control_is_read_once():
    (group,) = PrefixPlan(AFTER, True).groups(torch.tensor([[1, 2], [3, 4], [5, 6]]))
    assert group.prefix == AFTER.left_ids and group.width == 2 + 1 and group.tokens == 9


def test_a_single_row_and_a_model_without_keys_run_whole():
    one = torch.tensor([[1, 2]])
    assert PrefixPlan(AFTER, True).groups(one)[0].prefix == ()
    (group,) = PrefixPlan(AFTER, False).groups(one.repeat(3, 1))
    assert group.prefix == () and group.width == AFTER.length(2) - 1


def test_rows_are_grouped_by_what_they_share_with_their_base():
    base = torch.arange(20, 28)
    controls = base.repeat(4, 1)
    controls[[0, 1], 0], controls[[2, 3], 6] = 1, 1
    groups = PrefixPlan(BEFORE, True).groups(controls, base)
    assert [(g.rows.tolist(), len(g.prefix), g.width) for g in groups] == [([0, 1], 0, 12), ([2, 3], 6, 6)]
    assert groups[1].prefix == tuple(base[:6].tolist())


def test_the_positions_that_predict_the_target_are_always_run():
    controls = torch.tensor([[4, 4]] * 3)  # all alike, so that everything is shared
    (group,) = PrefixPlan(AFTER, True).groups(controls)
    assert group.width == len(AFTER.target_ids)
    assert PrefixPlan(AFTER, True).prompts(controls).width == 1


def test_the_gradient_reads_a_long_left_side_only():
    assert PrefixPlan(AFTER, True).gradient_tokens(2) == 2 + 1
    assert PrefixPlan(AFTER, False).gradient_tokens(2) == 10 + 2 + 1
    assert PrefixPlan(BEFORE, True).gradient_tokens(2) == 2 + 4


def test_a_meter_of_the_plan_counts_a_prefix_once():
    meter = Meter()
    costs = PlanMeter(PrefixPlan(AFTER, True), meter)
    costs.count_score(torch.tensor([[1, 2], [3, 4]]), None)
    assert meter == Meter(forwards=2, forward_tokens=10 + 2 * 3)
    costs.count_gradient(torch.tensor([1, 2]))
    assert meter == Meter(forwards=3, forward_tokens=16 + 3, backward_tokens=3)
