"""`train`: rows and settings in, a trained model or adapter out; killed at any instant, it goes on.

Determinism: on one machine, with the same number of threads and processes, the same call gives the same
weights bit for bit on CPU, and a run that was killed and started again gives those of an unbroken one. The
order of rows is a function of seed and epoch; dropout's random state is part of a checkpoint. Other thread
counts, or another division of an optimizer step into micro-batches and processes, sum in another order and
differ in the last digits. On GPUs some kernels (atomics in backward passes) are not deterministic.
Where the rows of an epoch do not fill the last optimizer step of several processes, accelerate repeats
rows to keep the processes level; with one process nothing is repeated.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, set_seed

from llmctl.errors import UserError
from llmctl.models import resolve
from llmctl.models.description import fingerprint
from llmctl.models.loading import Loaded
from llmctl.models.quiet import quiet_libraries
from llmctl.runs.files import make_folder, write_json
from llmctl.runs.lock import FolderLock
from llmctl.training.adapters import ADAPTERS
from llmctl.training.checkpoints import Bookkeeper, Checkpoint, Progress, last_checkpoint, remove_checkpoints
from llmctl.training.config import TrainSettings
from llmctl.training.data import Prepared, fingerprint_rows, prepare, read_rows
from llmctl.training.image_rows import ImageCollator, prepare_for_processor
from llmctl.training.result import CHECKPOINTS, DONE, TrainResult, read_result, write_result
from llmctl.training.setup import add_adapter, build_arguments, first_line, load_model
from llmctl.training.weighted import WeightedTrainer

INPUTS = "train_inputs.json"  # in the checkpoints' folder: which inputs they belong to


def train(
    model: str | Path,
    rows: Sequence[Mapping[str, Any]] | str | Path,
    settings: TrainSettings,
    output: str | Path,
    *,
    init_adapter: str | Path | None = None,
    eval_rows: Sequence[Mapping[str, Any]] | str | Path | None = None,
    resume: bool = True,
    callbacks: Sequence[Any] = (),
    progress: Progress | None = None,
) -> TrainResult:
    """Fine-tune a model on weighted conversations, or on text where loss is on every token.

    `output` becomes an ordinary folder of transformers (full) or PEFT (adapters): safetensors, tokenizer,
    chat template. A finished `output` is not trained again: its stored result comes back. An unfinished one
    goes on from its last whole checkpoint.

    Args:
        model: Alias, folder or Hub name. To go on from an earlier full fine-tuning, the folder it made.
        rows: `{"messages": [...], "weight": 1.0}` each, as a list or a JSONL file; the last message is the
            response to learn. For vision-language models a content may be parts, with pictures: see
            `data`. With `loss_on="all"` also `{"text": "..."}` and `{"input_ids": [...]}`.
        settings: How to train.
        output: Where the result goes.
        init_adapter: An adapter to go on training instead of a fresh one, on the same base model.
        eval_rows: Rows to evaluate after every epoch, with the same weighted loss.
        resume: Go on from, or return, what is in `output`; False starts over.
        callbacks: `transformers.TrainerCallback` objects, added to llmctl's own.
        progress: Called as `progress(step, total_steps, loss)`, in the main process only.

    Returns:
        Where the result lies, the loss of every step, and counts.

    Raises:
        UserError: Malformed rows or settings; a model that can not be trained so; `output` holds a training
            of other inputs, or another process is at work in it; the loss stops being a number.
    """
    inputs = _Inputs(
        resolve(model),
        read_rows(rows),
        None if eval_rows is None else read_rows(eval_rows),
        settings,
        None if init_adapter is None else Path(init_adapter),
    )
    folder = Path(output).expanduser().resolve()
    mark = inputs.fingerprint()
    if resume and (done := read_result(folder)) is not None:
        _check_same(done[1], mark, folder)
        if not settings.save.keep_checkpoints:  # a kill may have come between the marker and this
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        return done[0]
    with quiet_libraries(), ExitStack() as stack:
        args = build_arguments(settings, folder / CHECKPOINTS)
        if args.process_index == 0:
            make_folder(folder)
            stack.enter_context(FolderLock(folder, ".train.lock", option="output"))
            _make_ready(folder, mark, resume)
        args.distributed_state.wait_for_everyone()
        run = _Run(inputs, args, folder)
        run.add_callbacks(callbacks, progress)
        return run.finish(mark)


@dataclass(frozen=True)
class _Inputs:
    model: Path
    rows: Sequence[Mapping[str, Any]]
    eval_rows: Sequence[Mapping[str, Any]] | None
    settings: TrainSettings
    init_adapter: Path | None

    def fingerprint(self) -> str:
        """A hash of all that decides what is learned."""
        parts = {
            "model": fingerprint(self.model),
            "rows": fingerprint_rows(self.rows),
            "eval_rows": fingerprint_rows(self.eval_rows or []),
            "settings": self.settings.model_dump(mode="json", exclude={"save", "distributed"}),
            "init_adapter": _fingerprint_adapter(self.init_adapter),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class _Run:
    """One trainer, built from the inputs and run to its end."""

    def __init__(self, inputs: _Inputs, args: Any, folder: Path) -> None:
        self.inputs = inputs
        self.folder = folder
        self.loaded = load_model(inputs.model, inputs.settings, args)
        self.data = self._prepare(inputs.rows)
        evaluation = None if inputs.eval_rows is None else self._prepare(inputs.eval_rows).dataset
        self.trainer = _build_trainer(self.loaded, inputs, args, self.data, evaluation)
        self.checkpoint = self._find_checkpoint()

    def _prepare(self, rows: Sequence[Mapping[str, Any]]) -> Prepared:
        settings = self.inputs.settings
        config = self.loaded.model.config.get_text_config()
        context = getattr(config, "max_position_embeddings", None) or settings.max_length
        limits: dict[str, Any] = {
            "loss_on": settings.loss_on,
            "max_length": min(settings.max_length, context),
        }
        if self.loaded.processor is not None:
            return prepare_for_processor(rows, self.loaded.processor, **limits)
        return prepare(rows, self.loaded.tokenizer, **limits)

    def _find_checkpoint(self) -> Checkpoint | None:
        args = self.trainer.args
        found = last_checkpoint(self.folder / CHECKPOINTS)
        if found is not None and found.processes != args.world_size:
            raise UserError(
                f"{found.path} was made by {found.processes} processes, but this run has {args.world_size}: "
                "start as many, or start over with resume=False"
            )
        return found

    def add_callbacks(self, callbacks: Sequence[Any], progress: Progress | None) -> None:
        save = self.inputs.settings.save
        self.trainer.remove_callback(PrinterCallback)  # it prints to stdout
        self.books = Bookkeeper(self.trainer, progress, save.logging_steps, save.keep_checkpoints)
        for callback in (self.books, *callbacks):
            self.trainer.add_callback(callback)

    def finish(self, mark: str) -> TrainResult:
        """Train to the end, save, and write the done marker last."""
        if self.checkpoint is not None:
            self.books.restore(self.checkpoint)
        self.trainer.train(resume_from_checkpoint=str(self.checkpoint.path) if self.checkpoint else None)
        seconds = self.books.seconds
        self.trainer.save_model(str(self.folder))
        self.trainer.accelerator.wait_for_everyone()
        result = self._result(seconds)
        if self.trainer.is_world_process_zero():
            if self.loaded.processor is not None:
                self.loaded.processor.save_pretrained(self.folder)
            (self.folder / "training_args.bin").unlink(missing_ok=True)  # pickled, and nothing here reads it
            write_result(result, mark)
            if not self.inputs.settings.save.keep_checkpoints:
                shutil.rmtree(self.folder / CHECKPOINTS, ignore_errors=True)
        self.trainer.accelerator.wait_for_everyone()
        return result

    def _result(self, seconds: float) -> TrainResult:
        trainer, state = self.trainer, self.trainer.state
        return TrainResult(
            output=self.folder,
            is_adapter=ADAPTERS[self.inputs.settings.adapter].is_peft,
            losses=tuple(entry["loss"] for entry in state.log_history if "loss" in entry),
            eval_losses=tuple(entry["eval_loss"] for entry in state.log_history if "eval_loss" in entry),
            steps=state.global_step,
            tokens=trainer.total_tokens,
            label_tokens=round(trainer.label_tokens),
            trainable_parameters=self.trainable,
            rows=len(self.data.dataset),
            dropped_rows=self.data.dropped,
            seconds=seconds,
        )

    @property
    def trainable(self) -> int:
        """Parameters that are trained, counted whole where they are sharded."""
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        return sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters() if p.requires_grad)


def _build_trainer(
    loaded: Loaded, inputs: _Inputs, args: Any, data: Prepared, evaluation: Any | None
) -> WeightedTrainer:
    set_seed(args.seed)
    settings = inputs.settings
    model, config = add_adapter(loaded.model, settings, inputs.init_adapter)
    adapter = ADAPTERS[settings.adapter]
    goes_on = adapter.has_float32_weights and inputs.init_adapter is not None
    own = _trainable(model) if goes_on else {}
    try:
        trainer = WeightedTrainer(
            model=model,
            args=args,
            train_dataset=data.dataset,
            eval_dataset=evaluation,
            processing_class=loaded.tokenizer,
            data_collator=None if loaded.processor is None else ImageCollator(loaded.processor),
            peft_config=config,
        )
    except ValueError as error:
        raise UserError(
            f"adapter {settings.adapter} does not fit {inputs.model} ({first_line(error)}): change its "
            "settings, or train another adapter"
        ) from error
    if adapter.has_float32_weights:
        _keep_float32(trainer.model, own)
    return trainer


def _trainable(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.data.clone() for name, p in model.named_parameters() if p.requires_grad}


def _keep_float32(model: Any, own: Mapping[str, torch.Tensor]) -> None:
    """Undo TRL's rounding of adapters on 4-bit weights to bfloat16.

    Small updates vanish in bfloat16, and it is slow on CPUs. An adapter that goes on gets back its own
    weights, as they were before the trainer was built.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = own.get(name, parameter.data).to(torch.float32)


def _make_ready(folder: Path, mark: str, resume: bool) -> None:
    """Leave in the folder only what this training goes on from."""
    checkpoints = folder / CHECKPOINTS
    inputs = checkpoints / INPUTS
    if not resume:
        (folder / DONE).unlink(missing_ok=True)
        shutil.rmtree(checkpoints, ignore_errors=True)
    found = last_checkpoint(checkpoints)
    if found is not None:  # without one there is nothing to lose
        _check_same(json.loads(inputs.read_text())["fingerprint"], mark, folder)
    remove_checkpoints(checkpoints, but=found.path if found else None)
    checkpoints.mkdir(exist_ok=True)
    write_json(inputs, {"fingerprint": mark})


def _check_same(found: str, needed: str, folder: Path) -> None:
    if found != needed:
        raise UserError(
            f"{folder} holds a training of another model, other rows or other settings: give another output, "
            "or start over with resume=False"
        )


def _fingerprint_adapter(folder: Path | None) -> str | None:
    path = None if folder is None else folder / "adapter_model.safetensors"
    if path is None or not path.is_file():
        return None  # a folder that is no adapter is refused where it is loaded
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
