"""The result of a finished training, and the file that marks it as finished."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from llmctl.runs.files import write_json

DONE = "train_result.json"
CHECKPOINTS = "checkpoints"  # removed when the training has finished


@dataclass(frozen=True)
class TrainResult:
    """A finished training run; all counts cover the whole training, including interrupted parts."""

    output: Path  # folder of the model (full) or of the adapter, in safetensors
    is_adapter: bool
    losses: tuple[float, ...]  # weighted NLL per label token (nats), one per optimizer step
    eval_losses: tuple[float, ...]  # likewise on eval_rows, one per epoch
    steps: int  # optimizer steps
    tokens: int  # tokens that went through the model, without padding
    label_tokens: int  # of these, the tokens that carried loss
    trainable_parameters: int
    rows: int  # training rows, each counted once
    dropped_rows: int  # rows longer than max_length
    seconds: float  # duration of the training loop, without work that was lost by a kill


def write_result(result: TrainResult, fingerprint: str) -> None:
    """Write the marker atomically; it must be the last file of a training."""
    fields = {key: value for key, value in asdict(result).items() if key != "output"}
    write_json(result.output / DONE, {"fingerprint": fingerprint, **fields})


def read_result(output: Path) -> tuple[TrainResult, str] | None:
    """The stored result of a finished run and the fingerprint of its inputs; else None."""
    path = output / DONE
    if not path.is_file():
        return None
    fields = json.loads(path.read_text())
    fingerprint = fields.pop("fingerprint")
    fields |= {key: tuple(fields[key]) for key in ("losses", "eval_losses")}
    return TrainResult(output=output, **fields), fingerprint


def perplexity(loss: float) -> float | None:
    """The exponential of a loss in nats per token; None if it exceeds a float."""
    return math.exp(loss) if loss < 700 else None
