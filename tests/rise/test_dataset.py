"""Training rows: which, with what weight, and that TRL reads the file as it stands."""

import json
import math

import pytest

from llmctl.errors import UserError
from llmctl.rise.collect import collect_episodes
from llmctl.rise.dataset import read_training_rows, training_rows, write_rows
from llmctl.rise.recipe import RiseRecipe
from llmctl.rise.records import Episode, State
from llmctl.rise.turns import next_conversation

from .helpers import TASK, attempt, collecting, gambler, player, problems


def state(turn, reward, rewards=(0, 0), text="it is a", source="self"):
    improved = None if reward is None else {"text": text, "reward": reward, "source": source}
    plain = {"turn": turn, "rewards": list(rewards), "repeats": 0, "degenerate": 0, "improved": improved}
    return State.from_dict(plain)


def episode(states, attempts, number=0):
    return Episode(f"train:{number}", tuple(attempts), tuple(states))


def rows(records, **recipe):
    return list(training_rows(TASK, problems(4), records, RiseRecipe(**recipe)))


THREE = episode(
    [state(1, 0), state(2, 1), state(3, 1, [1, 0])], [attempt("0"), attempt("1"), attempt("a", True)]
)


def test_a_row_asks_in_the_very_words_of_the_rollout_and_answers_with_the_improved_response():
    found = rows([THREE])
    assert [row["turn"] for row in found] == [2, 3]
    assert found[0]["prompt"] == next_conversation(TASK, problems(1)[0], [attempt("0")])
    assert found[1]["prompt"] == next_conversation(TASK, problems(1)[0], [attempt("0"), attempt("1")])
    assert found[0]["completion"] == [{"role": "assistant", "content": "it is a"}]


def test_the_window_of_the_rollout_is_that_of_the_rows():
    found = rows([THREE], sampling={"window": 1, "retry": "Again."})
    assert found[1]["prompt"] == next_conversation(TASK, problems(1)[0], [attempt("1")], retry="Again.")


def test_weights_come_from_reward_and_scheme():
    assert [row["weight"] for row in rows([THREE])] == pytest.approx([math.exp(2.5)] * 2)
    # the advantage over the mean rewards 0 and 0.5
    found = rows([THREE], weights={"scheme": "advantage", "tau": 0.5})
    assert [row["weight"] for row in found] == pytest.approx([math.exp(2), math.e])


def test_what_is_kept_and_whether_the_first_turn_counts():
    kept = {
        keep: [row["turn"] for row in rows([THREE], weights={"keep": keep})]
        for keep in ("all", "better", "best", "success")
    }
    assert kept == {"all": [1, 2, 3], "better": [1, 2, 3], "best": [1, 2, 3], "success": [2, 3]}
    assert [row["turn"] for row in rows([THREE], weights={"keep": "all"}, collect={"first_turn": False})] == [
        2,
        3,
    ]
    dropped = episode([state(1, None), state(2, 1)], [attempt("0"), attempt("1")])
    assert [row["turn"] for row in rows([dropped])] == [2]


def test_records_find_their_problems_and_a_missing_one_is_told():
    records = [episode([state(1, 1)], [attempt("a", True)], number) for number in (0, 2)]
    assert [row["prompt"][-1]["content"] for row in rows(records)] == ["letter 0", "letter 2"]
    with pytest.raises(
        UserError, match="problem 'train:9' was collected but is no longer in the task's data"
    ):
        rows([episode([state(1, 1)], [attempt("a", True)], 9)])


def test_written_weights_have_mean_one_and_keep_their_ratios(tmp_path):
    raw = [dict(row, weight=weight) for row, weight in zip(rows([THREE]), (1.0, 5.0), strict=True)]
    path = tmp_path / "rows.jsonl"
    counts = write_rows(raw, path)
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["weight"] for row in written] == pytest.approx([1 / 3, 5 / 3], abs=1e-6)
    assert set(written[0]) == {"prompt", "completion", "weight"}
    assert counts == {"rows": 2, "turn 2": 1, "turn 3": 1, "repair": 2, "from self": 2, "reward 1": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


def test_rows_from_a_real_collection_have_mean_one(tmp_path):
    records = collect_episodes(player(gambler(0.3)), problems(20), collecting(samples=4), seed=0)
    recipe = RiseRecipe(weights={"scheme": "advantage", "keep": "all"})
    path = tmp_path / "rows.jsonl"
    counts = write_rows(training_rows(TASK, problems(20), records, recipe), path)
    weights = [row["weight"] for row in read_training_rows(path)]
    assert len(weights) == counts["rows"] > 20
    assert sum(weights) / len(weights) == pytest.approx(1, abs=1e-5)
    assert max(weights) > 2 * min(weights)


def test_no_rows_is_an_error_that_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="no collected response is good enough to train on: collect more"):
        write_rows([], tmp_path / "rows.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows(rows([THREE]), path)
    before = path.read_bytes()

    def broken():
        yield from rows([THREE])
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        write_rows(broken(), path)
    assert path.read_bytes() == before


def test_text_that_utf8_can_not_hold_and_odd_line_breaks_come_back(tmp_path):
    odd = "a\ud800b\u2028c\r\nd\x0be"
    found = rows([episode([state(1, 1, text=odd)], [attempt("a", True)])])
    write_rows(found, tmp_path / "rows.jsonl")
    (row,) = read_training_rows(tmp_path / "rows.jsonl")
    assert row["messages"][-1]["content"] == odd


def test_trl_reads_the_file_as_it_stands_and_puts_loss_on_the_completion_alone(tmp_path, tiny_model):
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    path = tmp_path / "rows.jsonl"
    records = collect_episodes(player(gambler(0.3)), problems(8), collecting(), seed=0)
    write_rows(training_rows(TASK, problems(8), records, RiseRecipe(weights={"keep": "all"})), path)
    data = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    arguments = SFTConfig(
        str(tmp_path / "out"),
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        max_length=None,
    )
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    trainer = SFTTrainer(model, arguments, train_dataset=data, processing_class=tokenizer)
    for row, example in zip(read_training_rows(path), trainer.train_dataset, strict=True):
        batch = trainer.data_collator([example])
        learned = batch["input_ids"][0][batch["labels"][0] != -100]
        assert tokenizer.decode(learned) == f"{row['messages'][-1]['content']}<|im_end|>\n"
