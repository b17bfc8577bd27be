"""Before a run: check the inputs, so that no folder is made in vain, and estimate the work."""

from __future__ import annotations

import math
from typing import Any

from llmctl.errors import UserError
from llmctl.models import resolve
from llmctl.models.description import reads_images
from llmctl.msr.data.readers import open_source
from llmctl.msr.recipe import MsrRecipe
from llmctl.msr.recommender.prompt import find_answer_tokens
from llmctl.msr.settings import RecommenderArm
from llmctl.msr.summaries.items import check_reads_images
from llmctl.sampling.open import check_options, choose_engine
from llmctl.sampling.settings import EngineSettings


def check_inputs(recipe: MsrRecipe) -> None:
    """Find mistakes that would otherwise stop a run after hours.

    Raises:
        UserError: A file or a model is missing, an engine does not know one of its options, a model is to
            read pictures but takes none, or no probability of yes and no can be read from a model.
    """
    open_source(recipe.data)
    arms = recipe.resolved_arms
    vlm = recipe.items.vlm
    if vlm is not None and any(arm.reads_descriptions for arm in arms):
        _check_engine(recipe.items.sampler)
        if recipe.items.sampler.engine != "server":
            check_reads_images(vlm)
    for arm in arms:
        if arm.users.mode != "none":
            _check_engine(arm.users.sampler)
            if arm.users.sampler.engine != "server":
                resolve(arm.users.llm)
        _check_recommender(arm)


def estimate_work(recipe: MsrRecipe) -> dict[str, Any]:
    """The work of a run as far as the recipe tells; users and items are known once the data is read."""
    arms = recipe.resolved_arms
    found: dict[str, Any] = {"arms": ", ".join(arm.name for arm in arms)}
    if recipe.items.vlm and any(arm.reads_descriptions for arm in arms):
        found["new tokens per item, at most"] = recipe.items.max_tokens
    for arm in arms:
        unit = f"block of {arm.users.block} items" if arm.users.mode == "recurrent" else "user"
        if arm.users.mode != "none" and recipe.summaries_of(arm) == f"users-{arm.name}":
            found[f"{arm.name}: new tokens per {unit}, at most"] = arm.users.max_tokens
        r = arm.recommender
        if r.train is not None:
            users = "all" if r.train_users is None else f"{r.train_users:,}"
            rows = math.ceil(r.train.epochs) * (1 + r.negatives_per_positive)
            found[f"{arm.name}: training users"] = users
            found[f"{arm.name}: examples per training user"] = rows
    models = [model for arm in arms for model in arm.models]
    found["models evaluated"] = ", ".join(models)
    found["candidates per test user and model"] = recipe.candidates.negatives + 1
    found["test users, at most"] = recipe.split.max_test or "all"
    found["baselines"] = len(recipe.baselines.names)
    return found


def _check_engine(settings: EngineSettings) -> None:
    check_options(choose_engine(settings.engine)[0], settings.options)


def _check_recommender(arm: RecommenderArm) -> None:
    from llmctl.models.loading import load_tokenizer

    r = arm.recommender
    _check_engine(r.sampler)
    if r.sampler.engine == "server":
        raise UserError(
            f"recommender.sampler.engine of arm {arm.name} is server, but a server shows no vocabulary to "
            "read yes and no from: set it to transformers or vllm"
        )
    if r.variant == "image" and not reads_images(r.model):
        raise UserError(
            f"recommender.variant of arm {arm.name} is image, but {r.model} takes no pictures: give a "
            "vision-language model, or set recommender.variant=summary"
        )
    find_answer_tokens(load_tokenizer(r.model), r.model)
