"""Where the forwards go: the published schedule, and one that asks the base loss."""

from __future__ import annotations

from collections.abc import Sequence

from llmctl.errors import UserError
from llmctl.reach.search.config import Phase, Schedule

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

    It scans tokens in the vocabulary's order, does not stop inside a phase, draws GCG's candidates by
    chance, and goes on from the last step's control rather than the best.
    """
    plain = {"stop_early": False, "ordered": False, "keep_best": False}
    greedy = [Phase("greedy", k, **plain) for k in ks_greedy]  # type: ignore[arg-type]
    gcg = [
        Phase("gcg", k, candidates=candidates, steps=steps, top_k=top_k, **plain)  # type: ignore[arg-type]
        for k in ks_gcg
    ]
    return Schedule("published", (*greedy, *gcg), shorten=False, seed=seed)


def single(method: str, max_k: int, *, candidates: int = 128, steps: int = 8, seed: int = 0) -> Schedule:
    """One method at every k from 1 up, so that curves of methods can be compared at equal k.

    Args:
        method: "greedy", "gcg", "beam" or "random".
        max_k: The longest control.
        candidates: Controls a step.
        steps: Steps at each k for gcg and random; greedy and beam make one pass.
        seed: Of everything drawn.
    """
    if method not in ("greedy", "gcg", "beam", "random"):
        raise UserError(f"method is {method!r}, but it must be one of greedy, gcg, beam, random")
    total = candidates * steps
    sizes = {
        "greedy": {"candidates": total},
        "gcg": {"candidates": candidates, "steps": steps},
        "random": {"candidates": candidates, "steps": steps},
        "beam": {"candidates": max(total // 8, 1), "width": 8},
    }
    phases = [Phase(method, k, **sizes[method]) for k in range(1, max_k + 1)]  # type: ignore[arg-type]
    return Schedule(method, tuple(phases), shorten=False, seed=seed)


def default(
    max_k: int, base_loss: float, *, effort: float = 1.0, certify: bool = False, seed: int = 0
) -> Schedule:
    """GCG with many gradients and few candidates at rising k, sized by the base loss.

    A gradient costs about what three candidates cost and renews the order of all of them, so few
    candidates a gradient are enough. The steps grow steeply with k: a short control mostly works at once
    or not at all. A low base loss mostly needs one token or two, a high one seldom does (rank correlation
    of base loss and k about 0.5 in the published results), so easy targets get more steps at small k and
    fewer at the longest.

    Args:
        max_k: The longest control.
        base_loss: Mean cross-entropy of the target after the state alone, in nats.
        effort: Multiplies the number of steps.
        certify: Where max_k is 1 and nothing was found, scan all tokens for a certificate.
        seed: Of everything drawn.
    """
    hardness = min(max((base_loss - _EASY) / (_HARD - _EASY), 0.0), 1.0)
    phases = []
    for k in range(1, max_k + 1):
        weight = 0.6 + 0.4 * hardness if k == max_k else 2.0 - hardness
        steps = max(2.0, _STEPS * (k / max_k) ** 4) * weight * effort
        candidates = 16 if k == 1 else 12
        phases.append(Phase("gcg", k, candidates=candidates, steps=max(round(steps), 1), top_k=64))
    return Schedule("default", tuple(phases), certify=certify, seed=seed)


def matched_random(max_k: int, tokens: int, length: int, *, seed: int = 0) -> Schedule:
    """Random controls for a given number of tokens through the model, spread evenly over k.

    The honest baseline of another search at the same cost.

    Args:
        max_k: The longest control.
        tokens: Forward tokens to spend.
        length: Tokens of a prompt with its target and without a control.
        seed: Of the draw.
    """
    counts = {k: tokens // max_k // (length + k) for k in range(1, max_k + 1)}
    phases = [Phase("random", k, candidates=count) for k, count in counts.items() if count]
    return Schedule("random", tuple(phases), shorten=False, seed=seed)
