"""The report of a run: metrics of every model, claims, items, users, training, calibration, data, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from llmctl.msr.data.tables import chance_table, filter_table, split_table
from llmctl.msr.evaluation.bounds import bounds_of_run
from llmctl.msr.evaluation.calibration import Calibration
from llmctl.msr.evaluation.comparisons import ModelComparison
from llmctl.msr.evaluation.plots import draw_auc, draw_calibration
from llmctl.msr.evaluation.tables import comparison_table, full_table, metric_table
from llmctl.msr.recipe import MsrRecipe
from llmctl.msr.recommender.examples import CaseReader
from llmctl.msr.recommender.scoring import read_scores
from llmctl.msr.recommender.show_user import user_blocks
from llmctl.msr.settings import RecommenderArm
from llmctl.msr.summaries.items import fallback_sentence, item_counts, item_summaries
from llmctl.msr.summaries.plots import DescribedItem, draw_items
from llmctl.runs import Run, Section, Table, Verbatim, save_figure, timing, write_report
from llmctl.runs.report import Part
from llmctl.training.result import read_result

EXAMPLE_ITEMS, EXAMPLE_USERS = 6, 2


def write_msr_report(
    reader: CaseReader,
    run: Run,
    metrics: Mapping[str, Any],
    comparisons: Sequence[ModelComparison],
    fits: Mapping[str, Calibration],
) -> None:
    """Write report.md and report.html, with figures.

    Args:
        reader: Of the run.
        run: Open.
        metrics: By model, in the layout of `metrics.json`.
        comparisons: Differences between models.
        fits: Calibration by model.
    """
    sections = [
        Section("Result", _result(reader, run, metrics, comparisons)),
        Section("Items", _items(reader, run)),
        Section("Users", _users(reader)),
        Section("Training", _training(reader)),
        Section("Calibration", _calibration(run, fits)),
        Section("Data", [filter_table(reader.prepared), split_table(reader.prepared)]),
        Section("Cost", [_cost(run, reader.recipe)]),
    ]
    write_report(run, "MLLM-MSR: what a user wants next", [section for section in sections if section.parts])


def _result(
    reader: CaseReader, run: Run, metrics: Mapping[str, Any], comparisons: Sequence[ModelComparison]
) -> Sequence[Part]:
    recipe, prepared = reader.recipe, reader.prepared
    recommenders = [model for arm in recipe.resolved_arms for model in arm.models]
    parts: list[Part] = [metric_table(metrics, prepared)]
    parts += [f"- {one.sentence}" for one in comparisons]
    caption = "AUC of every model, 95 % intervals; recommenders in blue."
    parts.append(save_figure(draw_auc(metrics, recommenders), run, "auc", caption))
    if comparisons:
        parts.append(comparison_table(comparisons, recipe.seed))
    lists = (candidates for _, candidates in prepared.cases("test"))
    more = full_table(metrics), bounds_of_run(recipe.data.interactions, lists)
    parts += [table for table in more if table is not None]
    return [*parts, chance_table(prepared)]


def _items(reader: CaseReader, run: Run) -> Sequence[Part]:
    if not (counts := item_counts(run)):
        return []
    summaries = {one.item: one.summary for one in item_summaries(run)}
    described = (item for item in reader.prepared.items() if summaries.get(item.id))
    chosen = [
        DescribedItem(item.title, summaries[item.id], item.image) for item in islice(described, EXAMPLE_ITEMS)
    ]
    parts: list[Part] = [f"Described by {reader.recipe.items.vlm}. {fallback_sentence(counts)}"]
    if chosen:
        caption = "The first items of the catalogue: picture, title, and the model's description."
        parts.append(save_figure(draw_items(chosen), run, "items", caption))
        rows = [[one.title, one.description] for one in chosen]
        parts.append(Table(["title", "description of the picture"], rows))
    return parts


def _users(reader: CaseReader) -> Sequence[Part]:
    """The first test users: the items of each block, and the summary after it."""
    parts: list[Part] = []
    seen: set[str] = set()
    for arm in reader.recipe.resolved_arms:
        name = reader.recipe.summaries_of(arm)
        if arm.users.mode == "none" or name in seen:
            continue
        seen.add(name)
        parts += _example_users(reader, arm, name)
    return parts


def _example_users(reader: CaseReader, arm: RecommenderArm, journal: str) -> list[Part]:
    wording = reader.wording(arm)
    parts: list[Part] = []
    for history, candidates in islice(reader.prepared.cases("test"), EXAMPLE_USERS):
        text = [
            f"block {block.block + 1}:\n{wording.list(block.items)}\nsummary: {block.summary}\n"
            for block in user_blocks(reader.run.folder, journal, history.user)
        ]
        text.append(f"chosen next: {wording.line(candidates.target)}")
        caption = f"{arm.name} ({arm.users.mode}): test user {history.user}."
        parts.append(Verbatim("\n".join(text), caption))
    return parts


def _training(reader: CaseReader) -> Sequence[Part]:
    rows = []
    for arm in reader.recipe.resolved_arms:
        stored = read_result(reader.run.folder / "models" / arm.name)
        if stored is None:
            continue
        result, part = stored[0], max(1, len(stored[0].losses) // 10)
        first, last = (sum(losses) / len(losses) for losses in (result.losses[:part], result.losses[-part:]))
        rows.append(
            [
                arm.name,
                reader.train_users(arm),
                result.rows,
                result.dropped_rows,
                result.steps,
                first,
                last,
                result.trainable_parameters,
            ]
        )
    columns = ["arm", "users", "examples", "too long", "steps", "first loss", "last loss", "weights trained"]
    caption = "Loss of the answer in nats per token, mean of the first and the last tenth of the steps."
    return [Table(columns, rows, caption)] if rows else []


def _calibration(run: Run, fits: Mapping[str, Calibration]) -> Sequence[Part]:
    if not fits:
        return []
    caption = "Share that was chosen against the probability of yes."
    rows = [
        [name, fit.base_rate, fit.ece, fit.brier, float(read_scores(run, name)[1].mean())]
        for name, fit in fits.items()
    ]
    columns = ["model", "share chosen", "calibration error", "Brier score", "mass on yes or no"]
    note = (
        "Expected calibration error over 10 bins; the mass is the probability that the model's next token is "
        "a spelling of yes or no. A model that was trained on as many positives as negatives predicts yes "
        "too often on lists with one true item; this does not change the ranking."
    )
    figure = save_figure(draw_calibration(fits), run, "calibration", caption)
    return [figure, Table(columns, rows, note)]


def _cost(run: Run, recipe: MsrRecipe) -> Table:
    seconds = seconds_by_phase(run, recipe)
    rows = [[phase.replace("-", " "), value] for phase, value in seconds.items()]
    caption = f"{sum(seconds.values()) / 60:.1f} minutes, without loading models."
    return Table(["phase", "seconds"], rows, caption)


def seconds_by_phase(run: Run, recipe: MsrRecipe) -> dict[str, float]:
    """Seconds of every phase without loading models; work that was lost to a kill is not counted."""
    seconds = timing.seconds_by_phase(run)
    for arm in recipe.resolved_arms:
        if (stored := read_result(run.folder / "models" / arm.name)) is not None:
            seconds[f"train-{arm.name}"] = stored[0].seconds
    return {phase: round(value, 1) for phase, value in seconds.items()}
