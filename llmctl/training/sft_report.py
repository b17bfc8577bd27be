"""The report of a fine-tuning: losses by epoch, a plot, and whether the validation loss fell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmctl.runs import Estimate, Run, Section, Table, new_figure, save_figure, write_report
from llmctl.training.recipe import SftRecipe

COLOUR, PALE, DARK = "#1f6fb4", "#bcd3e8", "#d1495b"


def write_sft_report(run: Run, recipe: SftRecipe, metrics: Mapping[str, Any]) -> None:
    """Write report.md and report.html, with the loss figure."""
    figure = save_figure(
        draw_losses(metrics), run, "loss", "Training loss of every step, and validation loss after each pass."
    )
    parts: list[Any] = [pass_table(recipe, metrics), *verdicts(metrics), figure]
    sections = [Section("Result", parts), Section("Work", [work_table(metrics)])]
    write_report(run, f"Fine-tuning: {title(recipe)}", sections)


def title(recipe: SftRecipe) -> str:
    """A short description of what was trained."""
    if recipe.architecture is not None:
        return f"{recipe.architecture.attention} attention from scratch"
    return f"{recipe.train.adapter} on {recipe.model}"


def pass_table(recipe: SftRecipe, metrics: Mapping[str, Any]) -> Table:
    """Losses by epoch; pass 0 is the base model."""
    rows: list[list[Any]] = []
    if "before" in metrics:
        first = metrics["before"]
        rows.append([0, 0, None, first["validation_loss"].value, first["perplexity"]])
    rows += [
        [
            line["pass"],
            line["steps"],
            line["training_loss"],
            line.get("validation_loss"),
            line.get("perplexity"),
        ]
        for line in metrics["passes"]
    ]
    caption = (
        f"{metrics['rows']} training rows, {metrics['validation_rows']} held out; losses in nats per token, "
        f"loss on {recipe.train.loss_on}; training loss is the mean over the steps of a pass; seed "
        f"{recipe.train.seed}, data seed {recipe.data.seed}."
    )
    return Table(["pass", "steps", "training loss", "validation loss", "perplexity"], rows, caption)


def verdicts(metrics: Mapping[str, Any]) -> list[str]:
    """Sentences for the report."""
    said = []
    if "change" in metrics:
        change: Estimate = metrics["change"]
        if change.low is None or change.high is None:
            how = "there is no interval with one row"
        elif change.high < 0:
            how = "it fell, and the interval over validation rows excludes zero"
        elif change.low > 0:
            how = "it rose: training made the model worse on held-out rows"
        else:
            how = "which may be chance"
        said.append(f"Validation loss changed by {show(change, sign=True)} nats per token: {how}.")
        losses = [line["validation_loss"] for line in metrics["passes"] if "validation_loss" in line]
        if losses and (best := losses.index(min(losses))) < len(losses) - 1:
            said.append(
                f"Validation loss was lowest after pass {best + 1} of {len(losses)}; what came later "
                "overfits, and the saved model is that of the last pass."
            )
    if metrics["dropped_rows"]:
        said.append(f"{metrics['dropped_rows']} training rows were longer than max_length and were left out.")
    if metrics["repeated_rows"]:
        said.append(f"{metrics['repeated_rows']} training rows repeat a validation row and were left out.")
    return said


def work_table(metrics: Mapping[str, Any]) -> Table:
    """Counts and time of the training."""
    names = ("trainable_parameters", "steps", "tokens", "label_tokens", "seconds")
    return Table(["what", "amount"], [[name.replace("_", " "), metrics[name]] for name in names])


def draw_losses(metrics: Mapping[str, Any]) -> Any:
    """Plot of the loss of every step, its running mean, and the validation losses."""
    figure = new_figure()
    axes = figure.subplots()
    losses = metrics["losses"]
    steps = range(1, len(losses) + 1)
    smooth = running_mean(losses)
    axes.plot(
        steps, losses, color=PALE, linewidth=1, label=None if smooth == losses else "training, each step"
    )
    axes.plot(steps, smooth, color=COLOUR, label="training" if smooth == losses else "training, running mean")
    points = [
        (line["steps"], line["validation_loss"]) for line in metrics["passes"] if "validation_loss" in line
    ]
    if "before" in metrics:
        points.insert(0, (0, metrics["before"]["validation_loss"].value))
    if points:
        axes.plot(*zip(*points, strict=True), color=DARK, marker="o", linestyle="--", label="validation")
    axes.set(xlabel="step", ylabel="loss, nats per token")
    axes.legend(frameon=False)
    return figure


def running_mean(values: list[float]) -> list[float]:
    """Mean over the last values, about a twentieth of all."""
    width = max(1, len(values) // 20)
    return [
        sum(part) / len(part) for n in range(len(values)) if (part := values[max(0, n + 1 - width) : n + 1])
    ]


def show(figure: Estimate, sign: bool = False) -> str:
    """A figure with its interval."""
    form = "+.4f" if sign else ".4f"
    if figure.value is None:
        return "no value"
    if figure.low is None or figure.high is None:
        return f"{figure.value:{form}}"
    return f"{figure.value:{form}} [{figure.low:{form}}, {figure.high:{form}}]"
