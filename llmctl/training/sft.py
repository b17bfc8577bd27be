"""`llmctl train sft`: fine-tune, or train from scratch, with a validation loss after every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmctl.models.description import fingerprints
from llmctl.models.quiet import quiet_libraries
from llmctl.runs import Run, bootstrap_ratio
from llmctl.training.adapters import ADAPTERS
from llmctl.training.config import TrainSettings
from llmctl.training.data import prepare
from llmctl.training.data.rows import fingerprint_rows, read_rows
from llmctl.training.data.sources import Rows
from llmctl.training.fit import Training, fit
from llmctl.training.preflight import check_sft, write_rows
from llmctl.training.recipe import SftRecipe
from llmctl.training.result import TrainResult, perplexity

VALIDATIONS = "validations"  # journal of the losses row by row


def run_sft(run: Run, recipe: SftRecipe, *, rows: Rows | None = None, quiet: bool = False) -> dict[str, Any]:
    """Run what is missing of a fine-tuning. Model, metrics and report are in the run's folder afterwards.

    Args:
        run: The open run of this recipe.
        recipe: The resolved recipe.
        rows: The result of `check_sft`; None runs the checks here.
        quiet: Show no progress.

    Returns:
        The content of `metrics.json`.

    Raises:
        UserError: Model or data cannot be used, or differ from those that the run was started with.
    """
    from llmctl.training.sft_report import write_sft_report

    rows = check_sft(recipe) if rows is None else rows
    with quiet_libraries():  # importing TRL and PEFT makes bitsandbytes talk
        from llmctl.models.loading import load_tokenizer

    model = start_model(run, recipe)
    run.pin(
        **fingerprints(model, recipe.adapter),
        rows_fingerprint=fingerprint_rows([*rows.training, *rows.validation]),
    )
    training, validation = write_rows(run, rows, load_tokenizer(model), recipe.data.block)
    if validation is not None:
        validate(run, "before", model, recipe.adapter, validation, recipe.train)
    job = Training(
        name="train",
        model=model,
        rows=training,
        settings=recipe.train,
        output="model",
        init_adapter=recipe.adapter,
        eval_rows=validation,
        launch=recipe.launch,
    )
    result = fit(run, job, quiet=quiet)
    if validation is not None:
        whole, adapter = (model, result.output) if result.is_adapter else (str(result.output), None)
        validate(run, "after", whole, adapter, validation, recipe.train)
    metrics = summarize(run, recipe, result, rows)
    run.write_metrics(metrics)
    write_sft_report(run, recipe, metrics)
    return metrics


def start_model(run: Run, recipe: SftRecipe) -> str:
    """The folder of the model that training starts from; from scratch, it is made in the run."""
    from llmctl.models import resolve

    if recipe.architecture is None:
        return str(resolve(recipe.model))
    from llmctl.training.scratch import load_scratch_tokenizer, make_model

    tokenizer = load_scratch_tokenizer(recipe.architecture, recipe.model)
    return str(make_model(run.path("start"), recipe.architecture, tokenizer, recipe.train.seed))


def validate(
    run: Run, key: str, model: str, adapter: Path | None, rows: Path, settings: TrainSettings
) -> None:
    """Journal the losses of a model on validation rows, once."""
    book = run.journal(VALIDATIONS)
    if key in book:
        return
    from llmctl.models.loading import load
    from llmctl.training.validation import row_losses

    with quiet_libraries():
        quantization = ADAPTERS[settings.adapter].base.quantization
        loaded = load(model, adapter=adapter, quantization=quantization)
        data = prepare(
            read_rows(rows), loaded.tokenizer, loss_on=settings.loss_on, max_length=settings.max_length
        )
        found = row_losses(loaded.model, data, settings.batch_size)
    book.append(key, {**found.to_dict(), "dropped_rows": data.dropped})


def summarize(run: Run, recipe: SftRecipe, result: TrainResult, rows: Rows) -> dict[str, Any]:
    """The content of `metrics.json`."""
    validations = {line["key"]: line for line in run.journal(VALIDATIONS)}
    metrics: dict[str, Any] = {
        "trainable_parameters": result.trainable_parameters,
        "rows": result.rows,
        "dropped_rows": result.dropped_rows,
        "repeated_rows": rows.repeats,
        "validation_rows": len(validations["after"]["nll"]) if validations else 0,
        "steps": result.steps,
        "tokens": result.tokens,
        "label_tokens": result.label_tokens,
        "seconds": round(result.seconds, 2),
        "output": result.output.name,
        "losses": list(result.losses),
        "passes": passes(recipe.train, result),
    }
    if validations:
        before, after = validations["before"], validations["after"]
        for name, line in (("before", before), ("after", after)):
            loss = bootstrap_ratio(line["nll"], line["tokens"], recipe.data.seed)
            metrics[name] = {"validation_loss": loss, "perplexity": perplexity(loss.value or 0.0)}
        change = [a - b for a, b in zip(after["nll"], before["nll"], strict=True)]
        metrics["change"] = bootstrap_ratio(change, after["tokens"], recipe.data.seed)
    return metrics


def passes(settings: TrainSettings, result: TrainResult) -> list[dict[str, Any]]:
    """Mean training loss and validation loss of each epoch; the last epoch may be incomplete."""
    length = -(-result.rows // (settings.batch_size * settings.accumulation))  # steps of a whole epoch
    if settings.max_steps is None and result.steps != length:
        length = max(1, round(result.steps / settings.epochs))  # several processes share a step
    found = []
    for number, start in enumerate(range(0, result.steps, length)):
        part = result.losses[start : start + length]
        line: dict[str, Any] = {"pass": round(number + len(part) / length, 3), "steps": start + len(part)}
        line["training_loss"] = _mean(part)
        if number < len(result.eval_losses):
            loss = result.eval_losses[number]
            line |= {"validation_loss": loss, "perplexity": perplexity(loss)}
        found.append(line)
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
