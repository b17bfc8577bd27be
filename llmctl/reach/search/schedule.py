"""How forward passes are spent: the published schedule, llmctl's own, and one method at every length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmctl.reach.search.config import Phase, Schedule
from llmctl.reach.search.methods.registry import METHODS

DEFAULT, PUBLISHED = "default", "published"
_EASY, _HARD = 3.0, 9.0  # nats
_STEPS = 40  # gradient steps at the longest control of a hard target


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


def default(
    max_k: int, base_loss: float, *, effort: float = 1.0, certify: bool = False, seed: int = 0
) -> Schedule:
    """GCG with many gradients and few candidates at rising k, sized by the base loss.

    A gradient costs about as much as three candidates and renews the order of all of them, so a few
    candidates per gradient are enough. The number of steps grows steeply with k, because a short control
    usually works at once or not at all. Targets with a low base loss usually need one or two tokens, those
    with a high base loss rarely do (rank correlation of base loss and k about 0.5 in the published
    results). Easy targets therefore get more steps at small k and fewer at the longest.

    Args:
        max_k: The longest control.
        base_loss: Mean cross-entropy of the target after the state alone, in nats.
        effort: Multiplies the number of steps.
        certify: If max_k is 1 and nothing was found, scan all tokens for a certificate.
        seed: Seed for everything that the search draws.
    """
    hardness = min(max((base_loss - _EASY) / (_HARD - _EASY), 0.0), 1.0)
    phases = []
    for k in range(1, max_k + 1):
        weight = 0.6 + 0.4 * hardness if k == max_k else 2.0 - hardness
        steps = max(2.0, _STEPS * (k / max_k) ** 4) * weight * effort
        candidates = 16 if k == 1 else 12
        phases.append(Phase("gcg", k, candidates=candidates, steps=max(round(steps), 1), top_k=64))
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
