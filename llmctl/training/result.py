"""What a finished training run leaves behind, and the marker that says it is finished."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from llmctl.runs.files import write_json

DONE = "train_result.json"
CHECKPOINTS = "checkpoints"  # the folder beside it, gone when all is done


@dataclass(frozen=True)
class TrainResult:
    """A finished training run; all counts cover the whole run, interruptions included."""

    output: Path  # folder of the model (full) or of the adapter, in safetensors
    is_adapter: bool
    losses: tuple[float, ...]  # weighted NLL per label token (nats), one an optimizer step
    eval_losses: tuple[float, ...]  # likewise on eval_rows, one an epoch
    steps: int  # optimizer steps
    tokens: int  # tokens that went through the model, padding not counted
    label_tokens: int  # of these, the tokens that carried loss
    trainable_parameters: int
    rows: int  # rows that were trained on, each once
    dropped_rows: int  # rows longer than max_length
    seconds: float  # of the training loop; work lost to a kill is not counted


def write_result(result: TrainResult, fingerprint: str) -> None:
    """Write the done marker, whole or not at all; it must be the last file of a run."""
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
    """The exponential of a loss in nats a token; None where that is beyond a float."""
    return math.exp(loss) if loss < 700 else None
