"""The protocol reach_curve: a k-epsilon curve, one part of its states per shard.

A row is a pair of a state and a target: `problem` is the state, `sample` the index of the target among the
state's targets, `text` the control that was found, `answer` its length k, `tokens` the tokens that went
through the model. Pairs of one state resemble one another, so states are the independent units.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmctl.jobs.metrics import stack
from llmctl.jobs.protocols.base import (
    GroupResults,
    JobProtocol,
    PrimaryMetric,
    RunShard,
    ShardCuts,
    WorkerContext,
    even_bounds,
)
from llmctl.jobs.records import ProblemCount, ResultRow, Shard
from llmctl.jobs.results import read_groups
from llmctl.jobs.sections import ProtocolSpec
from llmctl.jobs.spec import JobRecipe
from llmctl.reach.curves.recipe import CurveRecipe, CurveSettings, ShardSettings
from llmctl.runs import Estimate, Run
from llmctl.runs.files import disk_errors_as_user_errors
from llmctl.runs.stats import rate_of_clusters
from llmctl.sampling import Sampler


class ReachCurve(JobProtocol):
    """A search for controls, which loads the model itself and samples no text."""

    description = "a k-epsilon curve: which outputs controls of at most k tokens force"
    reading = (
        "`epsilon_<k>` is the share of pairs of a state and a target that no control of at most k tokens "
        "forced, and `reached` the share that some control forced. Intervals are of 95 %, clustered by state."
    )
    task_name = "states"
    fields = frozenset({"curve"})
    needs_sampler = False
    engine = "search"
    samples_text = False
    reads_answers = False

    def shards(self, recipe: JobRecipe, name: str, found: ProblemCount | None) -> ShardCuts:
        """One shard per part: `start` is the index of the part."""
        spec = recipe.protocols[name]
        return ShardCuts(even_bounds(spec.shards, 1), states_digest(spec))

    def open(self, context: WorkerContext, name: str) -> RunShard:
        """See `JobProtocol.open`."""
        recipe = context.recipe

        def run(sampler: Sampler | None, shard: Shard) -> Sequence[ResultRow]:
            return search_part(recipe, shard)

        return run

    def metrics(self, results: GroupResults) -> dict[str, Estimate]:
        """`reached`, and `epsilon_<k>` for every k of the curve."""
        correct, pairs = (stack(results.groups, name).sum(0) for name in ("correct", "samples"))
        ks = (results.spec.curve or CurveSettings()).ks
        return {
            "reached": rate_of_clusters(correct, pairs),
            **epsilons(results.path, results.model, results.protocol, ks),
        }

    def primary(self, spec: ProtocolSpec) -> PrimaryMetric:
        """The share of pairs that were reached."""
        return PrimaryMetric("reached", "share")


def curve_recipe(recipe: JobRecipe, shard: Shard) -> CurveRecipe:
    """The recipe of one part of a curve."""
    spec, model = recipe.protocols[shard.protocol], recipe.models[shard.model]
    settings = spec.curve or CurveSettings()
    search = settings.search.model_copy(update={"seed": shard.seed})
    load = settings.load
    if model.dtype != "auto":
        load = load.model_copy(update={"dtype": model.dtype})
    # Only the search: comparing with random controls or other dtypes is the work of `llmctl reach curve`.
    whole = settings.model_copy(update={"search": search, "load": load, "baseline": "none", "recheck": ()})
    return CurveRecipe(
        model=model.model,
        adapter=model.adapter,
        shard=ShardSettings(index=shard.start, of=spec.shards),
        **{name: getattr(whole, name) for name in CurveSettings.model_fields},
    )


def search_part(recipe: JobRecipe, shard: Shard) -> list[ResultRow]:
    """Search the pairs of one part.

    Raises:
        UserError: The model, the states or the targets cannot be used, or the part has no states.
    """
    from llmctl.reach.curves.run import PAIRS, CurveSearcher, read_pairs

    part = curve_recipe(recipe, shard)
    with tempfile.TemporaryDirectory() as folder, Run.open(Path(folder) / "part", part, "eval run") as run:
        CurveSearcher(run, part, quiet=True).run_all()
        return [_row(pair) for pair in read_pairs(run, PAIRS)]


def epsilons(path: Path, model: str, protocol: str, ks: Sequence[int]) -> dict[str, Estimate]:
    """`epsilon_<k>` for each k: the share of pairs that no control of at most k tokens solved.

    Seeds repeat the search on the same pairs. The intervals are clustered by state.
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


def states_digest(spec: ProtocolSpec) -> str:
    """A hash of the file that the states come from, if any; the settings are in the shard's key as they are.

    Raises:
        UserError: The file cannot be read.
    """
    states = (spec.curve or CurveSettings()).states
    path = states.path or states.pairs
    if path is None:
        return ""
    with disk_errors_as_user_errors(f"read {path}"):
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def _row(pair: dict[str, Any]) -> ResultRow:
    state, _, index = pair["id"].partition("/")
    is_reached = pair["k"] is not None
    return ResultRow(
        problem=state,
        sample=int(index),
        turn=1,
        text=pair["control_text"] if is_reached else "",
        reward=float(is_reached),
        tokens=pair["forward_tokens"],
        is_correct=is_reached,
        answer=str(pair["k"]) if is_reached else None,
        error=None,
    )


PROTOCOL = ReachCurve()
