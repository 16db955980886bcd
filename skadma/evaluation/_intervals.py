"""Intervals of shares: exact ones, and Wilson's on an effective number of labels."""

from __future__ import annotations

import math
from collections.abc import Callable

from scipy.stats import binomtest, hypergeom, norm


def exact_interval(
    n_right: int, n: int, confidence: float, n_population: int | None = None
) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share, from a random sample.

    Its coverage is never below the confidence.

    Parameters
    ----------
    n_right, n : int
        So many of so many.
    confidence : float
    n_population : int or None
        What the sample was drawn from without replacement, where it is about that
        alone: then it is the hypergeometric distribution that is inverted.

    Returns
    -------
    low, high : float
    """
    if n_population is None:
        found = binomtest(n_right, n).proportion_ci(confidence, method="exact")
        return float(found.low), float(found.high)
    tail = (1 - confidence) / 2
    least, most = n_right, n_population - (n - n_right)

    def enough(total: int) -> bool:
        return bool(hypergeom.sf(n_right - 1, n_population, total, n) > tail)

    def not_too_many(total: int) -> bool:
        return bool(hypergeom.cdf(n_right, n_population, total, n) > tail)

    low = _first(enough, least, most)
    high = most - _first(lambda down: not_too_many(most - down), 0, most - least)
    return low / n_population, high / n_population


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Find the least integer of low..high from which on something holds."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def wilson_interval(value: float, n: float, confidence: float) -> tuple[float, float]:
    """Wilson's score interval of a share.

    Parameters
    ----------
    value : float
    n : float
        The number of labels, or the number in a simple random sample that would tell
        as much. Infinite: all are known.
    confidence : float

    Returns
    -------
    low, high : float
    """
    z = norm.ppf((1 + confidence) / 2)
    if math.isinf(n):
        return value, value
    middle = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = math.sqrt(value * (1 - value) / n + z**2 / (4 * n**2)) / (1 + z**2 / n) * z
    return float(max(0.0, middle - half)), float(min(1.0, middle + half))
