"""PEFT's ordinary contract, the same checks for LoRA and Sparse-GIN."""

import copy
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import llmctl.gin
from llmctl.errors import UserError
from llmctl.gin import SparseGinConfig
from llmctl.gin.attention_hook import HookedConfig
from llmctl.gin.decoder_layer import SparseGinLayer

from .tiny import FAMILIES, adapted, logits_of, some_ids, tiny_model, visible_config

METHODS = ["lora", "sparse_gin"]
EVERY_FAMILY = [("lora", "llama"), *(("sparse_gin", family) for family in FAMILIES)]


def make_config(method: str, **changes: Any) -> Any:
    """A config whose adapter is the identity at the start."""
    if method == "lora":
        return LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **changes)
    return visible_config(scale_first=0.0, scale_last=0.0, **changes)


def loss_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids, labels=ids, use_cache=False).loss


def train(model: Any, steps: int = 3, rate: float = 0.05) -> list[float]:
    ids, losses = some_ids(), []
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=rate)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_of(model, ids)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


def trained(method: str, family: str = "llama") -> PeftModel:
    torch.manual_seed(3)
    model = get_peft_model(tiny_model(family), make_config(method))
    train(model)
    return model


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize(("method", "family"), EVERY_FAMILY)
def test_a_new_adapter_changes_no_logit_at_all(method, family):
    base = tiny_model(family)
    expected = logits_of(base, some_ids())
    assert torch.equal(logits_of(get_peft_model(base, make_config(method)).eval(), some_ids()), expected)


@pytest.mark.parametrize(("method", "family"), EVERY_FAMILY)
def test_training_lowers_the_loss_and_moves_the_adapter_only(method, family):
    model = get_peft_model(tiny_model(family), make_config(method))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses = train(model, steps=8)
    assert losses[-1] < losses[0] - 0.1
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved and moved <= {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(any(mark in name for mark in ("lora_", ".gin_block.")) for name in moved)


@pytest.mark.parametrize("low_memory", [False, True])
def test_a_reloaded_adapter_has_identical_logits(method, tmp_path, low_memory):
    model = trained(method)
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(
        tiny_model(), tmp_path, adapter_name="again", low_cpu_mem_usage=low_memory
    )
    assert torch.equal(logits_of(loaded.eval(), some_ids()), logits_of(model, some_ids()))
    assert not any(p.requires_grad for p in loaded.parameters())


def test_auto_classes_load_base_and_adapter_in_one_step(method, tmp_path):
    tiny_model().save_pretrained(tmp_path / "base")
    torch.manual_seed(3)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = get_peft_model(base, make_config(method))
    train(model)
    model.save_pretrained(tmp_path / "adapter")
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert torch.equal(logits_of(loaded, some_ids()), logits_of(model, some_ids()))


def test_a_disabled_adapter_leaves_the_base_and_comes_back(method):
    base = logits_of(tiny_model(), some_ids())
    model = trained(method)
    with_adapter = logits_of(model, some_ids())
    with model.disable_adapter():
        assert torch.equal(logits_of(model, some_ids()), base)
    assert torch.equal(logits_of(model, some_ids()), with_adapter)
    assert not torch.allclose(with_adapter, base)


def test_unloading_gives_the_base_back(method):
    base = logits_of(tiny_model(), some_ids())
    unloaded = trained(method).unload()
    assert torch.equal(logits_of(unloaded, some_ids()), base)
    assert [name for name, _ in unloaded.named_parameters()] == [
        n for n, _ in tiny_model().named_parameters()
    ]


def test_several_adapters_live_side_by_side_by_name(method):
    model = trained(method)
    first = logits_of(model, some_ids())
    model.add_adapter("second", make_config(method))
    assert torch.equal(logits_of(model, some_ids()), first)
    model.set_adapter("second")
    train(model)
    second = logits_of(model, some_ids())
    model.set_adapter("default")
    assert torch.equal(logits_of(model, some_ids()), first) and not torch.allclose(first, second)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable and all(".default." in name for name in trainable)
    model.set_adapter("second")
    model.delete_adapter("default")
    assert torch.equal(logits_of(model, some_ids()), second)


def test_each_of_several_adapters_is_saved_and_loaded_by_name(method, tmp_path):
    model = trained(method)
    model.add_adapter("second", make_config(method))
    model.set_adapter("second")
    train(model, steps=5)
    second = logits_of(model, some_ids())
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_model(), tmp_path)
    loaded.load_adapter(tmp_path / "second", adapter_name="second")
    model.set_adapter("default")
    assert torch.equal(logits_of(loaded.eval(), some_ids()), logits_of(model, some_ids()))
    loaded.set_adapter("second")
    assert torch.equal(logits_of(loaded.eval(), some_ids()), second)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_gradient_checkpointing_gives_the_same_gradients(method, family, reentrant):
    model = trained(method, family)
    model.enable_input_require_grads()
    model.train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.zero_grad()
        loss_of(model, some_ids()).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) > 4 and model.is_gradient_checkpointing
    torch.testing.assert_close(gradients[0], gradients[1])


def test_gradient_checkpointing_recomputes_the_gin_instead_of_keeping_it():
    model = adapted().train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    calls = []
    for module in model.modules():
        if isinstance(module, SparseGinLayer):
            module.gin_block["default"].register_forward_pre_hook(lambda *_: calls.append(1))
    loss_of(model, some_ids()).backward()
    assert len(calls) == 6  # 3 layers, twice each


def test_a_deep_copy_is_independent(method):
    model = trained(method)
    before = logits_of(model, some_ids())
    twin = copy.deepcopy(model)
    assert torch.equal(logits_of(twin, some_ids()), before)
    train(twin)
    assert torch.equal(logits_of(model, some_ids()), before)
    assert not torch.allclose(logits_of(twin, some_ids()), before)


def test_four_bit_base_weights_train_save_and_load(method, tmp_path):
    # bitsandbytes packs rows of 64
    tiny_model(hidden_size=64, intermediate_size=64, head_dim=16).save_pretrained(tmp_path / "base")

    def quantized() -> Any:
        settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
        return AutoModelForCausalLM.from_pretrained(
            tmp_path / "base", quantization_config=settings, device_map="cpu"
        )

    base = logits_of(quantized(), some_ids())
    assert torch.equal(logits_of(get_peft_model(quantized(), make_config(method)).eval(), some_ids()), base)
    model = get_peft_model(quantized(), make_config(method))  # never run: running packs weights for inference
    losses = train(model, steps=8)
    assert losses[-1] < losses[0] - 0.1
    model.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(quantized(), tmp_path / "adapter").eval()
    assert torch.equal(logits_of(loaded, some_ids()), logits_of(model, some_ids()))


def test_half_precision_base_weights_train_a_float32_adapter(method):
    model = get_peft_model(tiny_model().to(torch.bfloat16), make_config(method))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    losses = train(model, steps=8)
    assert losses[-1] < losses[0] - 0.05
    assert logits_of(model, some_ids()).dtype == torch.bfloat16


def test_the_saved_file_holds_the_adapter_alone(method, tmp_path):
    from safetensors.torch import load_file

    model = trained(method)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    trainable = [p for p in model.parameters() if p.requires_grad]
    assert sum(t.numel() for t in saved.values()) == sum(p.numel() for p in trainable)
    assert not any("default" in name or "base_layer" in name for name in saved)


# What is Sparse-GIN's own


def test_merging_is_refused_before_anything_changes():
    model = adapted()
    before = logits_of(model, some_ids())
    for merge in (model.merge_and_unload, model.merge_adapter):
        with pytest.raises(UserError, match="cannot be merged.*unload"):
            merge()
    assert torch.equal(logits_of(model, some_ids()), before)


def test_a_scale_that_is_not_trained_is_neither_a_parameter_nor_saved():
    model = adapted(train_scale=False)
    assert not any("scale" in name for name, _ in model.named_parameters())
    assert not torch.allclose(logits_of(model, some_ids()), logits_of(tiny_model(), some_ids()))


def test_unloading_leaves_no_hook():
    model = adapted().unload()
    for module in model.modules():
        assert not isinstance(module, SparseGinLayer)
        assert not module._forward_hooks or not any("gin" in repr(h) for h in module._forward_hooks.values())
        assert not isinstance(getattr(module, "config", None), HookedConfig)
        assert not hasattr(module, "gin_receiver")


def test_an_error_in_the_middle_of_a_layer_does_not_leak_into_the_next_call():
    model = adapted()
    expected = logits_of(model, some_ids())
    mlp = model.base_model.model.model.layers[1].mlp
    hook = mlp.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        logits_of(model, some_ids())
    hook.remove()
    assert all(m._call is None for m in model.modules() if isinstance(m, SparseGinLayer))
    assert torch.equal(logits_of(model, some_ids()), expected)


def test_a_flash_attention_model_is_refused_when_it_runs():
    model = adapted()
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(UserError, match="'flash_attention_2'.*set_attn_implementation\\('sdpa'\\)"):
        logits_of(model, some_ids())


def test_a_data_parallel_copy_is_refused():
    model = adapted()
    layer = next(m for m in model.modules() if isinstance(m, SparseGinLayer))
    copied = layer._replicate_for_data_parallel()
    with pytest.raises(UserError, match="DataParallel.*one process per device"):
        copied(torch.zeros(1, 2, 32))


def test_prefix_keys_without_a_cache_are_refused():
    layer = next(m for m in adapted().modules() if isinstance(m, SparseGinLayer))
    layer._enter(layer, (torch.zeros(1, 2, 32),), {})
    layer._receive(torch.zeros(1, 4, 2, 8), torch.zeros(1, 2, 5, 8), None, {})
    with pytest.raises(UserError, match="3 keys before the tokens given.*prefix or prompt tuning"):
        layer._end_attention(layer, (), (torch.zeros(1, 2, 32), None))


def test_an_attention_that_passes_nothing_on_is_refused():
    model = adapted()
    attention = model.base_model.model.model.layers[0].base_layer.self_attn
    attention.config = attention.config.base  # as when another library puts its own module there
    with pytest.raises(UserError, match="did not pass on its queries and keys.*add the adapter last"):
        logits_of(model, some_ids())


def test_hidden_states_include_what_the_adapter_adds():
    model = adapted(placement="after_mlp")
    with torch.no_grad():
        states = model(input_ids=some_ids(), output_hidden_states=True).hidden_states
        again = model.base_model.model.lm_head(states[-1])
    torch.testing.assert_close(again, logits_of(model, some_ids()))
    assert not torch.allclose(states[1], tiny_model()(some_ids(), output_hidden_states=True).hidden_states[1])


def test_an_unknown_family_is_told_what_is_missing():
    from transformers import OPTConfig, OPTForCausalLM

    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "ffn_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    model = OPTForCausalLM(OPTConfig(vocab_size=32, word_embed_proj_dim=16, **sizes))
    with pytest.raises(UserError, match="'opt' has no layout.*known: llama.*missing are the names"):
        get_peft_model(model, SparseGinConfig())


def test_a_layer_beyond_the_model_is_refused():
    with pytest.raises(UserError, match="layer 3, but the model has 3: use indices up to 2"):
        get_peft_model(tiny_model(), SparseGinConfig(layers=[0, 3]))


def test_a_model_that_is_no_decoder_is_refused():
    with pytest.raises(UserError, match="Sequential, but Sparse-GIN needs a transformers decoder"):
        get_peft_model(nn.Sequential(nn.Linear(2, 2)), SparseGinConfig())


def test_a_vision_tower_is_left_alone():
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    from .tiny import tiny_config

    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    config = LlavaConfig(vision_config=vision, text_config=tiny_config(), image_token_index=5)
    model = get_peft_model(LlavaForConditionalGeneration(config).eval(), visible_config())
    wrapped = [name for name, m in model.named_modules() if isinstance(m, SparseGinLayer)]
    assert len(wrapped) == 3 and all("language_model" in name for name in wrapped)
    cached = model.generate(input_ids=some_ids(1, 5) + 3, max_new_tokens=4, do_sample=False)
    assert cached.shape == (1, 9)


def test_registering_twice_changes_nothing():
    from peft import PeftType
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    llmctl.gin.register()
    before = dict(PEFT_TYPE_TO_CONFIG_MAPPING), list(PeftType)
    llmctl.gin.register()
    assert (dict(PEFT_TYPE_TO_CONFIG_MAPPING), list(PeftType)) == before
    assert [kind.value for kind in PeftType].count("SPARSE_GIN") == 1
