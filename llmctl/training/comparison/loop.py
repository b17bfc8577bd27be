"""The whole comparison: choose learning rates, train every arm with every seed, measure, report.

Seeds are the outer loop, so that a machine which slows down on the way slows all arms alike.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.models import resolve
from llmctl.models.description import fingerprint
from llmctl.models.quiet import quiet_libraries
from llmctl.runs import Run, progress
from llmctl.training.comparison.arms import Arm, resolve_arms
from llmctl.training.comparison.recipe import CompareRecipe
from llmctl.training.config import TrainSettings
from llmctl.training.data import fingerprint_rows
from llmctl.training.inputs import check_model, check_text, write_rows
from llmctl.training.sources import Rows, get_rows

UNITS, SEARCH = "units", "search"  # journals


@dataclass(frozen=True)
class Files:
    """Rows in the run's folder."""

    training: Path
    validation: Path
    fit: Path
    search_training: Path | None = None
    search_validation: Path | None = None


def check_compare(recipe: CompareRecipe) -> tuple[Rows, list[Arm]]:
    """Find mistakes that would otherwise stop a run after its folder was made; gives its rows and arms.

    Raises:
        UserError: Model or data is missing, there are too few rows, or the budget can not be met.
    """
    for architecture in (recipe.architectures or {"": None}).values():
        check_model(recipe.model, architecture)
    rows = get_rows(recipe.data)
    if not rows.validation:
        raise UserError("there are no validation rows to compare on: give more rows")
    check_text([*rows.training, *rows.validation], recipe.train.loss_on)
    if is_searching(recipe) and len(rows.training) <= recipe.search.rows:
        raise UserError(
            f"there are {len(rows.training)} training rows and search.rows is {recipe.search.rows}, which "
            "leaves none to train trials on: lower search.rows, or give more rows"
        )
    return rows, resolve_arms(recipe)


def is_searching(recipe: CompareRecipe) -> bool:
    """Whether arms choose among learning rates."""
    return len(recipe.search.rates) > 1


def run_comparison(
    run: Run,
    recipe: CompareRecipe,
    *,
    checked: tuple[Rows, list[Arm]] | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Do what is missing of a comparison; metrics and report are in its folder afterwards.

    Args:
        run: Open, with this recipe.
        recipe: Resolved.
        checked: What `check_compare` gave; None checks here.
        quiet: No progress.

    Returns:
        What `metrics.json` holds.

    Raises:
        UserError: As `check_compare`, or something is not what the run was started with.
    """
    from llmctl.training.comparison.report import write_comparison_report
    from llmctl.training.comparison.summary import summarize

    rows, arms = check_compare(recipe) if checked is None else checked
    _pin(run, recipe, rows)
    files = _write_files(run, recipe, rows)
    rates = _choose_rates(run, recipe, arms, files, quiet)
    for seed, arm in _plan(recipe, arms):
        settings = _settings(recipe, arm, rates.get(arm.name), seed)
        _do_unit(run, recipe, UNITS, unit_key(arm, seed), arm, settings, files, quiet)
    metrics = summarize(run, recipe, arms, rates, rows)
    run.write_metrics(metrics)
    write_comparison_report(run, recipe, metrics)
    return metrics


def unit_key(arm: Arm, seed: int) -> str:
    """Of a unit's journal line; a model that is not trained is the same for all seeds."""
    return arm.name if arm.settings is None else f"{arm.name}/{seed}"


def _plan(recipe: CompareRecipe, arms: list[Arm]) -> Iterator[tuple[int, Arm]]:
    for seed in recipe.seeds:
        for arm in arms:
            if arm.settings is not None or seed == recipe.seeds[0]:
                yield seed, arm


def _pin(run: Run, recipe: CompareRecipe, rows: Rows) -> None:
    run.pin(rows_fingerprint=fingerprint_rows([*rows.training, *rows.validation]))
    if recipe.architectures is None:
        run.pin(model_fingerprint=fingerprint(resolve(recipe.model)))


def _write_files(run: Run, recipe: CompareRecipe, rows: Rows) -> Files:
    with quiet_libraries():
        from llmctl.models.loading import load_tokenizer
        from llmctl.training.scratch import load_scratch_tokenizer

        first = next(iter(recipe.architectures.values())) if recipe.architectures else None
        tokenizer = (
            load_tokenizer(recipe.model) if first is None else load_scratch_tokenizer(first, recipe.model)
        )
        training, validation = write_rows(run, rows, tokenizer, recipe.data.block)
    if validation is None:
        raise UserError("the validation rows hold fewer than 2 tokens: give more text")
    lines = training.read_text(encoding="utf-8").splitlines(keepends=True)
    held = len(validation.read_text(encoding="utf-8").splitlines())
    fit = run.write_text("data/fit.jsonl", "".join(lines[:held]))
    if not is_searching(recipe):
        return Files(training, validation, fit)
    cut = recipe.search.rows
    return Files(
        training,
        validation,
        fit,
        run.write_text("data/search-train.jsonl", "".join(lines[cut:])),
        run.write_text("data/search-validation.jsonl", "".join(lines[:cut])),
    )


def _settings(recipe: CompareRecipe, arm: Arm, rate: float | None, seed: int) -> TrainSettings:
    chosen = recipe.train.learning_rate if rate is None else rate
    return (arm.settings or recipe.train).model_copy(update={"learning_rate": chosen, "seed": seed})


def _choose_rates(
    run: Run, recipe: CompareRecipe, arms: list[Arm], files: Files, quiet: bool
) -> dict[str, float]:
    """The learning rate of each trained arm: the recipe's, or the best of its trials."""
    trained = [arm for arm in arms if arm.settings is not None]
    if not is_searching(recipe):
        only = recipe.search.rates[0] if recipe.search.rates else recipe.train.learning_rate
        return {arm.name: only for arm in trained}
    if files.search_training is None or files.search_validation is None:
        raise ValueError("a search without its rows")
    # Rows and seed of their own: the comparison's validation rows and seeds take no part in the choice.
    apart = Files(files.search_training, files.search_validation, files.search_validation)
    seed, chosen = max(recipe.seeds) + 1, {}
    for arm in trained:
        for rate in recipe.search.rates:
            settings = _settings(recipe, arm, rate, seed)
            if recipe.search.steps is not None:
                settings = settings.model_copy(update={"max_steps": recipe.search.steps})
            _do_unit(run, recipe, SEARCH, f"{arm.name}/{rate:g}", arm, settings, apart, quiet)
        losses = {line["key"]: line["validation_loss"] for line in run.journal(SEARCH)}
        chosen[arm.name] = min(recipe.search.rates, key=lambda rate: losses[f"{arm.name}/{rate:g}"])
    return chosen


def _do_unit(
    run: Run,
    recipe: CompareRecipe,
    journal: str,
    key: str,
    arm: Arm,
    settings: TrainSettings,
    files: Files,
    quiet: bool,
) -> None:
    """Train and measure, unless the journal has it; the folder of a trial is removed afterwards."""
    from llmctl.training.comparison.unit import UnitJob, run_unit, spawn_unit

    book = run.journal(journal)
    output = run.path(f"{'models' if journal == UNITS else 'trials'}/{key.replace('/', '-')}")
    if key not in book:
        is_search = journal == SEARCH
        job = UnitJob(
            model=recipe.model if arm.architecture else str(resolve(recipe.model)),
            architecture=arm.architecture,
            settings=settings,
            is_trained=arm.settings is not None,
            training=files.training,
            validation=files.validation,
            fit=files.fit,
            output=output,
            data=recipe.data,
            **({} if is_search else {"curve": recipe.curve, "accuracy": recipe.accuracy}),
        )
        label = f"{'try ' if is_search else ''}{key.replace('/', ', ' if is_search else ', seed ')}"
        with progress(None, label, "steps", quiet=quiet) as bar:
            from llmctl.training.sft import step_reporter

            book.append(key, (spawn_unit if recipe.isolate else run_unit)(job, step_reporter(bar)))
    leftovers = [output] if journal == SEARCH or arm.settings is None else [output / "start"]
    for folder in leftovers:
        shutil.rmtree(folder, ignore_errors=True)


def read_units(run: Run) -> dict[str, dict[str, Any]]:
    """The finished units by key."""
    return {line["key"]: line for line in run.journal(UNITS)}


def count_rows(path: Path) -> int:
    """Rows of a JSONL file of the run."""
    return sum(1 for line in path.read_text(encoding="utf-8").splitlines() if json.loads(line))
