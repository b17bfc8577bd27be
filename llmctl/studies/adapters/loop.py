"""A comparison from start to end: choose learning rates, train every arm with every seed, measure, report.

Seeds are the outer loop, so that a machine that becomes slower affects all arms alike.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.models import resolve
from llmctl.models.description import fingerprints
from llmctl.models.quiet import quiet_libraries
from llmctl.runs import Run, progress
from llmctl.studies.adapters.arms import Arm, resolve_arms
from llmctl.studies.adapters.recipe import AdapterCompareRecipe
from llmctl.studies.adapters.report import write_comparison_report
from llmctl.studies.adapters.summary import summarize
from llmctl.studies.adapters.unit import run_unit
from llmctl.studies.adapters.unit_job import UnitJob
from llmctl.studies.adapters.unit_process import spawn_unit
from llmctl.studies.adapters.units import SEARCH, UNITS, is_searching, unit_key
from llmctl.training.config import TrainSettings
from llmctl.training.data.rows import fingerprint_rows
from llmctl.training.data.sources import Rows, get_rows
from llmctl.training.fit import step_reporter
from llmctl.training.preflight import check_model, check_text, write_rows


@dataclass(frozen=True)
class Inputs:
    """The rows and arms that `check_compare` has checked."""

    rows: Rows
    arms: list[Arm]


@dataclass(frozen=True)
class Files:
    """Rows in the run's folder."""

    training: Path
    validation: Path
    fit: Path  # training rows that the training loss is taken on
    search: Files | None = None  # for the choice of learning rates


def check_compare(recipe: AdapterCompareRecipe) -> Inputs:
    """Check a recipe before the folder of its run is made.

    Returns:
        The rows and the arms of the comparison.

    Raises:
        UserError: Model or data is missing, there are too few rows, or the budget cannot be met.
    """
    for architecture in recipe.architectures.values() if recipe.architectures else (None,):
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
    return Inputs(rows, resolve_arms(recipe))


def run_comparison(
    run: Run,
    recipe: AdapterCompareRecipe,
    *,
    inputs: Inputs | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run what is missing of a comparison. Metrics and report are in its folder afterwards.

    Args:
        run: The open run of this recipe.
        recipe: The resolved recipe.
        inputs: The result of `check_compare`; None runs the checks here.
        quiet: Show no progress.

    Returns:
        The content of `metrics.json`.

    Raises:
        UserError: As `check_compare`, or model or data differ from those that the run was started with.
    """
    inputs = check_compare(recipe) if inputs is None else inputs
    rows, arms = inputs.rows, inputs.arms
    run.pin(rows_fingerprint=fingerprint_rows([*rows.training, *rows.validation]))
    if recipe.architectures is None:
        run.pin(**fingerprints(recipe.model))
    work = _Work(run, recipe, write_files(run, recipe, rows), quiet)
    rates = work.choose_rates([arm for arm in arms if arm.settings is not None])
    for seed, arm in _plan(recipe, arms):
        work.do_unit(unit_key(arm, seed), arm, rates.get(arm.name), seed)
    metrics = summarize(run, recipe, arms, rates, rows)
    run.write_metrics(metrics)
    write_comparison_report(run, recipe, metrics)
    return metrics


def write_files(run: Run, recipe: AdapterCompareRecipe, rows: Rows) -> Files:
    """Write the rows as all arms train on them.

    Raises:
        UserError: There is too little text to hold any out.
    """
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
    # Rows of their own: the comparison's validation rows take no part in the choice of a rate.
    cut = recipe.search.rows
    trials = run.write_text("data/search-train.jsonl", "".join(lines[cut:]))
    judged = run.write_text("data/search-validation.jsonl", "".join(lines[:cut]))
    return Files(training, validation, fit, Files(trials, judged, judged))


def _plan(recipe: AdapterCompareRecipe, arms: list[Arm]) -> Iterator[tuple[int, Arm]]:
    for seed in recipe.seeds:
        for arm in arms:
            if arm.settings is not None or seed == recipe.seeds[0]:
                yield seed, arm


@dataclass(frozen=True)
class _Work:
    """The run, and what all its units share."""

    run: Run
    recipe: AdapterCompareRecipe
    files: Files
    quiet: bool

    def choose_rates(self, trained: Sequence[Arm]) -> dict[str, float]:
        """The learning rate of each trained arm: the recipe's, or the best of its trials."""
        search = self.recipe.search
        if not is_searching(self.recipe):
            only = search.rates[0] if search.rates else self.recipe.train.learning_rate
            return {arm.name: only for arm in trained}
        chosen = {}
        for arm in trained:
            for rate in search.rates:
                self.do_trial(f"{arm.name}/{rate:g}", arm, rate)
            losses = {line["key"]: line["validation_loss"] for line in self.run.journal(SEARCH)}
            chosen[arm.name] = min(search.rates, key=lambda rate: losses[f"{arm.name}/{rate:g}"])
        return chosen

    def do_trial(self, key: str, arm: Arm, rate: float) -> None:
        """Train once with a learning rate and a seed that the comparison does not use."""
        settings = self._settings(arm, rate, max(self.recipe.seeds) + 1)
        if self.recipe.search.steps is not None:
            settings = settings.model_copy(update={"max_steps": self.recipe.search.steps})
        output = self.run.path(f"trials/{key.replace('/', '-')}")
        if key not in self.run.journal(SEARCH):
            job = self._job(arm, settings, self.files.search or self.files, output)
            self._run(SEARCH, key, f"try {key.replace('/', ', ')}", job)
        shutil.rmtree(output, ignore_errors=True)

    def do_unit(self, key: str, arm: Arm, rate: float | None, seed: int) -> None:
        """Train and measure an arm with a seed, unless the journal has the result."""
        output = self.run.path(f"models/{key.replace('/', '-')}")
        if key not in self.run.journal(UNITS):
            job = self._job(arm, self._settings(arm, rate, seed), self.files, output)
            job = job.model_copy(update={"curve": self.recipe.curve, "accuracy": self.recipe.accuracy})
            self._run(UNITS, key, key.replace("/", ", seed "), job)
        # A model that is not trained leaves no folder, and initial weights can be made again from the seed.
        shutil.rmtree(output if arm.settings is None else output / "start", ignore_errors=True)

    def _settings(self, arm: Arm, rate: float | None, seed: int) -> TrainSettings:
        chosen = self.recipe.train.learning_rate if rate is None else rate
        return (arm.settings or self.recipe.train).model_copy(update={"learning_rate": chosen, "seed": seed})

    def _job(self, arm: Arm, settings: TrainSettings, files: Files, output: Path) -> UnitJob:
        return UnitJob(
            model=self.recipe.model if arm.architecture else str(resolve(self.recipe.model)),
            architecture=arm.architecture,
            settings=settings,
            is_trained=arm.settings is not None,
            training=files.training.resolve(),
            validation=files.validation.resolve(),
            fit=files.fit.resolve(),
            output=output.resolve(),
            data=self.recipe.data,
        )

    def _run(self, journal: str, key: str, label: str, job: UnitJob) -> None:
        with progress(None, label, "steps", quiet=self.quiet) as bar:
            do = spawn_unit if self.recipe.isolate else run_unit
            self.run.journal(journal).append(key, do(job, step_reporter(bar)).to_dict())
