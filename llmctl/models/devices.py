"""Devices, dtypes and quantizations by name."""

from __future__ import annotations

from typing import Any

import torch

from llmctl.errors import UserError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
QUANTIZATIONS = ("none", "nf4", "int8")


def pick_device(device: str = "auto") -> torch.device:
    """The torch device for a name; "auto" prefers CUDA.

    Raises:
        UserError: The name means nothing to torch, or asks for CUDA where there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise UserError(
            f"device is {device!r}, but torch knows no such device: use auto, cpu or cuda"
        ) from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"device is {device!r}, but torch sees no CUDA device: use cpu, or install a CUDA torch"
        )
    return place


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The torch dtype for a name on a device.

    Raises:
        UserError: No such dtype.
    """
    if dtype == "auto":
        if device.type == "cpu":
            return torch.float32  # bfloat16 is several times slower on CPUs without AMX or AVX512
        has_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if has_bf16 else torch.float16
    if dtype not in DTYPES:
        raise UserError(f"dtype is {dtype!r}, but it must be auto or one of {', '.join(DTYPES)}")
    return DTYPES[dtype]


def quantization_config(quantization: str, dtype: torch.dtype) -> Any:
    """The bitsandbytes configuration for "nf4" or "int8"; computing happens in `dtype`.

    Raises:
        UserError: No such quantization, or bitsandbytes is missing.
    """
    from importlib.util import find_spec

    if quantization not in QUANTIZATIONS:
        raise UserError(f"quantization is {quantization!r}, but it must be one of {', '.join(QUANTIZATIONS)}")
    if find_spec("bitsandbytes") is None:
        raise UserError(f"quantization {quantization} needs bitsandbytes: run `pip install bitsandbytes`")
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
