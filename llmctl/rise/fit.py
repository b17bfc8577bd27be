"""The training phase of a run, in this process or in processes that accelerate starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmctl.models.quiet import quiet_libraries
from llmctl.rise.policies import Policy
from llmctl.rise.recipe import RiseRecipe
from llmctl.runs import Run, progress
from llmctl.training import TrainResult, TrainSettings

Report = Callable[[int, int, float], None]


def fit(
    run: Run,
    recipe: RiseRecipe,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    settings: TrainSettings,
    start: Policy,
    *,
    quiet: bool = False,
) -> TrainResult:
    """Fine-tune a policy on rows, where that has not been done yet.

    Args:
        run: Open; the result is in its folder `models/NAME`.
        recipe: Its `launch` decides where the training runs.
        name: "warm", or the number of the iteration.
        rows: `messages`, and `weight` where examples are weighted.
        settings: Settings of the trainer.
        start: The policy that training starts from.
        quiet: Whether to leave out the progress bar.
    """
    with quiet_libraries():  # importing TRL and PEFT makes bitsandbytes print
        from llmctl.training import train

    output = run.path(f"models/{name}")
    label = "warm start" if name == "warm" else f"train {name}"
    with progress(None, label, "steps", quiet=quiet) as bar:

        def report(step: int, total: int, loss: float) -> None:
            bar.total = total
            bar.advance(step - bar.done, note=f"loss {loss:.3f}")

        if recipe.launch is None:
            return train(start.model, rows, settings, output, init_adapter=start.adapter, progress=report)
        return _launch(run, recipe, name, rows, settings, start, report)


def _launch(
    run: Run,
    recipe: RiseRecipe,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    settings: TrainSettings,
    start: Policy,
    report: Report,
) -> TrainResult:
    from llmctl.training import launch, write_job

    job = write_job(
        run.path(f"jobs/{name}.json"),
        rows=rows,
        model=start.model,
        settings=settings,
        output=run.path(f"models/{name}"),
        init_adapter=start.adapter,
    )
    return launch(job, recipe.launch, progress=report)
