import json

import pytest
import torch
from filelock import FileLock
from transformers import TrainerCallback

from llmctl.errors import UserError
from llmctl.models import load
from llmctl.models.tiny import make_tiny_model
from llmctl.training import LoraSettings, SaveSettings, train
from llmctl.training.checkpoints import MARKER, last_checkpoint
from llmctl.training.config import TrainSettings
from llmctl.training.result import DONE

from .helpers import assert_same_weights, chat, settings, some_rows, weights

DROPOUT = LoraSettings(r=4, dropout=0.3)


class StopAt(TrainerCallback):
    """Break off after a step, as Ctrl-C does."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def interrupt(step, *args, **kwargs):
    with pytest.raises(KeyboardInterrupt):
        train(*args, callbacks=[StopAt(step)], **kwargs)


def next_token_logits(loaded):
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        return loaded.model(input_ids=ids).logits


@pytest.fixture(scope="module")
def finished(tiny_model, tmp_path_factory):
    """An unbroken full fine-tuning of 12 rows, 2 epochs, 6 steps."""
    return train(tiny_model, some_rows(), settings(), tmp_path_factory.mktemp("unbroken") / "full")


def test_full_fine_tuning_leaves_a_model_that_loads_with_its_chat_template(finished, tiny_model):
    loaded = load(finished.output)
    assert loaded.tokenizer.chat_template
    assert (next_token_logits(loaded) - next_token_logits(load(tiny_model))).abs().max() > 0.01
    assert not finished.is_adapter


def test_the_output_is_safetensors_and_nothing_pickled(finished):
    names = {path.name for path in finished.output.rglob("*")}
    assert "model.safetensors" in names
    assert not {name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))}
    assert "checkpoints" not in names


def test_counts_cover_the_whole_run(finished, tiny_model):
    from llmctl.training.data import prepare

    prepared = prepare(some_rows(), load(tiny_model).tokenizer)
    assert finished.steps == len(finished.losses) == 6
    assert finished.rows == 12
    assert finished.tokens == 2 * prepared.tokens
    assert finished.label_tokens == 2 * prepared.label_tokens
    assert finished.trainable_parameters == sum(p.numel() for p in load(tiny_model).model.parameters())
    assert finished.losses[-1] < finished.losses[0]


def test_the_same_call_gives_the_same_weights(finished, tiny_model, tmp_path):
    again = train(tiny_model, some_rows(), settings(), tmp_path / "again")
    assert again.losses == finished.losses
    assert_same_weights(again.output, finished.output)


def test_a_finished_output_is_returned_without_training(finished, tiny_model):
    def refuse(*_):
        raise RuntimeError("trained again")

    assert train(tiny_model, some_rows(), settings(), finished.output, progress=refuse) == finished


def test_save_settings_may_change_after_the_fact(finished, tiny_model):
    other = settings(save=SaveSettings(save_steps=5))
    assert train(tiny_model, some_rows(), other, finished.output) == finished


def test_a_finished_output_of_other_inputs_is_refused(finished, tiny_model):
    with pytest.raises(UserError, match="another model, other rows or other settings"):
        train(tiny_model, some_rows(), settings(seed=1), finished.output)
    with pytest.raises(UserError, match="another model, other rows or other settings"):
        train(tiny_model, some_rows(11), settings(), finished.output)


def test_micro_batches_divide_a_step_without_changing_it(finished, tiny_model, tmp_path):
    split = settings(batch_size=1, accumulation=4)
    other = train(tiny_model, some_rows(), split, tmp_path / "split")
    assert other.losses == pytest.approx(finished.losses, abs=1e-5)
    assert_same_weights(other.output, finished.output, tolerance=1e-4)
    assert other.tokens == finished.tokens
    assert other.label_tokens == finished.label_tokens


@pytest.mark.parametrize("step", [1, 3, 4, 5], ids=["before any checkpoint", "epoch end", "saved", "epoch 2"])
def test_a_run_that_was_broken_off_ends_as_an_unbroken_one(step, finished, tiny_model, tmp_path):
    interrupt(step, tiny_model, some_rows(), settings(), tmp_path / "out")
    result = train(tiny_model, some_rows(), settings(), tmp_path / "out")
    assert result.losses == finished.losses
    assert (result.tokens, result.label_tokens) == (finished.tokens, finished.label_tokens)
    assert_same_weights(result.output, finished.output)


def test_dropout_goes_on_as_if_nothing_had_happened(tiny_model, tmp_path):
    with_dropout = settings(adapter="lora", lora=DROPOUT, batch_size=2, accumulation=2)
    unbroken = train(tiny_model, some_rows(), with_dropout, tmp_path / "unbroken")
    interrupt(5, tiny_model, some_rows(), with_dropout, tmp_path / "out")
    result = train(tiny_model, some_rows(), with_dropout, tmp_path / "out")
    assert result.losses == unbroken.losses
    assert_same_weights(result.output, unbroken.output)


def test_a_torn_checkpoint_is_ignored_and_removed(finished, tiny_model, tmp_path):
    out = tmp_path / "out"
    interrupt(5, tiny_model, some_rows(), settings(), out)
    whole = last_checkpoint(out / "checkpoints")
    assert whole.step == 4
    torn = out / "checkpoints" / "checkpoint-5"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    assert last_checkpoint(out / "checkpoints") == whole
    assert train(tiny_model, some_rows(), settings(), out).losses == finished.losses


def test_an_unfinished_output_of_other_inputs_is_refused_and_left_alone(tiny_model, tmp_path):
    out = tmp_path / "out"
    interrupt(3, tiny_model, some_rows(), settings(), out)
    with pytest.raises(UserError, match="start over with resume=False"):
        train(tiny_model, some_rows(), settings(learning_rate=1e-3), out)
    assert last_checkpoint(out / "checkpoints").step == 2


def test_a_start_that_failed_does_not_block_the_corrected_one(finished, tiny_model, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match="no_such_layer"):
        wrong = settings(adapter="lora", lora=LoraSettings(target_modules=("no_such_layer",)))
        train(tiny_model, some_rows(), wrong, out)
    assert train(tiny_model, some_rows(), settings(), out).losses == finished.losses


def test_resume_false_starts_over(finished, tiny_model, tmp_path):
    out = tmp_path / "out"
    interrupt(3, tiny_model, some_rows(), settings(learning_rate=1e-3), out)
    assert train(tiny_model, some_rows(), settings(), out, resume=False).losses == finished.losses


def test_checkpoints_stay_where_asked_for(tiny_model, tmp_path):
    keep = settings(epochs=1, save=SaveSettings(save_steps=1, keep_checkpoints=True))
    result = train(tiny_model, some_rows(), keep, tmp_path / "out")
    (checkpoint,) = (result.output / "checkpoints").glob("checkpoint-*")
    assert checkpoint.name == "checkpoint-3"
    assert (checkpoint / MARKER).is_file()


def test_a_second_process_is_refused(tiny_model, tmp_path):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / ".train.lock"):
        with pytest.raises(UserError, match="is in use by .*choose another output"):
            train(tiny_model, some_rows(), settings(), tmp_path / "out")


def test_an_output_that_can_not_be_written_is_one_clear_line(tiny_model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot .*file"):
        train(tiny_model, some_rows(), settings(), tmp_path / "file" / "out")


def test_lora_leaves_an_adapter_that_loads_on_its_model(tiny_model, tmp_path):
    result = train(tiny_model, some_rows(), settings(adapter="lora"), tmp_path / "lora")
    assert result.is_adapter
    assert result.trainable_parameters < 50_000
    tuned = load(tiny_model, adapter=result.output)
    assert (next_token_logits(tuned) - next_token_logits(load(tiny_model))).abs().max() > 0.01


def test_an_adapter_goes_on_from_where_it_was(tiny_model, tmp_path):
    first = train(tiny_model, some_rows(), settings(adapter="lora"), tmp_path / "first")
    still = settings(adapter="lora", learning_rate=1e-30)
    second = train(tiny_model, some_rows(), still, tmp_path / "second", init_adapter=first.output)
    assert_same_weights(second.output, first.output, tolerance=1e-20)
    further = train(
        tiny_model, some_rows(), settings(adapter="lora"), tmp_path / "third", init_adapter=first.output
    )
    assert further.losses[0] < first.losses[0]


def test_a_qlora_adapter_goes_on_without_being_rounded(tiny_model, tmp_path):
    first = train(tiny_model, some_rows(), settings(adapter="qlora"), tmp_path / "first")
    assert first.losses[-1] < first.losses[0]
    still = settings(adapter="qlora", learning_rate=1e-30)
    second = train(tiny_model, some_rows(), still, tmp_path / "second", init_adapter=first.output)
    assert_same_weights(second.output, first.output, tolerance=1e-20)


def test_full_fine_tuning_goes_on_from_the_folder_of_the_previous_one(finished, tmp_path):
    second = train(finished.output, some_rows(), settings(), tmp_path / "second")
    assert second.losses[0] < finished.losses[0]


def test_an_adapter_to_go_on_from_needs_the_same_kind(tiny_model, tmp_path):
    with pytest.raises(UserError, match="adapter is full, which trains no adapter"):
        train(tiny_model, some_rows(), settings(), tmp_path / "out", init_adapter=tmp_path)
    first = train(tiny_model, some_rows(), settings(adapter="lora"), tmp_path / "first")
    gin = settings(adapter="sparse-gin")
    with pytest.raises(UserError, match="is a LORA adapter, but adapter is sparse-gin"):
        train(tiny_model, some_rows(), gin, tmp_path / "out", init_adapter=first.output)


def test_layers_that_do_not_exist_are_named(tiny_model, tmp_path):
    wrong = settings(adapter="lora", lora=LoraSettings(target_modules=("no_such_layer",)))
    with pytest.raises(UserError, match="adapter lora does not fit .*no_such_layer"):
        train(tiny_model, some_rows(), wrong, tmp_path / "out")


def test_an_unknown_optimizer_is_named_with_the_nearest(tiny_model, tmp_path):
    with pytest.raises(UserError, match="optimizer is 'adamw_torhc'.*did you mean adamw_torch"):
        train(tiny_model, some_rows(), settings(optimizer="adamw_torhc"), tmp_path / "out")


def test_a_missing_bitsandbytes_says_what_to_install(tiny_model, tmp_path, monkeypatch):
    from importlib import util

    find = util.find_spec
    monkeypatch.setattr(
        util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else find(name, *a)
    )
    with pytest.raises(UserError, match="needs bitsandbytes"):
        train(tiny_model, some_rows(), settings(adapter="qlora"), tmp_path / "out")


def test_a_loss_that_is_no_number_stops_the_run(tiny_model, tmp_path):
    rows = [chat("a", "b", weight=1e308), chat("c", "d", weight=1e308)]
    with pytest.raises(UserError, match="the loss is (inf|nan) at step 1: lower learning_rate"):
        train(tiny_model, rows, settings(), tmp_path / "out")


def test_evaluation_uses_the_same_weights(tiny_model, tmp_path):
    row = chat("a", "bc")
    still = settings(learning_rate=1e-30, epochs=1)
    result = train(tiny_model, [row], still, tmp_path / "one", eval_rows=[row | {"weight": 3.0}])
    assert result.eval_losses == pytest.approx([3 * result.losses[0]], rel=1e-5)


def test_an_evaluation_is_not_lost_between_a_checkpoint_and_a_kill(tiny_model, tmp_path):
    each_step = settings(save=SaveSettings(save_steps=1))
    inputs = (tiny_model, some_rows(), each_step)
    unbroken = train(*inputs, tmp_path / "unbroken", eval_rows=some_rows(4))
    assert len(unbroken.eval_losses) == 2

    class StopAfterEpoch(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            if state.global_step == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(*inputs, tmp_path / "out", eval_rows=some_rows(4), callbacks=[StopAfterEpoch()])
    result = train(*inputs, tmp_path / "out", eval_rows=some_rows(4))
    assert result.eval_losses == unbroken.eval_losses
    assert result.losses == unbroken.losses


def test_rows_beyond_the_context_of_the_model_are_dropped(tmp_path):
    short = make_tiny_model(tmp_path / "short", "gpt2", n_positions=40)
    rows = [chat("a", "b"), chat("a", "b" * 60)]
    result = train(short, rows, settings(epochs=1), tmp_path / "out")
    assert (result.rows, result.dropped_rows) == (1, 1)


def test_max_steps_wins_over_epochs(tiny_model, tmp_path):
    assert train(tiny_model, some_rows(), settings(max_steps=4), tmp_path / "out").steps == 4


def test_progress_is_reported_and_stdout_stays_empty(tiny_model, tmp_path, capfd):
    seen = []
    every_other = settings(epochs=1.7, save=SaveSettings(save_steps=2, logging_steps=2))
    result = train(
        tiny_model, some_rows(), every_other, tmp_path / "out", progress=lambda *call: seen.append(call)
    )
    total = result.steps
    assert [step for step, _, _ in seen] == sorted({2, 4, total})
    assert all(call == (call[0], total, result.losses[call[0] - 1]) for call in seen)
    assert capfd.readouterr().out == ""


def test_the_caller_keeps_its_logging_level(tiny_model, tmp_path):
    from transformers.utils import logging

    logging.set_verbosity_info()
    try:
        train(tiny_model, some_rows(4), settings(epochs=1), tmp_path / "out")
        assert logging.get_verbosity() == logging.INFO
    finally:
        logging.set_verbosity_warning()


def test_rows_from_a_file_are_the_same_rows(finished, tiny_model, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in some_rows()))
    assert train(tiny_model, path, settings(), finished.output) == finished


def test_a_run_that_died_before_its_marker_saves_again(finished, tiny_model, tmp_path):
    out = tmp_path / "out"
    interrupt(5, tiny_model, some_rows(), settings(), out)
    (out / "model.safetensors").write_bytes(b"half")  # a kill in the middle of the last save
    assert not (out / DONE).exists()
    result = train(tiny_model, some_rows(), settings(), out)
    assert_same_weights(result.output, finished.output)


def test_every_adapter_trains_every_weight_it_should(tiny_model, tmp_path):
    result = train(tiny_model, some_rows(), settings(adapter="lora"), tmp_path / "lora")
    names = weights(result.output)
    assert any("q_proj.lora_A" in name for name in names)
    assert any("down_proj.lora_B" in name for name in names)  # all-linear
    assert not any("lm_head" in name for name in names)


def test_sparse_gin_trains_where_it_is_installed_and_says_so_where_not(tiny_model, tmp_path):
    from importlib.util import find_spec

    gin = TrainSettings(adapter="sparse-gin", epochs=2, learning_rate=1e-2)
    if find_spec("llmctl.gin") is None:
        with pytest.raises(UserError, match="has no llmctl.gin"):
            train(tiny_model, some_rows(), gin, tmp_path / "out")
        return
    result = train(tiny_model, some_rows(), gin, tmp_path / "out")
    assert result.losses[-1] < result.losses[0]
    tuned = load(tiny_model, adapter=result.output)
    assert (next_token_logits(tuned) - next_token_logits(load(tiny_model))).abs().max() > 0
