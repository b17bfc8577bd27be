"""Small results of a curve, made by hand."""

import math

from llmctl.reach.curves.records import CurvePair
from llmctl.reach.result import Result


def make_pair(number, k, state=None, method="gcg", base_loss=2.0, **changes):
    """A pair whose control is the tokens 7, 8, ... of length k."""
    control = tuple(range(7, 7 + (k or 0)))
    fields = {
        "verdict": "reached" if k is not None else "unknown",
        "k": k,
        "control_ids": control,
        "control_text": "".join(f"<{token}>" for token in control),
        "prompt_text": "p",
        "method": "base" if k == 0 else method,
        "base_rank": number,
        "base_loss": base_loss,
        "loss": 1.0 if math.isfinite(base_loss) else math.nan,
        "forwards": 10,
        "forward_tokens": 100,
        "backward_tokens": 5,
        "roundtrips": k is not None and number % 2 == 0,
        "state_ids": (number if state is None else state, 1),
        "target_ids": (3,),
        "state_text": f"state {number}",
        "target_text": " t",
        "id": f"{number}/0",
    }
    return CurvePair(Result(**(fields | changes)), tuple(f"<{token}>" for token in control))
