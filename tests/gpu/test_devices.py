"""What must be the same on every device; the CPU's half shows that the checks themselves are right."""

import pytest

from llmctl.models import load
from llmctl.sampling import Settings, open_sampler
from llmctl.training import TrainSettings, train

DEVICES = [pytest.param("cpu", id="cpu"), pytest.param("cuda", id="cuda", marks=pytest.mark.gpu)]
PROMPTS = [[{"role": "user", "content": text}] for text in ("one", "a longer prompt than that", "two")]
ROWS = [
    {"messages": [{"role": "user", "content": f"say {i}"}, {"role": "assistant", "content": f"{i} {i} {i}"}]}
    for i in range(8)
]


@pytest.mark.parametrize("device", DEVICES)
def test_log_probabilities_are_those_of_the_cpu(tiny_model, device):
    with open_sampler(str(tiny_model), engine="transformers", device="cpu") as sampler:
        expected = sampler.next_token_logprobs(PROMPTS, ["a", "b"])
    with open_sampler(str(tiny_model), engine="transformers", device=device, dtype="float32") as sampler:
        found = sampler.next_token_logprobs(PROMPTS, ["a", "b"])
        replies = sampler.chat(PROMPTS, Settings(n=3, max_tokens=8, seed=1))
        assert replies == sampler.chat(PROMPTS, Settings(n=3, max_tokens=8, seed=1))
    for row, reference in zip(found, expected, strict=True):
        assert row == pytest.approx(reference, abs=1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_the_dtype_is_the_best_of_the_device(tiny_model, device):
    import torch

    loaded = load(tiny_model, device=device)
    has_bf16 = device == "cuda" and torch.cuda.is_bf16_supported()
    half = torch.bfloat16 if has_bf16 else torch.float16
    assert loaded.dtype == (torch.float32 if device == "cpu" else half)
    assert loaded.model.device.type == device


@pytest.mark.parametrize("device", DEVICES)
def test_training_learns_its_rows(tiny_model, tmp_path, device, monkeypatch):
    import torch

    if device == "cpu":  # the trainer takes a GPU where there is one
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    settings = TrainSettings(learning_rate=1e-2, epochs=10, batch_size=4)
    losses = train(tiny_model, ROWS, settings, tmp_path / "out").losses
    assert losses[-1] < 0.9 * losses[0]
