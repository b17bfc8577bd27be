import pytest
import torch

from llmctl.reach.problem import Layout
from llmctl.reach.scoring.pairs import PairBatch
from llmctl.reach.scoring.scorer import Scorer

LAYOUTS = [
    Layout((), tuple(range(5, 5 + length)), tuple(range(20, 20 + targets)), tuple(range(5, 5 + length)))
    for length, targets in ((2, 1), (4, 2), (12, 1), (3, 3))
]
CONTROLS = torch.tensor([[1, 2], [1, 3], [4, 3]])


def test_every_pair_has_the_scores_of_its_own_scorer(small_model):
    table = PairBatch(small_model, LAYOUTS).score(CONTROLS)
    for row, layout in enumerate(LAYOUTS):
        alone = Scorer(small_model, layout).score(CONTROLS)
        torch.testing.assert_close(table.loss[row].float(), alone.loss, atol=1e-5, rtol=1e-5)
        assert torch.equal(table.is_hit[row], alone.is_hit)


def test_memory_that_runs_out_halves_scores_and_gradients_alike(small_model, monkeypatch):
    pairs = PairBatch(small_model, LAYOUTS)
    loss, slope = pairs.score(CONTROLS).loss, pairs.gradient(CONTROLS[0])
    forward, rows = small_model.forward, []

    def crowded(*args, **options):
        given = options["input_ids"] if "input_ids" in options else options["inputs_embeds"]
        if len(given) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        rows.append(len(given))
        return forward(*args, **options)

    monkeypatch.setattr(small_model, "forward", crowded)
    again = PairBatch(small_model, LAYOUTS)
    torch.testing.assert_close(again.score(CONTROLS).loss, loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again.gradient(CONTROLS[0]), slope, atol=1e-5, rtol=1e-4)
    assert max(rows) == 2 and vars(again.meter) == vars(pairs.meter)


def test_nan_names_the_row(small_model):
    import copy

    from llmctl.reach.scoring.records import NotFiniteError

    broken = copy.deepcopy(small_model)
    broken.model.embed_tokens.weight.data[2] = float("nan")
    with pytest.raises(NotFiniteError, match="prompt that ends in"):
        PairBatch(broken, LAYOUTS).score(CONTROLS)
