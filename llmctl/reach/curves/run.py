"""A curve as a run: plan the pairs, solve each, check the witnesses elsewhere, write metrics and report.

The unit of work is a pair (with `at_once`, a batch of pairs; inside a shared scan, a chunk of it). What
is in the journal is never done again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llmctl.errors import UserError
from llmctl.models.description import fingerprints
from llmctl.models.loading import load
from llmctl.reach.curves.epsilon import Pair
from llmctl.reach.curves.metrics import curve_metrics
from llmctl.reach.curves.plan import plan_pairs, problem_at, problem_template, search_plan
from llmctl.reach.curves.recheck_run import recheck_curve, recheck_marks
from llmctl.reach.curves.recipe import CurveRecipe
from llmctl.reach.curves.records import CurvePair
from llmctl.reach.curves.report import write_curve_report
from llmctl.reach.curves.states import PlannedState
from llmctl.reach.problem import lay_out
from llmctl.reach.result import Result, Step
from llmctl.reach.scoring.scan import ScanChunk, ScanResult, StateScan
from llmctl.reach.scoring.scorer import vocabulary_of
from llmctl.reach.search.schedule import matched_random
from llmctl.reach.search.solve import solve, solve_state, solve_steps
from llmctl.reach.search.solve_many import solve_as_completed
from llmctl.reach.vocabulary import decode
from llmctl.runs import Progress, Run, progress
from llmctl.runs.files import to_json
from llmctl.runs.timing import record_seconds, total_seconds

PAIRS, BASELINE, SCANS = "pairs", "baseline", "scans"  # journals
PLAN = "plan.json"  # ids of the pairs, in order


def run_curve(run: Run, recipe: CurveRecipe, *, quiet: bool = False) -> dict[str, Any]:
    """Do what is missing of a curve; metrics, pairs and report are in its folder afterwards.

    Args:
        run: Open, with this recipe.
        recipe: Resolved.
        quiet: Show no progress.

    Returns:
        What `metrics.json` holds.

    Raises:
        UserError: Model, states or targets cannot be used.
    """
    run.pin(**fingerprints(recipe.model, recipe.adapter))
    CurveSearcher(run, recipe, quiet).run_all()
    if recipe.recheck:
        results = [CurvePair.from_dict(record).result for record in read_pairs(run, PAIRS)]
        recheck_curve(run, recipe, results, quiet=quiet)
    return finish_curve(run, recipe)


def finish_curve(run: Run, recipe: CurveRecipe) -> dict[str, Any]:
    """Write `pairs.jsonl`, `metrics.json` and the report from the journals."""
    marks = recheck_marks(run) if recipe.recheck else {}
    records = [
        {**record, "rechecks": marks[record["id"]]} if record["id"] in marks else record
        for record in read_pairs(run, PAIRS)
    ]
    run.write_text("pairs.jsonl", "".join(f"{to_json(record)}\n" for record in records))
    pairs = [CurvePair.from_dict(record) for record in records]
    random = read_pairs(run, BASELINE) if recipe.baseline == "random" else []
    baseline = [Pair.from_result(record) for record in random]
    metrics = curve_metrics(recipe, pairs, baseline, total_seconds(run))
    run.write_metrics(metrics)
    write_curve_report(run, recipe, metrics, pairs)
    return metrics


def read_pairs(run: Run, name: str) -> list[dict[str, Any]]:
    """The records of a journal of pairs, in the order of the plan."""
    found = [without_key(line) for line in run.journal(name)]
    return sorted(found, key=lambda pair: tuple(map(int, pair["id"].split("/"))))


def without_key(line: Mapping[str, Any]) -> dict[str, Any]:
    """The record that a line of a journal holds under its key."""
    return {name: value for name, value in line.items() if name != "key"}


class CurveSearcher:
    """Searches the pairs of one run."""

    def __init__(self, run: Run, recipe: CurveRecipe, quiet: bool) -> None:
        """Load the model and plan the pairs; see `run_curve`."""
        self.run, self.recipe, self.quiet = run, recipe, quiet
        loaded = load(recipe.model, adapter=recipe.adapter, **recipe.load.options())
        run.note(device=str(loaded.device), dtype=str(loaded.dtype).removeprefix("torch."))
        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        self.template = problem_template(
            recipe.controls, recipe.search.seed, self.tokenizer, vocabulary_of(self.model)
        )
        self.plan = plan_pairs(recipe, self.model, self.tokenizer, self.template)
        if not self.plan:
            raise UserError(
                f"shard {recipe.shard.index} of {recipe.shard.of} has no states: use fewer shards"
            )
        run.write_json(PLAN, [name for state in self.plan for name in state.pair_ids])
        self.pairs = run.journal(PAIRS)
        self.baseline = run.journal(BASELINE)
        self.solved = 0
        self.spent: dict[str, int] = {}  # tokens through the model by pair, backward passes twice

    def run_all(self) -> None:
        """Search every pair that is not in the journal yet."""
        total = sum(len(state.targets) for state in self.plan)
        for pair in self.pairs:
            self._count(pair)
        done = len(self.baseline if self.recipe.baseline == "random" else self.pairs)
        with progress(total, "curve", "pairs", done=done, quiet=self.quiet) as bar:
            for group in self._groups():
                self._search(group, bar)

    def _groups(self) -> Iterator[list[tuple[PlannedState, int]]]:
        """Pairs that are searched together: those of a state, or so many that `at_once` stay busy."""
        search = self.recipe.search
        if search.share_scan:
            yield from ([(state, place) for place in range(len(state.targets))] for state in self.plan)
            return
        flat = [(state, place) for state in self.plan for place in range(len(state.targets))]
        size = 1 if search.at_once == 1 else 4 * search.at_once
        for start in range(0, len(flat), size):
            yield flat[start : start + size]

    def _search(self, group: Sequence[tuple[PlannedState, int]], bar: Progress) -> None:
        began = time.perf_counter()
        missing = [(state, place) for state, place in group if state.pair_ids[place] not in self.pairs]
        for result in self._results(missing, bar):
            record = result.to_dict(with_path=self.recipe.keep_paths)
            record["control_tokens"] = [decode([token], self.tokenizer) for token in result.control_ids]
            self.pairs.append(result.id, record)
            self._count(record)
            if self.recipe.baseline == "none":
                bar.advance(1, note=f"{self.solved} reached")
        if self.recipe.baseline == "random":
            self._match(group, bar)
        key = f"{group[0][0].pair_ids[group[0][1]]} x{len(group)}"
        if missing:
            record_seconds(self.run, key, began)

    def _count(self, pair: Mapping[str, Any]) -> None:
        self.solved += pair["k"] is not None
        self.spent[pair["id"]] = pair["forward_tokens"] + 2 * pair["backward_tokens"]

    def _results(self, missing: Sequence[tuple[PlannedState, int]], bar: Progress) -> Iterator[Result]:
        if not missing:
            return
        plan, max_k = search_plan(self.recipe.search), self.recipe.max_k
        if self.recipe.search.share_scan:
            state, start = missing[0]
            scan = self._scan(state, bar)
            targets = [target[0] for target in state.targets]
            template = problem_at(self.template, state.ids, self.tokenizer)
            found = solve_state(
                self.model, self.tokenizer, template, targets, plan, max_k, scan=scan, start=start
            )
            for place, result in enumerate(found, start):
                yield replace(result, id=state.pair_ids[place])
            return
        problems = [
            problem_at(self.template, s.ids, self.tokenizer, s.targets[place], s.pair_ids[place])
            for s, place in missing
        ]
        if len(problems) > 1:
            together = self.recipe.search.at_once
            for _, result in solve_as_completed(
                self.model, self.tokenizer, problems, plan, max_k, together=together
            ):
                yield result
            return
        for problem in problems:
            for event in solve_steps(self.model, self.tokenizer, problem, plan, max_k):
                if isinstance(event, Step):
                    bar.advance(
                        0, note=f"{self.solved} reached; {problem.id} k={event.k} loss {event.loss:.2f}"
                    )
                else:
                    yield event

    def _scan(self, state: PlannedState, bar: Progress) -> ScanResult:
        """The scan of one state, its chunks in a journal of their own."""
        book = self.run.journal(SCANS)
        template = problem_at(self.template, state.ids, self.tokenizer)
        targets = [target[0] for target in state.targets]
        scan = StateScan(self.model, self.tokenizer, template, targets, max_k=self.recipe.max_k)
        mine = f"{state.number}:"
        has_begun = any(key.startswith(mine) for key in book.keys)
        chunks = [
            ScanChunk.from_dict(line) for line in (book if has_begun else ()) if line["key"].startswith(mine)
        ]
        done = sum(len(chunk.emitted) for chunk in chunks)
        for chunk in scan.chunks(done):
            book.append(f"{mine}{chunk.start}", chunk.to_dict())
            chunks.append(chunk)
            done += len(chunk.emitted)
            bar.advance(0, note=f"state {state.number}: {done} controls scanned")
        return scan.finish(chunks)

    def _match(self, group: Sequence[tuple[PlannedState, int]], bar: Progress) -> None:
        """Random controls, for as many tokens as the search of each pair took."""
        for state, place in group:
            name = state.pair_ids[place]
            if name in self.baseline:
                continue
            target, max_k = state.targets[place], self.recipe.max_k
            problem = problem_at(self.template, state.ids, self.tokenizer, target, name)
            length = lay_out(problem, self.tokenizer).length(0)
            plan = matched_random(max_k, self.spent[name], length, seed=self.recipe.search.seed)
            result = solve(self.model, self.tokenizer, problem, plan, max_k)
            self.baseline.append(name, result.to_dict(with_path=False))
            bar.advance(1, note=f"{self.solved} reached")
