"""The inputs of a training, and the folder that holds what was trained on them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.models.description import fingerprint
from llmctl.runs.files import write_json
from llmctl.training.checkpoints import last_checkpoint, remove_checkpoints
from llmctl.training.config import TrainSettings
from llmctl.training.data.rows import fingerprint_rows
from llmctl.training.result import CHECKPOINTS, DONE

INPUTS = "train_inputs.json"  # in the folder of checkpoints: the fingerprint of their inputs


@dataclass(frozen=True)
class TrainInputs:
    """Everything that decides what is learned."""

    model: Path
    rows: Sequence[Mapping[str, Any]]
    eval_rows: Sequence[Mapping[str, Any]] | None
    settings: TrainSettings
    init_adapter: Path | None

    def fingerprint(self) -> str:
        """A hash of the inputs."""
        parts = {
            "model": fingerprint(self.model),
            "rows": fingerprint_rows(self.rows),
            "eval_rows": fingerprint_rows(self.eval_rows or []),
            "settings": self.settings.model_dump(mode="json", exclude={"save", "distributed"}),
            "init_adapter": fingerprint_adapter(self.init_adapter),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def prepare_folder(folder: Path, inputs_hash: str, resume: bool) -> None:
    """Remove everything from the folder that this training does not resume from.

    Raises:
        UserError: The folder holds a checkpoint of other inputs.
    """
    checkpoints = folder / CHECKPOINTS
    inputs = checkpoints / INPUTS
    if not resume:
        (folder / DONE).unlink(missing_ok=True)
        shutil.rmtree(checkpoints, ignore_errors=True)
    found = last_checkpoint(checkpoints)
    if found is not None:  # without one there is nothing to lose
        check_same(json.loads(inputs.read_text())["fingerprint"], inputs_hash, folder)
    remove_checkpoints(checkpoints, but=found.path if found else None)
    checkpoints.mkdir(exist_ok=True)
    write_json(inputs, {"fingerprint": inputs_hash})


def check_same(found: str, needed: str, folder: Path) -> None:
    """Refuse a folder whose training had other inputs.

    Raises:
        UserError: The two hashes differ.
    """
    if found != needed:
        raise UserError(
            f"{folder} holds a training of another model, other rows or other settings: give another output, "
            "or start over with resume=False"
        )


def fingerprint_adapter(folder: Path | None) -> str | None:
    """A hash of the weights of a saved adapter; None without one."""
    path = None if folder is None else folder / "adapter_model.safetensors"
    if path is None or not path.is_file():
        return None  # a folder without an adapter is refused when it is loaded
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
