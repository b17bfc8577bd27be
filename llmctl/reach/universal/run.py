"""A run of `llmctl reach optimize`: search, baseline, scores, report; journaled work is not done again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from llmctl.errors import UserError
from llmctl.models.description import check_adapter, describe, fingerprints
from llmctl.reach.universal.data import PairData, lay_out_pairs, read_pairs, to_problem
from llmctl.reach.universal.metrics import compute_metrics
from llmctl.reach.universal.recipe import OptimizeRecipe
from llmctl.reach.universal.report import CONTROL, NO_CONTROL, RANDOM, write_optimize_report
from llmctl.reach.universal.result import UniversalStep
from llmctl.runs import Run, progress
from llmctl.runs.timing import record_seconds, timed

if TYPE_CHECKING:
    from torch import Tensor

    from llmctl.reach.universal.search import Universal

RANDOM_CONTROLS = 8  # drawn and averaged, since a single one may be lucky
_STEPS_OF_BASELINE = 10  # times the search's steps at most: a step without candidates costs no tokens


def check_inputs(recipe: OptimizeRecipe) -> PairData:
    """Read the pairs and check them against the model, before there is a folder; loads no weights.

    Raises:
        UserError: Model, adapter or data are missing or do not fit each other.
    """
    from llmctl.models.loading import load_tokenizer
    from llmctl.reach.vocabulary import allowed_tokens

    check_adapter(recipe.adapter)
    data = read_pairs(recipe.data)
    about = describe(recipe.model)
    tokenizer = load_tokenizer(recipe.model, trust_remote_code=recipe.load.trust_remote_code)
    size, context = about["vocabulary"], about["context_length"]
    lengths = [len(tokenizer.encode(text, add_special_tokens=False)) for text in recipe.compare]
    if 0 in lengths:
        raise UserError(
            f"compare holds {recipe.compare[lengths.index(0)]!r}, which has no tokens: leave it out"
        )
    longest = recipe.control.model_copy(update={"k": max(recipe.control.k, *lengths, 0)})
    lay_out_pairs([*data.train, *data.held_out], longest, tokenizer, size, context)
    allowed_tokens(to_problem(data.train[0], recipe.control), tokenizer, min(size, len(tokenizer)))
    return data


def estimate_work(recipe: OptimizeRecipe, data: PairData) -> dict[str, Any]:
    """An upper bound on the work of a run; for `--dry-run`."""
    s, k = recipe.search, recipe.control.k
    steps = s.steps + (0 if s.method == "random" else s.warm_steps * (k - 1))
    batch = min(s.minibatch, len(data.train))
    judges = len(data.train) if s.judge is None else min(s.judge, len(data.train))
    gradients = batch if s.method == "gcg" else 0
    per_step = batch * s.candidates + judges * s.finalists + gradients
    controls = 2 + RANDOM_CONTROLS + len(recipe.compare) + (recipe.baseline is not None) + k + 1
    return {
        "training pairs": len(data.train),
        "held-out pairs": len(data.held_out),
        "rows left out, their question came before": data.repeats,
        "steps": steps,
        "sequences scored by the search, at most": steps * per_step,
        "gradients (a forward and a backward pass each)": steps * gradients,
        "tokens of the baseline": "none" if recipe.baseline is None else "as many as the search",
        "sequences scored at the end": controls * (len(data.train) + len(data.held_out)),
    }


def run_optimize(run: Run, recipe: OptimizeRecipe, data: PairData, *, quiet: bool = False) -> dict[str, Any]:
    """Do what is missing of a run; metrics and report are in its folder afterwards.

    Args:
        run: Open, with this recipe.
        recipe: Resolved.
        data: As `check_inputs` gave it.
        quiet: No progress.

    Returns:
        What `metrics.json` holds.

    Raises:
        UserError: Model or data changed since the run was started, or no control was found.
    """
    from llmctl.models.loading import load
    from llmctl.reach.universal.search import Universal

    run.pin(**fingerprints(recipe.model, recipe.adapter), data_fingerprint=data.fingerprint())
    loaded = load(recipe.model, adapter=recipe.adapter, **recipe.load.options())
    run.note(device=str(loaded.device), dtype=str(loaded.dtype).removeprefix("torch."))
    search = Universal(loaded.model, loaded.tokenizer, data.train, recipe)
    paths: dict[str, list[UniversalStep]] = {}
    paths[recipe.search.method] = _search(run, search, recipe.search.method, None, quiet)
    last = paths[recipe.search.method][-1]
    search.found(last)  # raises before a baseline is searched for in vain
    if recipe.baseline is not None:
        paths[recipe.baseline] = _search(run, search, recipe.baseline, last, quiet)
    found = _evaluate(run, recipe, search, data, paths, quiet)
    metrics = compute_metrics(run, recipe, data, paths, found)
    run.write_metrics(metrics)
    write_optimize_report(run, recipe, metrics, paths)
    return metrics


def _search(
    run: Run, search: Universal, method: str, limit: UniversalStep | None, quiet: bool
) -> list[UniversalStep]:
    """All steps of one method, those of earlier starts included; `limit` is the search to equal in tokens."""
    book = run.journal(f"search-{method}")
    path = [UniversalStep.from_dict(_record(line)) for line in book]
    settings = search.settings
    warm = 0 if method == "random" else settings.search.warm_steps * (settings.control.k - 1)
    total = settings.search.steps + warm if limit is None else None
    budget = None if limit is None else limit.tokens
    most = None if limit is None else _STEPS_OF_BASELINE * limit.step
    with progress(total, f"search {method}", "steps", done=len(path), quiet=quiet) as bar:
        began = time.perf_counter()
        for step in search.steps(method, path[-1] if path else None, budget, most):
            key = f"step-{step.step}"
            book.append(key, step.to_dict())
            record_seconds(run, f"search-{method}/{key}", began)
            began = time.perf_counter()
            path.append(step)
            bar.advance(note="no loss yet" if step.loss is None else f"k {step.k}, loss {step.loss:.3f}")
    return path


def _evaluate(
    run: Run,
    recipe: OptimizeRecipe,
    search: Universal,
    data: PairData,
    paths: Mapping[str, Sequence[UniversalStep]],
    quiet: bool,
) -> dict[str, Any]:
    """Everything that is scored at the end, by "<what>/<split>"; the only look at the held-out pairs."""
    from llmctl.reach.universal import score

    control = search.found(paths[recipe.search.method][-1])
    sides = {"train": search.layouts, "held_out": search.lay_out(data.held_out)}
    units: dict[str, Callable[[], Any]] = {"tokens": partial(_texts, search, control.tolist())}
    for split, layouts in sides.items():
        if not layouts:
            continue
        for name, controls in _controls(recipe, search, control, paths).items():
            units[f"{name}/{split}"] = partial(score.score_pairs, search.model, layouts, controls)
        units[f"without each/{split}"] = partial(score.score_without_each, search.model, layouts, control)
        units[f"as text/{split}"] = partial(
            score.match_as_text, search.model, search.tokenizer, layouts, control.tolist()
        )
    book = run.journal("evaluate")
    with progress(len(units), "evaluate", "scores", done=len(book), quiet=quiet) as bar:
        for key, unit in units.items():
            if key in book:
                continue
            with timed(run, f"evaluate/{key}"):
                book.append(key, {"found": unit()})
            bar.advance()
    return {line["key"]: line["found"] for line in book}


def _controls(
    recipe: OptimizeRecipe,
    search: Universal,
    control: Tensor,
    paths: Mapping[str, Sequence[UniversalStep]],
) -> dict[str, Tensor]:
    """(N, K) controls by name; of several the mean counts."""
    import torch

    from llmctl.reach.universal import candidates as proposals
    from llmctl.sampling.common import derive_seed

    generator = torch.Generator().manual_seed(derive_seed(recipe.seed, "random controls"))
    named = {
        NO_CONTROL: control[None, :0],
        RANDOM: proposals.whole(search.tokens, len(control), RANDOM_CONTROLS, generator),
    }
    for text in recipe.compare:
        ids = search.tokenizer.encode(text, add_special_tokens=False)
        named[f"by hand: {text!r}"] = torch.tensor([ids])
    if recipe.baseline is not None and paths[recipe.baseline][-1].loss is not None:
        named[f"search {recipe.baseline}"] = search.found(paths[recipe.baseline][-1])[None]
    return {**named, CONTROL: control[None]}


def _texts(search: Universal, ids: list[int]) -> dict[str, Any]:
    """The control as text, whole and token by token."""
    from llmctl.reach.vocabulary import decode

    return {"whole": decode(ids, search.tokenizer), "each": [decode([i], search.tokenizer) for i in ids]}


def _record(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name != "key"}
