import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from llmctl.errors import UserError
from llmctl.gin import fused
from llmctl.gin.attention_inputs import AttentionInputs
from llmctl.gin.graph import GraphRule

CASES = Path(__file__).with_name("kernel_cases.py")
INPUTS = AttentionInputs.build(torch.zeros(1, 4, 3, 8), torch.zeros(1, 2, 3, 8), None, None)
NODES = torch.zeros(1, 3, 6)


@pytest.mark.slow
def test_the_kernel_computes_what_the_plain_path_does_under_the_interpreter():
    env = os.environ | {"TRITON_INTERPRET": "1", "LLMCTL_TEST_DEVICE": "cpu"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(CASES)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=CASES.parents[2], timeout=280)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_the_kernel_runs_on_cuda_and_the_plain_path_elsewhere(monkeypatch):
    monkeypatch.delenv(fused.SWITCH, raising=False)
    monkeypatch.setattr(fused, "find_spec", lambda name: name)
    assert fused.is_wanted(torch.device("cuda")) and not fused.is_wanted(torch.device("cpu"))
    monkeypatch.setattr(fused, "find_spec", lambda name: None)
    assert not fused.is_wanted(torch.device("cuda"))


def test_the_switch_turns_the_kernel_off_and_on(monkeypatch):
    monkeypatch.setattr(fused, "find_spec", lambda name: name)
    monkeypatch.setenv(fused.SWITCH, "off")
    assert not fused.is_wanted(torch.device("cuda"))
    monkeypatch.setenv(fused.SWITCH, "on")
    assert fused.is_wanted(torch.device("cpu"))


def test_a_switch_that_says_nothing_known_or_asks_for_what_is_absent_is_refused(monkeypatch):
    monkeypatch.setenv(fused.SWITCH, "yes")
    with pytest.raises(UserError, match="'yes'.*auto, on or off"):
        fused.is_wanted(torch.device("cpu"))
    monkeypatch.setenv(fused.SWITCH, "on")
    monkeypatch.setattr(fused, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="Triton is not installed"):
        fused.is_wanted(torch.device("cpu"))


@pytest.mark.parametrize("rule", [{"heads": "each"}, {"heads": "mix"}, {"top_fraction": 0.5}])
def test_rules_that_the_kernel_does_not_know_take_the_plain_path(rule):
    assert fused.covers(INPUTS, GraphRule(), NODES)
    assert not fused.covers(INPUTS, GraphRule(**rule), NODES)


def test_masks_that_differ_between_heads_and_double_precision_take_the_plain_path():
    mask = torch.ones(1, 4, 3, 3, dtype=torch.bool)
    assert not fused.covers(replace(INPUTS, mask=mask), GraphRule(), NODES)
    assert fused.covers(replace(INPUTS, mask=mask[:, :1]), GraphRule(), NODES)
    assert not fused.covers(replace(INPUTS, query=INPUTS.query.double()), GraphRule(), NODES)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("pointer", ["*fp32", "*bf16"])
def test_the_kernels_compile_for_gpus_that_are_not_here(capability, pointer):
    from triton import compile as compile_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from llmctl.gin import triton_kernel

    constants = {"H": 9, "GROUP": 3, "D": 64, "D_PAD": 64, "MASK": 2, "SOFTCAP": True, "M": 32, "N": 32}
    more = {
        "W": 100,
        "W_PAD": 128,
        "MERGE": "any",
        "SHARPEN": True,
        "LOOPS": "drop",
        "BINARY": False,
        "FADE": True,
    }
    numbers = {"scaling", "softcap", "hidden", "sharpness", "threshold", "epsilon", "distance_scale"}
    for kernel in (triton_kernel._softmax_kernel, triton_kernel._message_kernel):
        fixed = {name: value for name, value in (constants | more).items() if name in kernel.arg_names}
        types = {name: "fp32" if name in numbers else "i32" for name in kernel.arg_names}
        types |= {name: pointer for name in kernel.arg_names if name.endswith("_ptr")}
        types |= dict.fromkeys(fixed, "constexpr") | {"top_ptr": "*fp32", "total_ptr": "*fp32"}
        places = {(kernel.arg_names.index(name),): value for name, value in fixed.items()}
        source = ASTSource(kernel, types, places)
        compiled = compile_kernel(source, target=GPUTarget("cuda", capability, 32))
        assert compiled.asm["cubin"] and compiled.metadata.shared <= 48 * 1024
