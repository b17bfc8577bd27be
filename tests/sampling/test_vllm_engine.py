"""The vLLM engine: the shared contract on one engine, and what is vLLM's own."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from llmctl.errors import EngineError, UserError
from llmctl.sampling import Settings, open_sampler
from llmctl.sampling.vllm_open import EngineOptions, open_llm
from tests.sampling.contract import CONVERSATIONS, SamplerContract, ids_of, make_adapter, user

GREEDY = Settings(temperature=0, max_tokens=6)


@pytest.fixture(scope="module")
def engine(contract_model):
    """One engine for the whole module: opening it is most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        with open_sampler(str(contract_model), engine="vllm", max_lora_rank=16) as sampler:
            yield sampler


@pytest.mark.slow
class TestVllm(SamplerContract):
    @pytest.fixture(scope="class")
    def sampler(self, engine):
        return engine

    @pytest.fixture(scope="class")
    def adapted(self, contract_adapter):
        @contextmanager
        def view(sampler):
            yield sampler.with_adapter(contract_adapter)

        return view


@pytest.mark.slow
class TestVllmAlone:
    def test_a_swapped_adapter_is_the_view_of_it_and_back_is_the_base(self, engine, contract_adapter):
        base = ids_of(engine.chat(CONVERSATIONS, GREEDY))
        view = engine.with_adapter(contract_adapter)
        engine.use_adapter(contract_adapter)
        assert engine.info.adapter == str(contract_adapter) == view.info.adapter
        assert ids_of(engine.chat(CONVERSATIONS, GREEDY)) == ids_of(view.chat(CONVERSATIONS, GREEDY)) != base
        engine.use_adapter(None)
        assert engine.info.adapter is None
        assert ids_of(engine.chat(CONVERSATIONS, GREEDY)) == base
        view.close()
        assert ids_of(engine.chat(CONVERSATIONS, GREEDY)) == base

    def test_an_adapter_trained_further_in_its_folder_is_a_new_one(self, engine, contract_model, tmp_path):
        folder = make_adapter(contract_model, tmp_path / "a", seed=2)
        first = ids_of(engine.with_adapter(folder).chat(CONVERSATIONS, GREEDY))
        make_adapter(contract_model, folder, seed=3)
        assert ids_of(engine.with_adapter(folder).chat(CONVERSATIONS, GREEDY)) != first

    def test_an_adapter_that_is_not_lora_names_the_engine_to_take(self, engine, contract_adapter, tmp_path):
        config = json.loads((contract_adapter / "adapter_config.json").read_text())
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "IA3"}))
        with pytest.raises(UserError, match="is IA3, but vLLM takes only LORA: take engine transformers"):
            engine.with_adapter(tmp_path)

    def test_an_adapter_of_too_large_a_rank_names_the_option(self, engine, contract_model, tmp_path):
        folder = make_adapter(contract_model, tmp_path / "a", rank=20)
        with pytest.raises(UserError, match="rank 20, but max_lora_rank is 16: open with max_lora_rank=32"):
            engine.use_adapter(folder)

    def test_an_adapter_that_vllm_can_not_load_is_refused_at_once(self, engine, contract_adapter, tmp_path):
        config = json.loads((contract_adapter / "adapter_config.json").read_text())
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
        os.link(contract_adapter / "adapter_model.safetensors", tmp_path / "adapter_model.safetensors")
        with pytest.raises(UserError, match="does not fit .*DoRA"):
            engine.use_adapter(tmp_path)
        assert engine.info.adapter is None

    def test_a_second_turn_takes_the_first_from_the_cache(self, engine):
        first = user("tell me about " + "caches " * 12)
        (reply,) = engine.chat([first], GREEDY)
        before = engine.usage.snapshot()
        engine.chat([[*first, {"role": "assistant", "content": reply[0].text}, *user("more")]], GREEDY)
        used = engine.usage.since(before)
        assert 0 < used.cached_tokens < used.prompt_tokens
        assert used.cached_tokens % 32 == 0

    def test_a_model_without_chat_template_says_what_to_do(self, engine, monkeypatch):
        monkeypatch.setattr(engine.tokenizer, "chat_template", None)
        with pytest.raises(UserError, match="no chat template: use an instruction-tuned model"):
            engine.chat(CONVERSATIONS)

    def test_a_temperature_above_vllms_range_is_a_users_mistake(self, engine):
        with pytest.raises(UserError, match="temperature is 3.0, but vLLM samples with at most 2"):
            engine.chat(CONVERSATIONS, Settings(temperature=3.0, max_tokens=8))

    def test_a_second_engine_in_the_process_is_refused_and_harms_nothing(self, engine, contract_model):
        with pytest.raises(UserError, match="already open in this process.*with_adapter"):
            open_sampler(str(contract_model), engine="vllm")
        assert not engine.chat(CONVERSATIONS[:1], GREEDY)[0][0].is_error

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("lost")])
    def test_an_interrupted_call_leaves_nothing_behind(self, engine, monkeypatch, error):
        expected = ids_of(engine.chat(CONVERSATIONS[:1], GREEDY))
        inner = engine._engine.llm.llm_engine

        def stop():
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(inner, "step", stop)
            with pytest.raises((KeyboardInterrupt, EngineError)):
                engine.chat(CONVERSATIONS[1:], Settings(n=3, max_tokens=8))
        assert not inner.has_unfinished_requests()
        assert ids_of(engine.chat(CONVERSATIONS[:1], GREEDY)) == expected


SCRIPT = """
import os, random, sys
import numpy, psutil, torch
from llmctl.errors import EngineError, UserError
from llmctl.sampling import Settings, open_sampler

environment = dict(os.environ)
def resident(): return psutil.Process().memory_info().rss

numpy.random.seed(0), random.seed(0), torch.manual_seed(0)
states = lambda: (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
before, threads, hook = states(), torch.set_num_threads, sys.excepthook
ask = [[{"role": "user", "content": "hello"}]]
replies = []
for turn in range(2):
    sampler = open_sampler(sys.argv[1], engine="vllm", context_length=128)
    replies.append(sampler.chat(ask, Settings(max_tokens=8)))
    assert sampler.info.context_length == 128
    full = resident()
    sampler.close()
    sampler.close()
    assert full - resident() > 0.9 * 2**30, (full, resident())
assert replies[0] == replies[1]
assert states() == before
assert torch.set_num_threads is threads and sys.excepthook is hook
documented = {"VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "VLLM_LOGGING_LEVEL"}
watched = ("VLLM_", "LD_PRELOAD", "LOCAL_", "RANK", "WORLD_SIZE", "MASTER_")

def changed():
    names = {k for k in {*os.environ, *environment} if k.startswith(watched)}
    return {k for k in names if os.environ.get(k) != environment.get(k)} - documented

assert not changed(), changed()
assert not torch.distributed.is_initialized()
chat = lambda: sampler.chat(ask, Settings(max_tokens=8))
for use in (chat, lambda: sampler.next_token_logprobs(ask, ["a"]), lambda: sampler.use_adapter(None)):
    try:
        use()
    except UserError as error:
        assert "closed" in str(error)
    else:
        raise SystemExit("a closed sampler answered")
model, tiny = sys.argv[1:]
impossible = [
    (model, "1", {"context_length": 4096}, "4096"),
    (model, "9999", {}, "vLLM does not open"),
    (tiny, "1", {}, "head_dim=16"),  # the CPU kernels take heads of 32 and more
]
for folder, space, options, part in impossible:
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = environment["VLLM_CPU_KVCACHE_SPACE"] = space
    try:
        open_sampler(folder, engine="vllm", **options)
    except (UserError, EngineError) as error:
        assert part in str(error) and "engine transformers" in str(error) and "\\n" not in str(error), error
    else:
        raise SystemExit("an impossible engine opened")
    assert not torch.distributed.is_initialized() and not changed(), changed()
assert not psutil.Process().children()
"""


@pytest.mark.slow
def test_a_plain_script_opens_closes_and_opens_again_without_a_trace(contract_model, tiny_model, tmp_path):
    """No main guard, no output, memory given back, random states and environment as they were."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "PYTHONPATH": root}
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING", None)
    done = subprocess.run(
        [sys.executable, str(path), str(contract_model), str(tiny_model)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == ""
    noise = [line for line in done.stderr.splitlines() if "NUMA binding" not in line]  # vLLM's C++ says that
    assert noise == []


def test_a_missing_vllm_names_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install vllm.*engine transformers"):
        open_llm(tmp_path, EngineOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int3"}, "dtype is 'int3'"),
        ({"max_lora_rank": 20}, "max_lora_rank is 20, but vLLM knows 1, 8, 16"),
        ({"gpu_memory": 1.5}, "gpu_memory is 1.5"),
    ],
)
def test_an_option_out_of_range_is_refused_before_the_engine_starts(options, message, tmp_path):
    with pytest.raises(UserError, match=message):
        open_sampler(str(tmp_path), engine="vllm", **options)


def test_an_adapter_that_is_not_lora_is_refused_before_the_engine_starts(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "SPARSE_GIN"}')
    with pytest.raises(UserError, match="is SPARSE_GIN, but vLLM takes only LORA"):
        open_sampler(str(tmp_path), engine="vllm", adapter=tmp_path)


def test_a_folder_without_adapter_is_refused_before_the_engine_starts(tmp_path):
    with pytest.raises(UserError, match="no adapter_config.json"):
        open_sampler(str(tmp_path), engine="vllm", adapter=tmp_path)


@pytest.mark.slow
def test_vllm_sees_pictures_as_transformers_does(tmp_path):
    """In a process of its own: there is room for one engine, and the module has one open."""
    script = """
import sys
from PIL import Image
from llmctl.models.tiny import make_tiny_vlm
from llmctl.sampling import Settings, open_sampler

folder = make_tiny_vlm(sys.argv[1], num_attention_heads=2, num_key_value_heads=1, initializer_range=0.3)
def ask(colour):
    parts = [{"type": "text", "text": "what is it? " * 9}]
    if colour:
        parts.append({"type": "image", "image": Image.new("RGB", (80, 56), colour)})
    return [{"role": "user", "content": parts}]
asked = [ask("red"), ask(None), ask("blue"), ask("red")]
rows = []
for options in ({"engine": "transformers"}, {"engine": "vllm", "model_impl": "transformers"}):
    with open_sampler(str(folder), **options) as sampler:
        rows.append(sampler.next_token_logprobs(asked, ["yes", "No"]))
        replies = sampler.chat(asked, Settings(temperature=0, max_tokens=3))
        assert all(reply[0].text for reply in replies), replies
        assert sampler.usage.prompt_tokens > 2 * 4 * 100
def distance(one, other):
    return max(abs(a - b) for a, b in zip(one, other))
assert max(distance(*pair) for pair in zip(*rows)) < 2e-3, rows
assert distance(rows[1][0], rows[1][3]) < 1e-4 and distance(rows[1][0], rows[1][2]) > 0.01, rows
"""
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "vlm")],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-2000:]
