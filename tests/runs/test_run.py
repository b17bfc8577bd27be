import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest

from llmctl.errors import UserError
from llmctl.runs import run as run_module
from llmctl.runs.recipe import Recipe, load_recipe
from llmctl.runs.run import Run


class Engine(Recipe):
    name: str = "transformers"
    batch_size: int = 8


class Demo(Recipe):
    kind: ClassVar[str] = "demo"
    free_keys: ClassVar[tuple[str, ...]] = ("engine.batch_size",)

    seed: int = 3
    rounds: int = 2
    engine: Engine = Engine()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs" / "demo"


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def work(folder, stop_after=99, recipe=None):
    """Three units, then metrics: what a command does."""
    with Run.open(folder, recipe or Demo(), "demo run") as run:
        run.pin(model="fingerprint")
        journal = run.journal("collect")
        for number in range(3):
            if stop_after == number:
                raise RuntimeError("stopped")
            if f"k{number}" not in journal:
                journal.append(f"k{number}", {"n": number})
        run.write_text("notes/a.txt", "hello")
        run.write_metrics({"sum": sum(record["n"] for record in journal)})


def test_a_new_run_has_its_recipe_and_what_it_stood_on(folder):
    with Run.open(folder, Demo(rounds=5), "demo run") as run:
        run.note(model_fingerprint="abc", shape=(1, 2))
    assert load_recipe(Demo, folder / "recipe.yaml") == Demo(rounds=5)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["commands"] == ["demo run"]
    assert manifest["seed"] == 3
    assert manifest["notes"] == {"model_fingerprint": "abc", "shape": [1, 2]}
    assert manifest["python"] == ".".join(map(str, sys.version_info[:3]))
    assert manifest["cpu_count"] == os.cpu_count()
    assert manifest["packages"]["transformers"].startswith("5.")
    assert manifest["changes"] == []


def test_opening_a_run_imports_no_heavy_package(folder):
    code = (
        "import sys; from llmctl.runs import Recipe, Run\n"
        f"Run.open({str(folder)!r}, Recipe(), 'demo').close()\n"
        "print([name for name in ('torch', 'transformers', 'matplotlib', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("stop_after", [0, 1, 2])
def test_a_run_that_was_stopped_ends_with_the_files_of_an_unbroken_one(tmp_path, stop_after):
    work(tmp_path / "unbroken")
    with pytest.raises(RuntimeError):
        work(tmp_path / "broken", stop_after)
    work(tmp_path / "broken")
    unbroken = contents(tmp_path / "unbroken")
    assert contents(tmp_path / "broken") == unbroken
    assert set(unbroken) == {
        "recipe.yaml", "manifest.json", "metrics.json", "journal/collect.jsonl", "notes/a.txt",
    }  # fmt: skip


def test_doing_it_again_changes_nothing(folder):
    work(folder)
    before = contents(folder)
    work(folder)
    assert contents(folder) == before


def test_a_changed_recipe_is_refused_with_the_keys_named(folder):
    work(folder)
    before = contents(folder)
    with pytest.raises(UserError) as caught:
        work(folder, recipe=Demo(seed=4, engine=Engine(name="vllm")))
    assert str(caught.value) == (
        f"{folder} was made with another recipe: seed 3 -> 4, engine.name 'transformers' -> 'vllm'; "
        "choose another --run, or start over with --fresh"
    )
    assert contents(folder) == before


def test_a_free_key_may_change_and_the_recipe_follows(folder):
    work(folder)
    work(folder, recipe=Demo(engine=Engine(batch_size=64)))
    assert load_recipe(Demo, folder / "recipe.yaml").engine.batch_size == 64


def test_another_kind_of_recipe_is_refused(folder):
    class Other(Demo):
        kind: ClassVar[str] = "other"

    work(folder)
    with pytest.raises(UserError, match="kind 'demo' -> 'other'"):
        Run.open(folder, Other(), "other run")


def test_fresh_removes_what_llmctl_made_and_nothing_else(folder, tmp_path):
    work(folder)
    with Run.open(folder, Demo(), "demo run") as run:
        (run.path("adapter") / "deep").mkdir(parents=True)
        (run.path("adapter") / "deep" / "weights").write_text("x")
        run.write_text("figures/a.png", "picture")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep.txt").write_text("keep")
    foreign = {"mine.txt": b"mine", "figures/mine.png": b"mine", "journal/mine.jsonl": b"mine"}
    for name, data in foreign.items():
        (folder / name).write_bytes(data)
    (folder / "link").symlink_to(outside)
    with Run.open(folder, Demo(seed=9), "demo run", fresh=True) as run:
        assert len(run.journal("collect")) == 0
    left = contents(folder)
    assert {name: data for name, data in left.items() if name in foreign} == foreign
    assert set(left) - set(foreign) == {"recipe.yaml", "manifest.json"}
    assert (outside / "keep.txt").exists() and (folder / "link").is_symlink()
    assert not (folder / "adapter").exists()
    assert load_recipe(Demo, folder / "recipe.yaml").seed == 9


def test_a_folder_of_a_run_that_became_a_link_is_unlinked_and_not_followed(folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep.txt").write_text("keep")
    with Run.open(folder, Demo(), "demo run") as run:
        run.path("adapter").symlink_to(outside)
    Run.open(folder, Demo(), "demo run", fresh=True).close()
    assert (outside / "keep.txt").exists() and not (folder / "adapter").is_symlink()


def test_emptying_that_was_interrupted_goes_on_at_the_next_start(folder, monkeypatch):
    work(folder)
    real, removed = run_module._remove, []

    def remove_one(path):
        if removed:
            raise KeyboardInterrupt
        removed.append(path)
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "_remove", remove_one)
        with pytest.raises(KeyboardInterrupt):
            Run.open(folder, Demo(seed=9), "demo run", fresh=True)
    with Run.open(folder, Demo(seed=9), "demo run") as run:
        assert len(run.journal("collect")) == 0
        assert "is_emptying" not in run.manifest


def test_a_folder_that_holds_something_else_is_refused_and_left_as_it_is(folder):
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("mine")
    for fresh in (False, True):
        with pytest.raises(UserError, match="is not empty and is not a run of llmctl"):
            Run.open(folder, Demo(), "demo run", fresh=fresh)
    assert os.listdir(folder) == ["thesis.txt"]
    (folder / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(UserError, match="is not a manifest of llmctl"):
        Run.open(folder, Demo(), "demo run", fresh=True)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        Run.open(folder, Demo(), "demo run", fresh=True)


def test_a_file_in_the_place_of_the_folder_is_refused(folder):
    folder.parent.mkdir()
    folder.write_text("x")
    with pytest.raises(UserError, match="a part of the path is a file"):
        Run.open(folder, Demo(), "demo run")


def test_a_lost_recipe_is_asked_for_where_work_was_done(folder):
    work(folder)
    (folder / "recipe.yaml").unlink()
    with pytest.raises(UserError, match="recipe.yaml is missing, but the run has begun"):
        Run.open(folder, Demo(), "demo run")


@pytest.mark.parametrize("call", range(1, 8))
def test_killed_at_any_write_of_the_start_the_same_command_starts_it(folder, monkeypatch, call):
    """A write that never comes back stands for a kill -9: nothing after it happens."""
    real, calls = os.replace, []

    def replace(*arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise SystemExit
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        try:
            work(folder)
        except SystemExit:
            pass
    assert len(calls) == call
    work(folder)
    work(folder.parent / "unbroken")
    assert contents(folder) == contents(folder.parent / "unbroken")


def test_what_a_killed_write_left_behind_is_removed(folder):
    work(folder)
    before = contents(folder)
    for name in (".report.html.llmctl-tmp", "journal/.x.llmctl-tmp"):
        (folder / name).write_text("half")
    work(folder)
    assert contents(folder) == before


def test_a_full_disk_at_the_start_is_one_clear_line_and_can_be_mended(folder, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(UserError, match=r"cannot write .*manifest.json: the disk is full"):
            Run.open(folder, Demo(), "demo run")
    work(folder)


def test_a_second_run_in_the_same_process_is_refused(folder):
    with Run.open(folder, Demo(), "demo run"):
        with pytest.raises(UserError, match=f"is in use by process {os.getpid()}: wait until it ends"):
            Run.open(folder, Demo(), "demo run", fresh=True)
    Run.open(folder, Demo(), "demo run").close()


HOLDER = """
import sys, time
from llmctl.runs.recipe import Recipe
from llmctl.runs.run import Run
run = Run.open(sys.argv[1], Recipe(), "demo")
if sys.argv[2] == "fork":
    import os
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
    print(child, flush=True)
print("ready", flush=True)
time.sleep(30)
"""


def hold(folder, how="plain"):
    command = [sys.executable, "-c", HOLDER, str(folder), how]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_second_process_is_refused_with_the_pid_until_the_first_is_killed(folder):
    holder = hold(folder)
    assert holder.stdout.readline() == "ready\n"
    with pytest.raises(UserError, match=f"is in use by process {holder.pid}: ") as caught:
        Run.open(folder, Recipe(), "demo")
    assert "\n" not in str(caught.value)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    Run.open(folder, Recipe(), "demo").close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_worker_left_behind_by_a_killed_run_does_not_keep_the_folder(folder):
    holder = hold(folder, "fork")
    worker = int(holder.stdout.readline())
    assert holder.stdout.readline() == "ready\n"
    with pytest.raises(UserError, match="is in use"):
        Run.open(folder, Recipe(), "demo")  # the worker's dropping its copy has not freed the parent's lock
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    try:
        time.sleep(0.2)  # the worker lets go right after it is forked
        Run.open(folder, Recipe(), "demo").close()
    finally:
        os.kill(worker, signal.SIGKILL)


def test_another_fingerprint_is_refused(folder):
    work(folder)
    with Run.open(folder, Demo(), "demo run") as run:
        run.pin(model="fingerprint", more=1)
        with pytest.raises(UserError, match="other inputs: model 'fingerprint' -> 'other'"):
            run.pin(model="other")


def test_another_environment_is_warned_of_and_recorded(folder, monkeypatch, caplog):
    work(folder)
    real = run_module.describe_environment
    monkeypatch.setattr(run_module, "describe_environment", lambda: {**real(), "python": "3.99.0"})
    work(folder)
    assert "continues in another environment: python" in caplog.text
    manifest = json.loads((folder / "manifest.json").read_text())
    assert len(manifest["changes"]) == 1 and manifest["changes"][0].endswith("-> '3.99.0'")


def test_a_foreign_file_is_never_written_over(folder):
    with Run.open(folder, Demo(), "demo run") as run:
        (folder / "metrics.json").write_text("mine")
        with pytest.raises(UserError, match="was not made by llmctl"):
            run.write_metrics({})
    assert (folder / "metrics.json").read_text() == "mine"


@pytest.mark.parametrize("name", ["../x", "/x", ".", "a/../../x", ".lock"])
def test_places_outside_the_folder_are_refused(folder, name):
    with Run.open(folder, Demo(), "demo run") as run:
        with pytest.raises(UserError, match="is not a name inside a run folder"):
            run.path(name)


def long_work(folder):
    with Run.open(folder, Demo(), "demo run") as run:
        journal = run.journal("work")
        for number in range(150):
            if f"k{number}" not in journal:
                journal.append(f"k{number}", {"text": "x" * (number * 53 % 4000)})
        run.write_metrics({"n": len(journal)})


def test_several_names_are_claimed_in_one_write_and_before_any_of_them_is_made(folder):
    with Run.open(folder, Demo(), "demo") as run:
        run.claim("parts", "report.md")
        made = json.loads((folder / "manifest.json").read_text())["made"]
        assert {"parts", "report.md"} <= set(made) and not (folder / "parts").exists()
        (folder / "notes.txt").write_text("mine")
        with pytest.raises(UserError, match="notes.txt was not made by llmctl"):
            run.claim("figures", "notes.txt")
        assert json.loads((folder / "manifest.json").read_text())["made"] == made
        with pytest.raises(UserError, match="not a name inside"):
            run.claim("../x")


def test_killed_again_and_again_a_run_ends_like_an_unbroken_one(tmp_path, run_and_kill):
    rng = random.Random(1)
    long_work(tmp_path / "unbroken")
    journal = tmp_path / "broken" / "journal" / "work.jsonl"
    kills = 0
    for attempt in range(12):
        deadline = time.monotonic() + rng.uniform(0.0, 0.15)  # the first few fall into the start
        wanted = 300_000 * (attempt - 5) / 7

        def is_time(attempt=attempt, deadline=deadline, wanted=wanted):
            if attempt < 6:
                return time.monotonic() > deadline
            return journal.exists() and journal.stat().st_size >= wanted

        kills += run_and_kill(lambda: long_work(tmp_path / "broken"), is_time)
    assert kills >= 6
    long_work(tmp_path / "broken")
    assert contents(tmp_path / "broken") == contents(tmp_path / "unbroken")


def test_a_run_that_began_before_a_key_was_added_goes_on_where_the_key_has_its_default(tmp_path):
    class Older(Recipe):
        a: int = 1

    class Newer(Recipe):
        a: int = 1
        added: bool = False

    Run.open(tmp_path / "run", Older(), "x").close()
    Run.open(tmp_path / "run", Newer(), "x").close()
    assert "added: false" in (tmp_path / "run" / "recipe.yaml").read_text()
    with pytest.raises(UserError, match="added False -> True"):
        Run.open(tmp_path / "run", Newer(added=True), "x")
