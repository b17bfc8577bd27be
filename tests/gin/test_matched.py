from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from llmctl.errors import UserError
from llmctl.gin import (
    SparseGinConfig,
    count_lora,
    count_sparse_gin,
    count_trainable,
    solve_rank,
    solve_width,
)

from .tiny import FAMILIES, HEADS, tiny_config, tiny_model

KINDS: dict[str, dict[str, Any]] = {
    "default": {},
    "one layer": {"layers": [1]},
    "graph a head": {"heads": "each", "depth": 2},
    "mix": {"heads": "mix", "mix_width": 5, "activation": "gelu", "norm": "layer"},
    "fixed scale": {"train_scale": False, "scale_last": 0.5, "norm": "none"},
}


def real_count(config: Any, family: str = "llama") -> int:
    return count_trainable(get_peft_model(tiny_model(family), config))


@pytest.mark.parametrize("kind", KINDS)
def test_the_analytic_sparse_gin_count_is_the_real_one(kind):
    config = SparseGinConfig(width=12, **KINDS[kind])
    assert count_sparse_gin(tiny_config(), config) == real_count(config)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_analytic_counts_are_the_real_ones_in_every_family(family):
    targets = ["c_attn", "c_proj"] if family == "gpt2" else ["q_proj", "v_proj", "down_proj"]
    lora = LoraConfig(r=3, target_modules=targets, fan_in_fan_out=family == "gpt2")
    assert count_lora(tiny_config(family), 3, targets) == real_count(lora, family)
    config = SparseGinConfig(width=7)
    assert count_sparse_gin(tiny_config(family), config) == real_count(config, family)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", [2_000, 40_001])
def test_no_width_near_by_comes_nearer_to_the_budget(kind, budget):
    config, step = SparseGinConfig(**KINDS[kind]), HEADS if kind == "graph a head" else 1
    match = solve_width(tiny_config(), config, budget)
    counts = {}
    for width in range(max(step, match.size - 20 * step), match.size + 20 * step, step):
        counts[width] = count_sparse_gin(tiny_config(), SparseGinConfig(width=width, **KINDS[kind]))
    nearest = min(counts, key=lambda width: abs(counts[width] - budget))
    assert match.size == nearest and match.parameters == counts[nearest] and match.budget == budget
    assert match.relative_error == pytest.approx(counts[nearest] / budget - 1)


def test_no_other_rank_comes_nearer_to_the_budget():
    per_rank = count_lora(tiny_config(), 1, ["q_proj"])
    assert per_rank == 3 * (32 + 32)
    # 10 ranks take 1920 parameters and 11 take 2112; half-way, at 2016, the smaller is taken.
    for budget, rank in ((1920, 10), (2015, 10), (2016, 10), (2017, 11), (per_rank, 1)):
        assert solve_rank(tiny_config(), budget, ["q_proj"]).size == rank


def test_both_methods_come_within_a_few_percent_of_one_budget():
    gin = solve_width(tiny_config(), SparseGinConfig(), 20_000)
    lora = solve_rank(tiny_config(), gin.parameters, ["q_proj", "v_proj"])
    assert abs(gin.relative_error) < 0.02 and abs(lora.relative_error) < 0.02
    assert real_count(SparseGinConfig(width=gin.size)) == gin.parameters
    assert real_count(LoraConfig(r=lora.size, target_modules=["q_proj", "v_proj"])) == lora.parameters


def test_counting_a_large_model_allocates_nothing():
    config = tiny_config(hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, vocab_size=32000)
    before = torch.get_default_device()
    assert count_lora(config, 1, ["down_proj"]) == 32 * (4096 + 11008)
    assert torch.get_default_device() == before


def test_the_config_that_is_asked_about_stays_as_it_is():
    config = SparseGinConfig(width=12)
    solve_width(tiny_config(), config, 5_000)
    assert config.width == 12


def test_a_budget_below_the_smallest_size_is_refused():
    with pytest.raises(
        UserError, match=r"budget is 10 parameters.*smallest Sparse-GIN width \(4\) takes \d+"
    ):
        solve_width(tiny_config(), SparseGinConfig(heads="each"), 10)
    with pytest.raises(UserError, match=r"smallest LoRA rank \(1\) takes 192.*raise the budget"):
        solve_rank(tiny_config(), 10, ["q_proj"])


def test_a_target_that_matches_nothing_is_refused():
    with pytest.raises(UserError, match="names c_attn, but the model's linear layers are down_proj.*q_proj"):
        count_lora(tiny_config(), 1, ["q_proj", "c_attn"])
    with pytest.raises(UserError, match=r"is the string 'q_proj', but a list.*\['q_proj'\]"):
        count_lora(tiny_config(), 1, "q_proj")
