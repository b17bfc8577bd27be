"""The same states and targets on several models or adapters: paired differences with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from llmctl.errors import UserError
from llmctl.reach.curves.epsilon import Pair, epsilon_curve
from llmctl.reach.curves.epsilon import compare as paired_difference
from llmctl.reach.curves.known import curve_of_pairs
from llmctl.reach.curves.plots import draw_curves
from llmctl.reach.curves.preflight import check_settings, estimate_work
from llmctl.reach.curves.recipe import CurveRecipe, CurveSettings, StateSettings, read_curve_recipe
from llmctl.reach.curves.states import parse_line
from llmctl.runs import Estimate, Recipe, Run, Section, Table, save_figure, write_report
from llmctl.runs.recipe import differences, recipe_content
from llmctl.runs.stats import clustered_mean

_FREE = ("model", "adapter", "beside", "states", "shard", "recheck", "keep_paths", "baseline", "load")


class ArmSettings(Recipe):
    """One model of a comparison."""

    model: str = "smollm2-135m"
    """Alias, folder or Hub name."""
    adapter: Path | None = None
    """A PEFT adapter on top: LoRA, Sparse-GIN, or what RISE trained."""


class CompareRecipe(CurveSettings):
    """Several models on the pairs of the first."""

    kind: ClassVar[str] = "reach-compare"

    arms: dict[str, ArmSettings] = Field(min_length=2)
    """Models by name. The first is the reference: it draws the targets, and the others take them over."""

    @model_validator(mode="after")
    def _names_are_plain(self) -> CompareRecipe:
        for name in self.arms:
            if not name or not all(letter.isalnum() or letter in "-_" for letter in name):
                raise ValueError(
                    f"arms has the name {name!r}, which becomes a folder: use letters, digits, - and _"
                )
        return self

    def curve(self, name: str, reference: Path | None) -> CurveRecipe:
        """The recipe of one arm; `reference` is pairs.jsonl of the first."""
        shared = {key: getattr(self, key) for key in CurveSettings.model_fields}
        if reference is not None:
            shared["states"] = StateSettings(pairs=reference, count=0)
        arm = self.arms[name]
        return CurveRecipe(model=arm.model, adapter=arm.adapter, **shared)


def check_comparison(recipe: CompareRecipe) -> None:
    """Find mistakes before a folder is made.

    Raises:
        UserError: A model, an adapter or a file is missing.
    """
    for arm in recipe.arms.values():
        check_settings(recipe, arm.model, arm.adapter)


def estimate_comparison(recipe: CompareRecipe) -> dict[str, Any]:
    """For `--dry-run`."""
    return {"models": len(recipe.arms), **estimate_work(recipe)}


def run_comparison(run: Run, recipe: CompareRecipe, *, quiet: bool = False) -> dict[str, Any]:
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
    run.write_metrics(found)
    curves = [curve_of_pairs(folder.name, read_pair_file(folder)[0]) for folder in folders]
    figure = save_figure(draw_curves(curves), run, "epsilon", "Epsilon by control length, 95 % intervals.")
    parts: list[Any] = [figure, comparison_table(found), *comparison_sentences(found)]
    write_report(run, f"Reach: {', '.join(recipe.arms)}", [Section("Comparison", parts)])
    return found


def compare_runs(folders: Sequence[Path]) -> dict[str, Any]:
    """Every curve against the first, on the pairs that all of them hold.

    Returns:
        `reference`, `pairs`, `states`, `curves` (by name: epsilon by k), `differences` (by name: by k an
        `Estimate`, epsilon minus the reference's; `gained`, `lost` pairs at the longest k; `k`, the mean
        difference in k where both reached), and `recipes`: where the searches differ, in words.

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
    return {
        "reference": first,
        "pairs": len(pairs[first]),
        "states": len({pair.state for pair in pairs[first]}),
        "curves": {
            name: {
                str(p.at): Estimate(p.value, p.low, p.high, p.n, p.clusters) for p in epsilon_curve(found, ks)
            }
            for name, found in pairs.items()
        },
        "forward_tokens": {name: sum(p.forward_tokens for p in found) for name, found in pairs.items()},
        "differences": {name: _differences(pairs[first], pairs[name], ks) for name in others},
        "recipes": {name: changed for name, changed in notes.items() if changed},
    }


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
            f"{first} and {second} ask other things in {len(odd)} pairs (first: {odd[0]}, "
            f"{one[odd[0]][1]!r} against {two[odd[0]][1]!r}): set states.pairs to take them over"
        )


def _differences(first: Sequence[Pair], second: Sequence[Pair], ks: Sequence[int]) -> dict[str, Any]:
    two = {pair.id: pair for pair in second}
    # Clusters are the reference's states: another tokenizer gives the same state other ids.
    matched = [(pair, two[pair.id]) for pair in first]
    both = [(a, b) for a, b in matched if a.k is not None and b.k is not None]
    states = [a.state for a, _ in both]
    longest = max(ks)
    return {
        "epsilon": {str(k): _estimate(first, list(second), k) for k in ks},
        "gained": sum(_reached(b, longest) and not _reached(a, longest) for a, b in matched),
        "lost": sum(_reached(a, longest) and not _reached(b, longest) for a, b in matched),
        "k": None
        if len(set(states)) < 2
        else _interval(clustered_mean([float((b.k or 0) - (a.k or 0)) for a, b in both], states), len(both)),
    }


def _reached(pair: Pair, k: int) -> bool:
    return pair.k is not None and pair.k <= k


def _estimate(first: Sequence[Pair], second: Sequence[Pair], k: int) -> Estimate | None:
    """Second minus first; None where one state alone gives no interval."""
    if len({pair.state for pair in first}) < 2:
        return None
    return _interval(paired_difference(first, second, k), len(first))


def _interval(found: Any, n: int) -> Estimate:
    """As an estimate; without spread (no pair differs) the formula's interval has no width, and is none."""
    if found.low == found.high:
        return Estimate(found.value, None, None, n)
    return Estimate(found.value, found.low, found.high, n)


def comparison_table(found: Mapping[str, Any]) -> Table:
    """Epsilon of every model by k, and its difference from the reference."""
    reference = found["reference"]
    columns = ["k", reference]
    for name in found["differences"]:
        columns += [name, f"{name} - {reference}"]
    rows = []
    for k, own in found["curves"][reference].items():
        row: list[Any] = [int(k), _show(own)]
        for name, difference in found["differences"].items():
            row += [_show(found["curves"][name][k]), _show(difference["epsilon"][k], sign=True)]
        rows.append(row)
    return Table(
        columns,
        rows,
        f"Epsilon on {found['pairs']} pairs at {found['states']} states; differences are paired, intervals "
        "clustered by state.",
    )


def comparison_sentences(found: Mapping[str, Any]) -> list[str]:
    """Which way it came out, at the longest k."""
    said = []
    for name, difference in found["differences"].items():
        k, last = list(difference["epsilon"].items())[-1]
        counts = f"{difference['gained']} pairs gained, {difference['lost']} lost"
        if last is None or last.low is None:
            why = "one state alone gives" if last is None else "without any spread the pairs give"
            said.append(f"{name}: {why} no interval ({counts}, of {found['pairs']}, at k <= {k}).")
            continue
        sure = last.low > 0 or last.high < 0
        word = (
            ("harder" if last.value > 0 else "easier")
            if sure
            else "neither harder nor easier, by this sample,"
        )
        said.append(
            f"{name} is {word} to control than {found['reference']}: at k <= {k} epsilon differs by "
            f"{_show(last, sign=True)} ({counts})."
        )
        if difference["k"] is not None:
            said.append(
                f"Where both were reached, {name} needs {_show(difference['k'], sign=True)} tokens more "
                f"(n = {difference['k'].n})."
            )
    for name, changed in found["recipes"].items():
        said.append(f"Mind that {name} was searched otherwise: {', '.join(changed)}.")
    said.append(
        "Forward tokens spent: " + ", ".join(f"{n} {t:,}" for n, t in found["forward_tokens"].items()) + "."
    )
    return said


def _show(figure: Estimate | None, sign: bool = False) -> str | None:
    if figure is None or figure.value is None:
        return None
    form = "+.3f" if sign else ".3f"
    if figure.low is None:
        return f"{figure.value:{form}} (no interval)"
    return f"{figure.value:{form}} [{figure.low:{form}}, {figure.high:{form}}]"
