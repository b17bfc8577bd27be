"""The transformers engine on tiny random vision-language models."""

import pytest
import torch
from PIL import Image

from llmctl.errors import UserError
from llmctl.models.tiny import make_tiny_vlm
from llmctl.sampling import Settings, open_sampler
from llmctl.sampling.image_text_engine import ImageTextSampler
from tests.sampling.families import FAMILIES, save_family

SIZES = {"red": (56, 56), "blue": (80, 40), "green": (20, 90)}


def ask(colour, text="what is it?", size=None):
    parts = [{"type": "text", "text": text}]
    if colour is not None:
        parts.append({"type": "image", "image": Image.new("RGB", size or SIZES[colour], colour)})
    return [{"role": "user", "content": parts}]


@pytest.fixture(scope="module", params=["clip", "siglip"])
def folder(request, tmp_path_factory):
    return make_tiny_vlm(tmp_path_factory.mktemp("vlm") / request.param, request.param, initializer_range=0.3)


@pytest.fixture(scope="module")
def sampler(folder):
    with open_sampler(str(folder), device="cpu") as sampler:
        yield sampler


class Reference:
    """The model and its processor as transformers gives them, one conversation at a time."""

    def __init__(self, folder):
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.model = AutoModelForImageTextToText.from_pretrained(folder).eval()
        self.processor = AutoProcessor.from_pretrained(folder)

    def inputs(self, conversation):
        text = self.processor.apply_chat_template(conversation, add_generation_prompt=True)
        images = [part["image"] for m in conversation for part in m["content"] if part["type"] == "image"]
        given = {"images": [images]} if images else {}
        return self.processor(text=[text], **given, return_tensors="pt", add_special_tokens=False)

    @torch.no_grad()
    def logprobs(self, conversation):
        return self.model(**self.inputs(conversation)).logits[0, -1].double().log_softmax(-1)

    @torch.no_grad()
    def greedy(self, conversation, length):
        inputs = self.inputs(conversation)
        out = self.model.generate(**inputs, max_new_tokens=length, do_sample=False)
        return out[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.fixture(scope="module")
def reference(folder):
    return Reference(folder)


MIXED = [ask("red"), ask(None), ask("blue", "a longer question about it"), ask("green"), ask("red", "else?")]


def test_a_folder_of_a_vision_language_model_opens_as_one(sampler):
    assert isinstance(sampler, ImageTextSampler) and sampler.info.engine == "transformers"


def test_a_batch_of_pictures_and_texts_gives_what_each_gives_alone(sampler, reference):
    replies = sampler.chat(MIXED, Settings(temperature=0, max_tokens=8))
    for conversation, (reply,) in zip(MIXED, replies, strict=True):
        assert list(reply.token_ids) == reference.greedy(conversation, 8)


def test_plain_text_may_be_asked_without_parts(sampler):
    greedy = Settings(temperature=0, max_tokens=5)
    plain = [{"role": "user", "content": "what is it?"}]
    assert sampler.chat([plain], greedy) == sampler.chat([ask(None)], greedy)


def test_n_samples_see_the_picture_and_depend_on_the_seed(sampler):
    settings = Settings(n=3, max_tokens=8, seed=5)
    once, again = (sampler.chat(MIXED, settings) for _ in range(2))
    turned = sampler.chat(MIXED[::-1], settings)[::-1]
    assert once == again and [[c.text for c in r] for r in once] == [[c.text for c in r] for r in turned]
    assert all(len({c.token_ids for c in reply}) > 1 for reply in once)


def test_another_picture_gives_other_probabilities(sampler, reference):
    rows = sampler.next_token_logprobs(MIXED, ["yes", "no"])
    for conversation, row in zip(MIXED, rows, strict=True):
        ids = reference.processor.tokenizer.convert_tokens_to_ids(["yes", "no"])
        assert row == pytest.approx(reference.logprobs(conversation)[ids].tolist(), abs=1e-4)
    assert rows[0] != pytest.approx(
        sampler.next_token_logprobs([ask("blue", size=(56, 56))], ["yes", "no"])[0]
    )


def test_a_common_text_before_the_pictures_is_computed_once(sampler, reference):
    long = "here is what is known of the user: " + "likes everything that is red; " * 8
    users = [ask(colour, f"{name} {long}") for name in ("ann", "bob") for colour in SIZES]
    before = sampler.usage.snapshot()
    rows = sampler.next_token_logprobs(users, ["yes", "No"])
    assert sampler.usage.since(before).cached_tokens > 2 * 2 * len(long)
    ids = reference.processor.tokenizer.convert_tokens_to_ids(["yes", "No"])
    for conversation, row in zip(users, rows, strict=True):
        assert row == pytest.approx(reference.logprobs(conversation)[ids].tolist(), abs=1e-4)


def test_a_title_with_the_mark_of_a_picture_is_text(sampler):
    (row,) = sampler.next_token_logprobs([ask("red", "an <image> of <image>")], ["yes"])
    assert row[0] < 0


def test_a_picture_for_a_model_of_text_is_refused_in_one_line(tiny_model):
    with open_sampler(str(tiny_model), device="cpu") as text_only:
        with pytest.raises(UserError, match="holds a picture or other parts, but .* reads text alone"):
            text_only.chat([ask("red")], Settings(max_tokens=2))


def test_a_part_that_is_no_picture_is_refused(sampler):
    broken = [{"role": "user", "content": [{"type": "image", "image": "path.png"}]}]
    with pytest.raises(UserError, match="a part is a text, or an image that is a PIL image"):
        sampler.chat([broken], Settings(max_tokens=2))


def test_a_conversation_with_a_picture_that_leaves_no_room_is_refused(sampler):
    with pytest.raises(UserError, match="the context is 1024"):
        sampler.chat([ask("red", "x" * 1200)], Settings(max_tokens=4))


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request, tmp_path_factory):
    """A sampler and the reference of a family with tiles, or with positions of its own."""
    folder = tmp_path_factory.mktemp("families") / request.param
    processor = save_family(request.param, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.AutoProcessor.from_pretrained", lambda *_, **__: processor)
        with open_sampler(str(folder), device="cpu") as sampler:
            yield sampler, Reference(folder)


def test_every_family_says_of_a_batch_what_it_says_of_each_alone(family):
    sampler, reference = family
    replies = sampler.chat(MIXED, Settings(temperature=0, max_tokens=8))
    for conversation, (reply,) in zip(MIXED, replies, strict=True):
        assert list(reply.token_ids) == reference.greedy(conversation, 8)
    assert sampler.chat(MIXED[1:2], Settings(temperature=0, max_tokens=8)) == replies[1:2]


def test_every_family_scores_a_batch_as_each_alone(family):
    sampler, reference = family
    long = "here is what is known of the user: " + "likes everything that is red; " * 8
    asked = [*MIXED, *(ask(colour, f"{name} {long}") for name in ("ann", "bob") for colour in SIZES)]
    ids = reference.processor.tokenizer.convert_tokens_to_ids(["yes", "No"])
    for conversation, row in zip(asked, sampler.next_token_logprobs(asked, ["yes", "No"]), strict=True):
        assert row == pytest.approx(reference.logprobs(conversation)[ids].tolist(), abs=1e-4)


def test_a_processor_that_lacks_a_package_is_told_in_one_line_with_the_way_out(folder, monkeypatch):
    def lacking(*_, **__):
        raise ImportError("Qwen2VLVideoProcessor requires the Torchvision library\nmore")

    monkeypatch.setattr("transformers.AutoProcessor.from_pretrained", lacking)
    with pytest.raises(UserError, match="requires the Torchvision library.: install what it lacks") as found:
        open_sampler(str(folder), device="cpu")
    assert "\n" not in str(found.value)
