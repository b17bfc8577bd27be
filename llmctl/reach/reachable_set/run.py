"""A reachable set as a command: with a folder it resumes inside the scan and leaves figures and a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from llmctl.models.description import fingerprints
from llmctl.models.loading import load
from llmctl.reach.curves.plan import problem_template
from llmctl.reach.curves.plots import draw_reached
from llmctl.reach.curves.recipe import CurveControlSettings
from llmctl.reach.describe import set_sentence, set_table
from llmctl.reach.parse_inputs import read_state
from llmctl.reach.problem import Problem
from llmctl.reach.reachable_set.explore import Exploration, Growth, ReachableSet, explore
from llmctl.reach.scoring.scan import ScanChunk
from llmctl.reach.scoring.scorer import check_model, vocabulary_of
from llmctl.reach.settings import LoadSettings
from llmctl.reach.vocabulary import decode
from llmctl.runs import Recipe, Run, Section, progress, save_figure, write_report
from llmctl.runs.files import read_json

METRICS = "metrics.json"


class ExplorationSettings(Recipe):
    """How to go beyond one token; see `llmctl.reach.reachable_set.explore.Exploration`."""

    forwards: int = Field(default=4096, ge=0)
    """Controls scored beyond the scan of k = 1."""
    strategy: Literal["push", "pull", "alternate", "random"] = "alternate"
    """Which controls are lengthened."""


class SetRecipe(Recipe):
    """One state, and how far to look."""

    kind: ClassVar[str] = "reach-set"

    model: str = "smollm2-135m"
    """Alias, folder or Hub name."""
    adapter: Path | None = None
    """A PEFT adapter on top."""
    load: LoadSettings = LoadSettings()
    """Device, dtype, quantization."""
    state: str = ""
    """Text; a JSON conversation where the position is "template"."""
    state_ids: tuple[int, ...] | None = None
    """Token ids in place of a text."""
    k: int = Field(default=1, ge=1)
    """The longest control."""
    exploration: ExplorationSettings = ExplorationSettings()
    """Beyond one token."""
    controls: CurveControlSettings = CurveControlSettings()
    """What a control may be."""
    seed: int = Field(default=0, ge=0)
    """Seed for everything that is drawn."""

    @model_validator(mode="after")
    def _has_one_state(self) -> SetRecipe:
        if bool(self.state) == (self.state_ids is not None):
            received = "both given" if self.state else "empty"
            raise ValueError(
                f"--state and --state-ids are {received}, but one is needed: give a text or token ids"
            )
        return self


def find_set(
    recipe: SetRecipe, folder: Path | None, *, fresh: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """The reachable set of a recipe's state.

    Args:
        recipe: Resolved.
        folder: A run's folder to keep it in, and to go on in; None keeps nothing.
        fresh: Start the folder over.
        quiet: No progress.

    Returns:
        `ReachableSet.to_dict` with `state_text` and every witness as text.

    Raises:
        UserError: The state does not fit the model, or nothing is left for a control.
    """
    if folder is None:
        return _find(recipe, None, quiet)
    _problem(recipe)  # a mistake in the state must not leave a folder behind
    with Run.open(folder, recipe, "reach set", fresh) as run:
        if METRICS in run.manifest["made"] and (folder / METRICS).is_file():
            found: dict[str, Any] = read_json(folder / METRICS)
            return found
        run.pin(**fingerprints(recipe.model, recipe.adapter))
        found = _find(recipe, run, quiet)
        figure = save_figure(
            draw_reached(found), run, "reached", "Reached tokens by base rank and k, and how the set grew."
        )
        sections = [Section("Reached", [set_sentence(found), figure, set_table(found, 60)])]
        write_report(run, f"Reachable set of {found['state_text']!r:.60}", sections)
        run.write_metrics(found)
        return found


def _problem(recipe: SetRecipe) -> Any:
    ids = " ".join(map(str, recipe.state_ids or ()))
    return read_state(recipe.state, ids, recipe.controls.position)


def _find(recipe: SetRecipe, run: Run | None, quiet: bool) -> dict[str, Any]:
    loaded = load(recipe.model, adapter=recipe.adapter, **recipe.load.options())
    check_model(loaded.model)
    template = problem_template(recipe.controls, recipe.seed, loaded.tokenizer, vocabulary_of(loaded.model))
    problem: Problem = replace(template, state=_problem(recipe))
    settings = Exploration(
        forwards=recipe.exploration.forwards, strategy=recipe.exploration.strategy, seed=recipe.seed
    )
    book = None if run is None else run.journal("scan")
    done = [ScanChunk.from_dict({k: v for k, v in line.items() if k != "key"}) for line in book or ()]

    def keep(chunk: ScanChunk) -> None:
        if book is not None:
            book.append(str(chunk.start), chunk.to_dict())

    steps = explore(loaded.model, loaded.tokenizer, problem, recipe.k, settings, done=done, keep=keep)
    with progress(None, "set", "controls", quiet=quiet) as bar:
        for step in steps:
            if isinstance(step, Growth):
                bar.advance(step.forwards - bar.done, note=f"{step.reached} tokens reached")
            else:
                return _entry(step, loaded.tokenizer)
    raise RuntimeError("the exploration ended without a set")


def _entry(found: ReachableSet, tokenizer: Any) -> dict[str, Any]:
    entry = found.to_dict()
    for reached in entry["reached"]:
        reached["control_text"] = decode(reached["control_ids"], tokenizer)
    return entry | {"state_text": decode(found.state_ids, tokenizer)}
