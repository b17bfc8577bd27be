"""`train`: from rows and settings to a trained model or adapter. A killed training resumes.

Determinism: on one machine, with the same number of threads and processes, the same call gives the same
weights bit for bit on CPU, and a run that was killed and started again gives those of an unbroken one. The
order of rows is a function of seed and epoch; dropout's random state is part of a checkpoint. Other thread
counts, or another division of an optimizer step into micro-batches and processes, sum in another order and
differ in the last digits. On GPUs some kernels (atomics in backward passes) are not deterministic.
Where the rows of an epoch do not fill the last optimizer step of several processes, accelerate repeats
rows to keep the processes level; with one process nothing is repeated.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import PrinterCallback

from llmctl.errors import UserError
from llmctl.models import resolve
from llmctl.models.quiet import quiet_libraries
from llmctl.runs.files import make_folder
from llmctl.runs.lock import FolderLock
from llmctl.training.adapters import ADAPTERS
from llmctl.training.build import build_trainer
from llmctl.training.checkpoints import Bookkeeper, Checkpoint, Progress, last_checkpoint
from llmctl.training.config import TrainSettings
from llmctl.training.data import Prepared, prepare
from llmctl.training.data.images import prepare_for_processor
from llmctl.training.data.rows import read_rows
from llmctl.training.inputs import TrainInputs, check_same, prepare_folder
from llmctl.training.result import CHECKPOINTS, TrainResult, read_result, write_result
from llmctl.training.setup import build_arguments, load_model


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
    chat template. A finished `output` is not trained again: its stored result is returned. An unfinished one
    resumes from its last complete checkpoint.

    Args:
        model: Alias, folder or Hub name. To continue full fine-tuning, the folder that it made.
        rows: `{"messages": [...], "weight": 1.0}` each, as a list or a JSONL file; the last message is the
            response to learn. For vision-language models a content can be parts with images: see
            `data.rows`. With `loss_on="all"` also `{"text": "..."}` and `{"input_ids": [...]}`.
        settings: How to train.
        output: Folder for the result.
        init_adapter: An adapter of the same base model to continue training; None starts a new one.
        eval_rows: Rows to evaluate after every epoch, with the same weighted loss.
        resume: Resume from, or return, what is in `output`; False starts over.
        callbacks: `transformers.TrainerCallback` objects, added to llmctl's own.
        progress: Called as `progress(step, total_steps, loss)`, in the main process only.

    Returns:
        The folder of the result, the loss of every step, and counts.

    Raises:
        UserError: Malformed rows or settings; a model that cannot be trained this way; `output` holds a
            training of other inputs, or another process is working in it; the loss is not finite.
    """
    inputs = TrainInputs(
        resolve(model),
        read_rows(rows),
        None if eval_rows is None else read_rows(eval_rows),
        settings,
        None if init_adapter is None else Path(init_adapter),
    )
    folder = Path(output).expanduser().resolve()
    mark = inputs.fingerprint()
    if resume and (done := read_result(folder)) is not None:
        check_same(done[1], mark, folder)
        if not settings.save.keep_checkpoints:  # the run may have been killed after it wrote the marker
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        return done[0]
    with quiet_libraries(), ExitStack() as stack:
        args = build_arguments(settings, folder / CHECKPOINTS)
        if args.process_index == 0:
            make_folder(folder)
            stack.enter_context(FolderLock(folder, ".train.lock", option="output"))
            prepare_folder(folder, mark, resume)
        args.distributed_state.wait_for_everyone()
        run = _Run(inputs, args, folder)
        run.add_callbacks(callbacks, progress)
        return run.finish(mark)


class _Run:
    """One trainer, built from the inputs and run to its end."""

    def __init__(self, inputs: TrainInputs, args: Any, folder: Path) -> None:
        self.inputs = inputs
        self.folder = folder
        self.loaded = load_model(inputs.model, inputs.settings, args)
        self.data = self._prepare(inputs.rows)
        evaluation = None if inputs.eval_rows is None else self._prepare(inputs.eval_rows).dataset
        self.trainer = build_trainer(self.loaded, inputs, args, self.data, evaluation)
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
        """Train to the end, save, and write the marker of a finished training last."""
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
        """Parameters that are trained, including all shards."""
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        return sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters() if p.requires_grad)
