"""A run of `llmctl reach optimize`: search, baseline, scores, report; journaled work is not done again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from llmctl.errors import UserError
from llmctl.models.description import check_adapter, describe, fingerprints
from llmctl.reach.universal.data import PairData, lay_out_pairs, read_pairs, to_problem
from llmctl.reach.universal.evaluation import RANDOM_CONTROLS, evaluate
from llmctl.reach.universal.metrics import compute_metrics
from llmctl.reach.universal.recipe import OptimizeRecipe
from llmctl.reach.universal.report import write_optimize_report
from llmctl.reach.universal.result import UniversalStep
from llmctl.runs import Run, progress
from llmctl.runs.timing import record_seconds

if TYPE_CHECKING:
    from llmctl.reach.universal.search import Universal

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
        "rows left out because they repeat a question": data.repeats,
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
        quiet: Show no progress.

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
    search.found(last)  # raises here, before time is spent on a baseline
    if recipe.baseline is not None:
        paths[recipe.baseline] = _search(run, search, recipe.baseline, last, quiet)
    found = evaluate(run, recipe, search, data, paths, quiet=quiet)
    metrics = compute_metrics(run, recipe, data, paths, found)
    run.write_metrics(metrics)
    write_optimize_report(run, recipe, metrics, paths)
    return metrics


def _search(
    run: Run, search: Universal, method: str, limit: UniversalStep | None, quiet: bool
) -> list[UniversalStep]:
    """All steps of one method, those of earlier starts included; `limit` is the search to equal in tokens."""
    book = run.journal(f"search-{method}")
    path = [UniversalStep.from_dict(line) for line in book]
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
