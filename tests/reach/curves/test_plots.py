import math

from llmctl.reach.curves.known import curve_of_pairs
from llmctl.reach.curves.metrics import curve_metrics
from llmctl.reach.curves.plots import draw_bound, draw_curves, draw_difficulty, draw_epsilon, draw_tokens
from llmctl.reach.curves.recipe import CurveRecipe
from tests.reach.curves.build import make_pair

PAIRS = [make_pair(0, 0), make_pair(1, 1), make_pair(2, 2), make_pair(3, None, base_loss=math.nan)]
METRICS = curve_metrics(CurveRecipe.model_validate({"search": {"max_k": 2}}), PAIRS, [], 1.0)


def test_epsilon_is_drawn_at_every_k_with_bars_of_what_is_new():
    known = curve_of_pairs("other", [pair.pair() for pair in PAIRS])
    top, bottom = draw_epsilon(METRICS, [known]).axes
    assert [text.get_text() for text in top.get_legend().get_texts()][0] == "other, n = 4"
    assert sum(bar.get_height() for bar in bottom.patches) == 3  # pairs that were reached
    assert len(draw_curves([known, known]).axes[0].lines) >= 2
    assert draw_tokens(METRICS).axes[0].get_xscale() == "log"


def test_a_pair_without_a_base_loss_is_left_out_of_the_scatter():
    left, _ = draw_difficulty(PAIRS).axes
    assert sum(len(points.get_offsets()) for points in left.collections) == 3


def test_a_bound_is_a_grid_of_layers_and_heads():
    heads = [{"layer": layer, "head": head, "least_k": 10**layer} for layer in (0, 1) for head in (0, 1, 2)]
    image = draw_bound({"heads": heads}).axes[0].images[0]
    assert image.get_array().tolist() == [[0.0] * 3, [1.0] * 3]
