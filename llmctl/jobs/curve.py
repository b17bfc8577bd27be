"""A part of a k-epsilon curve as a shard of a job, and epsilon at each k from its rows.

A row is a pair of a state and a target: `problem` is the state, `sample` the target's place at it, `text` the
control that was found, `answer` its length k, `tokens` what went through the model. Pairs of one state are
alike, so states are the independent units.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from llmctl.jobs.plan import Shard
from llmctl.jobs.results import Row, read_groups
from llmctl.jobs.spec import JobRecipe
from llmctl.reach.curves.recipe import CurveRecipe, CurveSettings, ShardSettings
from llmctl.runs import Estimate, Run
from llmctl.runs.stats import rate_of_clusters


def curve_recipe(recipe: JobRecipe, shard: Shard) -> CurveRecipe:
    """The recipe of one part of a curve."""
    spec, model = recipe.protocols[shard.protocol], recipe.models[shard.model]
    settings = spec.curve or CurveSettings()
    search = settings.search.model_copy(update={"seed": shard.seed})
    load = settings.load
    if model.dtype != "auto":
        load = load.model_copy(update={"dtype": model.dtype})
    # the search alone: what random controls or other dtypes would say is `llmctl reach curve`'s to tell
    whole = settings.model_copy(update={"search": search, "load": load, "baseline": "none", "recheck": ()})
    return CurveRecipe(
        model=model.model,
        adapter=model.adapter,
        shard=ShardSettings(index=shard.start, of=spec.shards),
        **{name: getattr(whole, name) for name in CurveSettings.model_fields},
    )


def search_part(recipe: JobRecipe, shard: Shard) -> list[Row]:
    """Search the pairs of one part.

    Raises:
        UserError: The model, the states or the targets can not be used, or the part has no states.
    """
    from llmctl.reach.curves.run import PAIRS, CurveSearcher, read_pairs

    part = curve_recipe(recipe, shard)
    with tempfile.TemporaryDirectory() as folder, Run.open(Path(folder) / "part", part, "eval run") as run:
        CurveSearcher(run, part, quiet=True).run_all()
        return [_row(pair) for pair in read_pairs(run, PAIRS)]


def epsilons(path: Path, model: str, protocol: str, ks: list[int]) -> dict[str, Estimate]:
    """Share of pairs that no control of at most k tokens solved, for each k: `epsilon_<k>`.

    Over seeds, which repeat the search on the same pairs; clustered by state.
    """
    found: dict[str, list[float]] = defaultdict(list)  # state -> k of its pairs, infinite where not reached
    for table in read_groups(path, ("model", "protocol", "problem", "answer")):
        if (table["model"][0].as_py(), table["protocol"][0].as_py()) == (model, protocol):
            for state, k in zip(table["problem"].to_pylist(), table["answer"].to_pylist(), strict=True):
                found[state].append(float("inf") if k is None else float(k))
    sizes = [len(values) for values in found.values()]
    return {
        f"epsilon_{k}": rate_of_clusters([sum(v > k for v in values) for values in found.values()], sizes)
        for k in ks
    }


def _row(pair: dict[str, Any]) -> Row:
    state, _, place = pair["id"].partition("/")
    is_reached = pair["k"] is not None
    return (
        state,
        int(place),
        1,
        pair["control_text"] if is_reached else "",
        float(is_reached),
        pair["forward_tokens"],
        is_reached,
        str(pair["k"]) if is_reached else None,
        None,
    )
