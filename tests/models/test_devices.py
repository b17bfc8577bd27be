"""Devices, dtypes and quantizations by name."""

import pytest
import torch

from llmctl.errors import UserError
from llmctl.models.devices import pick_device, pick_dtype, quantization_config


def test_a_cpu_computes_in_float32_unless_told_otherwise():
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32
    assert pick_dtype("bfloat16", pick_device("cpu")) == torch.bfloat16


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="torch knows no such device"):
        pick_device("abacus")
    with pytest.raises(UserError, match="dtype is 'float8', but it must be auto or one of float32"):
        pick_dtype("float8", torch.device("cpu"))
    with pytest.raises(UserError, match="quantization is 'nf3', but it must be one of none, nf4, int8"):
        quantization_config("nf3", torch.float32)
