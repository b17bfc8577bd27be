"""The report of a run: figures of every model, what may be said of them, items, users, calibration, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from llmctl.demo.oracles import bounds_of_run
from llmctl.msr.evaluation.calibration import Calibration
from llmctl.msr.evaluation.comparisons import SHOWN, Comparison
from llmctl.msr.phases import Phases, read_scores
from llmctl.msr.plots import Shown, draw_auc, draw_calibration, draw_items
from llmctl.msr.recipe import MsrRecipe
from llmctl.msr.show_user import user_blocks
from llmctl.msr.summaries.items import fallback_sentence, item_counts
from llmctl.msr.tables import chance_table, filter_table, full_table, metric_table, split_table
from llmctl.runs import Estimate, Run, Section, Table, Verbatim, save_figure, timing, write_report
from llmctl.runs.report import Part
from llmctl.training.result import read_result

SHOWN_ITEMS, SHOWN_USERS = 6, 2


def write_msr_report(
    phases: Phases,
    metrics: Mapping[str, Any],
    comparisons: Sequence[Comparison],
    fits: Mapping[str, Calibration],
) -> None:
    """Write report.md and report.html, with figures.

    Args:
        phases: Of the run.
        metrics: Figures by model.
        comparisons: What may be said.
        fits: Calibration by model.
    """
    sections = [
        Section("Result", _result(phases, metrics, comparisons)),
        Section("Items", _items(phases)),
        Section("Users", _users(phases)),
        Section("Training", _training(phases)),
        Section("Calibration", _calibration(phases, fits)),
        Section("Data", [filter_table(phases.prepared), split_table(phases.prepared)]),
        Section("Cost", [_cost(phases)]),
    ]
    write_report(
        phases.run, "MLLM-MSR: what a user wants next", [section for section in sections if section.parts]
    )


def _result(phases: Phases, metrics: Mapping[str, Any], comparisons: Sequence[Comparison]) -> Sequence[Part]:
    own = [model for arm in phases.recipe.resolved_arms for model in arm.models]
    parts: list[Part] = [metric_table(metrics, phases.prepared)]
    parts += [f"- {one.sentence}" for one in comparisons]
    figure = draw_auc(metrics, own)
    parts.append(
        save_figure(figure, phases.run, "auc", "AUC of every model, 95 % intervals; recommenders in blue.")
    )
    if comparisons:
        parts.append(comparison_table(comparisons, phases.recipe.seed))
    lists = (candidates for _, candidates in phases.prepared.cases("test"))
    more = full_table(metrics), bounds_of_run(phases.recipe.data.interactions, lists)
    parts += [table for table in more if table is not None]
    return [*parts, chance_table(phases.prepared)]


def comparison_table(comparisons: Sequence[Comparison], seed: int) -> Table:
    """Differences between models on the same users."""
    rows = [
        [one.claim, one.first, one.second, *(_signed(one.differences[name]) for name in SHOWN)]
        for one in comparisons
    ]
    caption = f"First minus second, 95 % intervals by paired bootstrap over users, seed {seed}."
    return Table(["claim", "first", "second", *SHOWN], rows, caption)


def _items(phases: Phases) -> Sequence[Part]:
    run, vlm = phases.run, phases.recipe.items.vlm
    if not (counts := item_counts(run)):
        return []
    summaries = {record["item"]: record["summary"] for record in run.journal("items")}
    described = (item for item in phases.prepared.items() if summaries.get(item.id))
    chosen = [Shown(i.title, summaries[i.id], i.image) for i in islice(described, SHOWN_ITEMS)]
    parts: list[Part] = [f"Described by {vlm}. {fallback_sentence(counts)}"]
    if chosen:
        caption = "The first items of the catalogue: picture, title, and what the model says of the picture."
        parts.append(save_figure(draw_items(chosen), run, "items", caption))
        rows = [[one.title, one.said] for one in chosen]
        parts.append(Table(["title", "what is said of the picture"], rows))
    return parts


def _users(phases: Phases) -> Sequence[Part]:
    """The first test users: what they chose block by block, and how the summary went along."""
    parts: list[Part] = []
    shown: set[str] = set()
    for arm in phases.recipe.resolved_arms:
        name = phases.recipe.summaries_of(arm)
        if arm.users.mode == "none" or name in shown:
            continue
        shown.add(name)
        wording = phases.wording(arm)
        for history, candidates in islice(phases.prepared.cases("test"), SHOWN_USERS):
            blocks = user_blocks(phases.run.folder, name, history.user)
            text = [
                f"block {block['block'] + 1}:\n{wording.list(block['items'])}\nsummary: {block['summary']}\n"
                for block in blocks
            ]
            text.append(f"chosen next: {wording.line(candidates.target)}")
            caption = f"{arm.name} ({arm.users.mode}): test user {history.user}."
            parts.append(Verbatim("\n".join(text), caption))
    return parts


def _training(phases: Phases) -> Sequence[Part]:
    rows = []
    for arm in phases.recipe.resolved_arms:
        stored = read_result(phases.run.folder / "models" / arm.name)
        if stored is None:
            continue
        result, part = stored[0], max(1, len(stored[0].losses) // 10)
        first, last = (sum(losses) / len(losses) for losses in (result.losses[:part], result.losses[-part:]))
        rows.append(
            [
                arm.name,
                phases.train_users(arm),
                result.rows,
                result.dropped_rows,
                result.steps,
                first,
                last,
                result.trainable_parameters,
            ]
        )
    columns = ["arm", "users", "rows", "too long", "steps", "first loss", "last loss", "weights trained"]
    caption = "Loss of the reply, nats a token, mean of the first and the last tenth of the steps."
    return [Table(columns, rows, caption)] if rows else []


def _calibration(phases: Phases, fits: Mapping[str, Calibration]) -> Sequence[Part]:
    if not fits:
        return []
    caption = "Share that was chosen against the probability of yes."
    rows = [
        [name, fit.base_rate, fit.ece, fit.brier, float(read_scores(phases.run, name)[1].mean())]
        for name, fit in fits.items()
    ]
    columns = ["model", "share chosen", "calibration error", "Brier score", "mass on yes or no"]
    note = (
        "Expected calibration error over 10 bins; the mass is the probability that the model's next token is "
        "a yes or a no at all. A model trained on as many yes as no says yes too readily on lists with one "
        "true item, which changes no ranking."
    )
    figure = save_figure(draw_calibration(fits), phases.run, "calibration", caption)
    return [figure, Table(columns, rows, note)]


def _cost(phases: Phases) -> Table:
    seconds = seconds_by_phase(phases.run, phases.recipe)
    rows = [[phase.replace("-", " "), value] for phase, value in seconds.items()]
    return Table(["phase", "seconds"], rows, f"{sum(seconds.values()) / 60:.1f} minutes, loading aside.")


def _signed(figure: Estimate) -> str:
    if figure.value is None:
        return ""
    bounds = "" if figure.low is None else f" [{figure.low:+.3f}, {figure.high:+.3f}]"
    return f"{figure.value:+.3f}{bounds}"


def seconds_by_phase(run: Run, recipe: MsrRecipe) -> dict[str, float]:
    """Seconds of every phase, loading of models aside; work that was lost to a kill is not counted."""
    seconds = timing.seconds_by_phase(run)
    for arm in recipe.resolved_arms:
        if (stored := read_result(run.folder / "models" / arm.name)) is not None:
            seconds[f"train-{arm.name}"] = stored[0].seconds
    return {phase: round(value, 1) for phase, value in seconds.items()}
