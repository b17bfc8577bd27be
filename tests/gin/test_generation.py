"""Generation with a cache is generation without it, and works on new tokens only."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer

from llmctl.errors import UserError
from llmctl.gin.decoder_layer import SparseGinLayer

from .tiny import FAMILIES, PAD, VOCAB, adapted, logits_of, pad_to, some_ids, visible_config

VARIANTS: dict[str, dict[str, Any]] = {
    "deep": {"depth": 2, "placement": "after_mlp"},
    "graph a head": {"heads": "each", "placement": "parallel"},
    "mixed": {"heads": "mix", "top_fraction": 0.5, "self_loops": "drop", "distance_scale": 4.0},
}


def generate(model: Any, ids: Tensor, mask: Tensor | None = None, **kwargs: Any) -> Tensor:
    mask = torch.ones_like(ids) if mask is None else mask
    settings: dict[str, Any] = {"max_new_tokens": 10, "do_sample": False, "pad_token_id": PAD}
    return model.generate(input_ids=ids, attention_mask=mask, **(settings | kwargs))


def left_padded() -> tuple[Tensor, Tensor]:
    return pad_to([some_ids(1, 3)[0], some_ids(1, 7, seed=1)[0], some_ids(1, 5, seed=2)[0]], "left")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_gives_the_same_tokens_in_a_left_padded_batch(family):
    model, (ids, mask) = adapted(family), left_padded()
    cached = generate(model, ids, mask)
    assert torch.equal(cached, generate(model, ids, mask, use_cache=False))
    assert len(set(cached[:, 7:].flatten().tolist())) > 3  # not one token over and over


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_cache_gives_the_same_tokens_for_every_kind_of_graph(variant):
    model, (ids, mask) = adapted("mistral", **VARIANTS[variant]), left_padded()
    assert torch.equal(generate(model, ids, mask), generate(model, ids, mask, use_cache=False))


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3_text", "gpt2"])
def test_beam_search_with_a_cache_gives_the_same_tokens(family):
    model, (ids, mask) = adapted(family), left_padded()
    beams = {"num_beams": 4, "num_return_sequences": 2, "length_penalty": 0.5}
    assert torch.equal(
        generate(model, ids, mask, **beams), generate(model, ids, mask, use_cache=False, **beams)
    )


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_speculation_that_crops_the_cache_gives_the_same_tokens(family):
    model = adapted(family)
    ids = some_ids(1, 6).repeat(1, 3)  # repeats, so that guesses from the prompt are tried
    guessed = generate(model, ids, prompt_lookup_num_tokens=3)
    assert torch.equal(guessed, generate(model, ids, use_cache=False))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_with_a_cache_equal_those_of_the_whole_in_any_chunks(family):
    model, ids = adapted(family, depth=2), some_ids(2, 14)
    cache, pieces = DynamicCache(config=model.config), []
    for chunk in ids.split([5, 1, 1, 4, 3], dim=1):
        pieces.append(logits_of(model, chunk, past_key_values=cache, use_cache=True))
    torch.testing.assert_close(torch.cat(pieces, 1), logits_of(model, ids), atol=1e-4, rtol=1e-4)


def test_with_a_cache_each_step_works_on_the_new_token_only():
    model, lengths = adapted(), []
    layer = next(m for m in model.modules() if isinstance(m, SparseGinLayer))
    layer.gin_block["default"].register_forward_pre_hook(
        lambda module, args: lengths.append(args[0].shape[1])
    )
    generate(model, some_ids(1, 6), max_new_tokens=4)
    assert lengths == [6, 1, 1, 1]


def test_two_interleaved_generations_do_not_mix():
    model, texts = adapted(), [some_ids(2, 8, seed=s) for s in (0, 1)]
    caches = [DynamicCache(config=model.config) for _ in texts]
    pieces: list[list[Tensor]] = [[], []]
    for t in range(8):
        for ids, cache, out in zip(texts, caches, pieces, strict=True):
            out.append(logits_of(model, ids[:, t : t + 1], past_key_values=cache, use_cache=True))
    for ids, out in zip(texts, pieces, strict=True):
        torch.testing.assert_close(torch.cat(out, 1), logits_of(model, ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_a_cropped_cache_continues_as_if_the_tokens_had_never_been(family):
    model, ids = adapted(family), some_ids(1, 12)
    cache = DynamicCache(config=model.config)
    logits_of(model, ids[:, :7], past_key_values=cache, use_cache=True)
    cache.activate_past_recording()
    logits_of(model, (ids[:, 7:9] + 7) % VOCAB, past_key_values=cache, use_cache=True)
    cache.crop(-2)
    rest = logits_of(model, ids[:, 7:], past_key_values=cache, use_cache=True)
    torch.testing.assert_close(rest, logits_of(model, ids)[:, 7:], atol=1e-4, rtol=1e-4)


def test_a_cache_can_be_copied_repeated_selected_and_reset():
    model, ids = adapted(), some_ids(2, 9)
    cache = DynamicCache(config=model.config)
    logits_of(model, ids[:, :5], past_key_values=cache, use_cache=True)
    many = copy.deepcopy(cache)
    many.batch_repeat_interleave(2)
    many.batch_select_indices(torch.tensor([3, 0]))
    swapped = ids.flip(0)
    torch.testing.assert_close(
        logits_of(model, swapped[:, 5:], past_key_values=many, use_cache=True),
        logits_of(model, swapped)[:, 5:],
        atol=1e-4,
        rtol=1e-4,
    )
    whole = logits_of(model, ids)
    torch.testing.assert_close(
        logits_of(model, ids[:, 5:], past_key_values=cache, use_cache=True),
        whole[:, 5:],
        atol=1e-4,
        rtol=1e-4,
    )
    cache.reset()
    torch.testing.assert_close(
        logits_of(model, ids, past_key_values=cache, use_cache=True), whole, atol=1e-4, rtol=1e-4
    )


def test_a_sliding_window_keeps_as_many_features_as_keys():
    model = adapted("mistral")
    cache = DynamicCache(config=model.config)
    logits_of(model, some_ids(1, 12), past_key_values=cache, use_cache=True)
    layer = cache.layers[0]
    assert isinstance(layer, DynamicSlidingWindowLayer)
    assert layer.gin_memory["default", 0].shape[1] == layer.keys.shape[-2] == 3


def test_each_adapter_has_its_own_memory():
    model, ids = adapted(), some_ids(2, 8)
    torch.manual_seed(7)
    model.add_adapter("other", visible_config(width=4))
    model.base_model.set_adapter(["default", "other"])
    cache = DynamicCache(config=model.config)
    pieces = [logits_of(model, c, past_key_values=cache, use_cache=True) for c in ids.split(3, dim=1)]
    both = logits_of(model, ids)
    torch.testing.assert_close(torch.cat(pieces, 1), both, atol=1e-4, rtol=1e-4)
    model.set_adapter("default")
    assert not torch.allclose(logits_of(model, ids), both)


def test_a_static_cache_is_refused():
    with pytest.raises(UserError, match="StaticCache.*DynamicCache only.*leave cache_implementation out"):
        generate(adapted(), some_ids(1, 4), cache_implementation="static")


def test_a_cache_filled_without_the_adapter_is_refused():
    model, ids = adapted(), some_ids(1, 6)
    cache = DynamicCache(config=model.config)
    with model.disable_adapter():
        logits_of(model, ids[:, :4], past_key_values=cache, use_cache=True)
    with pytest.raises(UserError, match="holds 4 earlier tokens, but adapter 'default' saw 0.*empty cache"):
        logits_of(model, ids[:, 4:], past_key_values=cache, use_cache=True)
