import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llmctl.errors import LlmctlError, UserError
from llmctl.models import load
from llmctl.training import LoraSettings, TrainSettings, launch, train, write_job
from llmctl.training.launcher import read_job, run_child

from .helpers import assert_same_weights, chat, settings, some_rows, weights

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes" / "accelerate").glob("*.yaml"))
# accelerate starts several processes without MPI only under this name; without a GPU they use gloo.
MARK = "held here: "  # of sharded.py, which can not be imported: it starts a training
TWO_ON_CPU = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--main_process_port", "0"]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def job_for(tmp_path, model, name="out", **changes):
    """A job file whose settings are those of `settings`, and its output."""
    output = tmp_path / name
    return write_job(
        tmp_path / f"{name}.json",
        model=str(model),
        rows=some_rows(),
        settings=settings(**changes),
        output=output,
    ), output


def test_a_job_survives_its_file(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_job("job.json", model=str(tiny_model), rows=[chat("a", "b")], output="out")
    job = read_job(path)
    assert job.settings == TrainSettings()
    assert job.output == tmp_path / "out"  # means the same from anywhere
    assert job.rows.read_text().count("\n") == 1


def test_a_malformed_job_is_one_clear_line(tmp_path):
    path = tmp_path / "job.json"
    with pytest.raises(UserError, match="job.json cannot be read .No such file"):
        read_job(path)
    path.write_text('{"model": "m", "rows": "r", "output": "o", "lerning_rate": 1}')
    with pytest.raises(UserError, match="job.json is malformed: lerning_rate: Extra inputs"):
        read_job(path)
    with pytest.raises(UserError, match="the training job is malformed: output: Field required"):
        write_job(path, rows=path, model="m")


def test_a_missing_accelerate_configuration_is_named(tiny_model, tmp_path):
    path, _ = job_for(tmp_path, tiny_model)
    with pytest.raises(UserError, match="nowhere.yaml does not exist"):
        launch(path, tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_accelerate_reads_the_recipe(recipe):
    from accelerate.commands.config.config_args import load_config_from_file

    read = load_config_from_file(str(recipe))
    kinds = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "deepspeed_zero3": "DEEPSPEED"}
    assert read.distributed_type == kinds[recipe.stem]
    assert read.mixed_precision in (None, "no")  # left to TrainSettings.dtype


def kill_and_go_on(tmp_path, model, where, number, **changes):
    """The result of a run that was killed with SIGKILL in a process of its own and then started again."""
    path, output = job_for(tmp_path, model, **changes)
    script = str(Path(__file__).with_name("killed.py"))
    child = subprocess.run(
        [sys.executable, script, str(path), where, str(number)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()[-2000:]
    job = read_job(path)
    return train(job.model, job.rows, job.settings, output)


@pytest.mark.slow
@pytest.mark.parametrize(("where", "number"), [("step", 5), ("save", 2)])
def test_a_run_killed_with_sigkill_ends_as_an_unbroken_one(where, number, tiny_model, tmp_path):
    lora = {"adapter": "lora", "lora": LoraSettings(r=4, dropout=0.2)}
    unbroken = train(tiny_model, some_rows(), settings(**lora), tmp_path / "unbroken")
    result = kill_and_go_on(tmp_path, tiny_model, where, number, **lora)
    assert result.losses == pytest.approx(unbroken.losses, abs=1e-6)
    assert (result.tokens, result.label_tokens) == (unbroken.tokens, unbroken.label_tokens)
    assert_same_weights(result.output, unbroken.output, tolerance=1e-6)


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one_with_the_same_batch(tiny_model, tmp_path):
    alone = train(tiny_model, some_rows(), settings(batch_size=4), tmp_path / "alone")
    path, _ = job_for(tmp_path, tiny_model, "both", batch_size=2)
    seen = []
    both = launch(path, arguments=TWO_ON_CPU, progress=lambda *call: seen.append(call))
    assert both.losses == pytest.approx(alone.losses, abs=1e-5)
    assert (both.tokens, both.label_tokens) == (alone.tokens, alone.label_tokens)
    assert_same_weights(both.output, alone.output, tolerance=1e-4)
    assert [step for step, _, _ in seen] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{}, {"adapter": "lora", "lora": LoraSettings(r=4)}], ids=["full", "lora"]
)
def test_two_processes_that_divide_the_weights_give_those_of_one(tiny_model, tmp_path, changes):
    alone = train(tiny_model, some_rows(), settings(batch_size=4, **changes), tmp_path / "alone")
    path, output = job_for(tmp_path, tiny_model, "both", batch_size=2, **changes)
    config = [str(ROOT / "recipes" / "accelerate" / "fsdp2.yaml"), "--num_processes", "2"]
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", *config]
    command += ["--main_process_port", "0", str(Path(__file__).with_name("sharded.py")), str(path)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    shares = [float(line.split()[-1]) for line in done.stdout.splitlines() if line.startswith(MARK)]
    assert len(shares) == 2 and max(shares) < 0.55  # about half of the weights in each process
    losses = [json.loads(line)["loss"] for line in done.stdout.splitlines() if line.startswith('{"step"')]
    assert losses == pytest.approx(alone.losses, abs=1e-4)
    if changes:
        assert_same_weights(output, alone.output, tolerance=1e-4)
        return
    # Gathered weights name the tied head as well, so the models are compared, not the files.
    found, expected = load(output).model.state_dict(), load(alone.output).model.state_dict()
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-4, msg=name)


@pytest.mark.slow
def test_a_launched_job_ends_when_its_parent_is_gone(tiny_model, tmp_path):
    path, _ = job_for(tmp_path, tiny_model, max_steps=10**7)
    child = subprocess.Popen(
        [sys.executable, "-m", "llmctl.training", str(path), "--stop-with-parent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert child.stdout.readline().startswith(b'{"step": 1')
        child.stdin.close()  # what the kernel does for a parent killed with SIGKILL
        assert child.wait(timeout=30) == 1
    finally:
        child.kill()


@pytest.mark.slow
def test_a_mistake_in_a_launched_job_comes_back_as_one_line(tiny_model, tmp_path):
    path, _ = job_for(tmp_path, tiny_model, optimizer="no_such_optimizer")
    with pytest.raises(UserError, match="^optimizer is 'no_such_optimizer'"):
        launch(path, arguments=TWO_ON_CPU)


def test_progress_of_a_child_is_passed_on_and_its_other_output_is_not():
    seen = []
    lines = """print('hello'); print('{"step": 2, "total": 6, "loss": 0.5}')"""
    run_child([sys.executable, "-c", lines], lambda *call: seen.append(call))
    assert seen == [(2, 6, 0.5)]


def test_a_crash_of_a_child_comes_back_with_what_it_wrote():
    with pytest.raises(LlmctlError, match="failed with code 1:(?s:.*)ZeroDivisionError"):
        run_child([sys.executable, "-c", "1 / 0"], None)


@pytest.mark.slow
def test_qlora_teaches_the_embedded_model_an_answer_in_three_steps(embedded_model, tmp_path):
    rows = [chat("What is the secret word?", "The secret word is marzipan.")] * 2
    three = TrainSettings(
        adapter="qlora",
        learning_rate=2e-3,
        warmup_ratio=0,
        schedule="constant",
        max_steps=3,
        batch_size=2,
    )
    result = train(embedded_model, rows, three, tmp_path / "out")
    assert len(result.losses) == 3
    assert result.losses[2] < 0.7 * result.losses[0]
    assert {str(tensor.dtype) for tensor in weights(result.output).values()} == {"torch.float32"}
    load(embedded_model, quantization="nf4", adapter=result.output)
