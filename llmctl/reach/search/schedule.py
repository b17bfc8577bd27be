"""How forward passes are spent: the published schedule, llmctl's own, and one method at every length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmctl.reach.search.config import Phase, Schedule
from llmctl.reach.search.methods.registry import METHODS

DEFAULT, PUBLISHED = "default", "published"
_STEPS_PER_TOKEN = 4  # gradient steps of the default schedule at control length k: this times k
_GCG = {"candidates": 16, "top_k": 256, "swaps": 2, "buffer": 4, "patience": 6, "uniform": 1 / 16}


def published(
    ks_greedy: Sequence[int] = (1, 2, 3),
    ks_gcg: Sequence[int] = (4, 6, 8, 10),
    *,
    top_k: int = 128,
    candidates: int = 768,
    steps: int = 34,
    seed: int = 0,
) -> Schedule:
    """The schedule of arXiv 2310.04444: greedy back-generation, then GCG, each phase run to its end.

    It scans tokens in the order of the vocabulary, does not stop inside a phase, draws the candidates of
    GCG at random, and goes on from the last step's control rather than from the best one.
    """
    plain = {"stop_early": False, "ordered": False, "keep_best": False}
    greedy = [Phase("greedy", k, **plain) for k in ks_greedy]  # type: ignore[arg-type]
    gcg = [
        Phase("gcg", k, candidates=candidates, steps=steps, top_k=top_k, **plain)  # type: ignore[arg-type]
        for k in ks_gcg
    ]
    return Schedule(PUBLISHED, (*greedy, *gcg), shorten=False, seed=seed)


def schedule_names() -> tuple[str, ...]:
    """Names that a recipe or an option may give: llmctl's own schedule, the published one, every method."""
    return (DEFAULT, PUBLISHED, *METHODS)


def single(method: str, max_k: int, *, candidates: int = 128, steps: int = 8, seed: int = 0) -> Schedule:
    """One method at every k from 1 up, so that curves of methods can be compared at equal k.

    Args:
        method: A name in `METHODS`; its `sizes` turn candidates and steps into the fields of a phase.
        max_k: The longest control.
        candidates: Controls per step.
        steps: Steps at each k; methods without steps score candidates * steps controls in one pass.
        seed: Seed for everything that the search draws.

    Raises:
        UserError: There is no such method, or it cannot look for controls of max_k tokens.
    """
    sizes: dict[str, Any] = dict(METHODS[method].sizes(candidates, steps))
    phases = [Phase(method, k, **sizes) for k in range(1, max_k + 1)]
    return Schedule(method, tuple(phases), shorten=False, seed=seed)


def default(max_k: int, *, effort: float = 1.0, certify: bool = False, seed: int = 0) -> Schedule:
    """At rising k, copies of the target and then GCG from the best start, sized by k and effort alone.

    A gradient costs about as much as three candidates and renews the order of all of them, so a few
    candidates per gradient are enough. Four steps per control token give k = 1 to 4 the shares .1 to .4 of
    the budget. Neither the base loss nor `max_k` changes what a shorter length gets, so curves up to
    different `max_k` agree where both have a value.

    Args:
        max_k: The longest control.
        effort: Multiplies the number of GCG steps at every k.
        certify: If max_k is 1 and nothing was found, scan all tokens for a certificate.
        seed: Seed for everything that the search draws.
    """
    phases = []
    for k in range(1, max_k + 1):
        steps = max(round(_STEPS_PER_TOKEN * k * effort), 1)
        phases += [Phase("copying", k), Phase("gcg", k, steps=steps, **_GCG)]  # type: ignore[arg-type]
    return Schedule(DEFAULT, tuple(phases), certify=certify, seed=seed)


def matched_random(max_k: int, tokens: int, length: int, *, seed: int = 0) -> Schedule:
    """Random controls for a given number of tokens through the model, spread evenly over k.

    It is the baseline of another search at equal cost.

    Args:
        max_k: The longest control.
        tokens: Forward tokens to spend.
        length: Tokens of the prompt with its target, without a control.
        seed: Seed for the draw.
    """
    counts = {k: tokens // max_k // (length + k) for k in range(1, max_k + 1)}
    phases = [Phase("random", k, candidates=count) for k, count in counts.items() if count]
    return Schedule("random", tuple(phases), shorten=False, seed=seed)
