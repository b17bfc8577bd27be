"""Loading and describing models of every family, and every fault in one line."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmctl.errors import UserError
from llmctl.models import describe, load
from llmctl.models.devices import pick_device, pick_dtype
from llmctl.models.loading import attach_adapter, load_tokenizer
from llmctl.models.tiny import FAMILIES, make_tiny_model, tiny_tokenizer


@pytest.fixture
def folder(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


def told(match, call, *arguments, **options):
    with pytest.raises(UserError, match=match) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_loaded_and_described(family, tmp_path):
    made = make_tiny_model(tmp_path / family, family)
    loaded = load(made, device="cpu")
    assert loaded.dtype == torch.float32 and not loaded.model.training
    assert next(loaded.model.parameters()).dtype == torch.float32
    assert (loaded.tokenizer.padding_side, loaded.tokenizer.pad_token) == ("left", "<|endoftext|>")
    ids = loaded.tokenizer("hello", return_tensors="pt").input_ids
    logits = loaded.model(ids).logits
    assert logits.shape == (1, 5, 259) and torch.isfinite(logits).all()
    found = describe(made)
    assert (found["layers"], found["width"], found["heads"], found["vocabulary"]) == (2, 64, 4, 259)
    assert found["context_length"] == 1024 and found["has_chat_template"]
    tensors = load_file(made / "model.safetensors")
    assert found["parameters"] == sum(tensor.numel() for tensor in tensors.values())


def test_a_tiny_model_is_a_function_of_its_seed(tmp_path):
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    names = [make_tiny_model(tmp_path / str(i), seed=seed) for i, seed in enumerate((0, 0, 1))]
    assert torch.equal(torch.random.get_rng_state(), state)
    one, two, three = (describe(name)["fingerprint"] for name in names)
    assert one == two != three
    told("family is 'bert', but it must be one of llama, mistral", make_tiny_model, tmp_path / "x", "bert")


def test_the_fingerprint_changes_with_one_weight_and_with_the_configuration(folder):
    first = describe(folder)["fingerprint"]
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    second = describe(folder)["fingerprint"]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    assert len({first, second, describe(folder)["fingerprint"]}) == 3


def test_another_dtype_is_loaded(tiny_model):
    assert next(load(tiny_model, device="cpu", dtype="bfloat16").model.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_quantized_weights_are_loaded(tmp_path, quantization):
    made = make_tiny_model(tmp_path / "m")
    model = load(made, device="cpu", quantization=quantization).model
    kinds = {type(module).__name__ for module in model.modules()}
    assert ("Linear4bit" if quantization == "nf4" else "Linear8bitLt") in kinds


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"device": "gpu"}, "device is 'gpu', but torch knows no such device: use auto, cpu or cuda"),
        ({"dtype": "fp32"}, "dtype is 'fp32', but it must be auto or one of float32, bfloat16, float16"),
        ({"quantization": "int4"}, "quantization is 'int4', but it must be one of none, nf4, int8"),
    ],
)
def test_unknown_options_are_refused(tiny_model, options, match):
    told(match, load, tiny_model, **({"device": "cpu"} | options))


def test_cuda_without_a_device_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    told("device is 'cuda:1', but torch sees no CUDA device", pick_device, "cuda:1")
    assert pick_device() == torch.device("cpu")


def test_auto_dtype_is_what_the_device_has(monkeypatch):
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32
    for has, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has: has)
        assert pick_dtype("auto", torch.device("cuda")) == expected


def test_missing_bitsandbytes_is_told(tiny_model, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "bitsandbytes" else real(n, *a)
    )
    told("needs bitsandbytes: run `pip install bitsandbytes`", load, tiny_model, quantization="nf4")


def test_pickled_weights_are_refused_and_never_read(folder, tmp_path):
    mark = tmp_path / "was-here"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(f"cos\nsystem\n(S'touch {mark}'\ntR.".encode())
    told("has no safetensors weights: convert it with save_pretrained first", load, folder, device="cpu")
    assert not mark.exists()


def test_broken_weights_are_one_line(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    told("cannot be loaded as a causal language model", load, folder, device="cpu")
    path.write_bytes(b"nonsense, and more of it")
    told("is not a safetensors file: fetch or save the model again", describe, folder)


def test_missing_weights_are_refused_instead_of_drawn_at_random(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    told(
        r"lacks 1 weights of its model, model.layers.1.mlp.up_proj.weight among them",
        load,
        folder,
        device="cpu",
    )


@pytest.mark.parametrize("text", ["{", "[1]", "\xff\xfe"])
def test_a_broken_configuration_is_one_line(folder, text):
    (folder / "config.json").write_text(text, encoding="latin-1")
    told("config.json", describe, folder)


@pytest.mark.parametrize("change", [{"model_type": "no-such"}, {"model_type": "bert"}, {"hidden_size": 128}])
def test_a_configuration_that_does_not_fit_is_one_line(folder, change):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    told("cannot be loaded as a causal|has no tokenizer|lacks", load, folder, device="cpu")


def test_a_missing_or_broken_tokenizer_is_one_line(folder):
    (folder / "tokenizer.json").write_text('{"version": "1.0"')
    told("has no tokenizer that can be read", load_tokenizer, folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    told("has no tokenizer that can be read", load_tokenizer, folder)


def test_a_tokenizer_without_padding_pads_with_its_end_token(folder):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    assert load_tokenizer(folder).pad_token == "<|im_end|>"


@pytest.fixture(scope="module")
def adapter(tiny_model, tmp_path_factory):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    made = tmp_path_factory.mktemp("adapters") / "lora"
    get_peft_model(load(tiny_model, device="cpu").model, config).save_pretrained(made)
    return made


def test_an_adapter_is_put_on_top(tiny_model, adapter):
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        bare = load(tiny_model, device="cpu").model(ids).logits
        tuned = load(tiny_model, device="cpu", adapter=adapter).model
        assert not torch.allclose(tuned(ids).logits, bare)
        with tuned.disable_adapter():
            torch.testing.assert_close(tuned(ids).logits, bare)
    assert not tuned.training


def break_adapter(adapter, tmp_path, fault):
    made = shutil.copytree(adapter, tmp_path / "adapter")
    config = json.loads((made / "adapter_config.json").read_text())
    if fault == "no configuration":
        (made / "adapter_config.json").unlink()
    elif fault == "pickled":
        (made / "adapter_model.safetensors").rename(made / "adapter_model.bin")
    elif fault == "torn":
        (made / "adapter_model.safetensors").write_bytes(b"torn")
    elif fault == "unknown type":
        (made / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "MAGIC"}))
    elif fault == "other modules":
        (made / "adapter_config.json").write_text(json.dumps(config | {"target_modules": ["nothing"]}))
    elif fault == "other rank":
        (made / "adapter_config.json").write_text(json.dumps(config | {"r": 7}))
    return made


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        ("no configuration", "has no adapter_config.json: give the folder of a saved PEFT adapter"),
        ("pickled", "has no adapter_model.safetensors: only safetensors are loaded"),
        ("torn", "does not fit the model"),
        ("unknown type", "does not fit the model"),
        ("other modules", "does not fit the model .Target modules"),
        ("other rank", "does not fit the model .Error"),
    ],
)
def test_a_faulty_adapter_is_one_line(tiny_model, adapter, tmp_path, fault, match):
    told(match, attach_adapter, load(tiny_model, device="cpu").model, break_adapter(adapter, tmp_path, fault))
