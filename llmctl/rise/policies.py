"""The policies of a run, one per round of training, and the samplers that run them."""

from __future__ import annotations

from dataclasses import dataclass

from llmctl.errors import UserError
from llmctl.rise.recipe import RiseRecipe
from llmctl.runs import Run
from llmctl.sampling import Sampler, open_sampler


@dataclass(frozen=True)
class Policy:
    """The model at some stage of a run."""

    model: str
    adapter: str | None = None


def base_policy(recipe: RiseRecipe) -> Policy:
    """The base model of the run, with the recipe's adapter where it has one."""
    return Policy(recipe.model, None if recipe.adapter is None else str(recipe.adapter))


def trained_policy(run: Run, recipe: RiseRecipe, iteration: int) -> Policy:
    """The policy after that many rounds of training; 0 is the model that collection starts from.

    Raises:
        UserError: That training has not been done yet.
    """
    if iteration == 0 and recipe.warm_start is None:
        return base_policy(recipe)
    folder = run.folder / "models" / ("warm" if iteration == 0 else str(iteration))
    if not (folder / "train_result.json").is_file():
        raise UserError(f"{folder} is not trained yet: run `llmctl rise train` or `llmctl rise run` first")
    is_adapter = (folder / "adapter_config.json").is_file()
    return Policy(recipe.model, str(folder)) if is_adapter else Policy(str(folder))


class Samplers:
    """The open samplers of a run: one for the current policy, and one for the teacher.

    Args:
        run: Open; the engine is noted in its manifest.
        recipe: Resolved.
    """

    def __init__(self, run: Run, recipe: RiseRecipe) -> None:
        self._run, self._recipe = run, recipe
        self._open: tuple[Policy, Sampler] | None = None
        self._teacher: Sampler | None = None

    def policy(self, policy: Policy) -> Sampler:
        """The sampler of a policy; the samplers that were open before another policy are closed."""
        if self._open is not None and self._open[0] == policy:
            return self._open[1]
        self.close()
        settings = self._recipe.sampler
        found = open_sampler(policy.model, engine=settings.engine, adapter=policy.adapter, **settings.options)
        self._open = (policy, found)
        self._run.note(engine={"name": found.info.engine, **found.info.details})
        return found

    def teacher(self) -> Sampler | None:
        """The teacher's sampler; None where the recipe has no teacher."""
        t = self._recipe.collect.teacher
        if t is not None and self._teacher is None:
            adapter = None if t.adapter is None else str(t.adapter)
            options = t.sampler.options
            self._teacher = open_sampler(t.model, engine=t.sampler.engine, adapter=adapter, **options)
        return self._teacher

    def close(self) -> None:
        """Close both samplers and free their memory."""
        if self._open is not None:
            self._open[1].close()
            self._open = None
        if self._teacher is not None:
            self._teacher.close()
            self._teacher = None
