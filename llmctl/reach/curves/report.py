"""The report of a curve: what is reachable, by which method, at what cost, and beside what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmctl.reach.curves.known import KnownCurve, known_curve
from llmctl.reach.curves.plots import draw_difficulty, draw_epsilon, draw_tokens
from llmctl.reach.curves.recipe import CurveRecipe
from llmctl.reach.curves.records import CurvePair
from llmctl.runs import Run, Section, Table, save_figure, write_report

_TARGETS = {
    "next": "true next tokens",
    "top": "the most likely next tokens",
    "vocabulary": "tokens drawn from the vocabulary",
    "ranks": "tokens drawn from equal bands of base rank",
}


def write_curve_report(
    run: Run, recipe: CurveRecipe, metrics: Mapping[str, Any], pairs: Sequence[CurvePair]
) -> None:
    """Write report.md and report.html, with plots."""
    others = [known_curve(source) for source in recipe.beside]
    epsilon = save_figure(
        draw_epsilon(metrics, others),
        run,
        "epsilon",
        "Above: epsilon by control length, 95 % intervals clustered by state. Below: pairs newly reached, by "
        "the method that reached them.",
    )
    tokens = save_figure(draw_tokens(metrics), run, "tokens", "Epsilon by tokens spent per pair.")
    difficulty = save_figure(
        draw_difficulty(pairs), run, "difficulty", "Base rank and base loss of each pair by the k it needed."
    )
    sections = [
        Section("Result", [epsilon, epsilon_table(metrics, others), *sentences(recipe, metrics)]),
        Section("What makes a pair hard", [difficulty, *difficulty_sentences(metrics)]),
        Section("Cost", [tokens, cost_table(metrics)]),
        Section("Witnesses", [witness_table(pairs), frequent_table(metrics), unreached_table(pairs)]),
    ]
    write_report(run, f"Reach: {_TARGETS[recipe.targets.draw]} with {recipe.model}", sections)


def epsilon_table(metrics: Mapping[str, Any], others: Sequence[KnownCurve]) -> Table:
    """Epsilon by k with both intervals, the methods, the random baseline and other curves."""
    baseline = metrics.get("baseline", {}).get("epsilon", {})
    columns = ["k", "epsilon, clustered by state", "Wilson", "newly reached by"]
    columns += ["random, same cost"] if baseline else []
    columns += [curve.name for curve in others]
    rows = []
    for k, point in metrics["epsilon"].items():
        methods = ", ".join(f"{name} {count}" for name, count in point["methods"].items())
        row = [
            int(k),
            f"{point['value']:.3f} [{point['low']:.3f}, {point['high']:.3f}]",
            f"[{point['wilson_low']:.3f}, {point['wilson_high']:.3f}]",
            methods + (" (switch of method)" if point["is_switch"] else ""),
        ]
        row += [_show(baseline.get(k))] if baseline else []
        row += [_value(curve.at(int(k))) for curve in others]
        rows.append(row)
    caption = (
        f"{metrics['pairs']} pairs at {metrics['states']} states, seeds "
        f"{', '.join(f'{name} {seed}' for name, seed in metrics['seeds'].items())}. A search can miss, so "
        "epsilon is an upper bound."
    )
    return Table(columns, rows, caption)


def sentences(recipe: CurveRecipe, metrics: Mapping[str, Any]) -> list[str]:
    """What the curve shows, in sentences."""
    verdicts = metrics["verdicts"]
    said = [
        f"Of {metrics['pairs']} pairs {verdicts.get('reached', 0)} were reached, "
        f"{verdicts.get('unreachable', 0)} are certified unreachable (by exhaustion of one-token controls, "
        f"and nothing stronger), {verdicts.get('unknown', 0)} are unknown at this budget."
    ]
    if baseline := metrics.get("baseline"):
        said.append(_against_random(baseline))
    texts = metrics["roundtrips"]
    if texts["of"]:
        said.append(
            f"{texts['yes']} of {texts['of']} witnesses still work after their prompt was written out as "
            "text and read again"
            + ("; the others hold as token ids only." if texts["yes"] < texts["of"] else ".")
        )
    said += [
        f"Checked again on {place}, {entry['holds']} of {entry['of']} witnesses hold"
        + ("; the others are fragile." if entry["holds"] < entry["of"] else ".")
        for place, entry in metrics["rechecks"].items()
    ]
    if errors := metrics["errors"]:
        said.append(
            f"The model gave NaN or infinite logits on {len(errors)} pairs, which count as not reached: "
            f"{', '.join(error['id'] for error in errors[:10])}."
        )
    if any(point["is_switch"] for point in metrics["epsilon"].values()):
        said.append(
            "Where the table says switch of method, the step of the curve is not the effect of k alone."
        )
    if recipe.beside:
        said.append(
            "Other curves use other states, tokenizers and schedules, so they show what is usual rather "
            "than which model is more controllable. Published intervals treat pairs as independent."
        )
    return said


def _against_random(baseline: Mapping[str, Any]) -> str:
    difference = baseline["search_minus_random"]
    if difference is None:
        return "One state alone gives no interval for the difference from random controls."
    low, high = difference.low, difference.high
    verdict = "may be zero" if low <= 0 <= high else "is not zero by chance"
    return (
        f"At the longest k, epsilon of the search minus epsilon of random controls at the same cost is "
        f"{difference.value:+.3f} [{low:+.3f}, {high:+.3f}] on the same pairs: it {verdict}."
    )


def difficulty_sentences(metrics: Mapping[str, Any]) -> list[str]:
    """Rank correlations, and the length of the state."""
    found = metrics["rank_correlation"]
    said = []
    if found["base_loss_k"] is not None:
        rank = "none" if found["base_rank_k"] is None else f"{found['base_rank_k']:.2f}"
        said.append(
            f"Among the {found['n']} pairs that needed a control and got one, the rank correlation with k is "
            f"{found['base_loss_k']:.2f} for base loss and {rank} for base rank."
        )
    return said


def cost_table(metrics: Mapping[str, Any]) -> Table:
    """Counts, which do not depend on the machine, and seconds, which do."""
    rows = [
        ["controls scored", metrics["forwards"]],
        ["forward tokens", metrics["forward_tokens"]],
        ["backward tokens", metrics["backward_tokens"]],
    ]
    if "baseline" in metrics:
        rows.append(["forward tokens of the random baseline", metrics["baseline"]["forward_tokens"]])
    rows.append(["seconds, without loading", metrics["seconds"]])
    return Table(["what", "amount"], rows)


def witness_table(pairs: Sequence[CurvePair], count: int = 12) -> Table:
    """Reached pairs, the hardest first."""
    reached = (pair.result for pair in pairs if pair.result.k)
    found = sorted(reached, key=lambda result: (-(result.k or 0), -result.base_rank))[:count]
    rows = [
        [
            result.id,
            repr(result.state_text)[-60:],
            repr(result.target_text),
            result.k,
            repr(result.control_text),
            result.method,
            result.base_rank,
            "yes" if result.roundtrips else "ids only",
        ]
        for result in found
    ]
    columns = ["pair", "state", "target", "k", "control", "by", "base rank", "holds as text"]
    return Table(columns, rows, "The hardest pairs that were reached.")


def unreached_table(pairs: Sequence[CurvePair], count: int = 12) -> Table:
    """Pairs without a witness, with the best control found."""
    found = [pair for pair in pairs if pair.result.k is None][:count]
    rows = [
        [
            pair.result.id,
            repr(pair.result.state_text)[-60:],
            repr(pair.result.target_text),
            pair.result.verdict,
            pair.result.base_rank,
            pair.base_loss,
            pair.loss,
        ]
        for pair in found
    ]
    columns = ["pair", "state", "target", "verdict", "base rank", "base loss", "best loss"]
    return Table(columns, rows, "Pairs that were not reached, with the least loss that any control gave.")


def frequent_table(metrics: Mapping[str, Any]) -> Table:
    """The tokens that most witnesses hold."""
    rows = [[repr(entry["text"]), entry["token"], entry["pairs"]] for entry in metrics["frequent_tokens"]]
    return Table(["token", "id", "pairs"], rows, "Most frequent control tokens, each counted once per pair.")


def _show(point: Mapping[str, Any] | None) -> str | None:
    return None if point is None else f"{point['value']:.3f} [{point['low']:.3f}, {point['high']:.3f}]"


def _value(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"
