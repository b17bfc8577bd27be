"""The report of a comparison: one table, plots, sentences, and every value by seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmctl.runs import Run, Section, Table, save_figure, write_report
from llmctl.studies.adapters.arm_kinds import BASE
from llmctl.studies.adapters.plots import draw_curves, draw_perplexity
from llmctl.studies.adapters.recipe import AdapterCompareRecipe
from llmctl.studies.adapters.summary import METRICS
from llmctl.studies.adapters.verdict import label, verdicts

COLUMNS = {  # figure -> (heading, format)
    "trainable_parameters": ("trained", ",.0f"),
    "train_loss": ("train loss", ".3f"),
    "validation_loss": ("val. loss", ".3f"),
    "perplexity": ("perplexity", ".2f"),
    "generalization_gap": ("gap", "+.3f"),
    "accuracy": ("accuracy", ".3f"),
    "seconds_per_step": ("s per step", ".3f"),
    "peak_memory": ("peak MiB", ",.0f"),
}


def write_comparison_report(run: Run, recipe: AdapterCompareRecipe, metrics: Mapping[str, Any]) -> None:
    """Write report.md and report.html, with plots."""
    perplexities = save_figure(
        draw_perplexity(metrics),
        run,
        "perplexity",
        "Validation perplexity: each seed, and the mean with its 95 % interval over seeds.",
    )
    curves = save_figure(
        draw_curves(metrics),
        run,
        "curves",
        "Losses by step, mean over seeds with their range: training (running mean) and the first "
        "validation rows.",
    )
    sections = [
        Section("Result", [result_table(recipe, metrics), *verdicts(recipe, metrics)]),
        Section("Figures", [perplexities, curves]),
        Section("Differences", [difference_table(metrics)]),
        Section("Each seed", [seed_table(recipe, metrics)]),
        Section("What the figures are", [DEFINITIONS]),
    ]
    what = "from scratch" if recipe.architectures is not None else f"on {recipe.model}"
    names = ", ".join(label(name) for name in metrics["comparison"]["arms"])
    write_report(run, f"{names} {what}", sections)


DEFINITIONS = (
    "Losses are nats per label token over all rows, in evaluation mode, after training, of the model as it "
    "was saved and loaded again: train loss on the first training rows (as many as there are validation "
    "rows), validation loss on rows that no arm has seen. The gap is validation minus train loss. Seconds "
    "per step are the median over steps, the first of a process left out. Peak memory is of the training "
    "alone: on CUDA the most that torch held, on CPU how far the resident memory of the training's own "
    "process rose above what it held before the model was loaded. Intervals cover with 95 %: over seeds by "
    "Student's t, over rows by bootstrap of whole rows."
)


def result_table(recipe: AdapterCompareRecipe, metrics: Mapping[str, Any]) -> Table:
    """One line per arm."""
    names = [name for name in COLUMNS if name != "accuracy" or recipe.accuracy.problems]
    rows = [
        [
            label(arm),
            metrics[arm]["size"],
            *(_cell(metrics[arm][name], COLUMNS[name][1], name) for name in names),
        ]
        for arm in metrics["comparison"]["arms"]
    ]
    c = metrics["comparison"]
    caption = (
        f"Mean over seeds {', '.join(map(str, c['seeds']))} ± half of its 95 % interval; "
        f"{c['training_rows']} training rows, {c['steps']} steps, {c['validation_rows']} validation rows "
        f"({c['validation_tokens']:,} label tokens), data seed {recipe.data.seed}."
    )
    if recipe.accuracy.problems:
        caption += f" Accuracy: greedy, {recipe.accuracy.problems} problems."
    return Table(["arm", "size", *(COLUMNS[name][0] for name in names)], rows, caption)


def difference_table(metrics: Mapping[str, Any]) -> Table:
    """Paired differences of validation loss."""
    rows = [
        [
            f"{label(found['first'])} - {label(found['second'])}",
            f"{found['over_seeds'].value:+.4f}",
            _interval(found["over_seeds"]),
            _interval(found["over_rows"]),
            ", ".join(f"{value:+.4f}" for value in found["values"].values()),
        ]
        for found in metrics["differences"]
    ]
    columns = ["validation loss", "difference", "interval over seeds", "interval over rows", "by seed"]
    return Table(columns, rows, "Paired by seed, and by row; negative is better for the first.")


def seed_table(recipe: AdapterCompareRecipe, metrics: Mapping[str, Any]) -> Table:
    """Every value behind the means."""
    rows = []
    for arm in metrics["comparison"]["arms"]:
        for name in METRICS:
            values = metrics[arm][name]["values"]
            if any(value is not None for value in values.values()):
                rows.append(
                    [label(arm), COLUMNS[name][0], *(_number(v, COLUMNS[name][1]) for v in values.values())]
                )
    note = "The base was measured once." if BASE in metrics["comparison"]["arms"] else ""
    return Table(["arm", "figure", *(f"seed {seed}" for seed in recipe.seeds)], rows, note)


def _cell(found: Mapping[str, Any], form: str, name: str) -> str | None:
    if found["value"] is None:
        return None
    if found["low"] is None or name == "trainable_parameters":
        return f"{found['value']:{form}}"
    half = (found["high"] - found["low"]) / 2
    return f"{found['value']:{form}} ± {half:,.0f}" if half >= 10 else f"{found['value']:{form}} ± {half:.2g}"


def _number(value: float | None, form: str) -> str | None:
    return None if value is None else f"{value:{form}}"


def _interval(figure: Any) -> str | None:
    return None if figure.low is None else f"[{figure.low:+.4f}, {figure.high:+.4f}]"
