import torch

from llmctl.reach.scoring.prefix_cache import (
    PrefixCache,
    PrefixCount,
    bytes_per_token,
    joined,
    supports_prefix,
)
from llmctl.reach.scoring.records import Meter
from llmctl.reach.scoring.runner import RowRunner


def test_a_prefix_pays_only_for_what_is_new(small_model):
    meter = Meter()
    cache = PrefixCache(RowRunner(small_model, meter))
    for prefix, tokens in (((1, 2, 3), 3), ((1, 2, 3), 3), ((1, 2, 9, 9), 5), ((1,), 5), ((4,), 6)):
        held = cache.expanded(prefix, 4)
        assert meter == Meter(forward_tokens=tokens)
        assert held.layers[0].keys.shape[:3] == (4, 2, len(prefix))


def test_counting_without_a_model_agrees():
    seen = []
    count = PrefixCount(seen.append)
    for prefix in ((1, 2, 3), (1, 2, 3), (1, 2, 9, 9), (1,), (4,)):
        count.note(prefix)
    assert seen == [3, 2, 1]


def test_rows_that_continue_a_prefix_give_the_plain_logits(small_model):
    runner = RowRunner(small_model, Meter())
    cache = PrefixCache(runner).expanded((5, 6, 7), 2)
    found = runner.forward(input_ids=torch.tensor([[8], [9]]), cache=cache, keep=1)
    plain = small_model(torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]])).logits[:, -1:]
    torch.testing.assert_close(found, plain.detach(), atol=1e-5, rtol=1e-4)


def test_the_bytes_of_a_token_are_those_of_all_layers(small_model):
    cache = PrefixCache(RowRunner(small_model, Meter()))
    # 2 layers, keys and values, 2 heads of width 8, 4 bytes each
    assert cache.hold((1, 2, 3)) == 2 * 2 * 2 * 8 * 4
    assert cache.hold(()) == 0 and bytes_per_token([]) == 0


def test_joined_caches_take_columns_from_several_prefixes():
    first, second = (torch.full((1, 2, length, 3), float(length)) for length in (2, 4))
    cache = joined([[(first, first)], [(second, second)]], torch.tensor([[0, 1], [2, 5]]))
    assert cache.layers[0].keys.shape == (2, 2, 2, 3)
    assert cache.layers[0].keys[:, 0, :, 0].tolist() == [[2, 2], [4, 4]]


def test_a_decoder_of_plain_attention_supports_prefixes(small_model):
    assert supports_prefix(small_model)
