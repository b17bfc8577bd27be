"""The fused kernel of Sparse-GIN on a GPU: what it computes, and that it keeps no T x T matrix."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from llmctl.gin.attention_inputs import AttentionInputs
from llmctl.gin.fused import is_wanted, pass_messages
from llmctl.gin.graph import GraphRule

CASES = Path(__file__).parents[1] / "gin" / "kernel_cases.py"


@pytest.mark.gpu
def test_the_kernel_computes_what_the_plain_path_does():
    env = os.environ | {"LLMCTL_TEST_DEVICE": "cuda"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(CASES)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=CASES.parents[2], timeout=280)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.gpu
def test_memory_grows_with_the_length_and_not_with_its_square():
    assert is_wanted(torch.device("cuda"))
    used = []
    for length in (4096, 16384):
        query = torch.randn(1, 8, length, 64, device="cuda", dtype=torch.bfloat16)
        nodes = torch.randn(1, length, 128, device="cuda", dtype=torch.bfloat16)
        inputs = AttentionInputs.build(query, query[:, :2].contiguous(), None, None)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.no_grad():
            pass_messages(inputs, GraphRule(), nodes)
        used.append(torch.cuda.max_memory_allocated() - before)
    assert used[1] < 4.5 * used[0]  # the output and two numbers a head and row
