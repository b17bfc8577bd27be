"""Rewards to example weights: pure maths.

Reward-weighted regression maximizes sum log pi(y | s) exp(r / tau) (Peters and Schaal 2007; RISE,
section 4.2). The paper also centres the reward; per state, so that a right response counts more where
the policy is mostly wrong. Centring on one global mean would only scale all weights alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from llmctl.rise.recipe import Keep


def raw_weight(reward: float, own_rewards: Sequence[float], scheme: str, tau: float) -> float:
    """exp(r / tau), or exp((r - b) / tau) with b the mean reward of the policy's own samples at the state.

    Args:
        reward: r of the response that is trained on.
        own_rewards: Rewards of the policy's samples at the same state; empty means b = 0.
        scheme: "exp" or "advantage".
        tau: Temperature, above 0.
    """
    if scheme == "exp" or not own_rewards:
        return math.exp(reward / tau)
    return math.exp((reward - sum(own_rewards) / len(own_rewards)) / tau)


def is_kept(reward: float, earlier: Sequence[float], keep: Keep) -> bool:
    """Whether a response is trained on.

    Args:
        reward: Reward of the response.
        earlier: Rewards of the attempts before it in the episode; empty at the first turn.
        keep: "all"; "better" (than the turn before); "best" (no earlier turn was better); "success".
    """
    if keep == "success":
        return reward >= 1
    if keep == "all" or not earlier:
        return True
    return reward > earlier[-1] if keep == "better" else reward >= max(earlier)
