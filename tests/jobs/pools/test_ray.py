"""Jobs on Ray for real: two actors on this machine, workers and whole jobs killed in the middle."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from llmctl.errors import UserError
from llmctl.jobs.run import Engine
from llmctl.runs.recipe import recipe_content
from llmctl.sampling import open_sampler
from tests.jobs.helpers import job, results, shard_lines, start

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def content(tiny_model):
    return {
        "models": {"tiny": {"model": str(tiny_model), "engine": "transformers"}},
        "protocols": {"single": {}, "parallel": {"n": 2}, "sequential": {"n": 2}},
        "sampling": {"temperature": 1.0, "max_tokens": 12},
        "limit": 24,
        "shard_size": 2,
    }


@pytest.fixture(scope="module")
def unbroken(content, tmp_path_factory):
    """The folder of the same job, run in this process."""
    folder = tmp_path_factory.mktemp("unbroken") / "job"
    start(folder, job(**content), open_model=open_sampler)
    return folder


def wait_for_shards(folder, count, timeout_s=120):
    """Wait until so many shards are in a journal that another process writes."""
    path, end = folder / "journal" / "shards.jsonl", time.monotonic() + timeout_s
    while time.monotonic() < end:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.01)
    raise AssertionError(f"no {count} shards within {timeout_s} s")


def kill_a_worker(folder, killed):
    """Kill one actor's process once the job is under way."""
    import psutil

    wait_for_shards(folder, 4)
    for process in psutil.Process().children(recursive=True):
        if (process.cmdline() or [""])[0].startswith("ray::Worker"):
            process.send_signal(signal.SIGKILL)
            killed.append(process.pid)
            return


def check_equal(folder, unbroken):
    """Equal results, nothing twice, nothing missing."""
    assert results(folder) == results(unbroken)
    keys = [line["key"] for line in shard_lines(folder)]
    assert sorted(keys) == sorted(line["key"] for line in shard_lines(unbroken))
    assert len(set(keys)) == len(keys) == 36


def test_a_worker_killed_in_the_middle_changes_nothing(content, unbroken, tmp_path):
    killed = []
    killer = threading.Thread(target=kill_a_worker, args=(tmp_path / "job", killed))
    killer.start()
    result = start(tmp_path / "job", job(**content), Engine("ray", 2), open_model=open_sampler)
    killer.join()
    assert len(killed) == 1
    assert (result.failed, result.computed) == ({}, 36)
    check_equal(tmp_path / "job", unbroken)


def command_for(content, tmp_path, *options):
    """The command that runs the job on Ray, and its folder."""
    path, folder = tmp_path / "job.yaml", tmp_path / "job"
    path.write_text(yaml.safe_dump(recipe_content(job(**content)), sort_keys=False))
    command = [sys.executable, "-m", "llmctl", "eval", "run", str(path), "--run", str(folder)]
    return [*command, "--engine", "ray", "--workers", "2", "--json", *options], folder


def environment(**more):
    return os.environ | {"PYTHONPATH": str(ROOT)} | more


def test_a_job_killed_with_sigkill_goes_on_from_its_shards(content, unbroken, tmp_path):
    command, folder = command_for(content, tmp_path)
    nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    child = subprocess.Popen(command, env=environment(), start_new_session=True, **nowhere)
    try:
        wait_for_shards(folder, 4)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    before = (folder / "journal" / "shards.jsonl").read_bytes()
    whole = before[: before.rfind(b"\n") + 1]
    assert 4 <= whole.count(b"\n") < 36
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (folder / "journal" / "shards.jsonl").read_bytes().startswith(whole)
    check_equal(folder, unbroken)


def test_a_cluster_without_room_is_refused(content, tmp_path):
    recipe = job(**content | {"workers": {"gpus": 64}})
    with pytest.raises(UserError, match="has room for 0 workers of 1 CPUs and 64 GPUs"):
        start(tmp_path / "job", recipe, Engine("ray", 1), open_model=open_sampler)


def test_what_answers_but_is_no_cluster_is_refused_in_time(content, tmp_path, monkeypatch):
    import socket

    from llmctl.jobs.pools import ray_pool

    monkeypatch.setattr(ray_pool, "CONNECT_S", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match=f"the Ray cluster at {address} (could|can) not be joined"):
            start(tmp_path / "job", job(**content), Engine("ray", 1, address), open_model=open_sampler)


HEAD = """
import ray, sys
head = ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
print(head.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


def test_a_cluster_is_joined_by_its_address_and_left_running(content, unbroken, tmp_path):
    plain = environment(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    head = subprocess.Popen([sys.executable, "-c", HEAD], env=plain, text=True, **pipes)
    try:
        address = head.stdout.readline().strip()
        command, folder = command_for(content, tmp_path, "--address", address)
        done = subprocess.run(command, env=plain, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert head.poll() is None
    finally:
        head.stdin.close()
        head.wait(timeout=30)
    check_equal(folder, unbroken)
