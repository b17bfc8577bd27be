"""The same states and targets on several models or adapters: paired differences with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmctl.errors import UserError
from llmctl.reach.curves.compare_recipe import CurveComparisonRecipe
from llmctl.reach.curves.compare_records import CurveComparison, CurveDifference
from llmctl.reach.curves.compare_report import comparison_sentences, comparison_table
from llmctl.reach.curves.epsilon import Pair, epsilon_curve, epsilon_difference
from llmctl.reach.curves.known import curve_of_pairs
from llmctl.reach.curves.plots import draw_curves
from llmctl.reach.curves.preflight import check_settings, estimate_work
from llmctl.reach.curves.recipe import read_curve_recipe
from llmctl.reach.curves.states import parse_line
from llmctl.runs import Estimate, Run, Section, save_figure, write_report
from llmctl.runs.recipe import differences, recipe_content
from llmctl.runs.stats import clustered_mean

_FREE = ("model", "adapter", "beside", "states", "shard", "recheck", "keep_paths", "baseline", "load")


def check_comparison(recipe: CurveComparisonRecipe) -> None:
    """Find mistakes before a folder is made.

    Raises:
        UserError: A model, an adapter or a file is missing.
    """
    for arm in recipe.arms.values():
        check_settings(recipe, arm.model, arm.adapter)


def estimate_comparison(recipe: CurveComparisonRecipe) -> dict[str, Any]:
    """For `--dry-run`."""
    return {"models": len(recipe.arms), **estimate_work(recipe)}


def run_comparison(run: Run, recipe: CurveComparisonRecipe, *, quiet: bool = False) -> CurveComparison:
    """Run the curve of every arm, each in a folder of its own, and compare them with the first.

    Returns:
        As `compare_runs`; also in `metrics.json`.
    """
    from llmctl.reach.curves.run import run_curve

    folders: list[Path] = []
    for name in recipe.arms:
        folder = run.path(f"arms/{name}")
        curve = recipe.curve(name, folders[0] / "pairs.jsonl" if folders else None)
        with Run.open(folder, curve, "reach compare") as inner:
            run_curve(inner, curve, quiet=quiet)
        folders.append(folder)
    found = compare_runs(folders)
    run.write_metrics(found.to_dict())
    curves = [curve_of_pairs(folder.name, read_pair_file(folder)[0]) for folder in folders]
    figure = save_figure(draw_curves(curves), run, "epsilon", "Epsilon by control length, 95 % intervals.")
    parts: list[Any] = [figure, comparison_table(found), *comparison_sentences(found)]
    write_report(run, f"Reach: {', '.join(recipe.arms)}", [Section("Comparison", parts)])
    return found


def compare_runs(folders: Sequence[Path]) -> CurveComparison:
    """Every curve against the first, on the pairs that all of them hold.

    Raises:
        UserError: A folder is no finished curve, or the pairs are not the same.
    """
    names = _names(folders)
    recipes = {name: read_curve_recipe(folder) for name, folder in zip(names, folders, strict=True)}
    pairs, texts = {}, {}
    for name, folder in zip(names, folders, strict=True):
        pairs[name], texts[name] = read_pair_file(folder)
    first, *others = names
    for name in others:
        _check_same(first, texts[first], name, texts[name])
    ks = sorted({k for recipe in recipes.values() for k in recipe.ks})
    notes = {
        name: differences(recipe_content(recipes[first]), recipe_content(recipes[name]), _FREE)
        for name in others
    }
    return CurveComparison(
        reference=first,
        pairs=len(pairs[first]),
        states=len({pair.state for pair in pairs[first]}),
        curves={name: _points(found, ks) for name, found in pairs.items()},
        forward_tokens={name: sum(p.forward_tokens for p in found) for name, found in pairs.items()},
        differences={name: _difference(pairs[first], pairs[name], ks) for name in others},
        recipes={name: changed for name, changed in notes.items() if changed},
    )


def _points(pairs: Sequence[Pair], ks: Sequence[int]) -> dict[str, Estimate]:
    return {str(p.at): p.estimate() for p in epsilon_curve(pairs, ks)}


def _names(folders: Sequence[Path]) -> list[str]:
    """Short names, whole paths where two are alike."""
    count = Counter(folder.name for folder in folders)
    names = [folder.name if count[folder.name] == 1 else str(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise UserError(f"{names[0]} is given twice, but a comparison needs different runs")
    return names


def read_pair_file(folder: Path) -> tuple[list[Pair], dict[str, tuple[str, str]]]:
    """The pairs of a finished curve, and the texts of state and target by pair id.

    Raises:
        UserError: The curve is not finished.
    """
    path = folder / "pairs.jsonl"
    if not path.is_file():
        raise UserError(f"{folder} has no pairs.jsonl: finish it with `llmctl reach curve`")
    rows = [
        parse_line(line, f"{path}, line {number}")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    ]
    return (
        [Pair.from_result(row) for row in rows],
        {row["id"]: (row["state_text"], row["target_text"]) for row in rows},
    )


def _check_same(
    first: str, one: Mapping[str, tuple[str, str]], second: str, two: Mapping[str, tuple[str, str]]
) -> None:
    if odd := sorted(one.keys() ^ two.keys()):
        raise UserError(
            f"{first} and {second} differ in {len(odd)} pairs (first: {odd[0]}): compare curves of the same "
            "pairs (states.pairs takes them over from another run)"
        )
    if odd := [key for key in one if one[key] != two[key]]:
        raise UserError(
            f"{first} and {second} have different states or targets in {len(odd)} pairs (first: {odd[0]}, "
            f"{one[odd[0]][1]!r} against {two[odd[0]][1]!r}): set states.pairs to take them over"
        )


def _difference(first: Sequence[Pair], second: Sequence[Pair], ks: Sequence[int]) -> CurveDifference:
    two = {pair.id: pair for pair in second}
    # Clusters are the reference's states: another tokenizer gives the same state other ids.
    matched = [(pair, two[pair.id]) for pair in first]
    longest = max(ks)
    has_states = len({pair.state for pair in first}) > 1
    return CurveDifference(
        epsilon={
            str(k): _without_clusters(epsilon_difference(first, second, k)) if has_states else None
            for k in ks
        },
        gained=sum(_reached(b, longest) and not _reached(a, longest) for a, b in matched),
        lost=sum(_reached(a, longest) and not _reached(b, longest) for a, b in matched),
        k=_length_difference(matched),
    )


def _length_difference(matched: Sequence[tuple[Pair, Pair]]) -> Estimate | None:
    """How many tokens more the second needs where both were reached; None where these share one state."""
    both = [(a, b) for a, b in matched if a.k is not None and b.k is not None]
    states = [a.state for a, _ in both]
    if len(set(states)) < 2:
        return None
    found = clustered_mean([float((b.k or 0) - (a.k or 0)) for a, b in both], states)
    if found.low == found.high:  # no pair differs: an interval without width would claim too much
        return Estimate(found.value, None, None, len(both))
    return _without_clusters(found)


def _without_clusters(found: Estimate) -> Estimate:
    """The number of states stands once in the comparison, and not in each of its estimates."""
    return Estimate(found.value, found.low, found.high, found.n)


def _reached(pair: Pair, k: int) -> bool:
    return pair.k is not None and pair.k <= k
