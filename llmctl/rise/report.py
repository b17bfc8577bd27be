"""The report of a RISE run: what changed, the gain at equal compute, and what went wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmctl.rise.metric_names import ONE_SAMPLE, MetricNames
from llmctl.rise.plots import draw_accuracy, draw_flows
from llmctl.rise.recipe import RiseRecipe
from llmctl.rise.records import Evaluation
from llmctl.rise.verdict import verdicts
from llmctl.runs import Estimate, Run, Section, Table, Verbatim, save_figure, write_report

LABELS = {
    "m1_t1": "m1@t1: one sample",
    "parallel_vote": "m{p}@t1: vote of {p} parallel samples",
    "turn_vote": "m1@t{r}: vote over {r} turns, no oracle",
    "any_sample": "pass@{p}: any of {p} parallel samples",
    "any_turn": "p1@t{r}: any of {r} turns, oracle stop",
    "compute_matched_gain": "m1@t{r} - m{p}@t1, equal compute",
    "oracle_matched_gain": "p1@t{r} - pass@{p}, equal compute",
}
_ROLES = ("parallel_vote", "turn_vote", "any_sample", "any_turn")


def write_rise_report(
    run: Run,
    recipe: RiseRecipe,
    metrics: Mapping[str, Any],
    stages: Mapping[int, Sequence[Evaluation]],
) -> None:
    """Write report.md and report.html, with figures."""
    sections = [Section("Result", [result_table(recipe, metrics), *verdicts(recipe, metrics)])]
    turns = [turn_table(name, metrics[name]["turns"]) for name in ("before", "after") if name in metrics]
    accuracy = save_figure(
        draw_accuracy(metrics, MetricNames(recipe.evaluate.parallel, recipe.evaluate.turns)),
        run,
        "accuracy",
        "Accuracy of each turn alone, with 95 % intervals.",
    )
    flow = save_figure(draw_flows(metrics), run, "flows", "How the answers changed from turn to turn.")
    sections.append(Section("Turn by turn", [accuracy, flow, *turns]))
    if metrics["collection"] and any(metrics["collection"].values()):
        tables = [
            count_table(metrics["collection"], "Attempts and improved responses."),
            count_table(metrics["rows"], "Training rows, by turn, source and reward."),
        ]
        sections.append(Section("Collection and training", tables))
    sections.append(Section("Episodes", episodes(stages)))
    sections.append(Section("Cost", [cost_table(metrics)]))
    write_report(run, f"RISE: {recipe.task.name} with {recipe.model}", sections)


def result_table(recipe: RiseRecipe, metrics: Mapping[str, Any]) -> Table:
    """Before and after, metric by metric."""
    e = recipe.evaluate
    rows = []
    names = MetricNames(e.parallel, e.turns)
    for name, label in LABELS.items():
        if name in _ROLES and getattr(names, name) == ONE_SAMPLE:
            continue  # with one sample or one turn, the first row says it
        row = [label.format(p=e.parallel, r=e.turns), _show(_metric(metrics["before"], names, name))]
        if "after" in metrics:
            row += [
                _show(_metric(metrics["after"], names, name)),
                _show(_metric(metrics["gain"], names, name), sign=True),
            ]
        rows.append(row)
    columns = ["metric", "before", "after", "gain"] if "after" in metrics else ["metric", "value"]
    n = metrics["before"]["m1_t1"].n
    s = recipe.evaluation_sampling
    how = "greedy" if s.temperature == 0 else f"temperature {s.temperature:g}"
    caption = (
        f"{n} test problems, {how}, evaluation seed {e.seed}, run seed {recipe.seed}; 95 % intervals over "
        "problems; gains by paired bootstrap. Equal compute means equal numbers of samples."
    )
    return Table(columns, rows, caption)


def _metric(metrics: Mapping[str, Any], names: MetricNames, name: str) -> Any:
    return names.find(metrics, name) if name in _ROLES else metrics.get(name)


def turn_table(stage: str, turns: Sequence[Mapping[str, Any]]) -> Table:
    """Accuracy and flows of every turn."""
    columns = [
        "turn",
        "accuracy",
        "wrong to right",
        "right to wrong",
        "repeats an earlier response",
        "engine errors",
    ]
    rows = [
        [
            turn["turn"],
            _show(turn["accuracy"]),
            turn.get("wrong_to_right", ""),
            turn.get("right_to_wrong", ""),
            turn["repeats"],
            turn["errors"],
        ]
        for turn in turns
    ]
    return Table(columns, rows, f"{stage.capitalize()}: problems by turn, without an oracle.")


def count_table(found: Mapping[str, Mapping[str, int]], caption: str) -> Table:
    """Counts of each iteration, side by side."""
    names = list(dict.fromkeys(name for counts in found.values() for name in counts))
    rows = [[name, *(counts.get(name, 0) for counts in found.values())] for name in names]
    return Table(["count", *(f"iteration {i}" for i in found)], rows, caption)


def cost_table(metrics: Mapping[str, Any]) -> Table:
    """Seconds and tokens by phase."""
    rows = []
    for phase, tokens in metrics["tokens"].items():
        prompt = tokens.get("prompt_tokens", tokens.get("tokens"))
        new = tokens.get("completion_tokens", tokens.get("label_tokens"))
        failed = tokens.get("errors", tokens.get("dropped_rows"))
        seconds = metrics["seconds"].get(phase)
        rows.append([phase.replace("-", " "), "" if seconds is None else round(seconds), prompt, new, failed])
    columns = ["phase", "seconds", "prompt tokens", "new or label tokens", "failed or dropped"]
    return Table(columns, rows, f"{sum(metrics['seconds'].values()) / 60:.1f} minutes in all, loading aside.")


def episodes(stages: Mapping[int, Sequence[Evaluation]]) -> list[Any]:
    """A repaired episode, a broken one and one that is never right, from the last evaluation."""
    records = stages[max(stages)]
    wanted = {
        "Repaired": lambda t: not t[0] and any(t),
        "Broken": lambda t: t[0] and not t[-1],
        "Never right": lambda t: not any(t),
    }
    found: list[Any] = []
    for title, fits in wanted.items():
        match = next((r for r in records if fits([turn.is_correct for turn in r.turns])), None)
        if match is None:
            found.append(f"{title}: there is no such episode among {len(records)}.")
        else:
            found.append(Verbatim(_transcript(match), f"{title}: problem {match.problem}."))
    return found


def _transcript(record: Evaluation) -> str:
    lines = [f"reference answer: {record.gold}"]
    for number, turn in enumerate(record.turns, 1):
        mark = "right" if turn.is_correct else "wrong"
        text = turn.text if len(turn.text) <= 600 else turn.text[:600] + " ..."
        lines.append(f"turn {number} ({mark}): {text}")
    return "\n".join(lines)


def _show(figure: Estimate | Any, sign: bool = False) -> str:
    if not isinstance(figure, Estimate) or figure.value is None:
        return ""
    form = "+.3f" if sign else ".3f"
    bounds = (
        "" if figure.low is None or figure.high is None else f" [{figure.low:{form}}, {figure.high:{form}}]"
    )
    return f"{figure.value:{form}}{bounds}"
