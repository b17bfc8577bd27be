"""What a run needs from outside, looked at before its folder is made."""

from __future__ import annotations

from pathlib import Path

from llmctl.errors import UserError
from llmctl.models import resolve
from llmctl.models.description import check_adapter
from llmctl.rise.phases import Tasks, get_tasks
from llmctl.rise.recipe import RiseRecipe
from llmctl.sampling.open import check_options, choose_engine
from llmctl.training.adapters import ADAPTERS


def check_inputs(recipe: RiseRecipe) -> Tasks:
    """Find mistakes that would otherwise stop a run after its folder was made.

    Returns:
        The tasks of the recipe.

    Raises:
        UserError: The model, an adapter, a file or a task is missing, a split has no problems or a broken
            first row, or an engine does not know one of its options.
    """
    teacher = recipe.collect.teacher
    for engine in (recipe.sampler, *([teacher.sampler] if teacher else [])):
        check_options(choose_engine(engine.engine)[0], engine.options)
    for name, path in _adapters(recipe).items():
        check_adapter(path, name)
    if recipe.adapter is not None and not ADAPTERS[recipe.train.adapter].is_peft:
        raise UserError(
            f"adapter is given and train.adapter is {recipe.train.adapter}, which trains whole weights: "
            "merge the adapter first, or set train.adapter=lora"
        )
    if recipe.sampler.engine == "server" and recipe.iterations > 0:
        raise UserError(
            f"sampler.engine is server and iterations is {recipe.iterations}, but a server cannot load what "
            "an iteration trains: take transformers or vllm, or set iterations=0 to evaluate only"
        )
    if recipe.launch is not None and not recipe.launch.is_file():
        raise UserError(
            f"launch is {recipe.launch}, but there is no such file: give an accelerate configuration"
        )
    tasks = get_tasks(recipe)
    for task, split in (
        (tasks.training, recipe.task.train_split),
        (tasks.test, recipe.task.test_split),
    ):
        if next(iter(task.problems(split, 1)), None) is None:
            raise UserError(f"task {recipe.task.name} gave no {split} problems: check its path and splits")
    if recipe.sampler.engine != "server":
        resolve(recipe.model)
    return tasks


def _adapters(recipe: RiseRecipe) -> dict[str, Path]:
    """The adapters that are folders; a server knows its own by name."""
    found = {"adapter": recipe.adapter}
    teacher = recipe.collect.teacher
    if teacher is not None and teacher.sampler.engine != "server":
        found["collect.teacher.adapter"] = teacher.adapter
    return {name: path for name, path in found.items() if path is not None}
