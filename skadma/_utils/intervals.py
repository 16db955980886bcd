"""Intervals of shares."""

from __future__ import annotations

import math
from statistics import NormalDist  # SciPy's takes a second to import


def wilson_interval(value: float, n: float, confidence: float) -> tuple[float, float]:
    """Return Wilson's score interval of a share.

    `n` is the number of labels in a simple random sample with the same variance, or
    infinite where all labels are known. It is no whole number, which SciPy's
    `binomtest` needs.
    """
    if math.isinf(n):
        return value, value
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = math.sqrt(value * (1 - value) / n + z**2 / (4 * n**2)) / (1 + z**2 / n) * z
    # Exact at the ends, where the sums round.
    low = 0.0 if value == 0 else max(0.0, middle - half)
    return low, 1.0 if value == 1 else min(1.0, middle + half)
