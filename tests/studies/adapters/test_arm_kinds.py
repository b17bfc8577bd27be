"""Which arms there are, what is compared with what, and options that a comparison decides itself."""

import pytest

from llmctl.studies.adapters.arm_kinds import (
    ablated_options,
    arm_kind,
    arm_names,
    arm_pairs,
    arm_title,
    reference_arm,
    solved_options,
)
from llmctl.training import TrainSettings


def test_arms_are_the_base_adapters_with_a_size_and_their_ablations():
    assert arm_names()[:4] == ["base", "lora", "sparse_gin", "self_loop"]
    assert "qlora" not in arm_names() and "full" not in arm_names()


def test_an_ablation_is_its_adapter_with_one_part_removed():
    kind = arm_kind("self_loop")
    assert kind.is_ablation and kind.adapter is arm_kind("sparse_gin").adapter
    assert kind.options == {"self_loops": "only"}


def test_pairs_come_in_the_order_of_what_matters_most():
    expected = [
        ("sparse_gin", "lora"),
        ("sparse_gin", "self_loop"),
        ("self_loop", "lora"),
        ("lora", "base"),
        ("sparse_gin", "base"),
        ("self_loop", "base"),
    ]
    names = ["base", "lora", "sparse_gin", "self_loop"]
    assert arm_pairs(names) == arm_pairs(names[::-1]) == expected


@pytest.mark.parametrize("names", [["lora"], ["base"], []])
def test_one_arm_is_compared_with_nothing(names):
    assert arm_pairs(names) == []


def test_titles_and_the_reference():
    assert [arm_title(name) for name in ("base", "lora", "sparse_gin", "self_loop", "gin")] == [
        "base",
        "LoRA",
        "Sparse-GIN",
        "self-loops only",
        "gin",
    ]
    assert reference_arm() == "lora"


def test_options_that_a_comparison_decides_are_found():
    settings = TrainSettings(gin={"width": 4, "self_loops": "only"})
    assert list(solved_options(settings)) == [("gin", "width", 4)]
    ((key, option, value, ablation),) = ablated_options(settings)
    assert (key, option, value, ablation.name) == ("gin", "self_loops", "only", "self_loop")
    assert not list(solved_options(TrainSettings())) and not list(ablated_options(TrainSettings()))
