"""The server engine against a real vLLM server with LoRA, started on this machine and stopped cleanly."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest

from llmctl.errors import UserError
from llmctl.sampling import Settings, open_sampler
from tests.sampling.contract import CONTEXT, CONVERSATIONS, SamplerContract

pytestmark = pytest.mark.slow
START_S = 150


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_healthy(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def group_is_alive(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def stop(process):
    """SIGTERM, and SIGKILL for what of its group is left after ten seconds; whether that was needed."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        process.poll()
        if not group_is_alive(process.pid):
            return False
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


@pytest.fixture(scope="module")
def server_url(contract_model, contract_adapter, tmp_path_factory):
    port, log = free_port(), tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(contract_model)]
    command += ["--served-model-name", "tiny", "--dtype", "float32", "--max-model-len", str(CONTEXT)]
    command += [
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--enforce-eager",
        "--enable-prompt-tokens-details",
    ]
    command += ["--block-size", "32", "--enable-lora", "--max-lora-rank", "8"]
    command += ["--lora-modules", f"tuned={contract_adapter}"]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    settings["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # one process less to start
    environment = {**os.environ, **settings}
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + START_S
        while not is_healthy(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        was_killed = stop(process)
    assert not was_killed, "the server left processes behind"


class TestVllmServer(SamplerContract):
    takes_token_ids = False

    @pytest.fixture(scope="class")
    def sampler(self, server_url):
        with open_sampler("tiny", engine="server", base_url=server_url) as sampler:
            yield sampler

    @pytest.fixture(scope="class")
    def adapted(self):
        @contextmanager
        def swap(sampler):
            sampler.use_adapter("tuned")
            yield sampler
            sampler.use_adapter(None)

        return swap

    def test_the_server_gives_token_ids_so_the_first_rung_holds(self, sampler):
        assert sampler.chat(CONVERSATIONS[:1], Settings(max_tokens=4))[0][0].token_ids
        assert sampler._rung == 0

    def test_cached_tokens_are_counted_where_the_server_tells(self, sampler):
        conversation = [{"role": "user", "content": "the same words " * 6}]
        sampler.chat([conversation], Settings(max_tokens=2))
        before = sampler.usage.snapshot()
        sampler.chat([conversation], Settings(max_tokens=2))
        assert sampler.usage.since(before).cached_tokens > 0

    def test_an_unknown_adapter_lists_the_served_ones(self, sampler):
        with pytest.raises(UserError, match="serves no 'mine': it serves tiny, tuned"):
            sampler.use_adapter("mine")
