"""Training, validation and test users."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmctl.errors import UserError
from llmctl.msr.recipe import SplitSettings
from llmctl.sampling.common import derive_seed

SPLITS = ("train", "valid", "test")
LEFT_OUT = -1


def split_users(last_times: NDArray[np.float64], settings: SplitSettings, seed: int) -> NDArray[np.int8]:
    """Assign each user to a split.

    By user: at random, so that models have not been trained on test users. By time: in the order of the
    users' last interactions, so that no training interaction is later than the first item to predict.

    Args:
        last_times: (U,) time of each user's last interaction.
        settings: Shares and limits.
        seed: Seed of the run.

    Returns:
        (U,) indices into `SPLITS`; `LEFT_OUT` where a limit leaves a user out of every split.

    Raises:
        UserError: A split with a share above 0 would have no users.
    """
    total = len(last_times)
    train, valid = round(total * settings.train), round(total * settings.valid)
    sizes = {"train": train, "valid": valid, "test": total - train - valid}
    shares = {"train": settings.train, "valid": settings.valid, "test": 1.0}
    for name, size in sizes.items():
        if size < 1 and shares[name] > 0:
            raise UserError(
                f"{total} users leave none for {name} at split.train={settings.train} and "
                f"split.valid={settings.valid}: loosen filters, or change the shares"
            )
    rng = np.random.default_rng(derive_seed(seed, "split"))
    order = rng.permutation(total) if settings.by == "user" else np.argsort(last_times, kind="stable")
    splits = np.full(total, LEFT_OUT, np.int8)
    start = 0
    for number, name in enumerate(SPLITS):
        users = order[start : start + sizes[name]]
        start += sizes[name]
        limit = {"valid": settings.max_valid, "test": settings.max_test}.get(name)
        if limit is not None and limit < len(users):
            users = rng.choice(users, limit, replace=False)
        splits[users] = number
    return splits
