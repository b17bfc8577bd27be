import pytest

from llmctl.demo import writer
from llmctl.demo.writer import WriterSettings, demo_writer_report, ensure_demo_writer, first_colour
from llmctl.demo.writing import held_out_histories, writing_rows
from llmctl.errors import UserError
from llmctl.models import load, resolve
from llmctl.models.tiny import make_tiny_model

QUICK = WriterSettings(users=2, steps=2, batch_size=2, held_out=2)


@pytest.fixture
def language(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMCTL_CACHE", str(tmp_path / "cache"))
    folder = make_tiny_model(tmp_path / "language", max_position_embeddings=4096)
    monkeypatch.setattr(writer, "resolve", lambda name: folder)
    return folder


def test_it_is_made_once_merged_and_found_by_its_name(language, monkeypatch):
    monkeypatch.setattr(writer, "_training", longer_rows(writer._training))
    with pytest.raises(UserError, match="msr-demo-writer has not been made yet"):
        resolve("msr-demo-writer")
    folder = ensure_demo_writer(settings=QUICK, quiet=True)
    monkeypatch.setattr(writer, "make_demo_writer", None)
    assert ensure_demo_writer(settings=QUICK, quiet=True) == folder == resolve("msr-demo-writer")
    report = demo_writer_report(folder)
    assert report["names_latest_colour"]["direct"]["n"] == 2 and len(report["examples"]) == 2
    taught, plain = load(folder).model.state_dict(), load(language).model.state_dict()
    assert taught.keys() == plain.keys()
    assert any(not taught[name].equal(plain[name]) for name in taught)
    assert sorted(path.name for path in folder.parent.iterdir() if path.suffix != ".lock") == [folder.name]


def test_a_question_to_it_is_not_preceded_by_a_system_message(language, monkeypatch):
    monkeypatch.setattr(writer, "_training", longer_rows(writer._training))
    tokenizer = load(ensure_demo_writer(settings=QUICK, quiet=True)).tokenizer
    asked = [{"role": "user", "content": "What?"}]
    text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert text == "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n"


def test_a_perfect_writer_would_be_measured_as_perfect(monkeypatch):
    histories = held_out_histories(5, seed=1)

    class Perfect:
        """Answers with the truth of the user whose lines are asked about."""

        def chat(self, conversations, settings):
            replies = []
            for conversation in conversations:
                text = conversation[0]["content"]
                one = next(h for h in histories if any(line in text for block in h.blocks for line in block))
                replies.append([type("Reply", (), {"text": one.summary})])
            return replies

        def close(self):
            pass

    monkeypatch.setattr("llmctl.sampling.open_sampler", lambda *a, **k: Perfect())
    found = writer.measure_demo_writer("any", 5)["names_latest_colour"]
    # lines of different users differ nearly always; a shared one may hide a user
    assert found["direct"]["value"] >= 0.8 and found["recurrent"]["value"] >= 0.8


def test_held_out_users_are_not_those_that_are_learned_from():
    lines = {line for one in held_out_histories(20, 1) for block in one.blocks for line in block}
    learned = " ".join(row.prompt for row in writing_rows(20, seed=1))
    assert sum(line in learned for line in lines) < 0.02 * len(lines)
    assert all(
        one.summary.startswith(f"This user now likes {one.colour}") for one in held_out_histories(5, 3)
    )


def test_the_first_colour_counts():
    assert first_colour("This user now likes Red items. Before that: blue.") == "red"
    assert first_colour("A hundred cups") is None


def longer_rows(training):
    """The tiny tokenizer makes a token of each byte."""
    return lambda settings: training(settings).model_copy(update={"max_length": 4096})
