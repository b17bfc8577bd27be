"""What a run needs from outside, looked at before its folder is made."""

from __future__ import annotations

from llmctl.errors import UserError
from llmctl.models import resolve
from llmctl.models.description import reads_images
from llmctl.msr.data.readers import open_source
from llmctl.msr.recipe import MsrRecipe
from llmctl.msr.recommender.prompt import find_answer_tokens
from llmctl.msr.settings import Arm
from llmctl.msr.summaries.items import check_reads_images
from llmctl.sampling.open import check_options, choose_engine
from llmctl.sampling.settings import EngineSettings


def check_inputs(recipe: MsrRecipe) -> None:
    """Find mistakes that would otherwise stop a run after hours.

    Raises:
        UserError: A file or a model is missing, an engine does not know one of its options, a model is shown
            pictures that it can not read, has no words for yes and no, or is of an engine that tells neither.
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


def _check_engine(settings: EngineSettings) -> None:
    check_options(choose_engine(settings.engine)[0], settings.options)


def _check_recommender(arm: Arm) -> None:
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
