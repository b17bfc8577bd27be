"""How close two logits may be before a batch is not trusted to order them."""

from __future__ import annotations

from typing import Any

import torch

# A batch may order a near tie differently from a lone pass: rows this close are evaluated again, alone.
_TIE = {torch.float32: 1e-3, torch.float64: 1e-6}
_TIE_HALF = 0.25  # bfloat16 and float16: two steps of bfloat16 at logits around 16


def tie_of(model: Any) -> float:
    """How close two logits may be before a batch is not trusted to order them."""
    return _TIE.get(model.dtype, _TIE_HALF)
