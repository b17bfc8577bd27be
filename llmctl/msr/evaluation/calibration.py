"""Whether a probability of yes means what it says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Bin:
    """Predictions of one stretch of probability."""

    low: float  # of the stretch; the last one holds its upper end as well
    high: float
    count: int
    probability: float | None  # their mean; None where there are none
    rate: float | None  # share of them that were true


@dataclass(frozen=True)
class Calibration:
    """How far predicted probabilities are from what came true."""

    n: int  # predictions
    base_rate: float  # share of them that were true
    ece: float
    """Expected calibration error: mean distance of probability and rate over the bins, by their counts."""
    brier: float
    """Mean squared distance of probability and outcome."""
    bins: tuple[Bin, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def calibrate(probabilities: ArrayLike, labels: ArrayLike, bins: int = 10) -> Calibration:
    """Compare probabilities of yes with outcomes, in bins of equal width.

    Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (AAAI 2015)
    for the ECE; Brier, "Verification of forecasts expressed in terms of probability" (1950). A model that
    was tuned on one negative a positive expects a base rate of one half: on lists of 1 and 20 it says yes
    too readily, and this shows it.

    Args:
        probabilities: Any shape, each in 0 .. 1.
        labels: The same shape, 1 where the item was chosen, else 0.
        bins: How many.

    Raises:
        ValueError: There are none, the shapes differ, or a value is outside its range.
    """
    p, y = np.asarray(probabilities, float), np.asarray(labels)
    if p.shape != y.shape or not p.size:
        raise ValueError(
            f"probabilities of shape {p.shape} and labels of shape {y.shape}: one each is needed"
        )
    p, y = p.reshape(-1), y.reshape(-1)
    if not ((p >= 0) & (p <= 1)).all():  # also where it is NaN
        bad = p[~((p >= 0) & (p <= 1))][0]
        raise ValueError(f"a probability is {bad}, but it must lie between 0 and 1")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("labels must be 0 or 1")
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    sums = np.bincount(which, p, bins)
    trues = np.bincount(which, y, bins)
    found = tuple(
        Bin(float(lo), float(hi), int(n), float(s / n) if n else None, float(t / n) if n else None)
        for lo, hi, n, s, t in zip(edges[:-1], edges[1:], counts, sums, trues, strict=True)
    )
    return Calibration(
        n=len(p),
        base_rate=float(y.mean()),
        ece=float(np.abs(sums - trues).sum() / len(p)),
        brier=float(((p - y) ** 2).mean()),
        bins=found,
    )
