"""Opening a sampler by name, and what the transformers engine does inside."""

import importlib.util
import json
from collections import Counter

import pytest
import torch

from llmctl.errors import EngineError, UserError
from llmctl.models.tiny import FAMILIES, make_tiny_model
from llmctl.sampling import Settings, open_sampler
from llmctl.sampling.batches import Row
from llmctl.sampling.open import choose_engine

LONG = "You are given a list of numbers. Sort them from the smallest to the largest, and say nothing else. "


def ask(text):
    return [{"role": "user", "content": text}]


def opened(model, **options):
    return open_sampler(str(model), engine="transformers", device="cpu", **options)


@pytest.fixture(scope="module")
def sampler(tiny_model):
    with opened(tiny_model) as sampler:
        yield sampler


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    return {family: make_tiny_model(folder / family, family) for family in FAMILIES}


def test_auto_takes_transformers_where_vllm_is_missing_and_says_why(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert choose_engine("auto") == ("transformers", "vllm is not installed")


def test_auto_takes_transformers_without_a_gpu_and_vllm_with_one(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_engine() == ("transformers", "vllm is installed, but there is no CUDA device")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_engine()[0] == "vllm"


def test_an_unknown_engine_is_refused_with_those_that_there_are():
    with pytest.raises(UserError, match="engine is 'tgi', but it must be one of auto, transformers, vllm"):
        open_sampler("x", engine="tgi")


@pytest.mark.parametrize(
    ("engine", "option", "match"),
    [
        ("transformers", "max_bach", "did you mean 'max_batch'[?] it takes device, dtype, quantization"),
        ("transformers", "tensor_parallel", "engine transformers has no option 'tensor_parallel'"),
        ("vllm", "max_batch", "engine vllm has no option 'max_batch'"),
        ("server", "base_ur", "did you mean 'base_url'"),
    ],
)
def test_an_option_that_the_engine_does_not_know_is_refused_before_the_model_is_loaded(engine, option, match):
    with pytest.raises(UserError, match=match):
        open_sampler("no/such-model", engine=engine, **{option: 1})


def plain(sampler, monkeypatch):
    """The same sampler without shared prefixes."""
    monkeypatch.setattr(type(sampler._passes), "can_share", property(lambda self: False))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", [1, 3])
def test_shared_prefixes_change_nothing(families, monkeypatch, family, n):
    talks = [ask(LONG + tail) for tail in ("5 3", "71 12 44", "9")] + [ask("something else entirely")]
    greedy = Settings(n=n, temperature=0, max_tokens=8)
    sampled = Settings(n=n, temperature=0.8, top_p=0.9, max_tokens=8, seed=4)
    with opened(families[family]) as sampler:
        assert sampler._passes.can_share == (family not in ("gemma2", "gemma3"))
        shared = [sampler.chat(talks, s) for s in (greedy, sampled)]
        together = sampler.chat(talks[:3], greedy)
        assert (sampler.usage.cached_tokens > 0) == sampler._passes.can_share
        plain(sampler, monkeypatch)
        expected = [sampler.chat(talks, s) for s in (greedy, sampled)]
    for found, wanted in zip([*shared, together], [*expected, expected[0][:3]], strict=True):
        for row, wanted_row in zip(found, wanted, strict=True):
            assert [c.text for c in row] == [c.text for c in wanted_row]
            assert [c.token_ids for c in row] == [c.token_ids for c in wanted_row]
            assert [c.logprob for c in row] == pytest.approx([c.logprob for c in wanted_row], abs=1e-4)


def test_a_sliding_window_of_mistral_excludes_sharing(tmp_path):
    model = make_tiny_model(tmp_path / "m", "mistral", sliding_window=16)
    with opened(model) as sampler:
        assert not sampler._passes.can_share


def test_samples_do_not_depend_on_batch_size_or_order(tiny_model, sampler):
    talks = [ask(LONG + str(i) * (i + 1)) for i in range(5)]
    settings = Settings(n=2, temperature=1.0, max_tokens=6, seed=9)
    whole = [[c.text for c in row] for row in sampler.chat(talks, settings)]
    assert [[c.text for c in row] for row in sampler.chat(talks[::-1], settings)] == whole[::-1]
    with opened(tiny_model, max_batch=2) as narrow:
        assert [[c.text for c in row] for row in narrow.chat(talks, settings)] == whole
    with opened(tiny_model, max_batch_tokens=1) as narrow:
        assert [[c.text for c in row] for row in narrow.chat(talks, settings)] == whole


def test_a_row_that_stopped_early_keeps_only_its_own_tokens(tiny_model):
    """Rows that are done are padded, here with the end token, which is no part of them."""
    folder = tiny_model
    with opened(folder) as sampler:
        sampler.tokenizer.pad_token = sampler.tokenizer.eos_token
        talks = [ask(f"question {i}") for i in range(6)]
        free = sampler.chat(talks, Settings(temperature=1, max_tokens=12, seed=2))
        characters = Counter(k for (c,) in free for k in set(c.text[1:-1]) if k.isascii())
        stop = characters.most_common(1)[0][0]
        found = sampler.chat(talks, Settings(temperature=1, max_tokens=12, seed=2, stop=(stop,)))
        assert len({len(c.token_ids) for (c,) in found}) > 1
        for (before,), (after,) in zip(free, found, strict=True):
            assert after.token_ids == before.token_ids[: len(after.token_ids)]
            text = sampler.tokenizer.decode(after.token_ids, skip_special_tokens=True)
            assert after.text == text.partition(stop)[0] and stop not in text[:-1]
            assert after.finish_reason == ("stop" if stop in text else before.finish_reason)
            lone = sampler.chat(
                [talks[free.index([before])]], Settings(temperature=1, max_tokens=12, seed=2, stop=(stop,))
            )
            assert after.logprob == pytest.approx(lone[0][0].logprob, abs=1e-4)


class Small:
    """A `generate` with memory for so many rows."""

    def __init__(self, sampler, rows):
        self.sampler, self.rows, self.sizes, self.real = sampler, rows, [], sampler._generator.generate

    def __call__(self, batch, settings):
        self.sizes.append(len(batch) * settings.n)
        if len(batch) * settings.n > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.real(batch, settings)


def test_a_batch_that_does_not_fit_is_halved_and_the_size_that_fits_is_kept(tiny_model, monkeypatch, caplog):
    talks = [ask(LONG + str(i)) for i in range(16)]
    settings = Settings(temperature=0.5, max_tokens=4, seed=3)
    with opened(tiny_model) as sampler:
        expected = [row[0].text for row in sampler.chat(talks, settings)]
        small = Small(sampler, 3)
        monkeypatch.setattr(sampler._generator, "generate", small)
        assert [row[0].text for row in sampler.chat(talks, settings)] == expected
        assert sampler.max_batch <= 3 and "out of memory with 16 rows" in caplog.text
        small.sizes.clear()
        sampler.chat(talks, settings)
        assert max(small.sizes) <= 3


def test_a_prompt_that_never_fits_is_an_error_of_its_own_and_loses_nothing_else(tiny_model, monkeypatch):
    talks = [ask("short"), ask(LONG * 3), ask("brief")]
    with opened(tiny_model) as sampler:
        real = sampler._generator.generate

        def generate(batch, settings):
            if any(len(row.ids) > 200 for row in batch):
                raise torch.OutOfMemoryError("out of memory")
            return real(batch, settings)

        monkeypatch.setattr(sampler._generator, "generate", generate)
        found = sampler.chat(talks, Settings(n=2, max_tokens=4))
        assert [[c.is_error for c in row] for row in found] == [[False] * 2, [True] * 2, [False] * 2]
        assert "does not fit in memory: lower n or max_tokens" in found[1][0].error
        assert sampler.usage.errors == 2


def test_other_failures_are_not_taken_for_a_lack_of_memory(sampler, monkeypatch):
    def generate(batch, settings):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(sampler._generator, "generate", generate)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        sampler.chat([ask("x")])


def test_log_probabilities_survive_a_lack_of_memory(tiny_model, monkeypatch):
    talks = [ask("a" * i) for i in range(1, 8)]
    with opened(tiny_model) as sampler:
        expected = sampler.next_token_logprobs(talks, ["x", "y"])
        real = sampler._passes.forward

        def forward(ids, *rest, **more):
            if len(ids) > 2:
                raise torch.OutOfMemoryError("out of memory")
            return real(ids, *rest, **more)

        monkeypatch.setattr(sampler._passes, "forward", forward)
        found = sampler.next_token_logprobs(talks, ["x", "y"])
        torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=0, atol=1e-4)
        monkeypatch.setattr(sampler._passes, "forward", lambda *a, **k: forward([0] * 3))
        with pytest.raises(EngineError, match="does not fit in memory"):
            sampler.next_token_logprobs(talks, ["x"])


@pytest.fixture(scope="module")
def adapters(tiny_model, tmp_path_factory):
    from peft import LoraConfig, get_peft_model

    from llmctl.models import load

    folders = []
    for number in (1, 2):
        torch.manual_seed(number)
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        folder = tmp_path_factory.mktemp("adapters") / str(number)
        get_peft_model(load(tiny_model, device="cpu").model, config).save_pretrained(folder)
        folders.append(folder)
    return folders


def test_adapters_are_swapped_and_leave_no_trace(tiny_model, adapters):
    def texts(sampler):
        return [
            c.text
            for (c,) in sampler.chat(
                [ask(LONG + "3 1"), ask("hello")], Settings(temperature=0, max_tokens=10)
            )
        ]

    with opened(tiny_model) as sampler:
        bare = texts(sampler)
        found = {}
        for adapter in (*adapters, None, adapters[0]):
            sampler.use_adapter(adapter)
            assert sampler.info.adapter == (None if adapter is None else str(adapter))
            found.setdefault(adapter, []).append(texts(sampler))
    assert found[None] == [bare]
    assert found[adapters[0]][0] == found[adapters[0]][1]
    assert len({str(found[key][0]) for key in found}) == 3
    with opened(tiny_model, adapter=adapters[1]) as fresh:
        assert texts(fresh) == found[adapters[1]][0]


def test_the_models_own_generation_settings_have_no_influence(tiny_model, tmp_path):
    import shutil

    folder = shutil.copytree(tiny_model, tmp_path / "opinionated")
    path = folder / "generation_config.json"
    own = json.loads(path.read_text())
    own |= {"repetition_penalty": 5.0, "temperature": 0.01, "top_k": 1, "do_sample": True, "num_beams": 4}
    own |= {"no_repeat_ngram_size": 1, "max_new_tokens": 2, "min_new_tokens": 9, "suppress_tokens": [70, 71]}
    path.write_text(json.dumps(own))
    talks = [ask("aaaa bbbb"), ask("1 2 3")]
    for settings in (Settings(temperature=0, max_tokens=8), Settings(n=2, temperature=1.2, max_tokens=8)):
        with opened(tiny_model) as one, opened(folder) as other:
            assert one.chat(talks, settings) == other.chat(talks, settings)


def test_a_closed_sampler_says_so(tiny_model):
    sampler = opened(tiny_model)
    sampler.close()
    sampler.close()
    with pytest.raises(UserError, match="the sampler is closed: open it again"):
        sampler.chat([ask("x")])


def test_a_second_adapter_that_is_faulty_is_told_like_a_first(tiny_model, adapters, tmp_path):
    with opened(tiny_model, adapter=adapters[0]) as sampler:
        with pytest.raises(UserError, match="has no adapter_config.json"):
            sampler.use_adapter(tmp_path / "nothing")
        assert sampler.chat([ask("5 3")], Settings(max_tokens=2))[0][0].token_ids


def test_the_prefix_of_a_batch_is_as_long_as_its_shortest_row_allows(sampler):
    rows = [Row(0, (*range(20), 7), 0), Row(1, tuple(range(12)), 0), Row(2, (*range(20), 8), 0)]
    assert sampler._passes._shared_prefix(rows) == 11  # one token of the row of 12 is left to compute
    assert sampler._passes._shared_prefix([Row(0, (1, 2, 3), 0), Row(1, (1, 2, 4), 0)]) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_do_not_depend_on_what_is_computed_once(families, monkeypatch, family):
    users = ("likes red and round things, and whatever is old", "likes blue")
    talks = [ask(f"{LONG} the user {user}. Next: {item}") for item in ("cup", "a hat", "x") for user in users]
    talks.append(ask("something else entirely"))
    with opened(families[family]) as sampler:
        found = sampler.next_token_logprobs(talks, list("abc"))
        assert (sampler.usage.cached_tokens > 4 * len(LONG)) == sampler._passes.can_share
        by_id = sampler.next_token_logprobs(talks, sampler.tokenizer.convert_tokens_to_ids(list("abc")))
        plain(sampler, monkeypatch)
        expected = sampler.next_token_logprobs(talks, list("abc"))
    for rows in (found, by_id):
        assert [value for row in rows for value in row] == pytest.approx(
            [value for row in expected for value in row], abs=1e-4
        )
