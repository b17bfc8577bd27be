"""What the figures mean, in sentences; the report must not let a vote pass for self-correction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmctl.rise.recipe import RiseRecipe
from llmctl.runs import Estimate


def verdicts(recipe: RiseRecipe, metrics: Mapping[str, Any]) -> list[str]:
    """Sentences for the report: did training help, do turns help, is it more than a vote, what breaks."""
    e = recipe.evaluate
    last = metrics.get("after", metrics["before"])
    said = [_training(metrics)] if "after" in metrics else []
    said += [_origin(iteration, counts) for iteration, counts in metrics["rows"].items()]
    said.append(_turns(last, f"m1@t{e.turns}", f"m{e.parallel}@t1", metrics))
    said.append(_oracle(last, f"p1@t{e.turns}", f"pass@{e.parallel}"))
    said.append(_breakage(last))
    if e.turns != e.parallel:
        said.append(
            f"Mind that {e.turns} turns are compared with {e.parallel} samples: compute is not equal."
        )
    if recipe.evaluation_sampling.temperature == 0:
        said.append(
            "Decoding is greedy, so the parallel samples are one and the same, and their vote adds nothing."
        )
    said += [
        f"The engine failed on {failed} attempts of the evaluation {stage} training; they count as wrong."
        for stage in ("before", "after")
        if (failed := metrics.get(stage, {}).get("errors", 0))
    ]
    if _same_data(recipe):
        said.append("Training and test problems come from the same file: this is no held-out figure.")
    return said


def _training(metrics: Mapping[str, Any]) -> str:
    gain = metrics["gain"]["m1_t1"]
    if _is_above(gain):
        return f"Training raised the accuracy of one sample by {_points(gain)}: its interval excludes zero."
    if _is_below(gain):
        return f"Training lowered the accuracy of one sample: {_points(gain)}."
    return f"Training did not change the accuracy of one sample by more than chance: {_points(gain)}."


def _origin(iteration: str, counts: Mapping[str, int]) -> str:
    """Whose responses the model learned; what is not its own is no self-improvement."""
    rows, own = counts["rows"], counts.get("from self", 0)
    sources = [f"{own} of the model itself"]
    for name in ("teacher", "reference"):
        if (key := f"from {name}") in counts:
            sources.append(f"{counts[key]} of the {name}")
    told = f"Iteration {iteration} was trained on {rows} responses: {', '.join(sources)}."
    if own * 2 < rows:
        told += (
            " So it learned mostly from others, and its gain may be what plain fine-tuning on their "
            "responses gives too: compare with a run of that (collect.turns=1, collect.improve=[reference])."
        )
    return told


def _turns(last: Mapping[str, Any], turns: str, parallel: str, metrics: Mapping[str, Any]) -> str:
    over, matched = last["gain_over_turns"], last["compute_matched_gain"]
    opening = f"A vote over the turns is {_points(over)} against a single sample."
    if _is_above(matched):
        return f"{opening} At equal compute {turns} beats {parallel} by {_points(matched)}: more than voting."
    if _is_below(matched):
        return (
            f"{opening} At equal compute {turns} falls short of {parallel}: {_points(matched)}. A vote of "
            "parallel samples is the better use of the same number of samples."
        )
    if _is_above(over):
        return (
            f"{opening} At equal compute the difference of {turns} and {parallel} is {_points(matched)}, "
            "which may be zero: the gain over turns is no more than what majority voting gives."
        )
    return f"{opening} At equal compute the difference of {turns} and {parallel} is {_points(matched)}."


def _oracle(last: Mapping[str, Any], turns: str, parallel: str) -> str:
    gain = last["oracle_matched_gain"]
    opening = (
        f"With an oracle that stops at the first right answer, {turns} minus {parallel} is {_points(gain)}"
    )
    if _is_above(gain):
        return f"{opening}: feedback is worth more than fresh samples."
    return f"{opening}: feedback is worth {'less' if _is_below(gain) else 'no more'} than fresh samples."


def _breakage(last: Mapping[str, Any]) -> str:
    later = last["turns"][1:]
    if not later:
        return "One turn was played, so nothing can be said of turns."
    fixed, broken = (sum(turn[name] for turn in later) for name in ("wrong_to_right", "right_to_wrong"))
    same = sum(turn["repeats"] for turn in later)
    return (
        f"Across turns, {fixed} wrong answers became right and {broken} right ones became wrong; "
        f"{same} attempts said what an earlier one had said."
    )


def _points(figure: Estimate) -> str:
    if figure.value is None:
        return "(no value)"
    if figure.low is None or figure.high is None:
        return f"{100 * figure.value:+.1f} points (no interval)"
    return f"{100 * figure.value:+.1f} points [{100 * figure.low:+.1f}, {100 * figure.high:+.1f}]"


def _is_above(figure: Estimate) -> bool:
    return figure.low is not None and figure.low > 0


def _is_below(figure: Estimate) -> bool:
    return figure.high is not None and figure.high < 0


def _same_data(recipe: RiseRecipe) -> bool:
    path = recipe.task.path
    return path is not None and path.is_file() and recipe.task.test_path in (None, path)
