import torch

from llmctl.reach.problem import Layout
from llmctl.reach.scoring.embeddings import blank_embedding, embed_row
from llmctl.reach.scoring.records import BLANK

LAYOUT = Layout((1, 2), (3,), (4, 5), (3,))


def test_a_row_is_embedded_up_to_the_last_target_token(small_model):
    weight = small_model.get_input_embeddings().weight.detach()
    row = embed_row(small_model, LAYOUT, torch.tensor([7, 8]), LAYOUT.left_ids)
    assert torch.equal(row, weight[[1, 2, 7, 8, 3, 4]][None])
    assert torch.equal(embed_row(small_model, LAYOUT, torch.tensor([7]), ()), weight[[7, 3, 4]][None])


def test_a_blank_is_the_mean_embedding(small_model):
    weight = small_model.get_input_embeddings().weight.detach()
    row = embed_row(small_model, LAYOUT, torch.tensor([BLANK, 8]), LAYOUT.left_ids)
    torch.testing.assert_close(row[0, 2], weight.mean(0))
    assert torch.equal(row[0, 3], weight[8])


def test_the_scale_of_the_models_embeddings_is_kept(small_model):
    weight = small_model.get_input_embeddings().weight.detach()
    ids = torch.tensor([3, 4])
    torch.testing.assert_close(blank_embedding(small_model, 5 * weight[ids], ids), 5 * weight.mean(0))
