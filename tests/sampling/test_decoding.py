"""Draws from a distribution, nuclei, stop strings."""

import numpy as np
import pytest
import torch

from llmctl.models.tiny import tiny_tokenizer
from llmctl.sampling.decoding import SeededSampling, StopStrings, cut_at_stop, draw


def grid(count):
    """`count` uniform numbers, one in the middle of each of `count` equal steps."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def shares(probabilities, top_p=1.0, count=1000):
    rows = torch.tensor([probabilities], dtype=torch.float32).expand(count, -1)
    drawn = draw(rows, grid(count), top_p)
    return (torch.bincount(drawn, minlength=len(probabilities)) / count).tolist()


def test_a_draw_inverts_the_cumulative_distribution():
    # 0.1, 0.2, 0.3, 0.4: of 1000 evenly spaced numbers exactly 100, 200, 300, 400 fall in each
    assert shares([0.1, 0.2, 0.3, 0.4]) == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-3)


def test_a_token_without_probability_is_never_drawn():
    probabilities = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]])
    for uniform in (0.0, 0.5, 1 - 2**-53):
        assert int(draw(probabilities, torch.tensor([uniform], dtype=torch.float64))) in (1, 3)


def test_the_nucleus_is_the_smallest_set_that_holds_the_mass():
    # by falling probability: 0.4, 0.3, 0.2, 0.1; 0.4 + 0.3 holds 0.65, so tokens 1 and 3 remain, as 4 : 3
    assert shares([0.2, 0.4, 0.1, 0.3], top_p=0.65) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=2e-3)
    assert shares([0.2, 0.4, 0.1, 0.3], top_p=0.3) == [0, 1, 0, 0]


def test_a_nucleus_wider_than_the_shortlist_is_whole():
    width, top_p = 1600, 0.8
    probabilities = torch.linspace(2, 1, width)[torch.randperm(width, generator=torch.manual_seed(0))]
    probabilities /= probabilities.sum()
    count = 4000
    drawn = draw(probabilities.expand(count, -1), grid(count), top_p)
    ranked = probabilities.double().sort(descending=True)
    kept = int((ranked.values.cumsum(0) < top_p).sum()) + 1
    assert kept > 1024
    found = {int(token) for token in drawn}
    assert found <= set(ranked.indices[: kept + 1].tolist())
    assert len(found) >= kept - 1


def test_a_rows_draw_does_not_depend_on_how_flat_its_neighbours_are():
    width = 3000
    generator = torch.manual_seed(1)
    # few distinct values, as bfloat16 logits have: ties everywhere
    peaked = torch.softmax(torch.randint(0, 12, (8, width), generator=generator).float() * 2, -1)
    flat = torch.full((1, width), 1 / width)
    uniform = torch.rand(9, generator=generator, dtype=torch.float64)
    alone = draw(peaked, uniform[:8], 0.5)
    beside = draw(torch.cat([peaked, flat]), uniform, 0.5)
    assert alone.tolist() == beside[:8].tolist()


def test_sampled_frequencies_fit_the_softmax():
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    count = 4000
    sampling = SeededSampling(range(count), 1, 0.7, 1.0)
    scores = sampling(torch.zeros(count, 1, dtype=torch.long), logits.expand(count, -1))
    observed = np.bincount(scores.argmax(-1), minlength=4)
    expected = torch.softmax(logits[0] / 0.7, -1).numpy() * count
    chi_square = float(((observed - expected) ** 2 / expected).sum())
    assert chi_square < 16.27  # the 99.9 % point with 3 degrees of freedom
    assert (scores == 0).sum() == count  # one finite score a row


def test_logprobs_are_of_the_model_itself_at_any_temperature():
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    for temperature in (0, 0.1, 5.0):
        sampling = SeededSampling([3], 1, temperature, 0.9)
        token = sampling(torch.zeros(1, 1, dtype=torch.long), logits).argmax()
        expected = torch.log_softmax(logits[0], -1)[token]
        assert float(sampling.logprobs[0]) == pytest.approx(float(expected), abs=1e-6)


def test_temperature_zero_takes_the_likeliest():
    sampling = SeededSampling([1, 2], 1, 0, 1.0)
    scores = sampling(torch.zeros(2, 1, dtype=torch.long), torch.tensor([[0.0, 9.0], [9.0, 0.0]]))
    assert scores.argmax(-1).tolist() == [1, 0]


def test_a_rows_stream_is_a_function_of_its_seed_and_the_step():
    one = SeededSampling([7, 8], 4, 1.0, 1.0).uniforms
    other = SeededSampling([8, 9, 7], 4, 1.0, 1.0).uniforms
    assert torch.equal(one[0], other[2]) and torch.equal(one[1], other[0])
    assert len({float(x) for x in one.flatten()}) == 8


def test_a_stop_string_of_many_bytes_a_character_is_seen():
    tokenizer = tiny_tokenizer()  # a token a byte
    stop = "🙂🙃🙂🙃🙂"
    ids = tokenizer("prompt" + stop, add_special_tokens=False).input_ids
    assert len(tokenizer(stop).input_ids) == 20
    rule = StopStrings(tokenizer, (stop,), len("prompt"))
    assert rule(torch.tensor([ids]), None).tolist() == [True]
    assert rule(torch.tensor([ids[:-1]]), None).tolist() == [False]


def test_a_stop_string_in_the_prompt_ends_nothing():
    tokenizer = tiny_tokenizer()
    ids = tokenizer("END of prompt", add_special_tokens=False).input_ids
    assert StopStrings(tokenizer, ("END",), len(ids) - 1)(torch.tensor([ids]), None).tolist() == [False]


def test_text_is_cut_at_the_stop_string_that_comes_first():
    assert cut_at_stop("one two three", ("three", "two")) == ("one ", True)
    assert cut_at_stop("one", ("two",)) == ("one", False)
    assert cut_at_stop("one", ()) == ("one", False)
