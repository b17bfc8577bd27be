"""Calibration: how well predicted probabilities of yes agree with outcomes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class CalibrationBin:
    """The predictions in one interval of probability."""

    low: float  # lower end of the interval
    high: float  # upper end, which belongs to the last interval only
    count: int  # number of predictions
    probability: float | None  # mean prediction; None where there are none
    rate: float | None  # share of the predictions that came true


@dataclass(frozen=True)
class Calibration:
    """How far predicted probabilities are from outcomes."""

    n: int  # number of predictions
    base_rate: float  # share of the predictions that came true
    ece: float
    """Expected calibration error: distance of probability and rate, averaged over bins by their counts."""
    brier: float
    """Mean squared distance of probability and outcome."""
    bins: tuple[CalibrationBin, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def calibrate(probabilities: ArrayLike, labels: ArrayLike, bins: int = 10) -> Calibration:
    """Compare predicted probabilities with outcomes, in bins of equal width.

    Naeini, Cooper, Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (AAAI 2015)
    for the ECE; Brier, "Verification of forecasts expressed in terms of probability" (1950). A model that
    was trained on one negative per positive expects a base rate of one half: on lists of 1 positive and 20
    negatives its probabilities are too high, which this shows.

    Args:
        probabilities: Of any shape, each between 0 and 1.
        labels: Of the same shape, 1 where the item was chosen, else 0.
        bins: The number of bins.

    Raises:
        ValueError: There are no predictions, the shapes differ, or a value is outside its range.
    """
    p, y = np.asarray(probabilities, float), np.asarray(labels)
    if p.shape != y.shape or not p.size:
        raise ValueError(
            f"probabilities of shape {p.shape} and labels of shape {y.shape}: give one label each"
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
        CalibrationBin(float(lo), float(hi), int(n), float(s / n) if n else None, float(t / n) if n else None)
        for lo, hi, n, s, t in zip(edges[:-1], edges[1:], counts, sums, trues, strict=True)
    )
    return Calibration(
        n=len(p),
        base_rate=float(y.mean()),
        ece=float(np.abs(sums - trues).sum() / len(p)),
        brier=float(((p - y) ** 2).mean()),
        bins=found,
    )
