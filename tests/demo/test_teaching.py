import numpy as np
import pytest
import torch

from llmctl.demo.alignment import Lexicon, labels_of, teach_words, word_loss
from llmctl.demo.attributes import Look
from llmctl.demo.captions import QUESTIONS, CaptionLoss, teach_sentences
from llmctl.demo.network import TowerShape, build_network, image_tokens
from llmctl.demo.teaching import TeachSettings
from llmctl.demo.training_pictures import TrainingPictures
from llmctl.errors import UserError
from llmctl.models.tiny import make_tiny_model

SHAPE = TowerShape(width=32, layers=1, heads=2, pixels=28, patch=7)  # 16 image tokens
QUICK = TeachSettings(pictures=64, word_steps=30, word_batch=16, sentence_steps=4, sentence_batch=4)


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("language") / "tiny")


@pytest.fixture(scope="module")
def pictures():
    return TrainingPictures.draw(QUICK.pictures, SHAPE.pixels, 0, quiet=True)


@pytest.fixture
def network(language):
    return build_network(language, SHAPE, seed=0)


def test_the_language_model_is_taken_over_as_it_is(language, network):
    from transformers import AutoModelForCausalLM

    model, processor = network
    text = AutoModelForCausalLM.from_pretrained(language)
    ids = processor.tokenizer("red cup", return_tensors="pt").input_ids
    with torch.no_grad():
        expected, found = text(ids).logits, model(input_ids=ids).logits
    torch.testing.assert_close(found[..., : expected.shape[-1]], expected)


def test_a_picture_becomes_as_many_tokens_as_the_processor_counts(network, pictures):
    from PIL import Image

    model, processor = network
    picture = Image.fromarray(pictures.pixels[0]).resize((90, 90))
    found = processor(text=["<image>"], images=[[picture]], return_tensors="pt")
    assert (found.input_ids == model.config.image_token_index).sum() == SHAPE.tokens == 16
    assert found.pixel_values.shape == (1, 3, 28, 28)
    assert image_tokens(model, found.pixel_values).shape == (1, 16, 64)


def test_pictures_to_learn_from_look_as_the_processor_makes_them(network, pictures):
    from PIL import Image

    _, processor = network
    pixels, _ = next(pictures.batches(1, 256, seed=3))
    direct = processor.image_processor(Image.fromarray(pictures.pixels[0]), return_tensors="pt").pixel_values
    assert pixels.min() >= -1 and pixels.max() <= 1
    assert abs(pixels.mean() - direct.mean()) < 0.3 and direct.min() >= -1 and direct.max() <= 1


def test_equal_seeds_give_equal_batches(pictures):
    first, again = (next(pictures.batches(1, 8, seed=5)) for _ in range(2))
    assert torch.equal(first[0], again[0]) and first[1] == again[1]
    assert not torch.equal(first[0], next(pictures.batches(1, 8, seed=6))[0])


def test_word_loss_is_near_its_least_at_the_words_themselves(network):
    model, processor = network
    lexicon = Lexicon.of(model, processor.tokenizer)
    labels = labels_of([Look("cup", "red", "striped"), Look("bag", "blue", "plain")])
    perfect = lexicon.caption(labels, 16)
    assert perfect.shape == (2, 16, 64)
    assert torch.equal(perfect[:, -1], lexicon.stop.expand(2, -1))
    swapped = perfect.flip(0)
    assert word_loss(perfect, labels, lexicon) < word_loss(swapped, labels, lexicon)
    assert torch.equal(perfect[0, -2], lexicon.words[2][labels[0, 2]])  # "... cup ."


def test_words_are_learned(network, pictures):
    model, processor = network
    before = {name: value.clone() for name, value in model.model.language_model.state_dict().items()}
    lexicon = Lexicon.of(model, processor.tokenizer)
    pixels, looks = next(pictures.batches(1, 64, seed=9))
    with torch.no_grad():
        first = word_loss(image_tokens(model, pixels), labels_of(looks), lexicon)
    teach_words(model, processor.tokenizer, pictures, QUICK, quiet=True)
    with torch.no_grad():
        last = word_loss(image_tokens(model, pixels), labels_of(looks), lexicon)
    assert last < 0.9 * first
    for name, value in model.model.language_model.state_dict().items():
        assert torch.equal(value, before[name])


def test_teaching_again_gives_the_same_weights(language, pictures):
    weights = []
    for _ in range(2):
        model, processor = build_network(language, SHAPE, seed=0)
        teach_words(model, processor.tokenizer, pictures, QUICK, quiet=True)
        weights.append(model.model.multi_modal_projector.linear_2.weight)
    torch.testing.assert_close(weights[0], weights[1])


def test_the_cached_beginning_changes_no_loss(network):
    """Against the whole conversation through the model's own forward pass."""
    model, processor = network
    caption, question = "A red cup.", QUESTIONS[1]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, 3, 28, 28, generator=generator) * 2 - 1
    with torch.no_grad():
        found = CaptionLoss(model, processor).loss(pixels, question, [caption, "A plain blue umbrella."])
        total, count = 0.0, 0
        for row, reply in enumerate((caption, "A plain blue umbrella.")):
            parts = [{"type": "image"}, {"type": "text", "text": question}]
            text = processor.apply_chat_template(
                [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
            )
            text = text.replace("<image>", "<image>" * 16)
            prompt = processor.tokenizer(text, add_special_tokens=False).input_ids
            answer = processor.tokenizer(reply + "<|im_end|>", add_special_tokens=False).input_ids
            ids = torch.tensor([prompt + answer])
            logits = model(input_ids=ids, pixel_values=pixels[row : row + 1]).logits[0, len(prompt) - 1 : -1]
            total += torch.nn.functional.cross_entropy(logits, ids[0, len(prompt) :], reduction="sum").item()
            count += len(answer)
    assert found.item() == pytest.approx(total / count, rel=1e-4)


def test_sentences_leave_the_language_model_alone_and_trainable(network, pictures):
    model, processor = network
    before = {name: value.clone() for name, value in model.state_dict().items()}
    teach_sentences(model, processor, pictures, QUICK, quiet=True)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all("vision_tower" in name or "projector" in name for name in changed)
    assert all(weight.requires_grad for weight in model.parameters())


def test_an_old_torch_is_refused(network, pictures, monkeypatch):
    model, processor = network
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(UserError, match="has no Muon, but the demo model needs it: take 2.9 or newer"):
        teach_words(model, processor.tokenizer, pictures, QUICK, quiet=True)


def test_pictures_are_mirrored_and_moved_but_keep_their_pixels(pictures):
    pixels, looks = next(pictures.batches(1, 4, seed=1))
    sums = {tuple(np.sort(one.reshape(-1, 3).sum(1))[:50]) for one in pictures.pixels.astype(int)}
    for one in ((pixels + 1) * 127.5).round().int().permute(0, 2, 3, 1).numpy():
        assert tuple(np.sort(one.reshape(-1, 3).sum(1))[:50]) in sums
    assert len(looks) == 4
