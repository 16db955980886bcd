"""UncertaintyHerding over parts of a pool: RandGreeDi."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._utils.lazy_rows import LazyRows, selected
from ..features.store import FeatureStore
from ..features.store.hashing import priority_sample, smallest
from ._coverage import Coverage, share_distance
from ._parts import for_parts, parts_of

_EXAMINED = 2000
"""Images of which the width is found."""


def witnesses_for(n: int, k: int, error: float, risk: float = 0.01) -> int:
    r"""How many references measure every possible batch's coverage to within an error.

    The coverage of a batch, as a share of all doubt, is a mean of numbers in [0, 1]
    over references drawn by their doubt. By Hoeffding's inequality and a union over
    the at most :math:`n^k` batches,

    .. math:: m \ge \frac{k \ln n + \ln(2 / \delta)}{2 \epsilon^2}

    leave no batch further off than :math:`\epsilon`, but with probability
    :math:`\delta`.

    Parameters
    ----------
    n : int
        Images of the pool.
    k : int
        Images of a batch.
    error : float
        epsilon, in (0, 1).
    risk : float, default=0.01
        delta.

    Returns
    -------
    int
    """
    return math.ceil((k * math.log(n) + math.log(2 / risk)) / (2 * error**2))


def herd_by_parts(
    store: FeatureStore,
    labeled: np.ndarray,
    features: np.ndarray | LazyRows,
    uncertain: np.ndarray,
    n: int,
    n_witnesses: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose greedily from each part, then from what they chose [1]_.

    All parts, and the choice from their choices, maximise the coverage of the same
    references. The answer is the last choice, or the best part's if that covers more:
    in expectation at least (1 - 1/e) / 2 of the best batch's coverage.

    Parameters
    ----------
    store : FeatureStore
        The pool.
    labeled : ndarray of shape (l, d)
    features : ndarray or LazyRows of shape (m, d)
    uncertain : ndarray of shape (m,)
    n : int
    n_witnesses : int
    seed : int

    Returns
    -------
    chosen : ndarray of int, shape (n,)
    gains : ndarray of shape (n,)

    References
    ----------
    .. [1] Barbosa, Ene, Nguyen & Ward, The Power of Randomization: Distributed
       Submodular Maximization on Massive Datasets, ICML 2015.
    """
    hashes = store.hashes
    drawn, counts = priority_sample(uncertain, hashes, n_witnesses, seed)
    some = features[smallest(hashes, min(_EXAMINED, len(hashes)), seed + 1)]
    # Of a sample, the share is one of the sample.
    width = share_distance(some, len(labeled) + n, np.random.default_rng(seed))
    cover = Coverage(features[drawn], counts, width)
    cover.add(labeled)
    shared = {
        "reference_points": cover.reference_points,
        "weights": cover.weights,
        "covered": cover.covered,
    }
    parts = parts_of(store, seed + 2)
    rows = [selected(features, part) for part in parts]
    found = for_parts(store, _herd_part, rows, shared, (width, n))
    union = np.concatenate(
        [part[chosen] for part, (chosen, _, _) in zip(parts, found, strict=True)]
    )
    chosen, gains = cover.greedy(selected(features, union), n)
    best = max(range(len(parts)), key=lambda i: found[i][2])
    if len(found[best][0]) == n and found[best][2] > cover.value:
        return parts[best][found[best][0]], found[best][1]
    return union[chosen], gains


def _herd_part(
    rows: Any, shared: dict[str, np.ndarray], settings: tuple[float, int]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Choose from a part; also say how much is covered then."""
    width, n = settings
    cover = Coverage(shared["reference_points"], shared["weights"], width)
    cover.covered = shared["covered"].copy()
    chosen, gains = cover.greedy(rows, min(n, len(rows)))
    return chosen, gains, cover.value
