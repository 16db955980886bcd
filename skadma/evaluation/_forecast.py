"""Forecast a probe's accuracy from its own probabilities, now and with more labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, logit

GROWTH, SPREAD = 1.02, (0.0677, 0.0769)
"""From ``benchmarks/bench_finish.py``: how much the logit of the accuracy grows with
the logarithm of the number of labels, and parts of the squared width of its interval.
"""
LEAST = 30
"""With 20 labels the interval had the truth half of the time only."""


class Forecast(NamedTuple):
    """An accuracy with its 80 % interval.

    Attributes
    ----------
    n_more : int
        How many labels more.
    value : float
    low, high : float
        In hundredths, rounded outwards.
    """

    n_more: int
    value: float
    low: float
    high: float


def forecast_accuracy(
    proba: ArrayLike, n_labels: int, ahead: Sequence[int] = (0, 20, 50, 100)
) -> list[Forecast]:
    """Forecast how many of the unlabelled images a linear probe has right.

    Nobody has to label anything for it, other than for :func:`estimate`, which measures
    the accuracy; so the intervals are wide. The probe's probabilities are set by
    scores of labelled images that were left out, and their mean over images without
    labels is near the accuracy. How near, and how the accuracy grows with more labels,
    was measured on 14 data sets: see docs/evaluation.md.
    :meth:`skadma.Campaign.quality` has the same mean with another interval, of 95 %.

    Parameters
    ----------
    proba : array-like of shape (n, n_classes)
        Of images that have no label, by a :class:`skadma.ProbeClassifier` or a
        CNNClassifier with ``training="probe"``.
    n_labels : int
        How many labels the probe was fitted to, at least 30.
    ahead : sequence of int, default=(0, 20, 50, 100)
        How many labels more.

    Returns
    -------
    list of Forecast

    Examples
    --------
    >>> import numpy as np
    >>> from skadma.evaluation import forecast_accuracy
    >>> now, later = forecast_accuracy(np.full((50, 2), [0.8, 0.2]), 40, (0, 100))
    >>> bool(now.low < 0.8 < now.high and later.value > now.value)
    True
    """
    proba = np.asarray(proba)
    if proba.ndim != 2 or not len(proba):
        raise ValueError(f"proba has the shape {proba.shape}; give a row per image.")
    if n_labels < LEAST:
        raise ValueError(f"A forecast takes {LEAST} labels; there are {n_labels}.")
    mean = np.clip(np.nanmean(proba.max(axis=1)), 0.005, 0.995)
    found = []
    for n_more in ahead:
        growth = np.log1p(n_more / n_labels)
        middle = logit(mean) + GROWTH * growth
        squared = np.dot(SPREAD, (1, growth**2)) / (mean * (1 - mean))
        half = np.sqrt(squared)
        value, low, high = 100 * expit([middle, middle - half, middle + half])
        ends = math.floor(low) / 100, math.ceil(high) / 100
        found.append(Forecast(n_more, value / 100, *ends))
    return found
