"""From the journals of an optimize run to its metrics: scores, gains, the control itself. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmctl.reach.universal.data import PairData
from llmctl.reach.universal.evaluation import Evaluation
from llmctl.reach.universal.recipe import OptimizeRecipe
from llmctl.reach.universal.report import CONTROL
from llmctl.reach.universal.result import PairScores, UniversalStep
from llmctl.runs import Run, bootstrap_mean, paired_bootstrap, wilson
from llmctl.runs.timing import seconds_by_phase


def compute_metrics(
    run: Run,
    recipe: OptimizeRecipe,
    data: PairData,
    paths: Mapping[str, Sequence[UniversalStep]],
    found: Evaluation,
) -> dict[str, Any]:
    """What `metrics.json` holds.

    Args:
        run: Whose journal tells the seconds.
        recipe: Resolved.
        data: How many pairs there are.
        paths: Steps by method.
        found: What was scored at the end.
    """
    scores = found.scores
    return {
        "seed": recipe.seed,
        "control": _control(paths[recipe.search.method][-1], found, list(scores[CONTROL])),
        "data": {"train": len(data.train), "held_out": len(data.held_out), "repeats": data.repeats},
        "scores": {
            name: {split: _estimates(one, recipe.seed) for split, one in by_split.items()}
            for name, by_split in scores.items()
        },
        "gain": {
            name: {split: _gain(scores[CONTROL][split], one, recipe.seed) for split, one in by_split.items()}
            for name, by_split in scores.items()
            if name != CONTROL
        },
        "search": {method: _cost(path[-1]) for method, path in paths.items()},
        "seconds": {phase: round(value, 1) for phase, value in seconds_by_phase(run).items()},
    }


def _control(last: UniversalStep, found: Evaluation, splits: Sequence[str]) -> dict[str, Any]:
    """The control itself: ids and text, whether the two agree, and what each token is worth."""
    checks = {split: found.as_text[split] for split in splits}
    return {
        "ids": list(last.control_ids),
        "text": found.text,
        "k": len(last.control_ids),
        "roundtrips": {split: wilson(sum(one.is_same), len(one.is_same)) for split, one in checks.items()},
        "match_as_text": {
            split: wilson(sum(one.is_match), len(one.is_match)) for split, one in checks.items()
        },
        "tokens": [
            {
                "id": token,
                "text": found.token_texts[place],
                "loss_without": {split: found.loss_without[split][place] for split in splits},
            }
            for place, token in enumerate(last.control_ids)
        ],
    }


def _estimates(scores: PairScores, seed: int) -> dict[str, Any]:
    whole = all(match in (0.0, 1.0) for match in scores.matches)
    match = (
        wilson(int(sum(scores.matches)), len(scores.matches))
        if whole
        else bootstrap_mean(scores.matches, seed=seed)
    )
    return {"loss": bootstrap_mean(scores.losses, seed=seed), "match": match}


def _gain(control: PairScores, other: PairScores, seed: int) -> dict[str, Any]:
    """How much better the control is, pair by pair: positive where it loses less or matches more."""
    return {
        "loss": paired_bootstrap(other.losses, control.losses, seed),
        "match": paired_bootstrap(control.matches, other.matches, seed),
    }


def _cost(step: UniversalStep) -> dict[str, Any]:
    names = ("step", "loss", "matches", "forwards", "forward_tokens", "backward_tokens")
    return {"steps" if name == "step" else name: getattr(step, name) for name in names}
