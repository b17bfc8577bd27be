"""Models from scratch: of equal size, made again from their seed, saved and loaded like any other."""

import pytest
import torch

from llmctl.errors import UserError
from llmctl.models.loading import load
from llmctl.models.tiny import tiny_tokenizer
from llmctl.training.recipe import Architecture
from llmctl.training.scratch import build_config, count_parameters, make_model, match_size

from .helpers import weights

SMALL = {"hidden_size": 32, "layers": 2, "heads": 4, "intermediate_size": 64, "tokenizer": "bytes"}


@pytest.mark.parametrize("attention", ["plain", "gin", "pna"])
def test_mlps_are_as_wide_as_brings_the_parameters_nearest_to_the_budget(attention):
    architecture, tokenizer = Architecture(attention=attention, **SMALL), tiny_tokenizer()
    sized, count = match_size(architecture, tokenizer, 40_000)
    assert count == count_parameters(build_config(sized, tokenizer))
    step = 3 * 32 * 2  # three matrices a layer grow by the hidden size
    assert abs(count - 40_000) <= step / 2


def test_a_budget_below_all_but_the_mlps_is_refused():
    with pytest.raises(UserError, match="budget is 100 parameters, but plain attention .* raise the budget"):
        match_size(Architecture(**SMALL), tiny_tokenizer(), 100)


@pytest.mark.parametrize("attention", ["plain", "gin"])
def test_a_model_is_made_again_from_its_seed_and_loads(attention, tmp_path):
    architecture, tokenizer = Architecture(attention=attention, **SMALL), tiny_tokenizer()
    folders = [
        make_model(tmp_path / str(n), architecture, tokenizer, seed) for n, seed in enumerate((3, 3, 4))
    ]
    first, again, other = map(weights, folders)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    loaded = load(folders[0])
    assert sum(p.numel() for p in loaded.model.parameters()) == count_parameters(
        build_config(architecture, tokenizer)
    )


def test_an_option_that_the_config_does_not_know_is_refused():
    wrong = Architecture(attention="gin", options={"graph_blent": True}, **SMALL)
    with pytest.raises(UserError, match="graph_blent, but GraphLlamaConfig has no such field"):
        build_config(wrong, tiny_tokenizer())
