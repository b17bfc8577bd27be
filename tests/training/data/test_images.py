"""Fine-tuning tiny vision-language models: pictures are seen, and the part that sees stays as it is."""

import math
import re

import pytest
import torch
from PIL import Image

from llmctl.errors import UserError
from llmctl.models.loading import load_image_text
from llmctl.models.tiny import make_tiny_vlm
from llmctl.sampling import open_sampler
from llmctl.training import LoraSettings, train
from llmctl.training.data.encoding import IGNORED
from llmctl.training.data.images import language_targets, prepare_for_processor
from tests.sampling.families import FAMILIES, save_family

from ..helpers import settings, weights


@pytest.fixture(scope="module", params=["clip", "siglip"])
def vlm(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vlm") / request.param
    return make_tiny_vlm(folder, request.param, initializer_range=0.2)


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    folder = tmp_path_factory.mktemp("colours")
    for colour in ("red", "blue"):
        Image.new("RGB", (90, 56), colour).save(folder / f"{colour}.png")
    return folder


def row(colours, colour, answer, text="wanted?", **more):
    parts = [{"type": "text", "text": text}]
    if colour is not None:
        parts.append({"type": "image", "path": str(colours / f"{colour}.png"), "max_side": 60})
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]
    return {"messages": messages, **more}


def rows(colours, count=8):
    pairs = [("red", "yes"), ("blue", "no")] * (count // 2)
    return [row(colours, *pair, text=f"wanted? {n}") for n, pair in enumerate(pairs)]


def test_what_is_learned_from_pictures_is_answered_to_pictures(vlm, colours, tmp_path):
    tuning = settings(
        adapter="lora", epochs=12, batch_size=4, learning_rate=2e-2, lora=LoraSettings(r=8), warmup_ratio=0
    )
    result = train(vlm, rows(colours), tuning, tmp_path / "out")
    assert result.is_adapter and result.losses[-1] < 0.5 * result.losses[0]
    names = set(weights(result.output))
    assert names and all("language_model" in name and "vision" not in name for name in names)
    asked = []
    for colour in ("red", "blue"):
        image = Image.open(colours / f"{colour}.png").resize((60, 37), Image.Resampling.LANCZOS)
        parts = [{"type": "text", "text": "wanted? 3"}, {"type": "image", "image": image}]
        asked.append([{"role": "user", "content": parts}])
    with open_sampler(str(vlm), adapter=result.output, device="cpu") as sampler:
        red, blue = sampler.next_token_logprobs(asked, ["yes", "no"])
    assert red[0] > red[1] and blue[1] > blue[0] and math.exp(red[0]) + math.exp(red[1]) > 0.5


def test_a_row_is_trained_on_the_prompt_that_a_sampler_sees(vlm, colours):
    data = prepare_for_processor([row(colours, "red", "yes")], load_image_text(vlm).processor)
    ids, labels = data.dataset["input_ids"][0], data.dataset["labels"][0]
    image = Image.open(colours / "red.png").resize((60, 37), Image.Resampling.LANCZOS)
    parts = [{"type": "text", "text": "wanted?"}, {"type": "image", "image": image}]
    with open_sampler(str(vlm), device="cpu") as sampler:
        seen = sampler._row(0, [{"role": "user", "content": parts}], 0).ids
        text = sampler.tokenizer.decode([label for label in labels if label != IGNORED])
    assert tuple(ids[: len(seen)]) == seen and labels[: len(seen)] == [IGNORED] * len(seen)
    assert text == "yes<|im_end|>\n"


def test_a_batch_may_hold_rows_without_a_picture(vlm, colours, tmp_path):
    mixed = [row(colours, colour, "yes") for colour in ("red", None, "blue", None)]
    mixed.append({"messages": [{"role": "user", "content": "plain"}, {"role": "assistant", "content": "no"}]})
    result = train(vlm, mixed, settings(adapter="lora", epochs=1, batch_size=5), tmp_path / "out")
    assert result.rows == 5 and result.steps == 1 and result.losses[0] > 0


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_learns_from_batches_with_and_without_pictures(name, colours, tmp_path, monkeypatch):
    processor = save_family(name, tmp_path / "model")
    monkeypatch.setattr("transformers.AutoProcessor.from_pretrained", lambda *_, **__: processor)
    mixed = [*rows(colours), row(colours, None, "yes"), row(colours, None, "no")]
    tuning = settings(adapter="lora", epochs=6, batch_size=5, learning_rate=1e-2, warmup_ratio=0)
    result = train(tmp_path / "model", mixed, tuning, tmp_path / "out")
    assert result.rows == 10 and result.losses[-1] < 0.7 * result.losses[0]
    assert all("vision" not in part and "visual" not in part for part in weights(result.output))


def test_the_pattern_of_an_adapter_matches_linear_layers_of_the_language_part_alone(vlm):
    model = load_image_text(vlm).model
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    for targets, expected in (
        ("all-linear", [n for n in linear if "language_model" in n]),
        (("q_proj",), [n for n in linear if "language_model" in n and n.endswith("q_proj")]),
        (
            r"layers\.0\..*v_proj",
            [n for n in linear if n.endswith("language_model.layers.0.self_attn.v_proj")],
        ),
    ):
        pattern = language_targets(model, targets)
        assert [name for name in linear if re.fullmatch(pattern, name)] == expected != []


def test_what_cannot_be_trained_on_is_refused_with_the_name_of_the_row(vlm, colours, tiny_model, tmp_path):
    good, lost = row(colours, "red", "yes"), row(colours, "green", "yes")
    with pytest.raises(UserError, match="row 2 needs the image .*green.png.*file missing"):
        train(vlm, [good, lost], settings(adapter="lora"), tmp_path / "a")
    with pytest.raises(UserError, match="row 1 holds parts, such as an image, but the model reads only text"):
        train(tiny_model, [good], settings(adapter="lora"), tmp_path / "b")
    with pytest.raises(UserError, match="loss_on is all and the model reads images"):
        train(vlm, [good], settings(adapter="lora", loss_on="all"), tmp_path / "c")
