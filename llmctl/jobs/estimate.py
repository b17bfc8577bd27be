"""What can be said before a job is started: its mistakes, its size, and how long it may take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llmctl.jobs.plan import count_problems, count_samples, most_tokens, plan_shards
from llmctl.jobs.prices import ShardPrices
from llmctl.jobs.rates import known_rates
from llmctl.jobs.records import ProblemCount
from llmctl.jobs.spec import JobRecipe
from llmctl.runs.progress import format_seconds
from llmctl.sampling.open import check_options, choose_engine


def check_job(recipe: JobRecipe) -> dict[str, ProblemCount]:
    """Find mistakes that would otherwise stop a job after its folder was made.

    Returns:
        Number and hash of the problems of each task, and of each protocol that counts its own.

    Raises:
        UserError: A task, a file, an option of a sampler, or what a protocol reads is wrong.
    """
    for spec in recipe.models.values():
        check_options(choose_engine(spec.engine)[0], spec.sampler_options)
    return count_problems(recipe)


def estimate_job(recipe: JobRecipe, folder: Path) -> dict[str, Any]:
    """The size of a job, and how long it takes at most at measured rates; for `--dry-run`.

    Args:
        recipe: The resolved recipe.
        folder: The job's folder, which may not exist yet.
    """
    counts = check_job(recipe)
    plan = plan_shards(recipe, counts, {})
    rates = known_rates(recipe, folder)
    work: dict[str, Any] = {
        "problems": sum(found.problems for found in counts.values()),
        "shards": len(plan),
        "samples": sum(count_samples(recipe, shard) for shard in plan),
        "new tokens, at most": sum(most_tokens(recipe, shard) for shard in plan),
    }
    if recipe.models.keys() == recipe.prices.keys():
        prices = ShardPrices(recipe)
        work["cost, at most"] = f"{sum(prices.most(shard) for shard in plan):.4g}"
    for model in recipe.models:
        most = sum(most_tokens(recipe, shard) for shard in plan if shard.model == model)
        if model in rates:
            seconds = format_seconds(most / rates[model])
            work[f"time of {model}, at most"] = (
                f"{seconds} of one worker at {rates[model]:.3g} tokens/s as measured"
            )
        else:
            work[f"time of {model}"] = "no measured rate yet"
    return work
