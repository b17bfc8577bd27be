import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from transformers import AutoModelForImageTextToText, AutoProcessor

from llmctl.demo import vision
from llmctl.demo.network import TowerShape
from llmctl.demo.teaching import TeachSettings
from llmctl.demo.vision import HeldOut, demo_model_report, ensure_demo_model
from llmctl.errors import UserError
from llmctl.models import is_here, resolve
from llmctl.models.registry import made_folder
from llmctl.models.tiny import make_tiny_model

SHAPE = TowerShape(width=32, layers=1, heads=2, pixels=28, patch=14)
QUICK = TeachSettings(pictures=16, word_steps=2, word_batch=4, sentence_steps=2, sentence_batch=2)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The real thing, with a tiny language model, a tiny tower and few steps; counts how often it is made."""
    monkeypatch.setenv("LLMCTL_CACHE", str(tmp_path / "cache"))
    language = make_tiny_model(tmp_path / "language")
    monkeypatch.setattr(vision, "resolve", lambda name: language)
    made = []
    make = vision.make_demo_model

    def quick(folder, language, shape, settings, **options):
        made.append(folder)
        return make(folder, language, SHAPE, QUICK, **options)

    monkeypatch.setattr(vision, "make_demo_model", quick)
    monkeypatch.setattr(vision, "HeldOut", lambda: HeldOut(4, 1))
    return made


def test_it_is_made_once_and_found_by_its_name(small):
    assert not is_here("msr-demo")
    with pytest.raises(UserError, match="msr-demo has not been made yet: run `llmctl msr demo-model`"):
        resolve("msr-demo")
    folder = ensure_demo_model(quiet=True)
    assert ensure_demo_model(quiet=True) == folder == resolve("msr-demo") and len(small) == 1
    assert is_here("msr-demo")
    report = demo_model_report(folder)
    assert set(report["names_rightly"]) == {"category", "colour", "pattern", "all three"}
    assert report["held_out"] == {"pictures": 4, "seed": 1} and len(report["examples"]) == 4
    assert set(report["seconds"]) == {"draw", "words", "sentences"}


def test_transformers_loads_the_folder_and_reads_chats_with_pictures(small):
    from PIL import Image

    folder = ensure_demo_model(quiet=True)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    parts = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    text = processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
    assert "<image>\nWhat is it?<|im_end|>\n<|im_start|>assistant\n" in text
    inputs = processor(text=[text], images=[[Image.new("RGB", (40, 30))]], return_tensors="pt")
    out = model.generate(**inputs, max_new_tokens=2, do_sample=False)
    assert out.shape[1] == inputs.input_ids.shape[1] + 2


def test_two_at_once_make_one(small):
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: ensure_demo_model(quiet=True), range(2)))
    assert folders[0] == folders[1] and len(small) == 1


def test_a_failure_leaves_no_folder_and_the_words_learned_are_taken_up(small, monkeypatch):
    from llmctl.demo import alignment

    calls = []
    learn = alignment.teach_words
    monkeypatch.setattr(alignment, "teach_words", lambda *a, **k: calls.append(1) or learn(*a, **k))
    with monkeypatch.context() as patch:
        patch.setattr(vision, "measure_demo_model", lambda *a: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ensure_demo_model(quiet=True)
    cache = made_folder("msr-demo").parent
    assert [path.name for path in cache.iterdir() if path.is_dir()] == []
    ensure_demo_model(quiet=True)
    assert calls == [1]
    assert not list(cache.glob("*.words.safetensors"))


def test_what_a_killed_start_left_is_cleared_away(small):
    left = made_folder("msr-demo").parent / ".msr-demo-1-left"
    left.mkdir(parents=True)
    folder = ensure_demo_model(quiet=True)
    assert (
        not left.exists() and json.loads((folder / vision.REPORT).read_text())["language_model"] == "language"
    )


def test_a_folder_without_a_report_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no demo model: make it with `llmctl msr demo-model`"):
        demo_model_report(tmp_path)
