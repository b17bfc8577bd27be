"""Arms of equal size, and what is refused before anything is trained."""

import pytest

from llmctl.errors import UserError
from llmctl.gin import SparseGinConfig, count_lora, count_sparse_gin
from llmctl.gin.matched import linear_targets
from llmctl.runs.recipe import parse_recipe
from llmctl.studies.adapters.arms import mismatch, resolve_arms
from llmctl.studies.adapters.loop import check_compare
from llmctl.studies.adapters.recipe import AdapterCompareRecipe
from llmctl.training.scratch import build_config, count_parameters, load_scratch_tokenizer
from tests.training.runs import compare_recipe


def recipe(tiny_model, **changes):
    return parse_recipe(AdapterCompareRecipe, compare_recipe(tiny_model) | changes, "test")


def config_of(model):
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(model)


def test_rank_and_width_are_solved_for_the_budget_and_alpha_follows_the_rank(tiny_model):
    base, lora, gin, loops = resolve_arms(recipe(tiny_model))
    config = config_of(tiny_model)
    assert base.settings is None and base.parameters == 0
    assert lora.settings.lora.alpha == 2 * lora.settings.lora.r  # 32 / 16 in the recipe
    targets = lora.settings.lora.target_modules
    assert list(targets) == linear_targets(config) and "lm_head" not in targets
    assert lora.parameters == count_lora(config, lora.settings.lora.r, targets)
    assert abs(lora.parameters - 9000) <= count_lora(config, 1, targets) / 2
    assert gin.parameters == loops.parameters == count_sparse_gin(config, SparseGinConfig(**gin.settings.gin))
    # The width is solved for what the rank takes; one more or less would be farther away.
    for width in (gin.settings.gin["width"] - 1, gin.settings.gin["width"] + 1):
        other = count_sparse_gin(config, SparseGinConfig(width=width))
        assert abs(other - lora.parameters) >= abs(gin.parameters - lora.parameters)
    assert loops.settings.gin == gin.settings.gin | {"self_loops": "only"}
    sizes = (lora.parameters, gin.parameters)
    assert mismatch([base, lora, gin, loops]) == pytest.approx(max(sizes) / min(sizes) - 1)


def test_the_list_of_linear_layers_is_what_peft_takes_for_all_linear(tiny_model):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    tuned = get_peft_model(model, LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM"))
    names = {name.rsplit(".", 1)[-1] for name in tuned.peft_config["default"].target_modules}
    assert sorted(names) == linear_targets(config_of(tiny_model))


def test_architectures_get_mlps_that_make_them_as_large_as_the_first(tiny_model):
    small = {"hidden_size": 32, "layers": 2, "intermediate_size": 80, "tokenizer": "bytes"}
    names = {name: {"attention": name, **small} for name in ("plain", "gin", "pna")}
    arms = resolve_arms(recipe(tiny_model, architectures=names, budget=None))
    assert arms[0].architecture.intermediate_size == 80 and arms[0].settings.adapter == "full"
    tokenizer = load_scratch_tokenizer(arms[0].architecture, "")
    assert [count_parameters(build_config(arm.architecture, tokenizer)) for arm in arms] == [
        arm.parameters for arm in arms
    ]
    assert mismatch(arms) < 0.005


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ["base", "dora"]}, "arms.1 is 'dora' .*it should be 'base', 'lora', 'sparse_gin' or"),
        ({"arms": ["lora", "lora"]}, "arms is .*but distinct values, at least one, are needed"),
        ({"seeds": [1, 1]}, "seeds is .*but distinct values"),
        (
            {"data": {"validation_rows": 0}},
            "data.validation_rows is 0, but methods are compared on rows held",
        ),
        ({"train": {"adapter": "full"}}, "train.adapter is full, but the arms and seeds .*decide it"),
        ({"train": {"seed": 3}}, "train.seed is 3, but the arms and seeds"),
        ({"train": {"gin": {"width": 4}}}, "train.gin.width is 4, but it is solved for the budget"),
        ({"train": {"gin": {"self_loops": "only"}}}, "train.gin.self_loops is only, which is what the arm"),
        ({"architectures": {"plain": {}}}, "architectures needs at least two"),
        ({"architectures": {"plain": {}, "base": {}}}, "an architecture is called base"),
        (
            {"accuracy": {"problems": 1}, "data": {"path": "rows.jsonl"}},
            "accuracy.problems is 1, but only a task has answers to check",
        ),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(tiny_model, changes, message):
    with pytest.raises(UserError, match=message):
        recipe(tiny_model, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budget": 100}, "budget is 100 parameters, but the smallest LoRA rank .*raise the budget"),
        ({"budget": 100, "arms": ["sparse_gin"]}, "budget is 100 .*the smallest Sparse-GIN width"),
        ({"train": {"gin": {"layers": [0, 7]}}}, "train.gin.layers has 7, but the model has 2 layers"),
        ({"train": {"gin": {"widht": 4}}}, "gin has an option that Sparse-GIN does not know .*widht"),
        ({"model": "nowhere/at-all"}, "nowhere/at-all"),
        ({"data": {"rows": 4}, "search": {"rates": [1e-3, 1e-2]}}, "4 training rows and search.rows is 32"),
    ],
)
def test_what_can_not_be_compared_is_refused_before_there_is_a_folder(tiny_model, changes, message):
    with pytest.raises(UserError, match=message):
        check_compare(recipe(tiny_model, **changes))


def test_architectures_with_different_tokenizers_are_refused(tiny_model):
    names = {"plain": {"tokenizer": "bytes"}, "gin": {"attention": "gin", "tokenizer": str(tiny_model)}}
    with pytest.raises(UserError, match="different tokenizers"):
        resolve_arms(recipe(tiny_model, architectures=names))
