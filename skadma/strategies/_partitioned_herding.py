"""UncertaintyHerding over the partitions of a feature store: RandGreeDi."""

from __future__ import annotations

import math

import numpy as np

from .._utils.lazy_rows import LazyRows, selected
from ..features.store import FeatureStore
from ..features.store.executing import map_partitions
from ..features.store.hashing import partition, priority_sample, smallest
from ._coverage import Coverage, share_distance

_EXAMINED = 2000
"""Images from which the bandwidth is estimated."""


def n_reference_points(n: int, k: int, error: float, risk: float = 0.01) -> int:
    r"""Return how many reference points measure any batch of k to within an error.

    The coverage of a batch, as a share of the pool's uncertainty, is a mean of numbers
    in [0, 1] over reference points drawn by their uncertainties. By Hoeffding's
    inequality and a union over the at most :math:`n^k` batches of a pool of n,

    .. math:: m \ge \frac{k \ln n + \ln(2 / \delta)}{2 \epsilon^2}

    leave no batch further off than `error`, except with the probability `risk`.
    """
    return math.ceil((k * math.log(n) + math.log(2 / risk)) / (2 * error**2))


def herd_over_partitions(
    store: FeatureStore,
    labeled: np.ndarray,
    features: np.ndarray | LazyRows,
    uncertain: np.ndarray,
    n: int,
    n_points: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose n rows greedily from each partition, then n from the union of these.

    All steps maximise the coverage of the same `n_points` reference points. The result
    is the last choice, or the best partition's if that covers more: in expectation at
    least (1 - 1/e) / 2 of the best batch's coverage. Returns the rows and their gains.

    Barbosa, Ene, Nguyen & Ward, The Power of Randomization: Distributed Submodular
    Maximization on Massive Datasets, ICML 2015.
    """
    hashes = store.hashes
    drawn, counts = priority_sample(uncertain, hashes, n_points, seed)
    some = features[smallest(hashes, min(_EXAMINED, len(hashes)), seed + 1)]
    # The bandwidth is an equal share of the rows, so that a sample has the pool's.
    bandwidth_sq = share_distance(some, len(labeled) + n, np.random.default_rng(seed))
    cover = Coverage(features[drawn], counts, bandwidth_sq)
    cover.add(labeled)
    shared = {
        "reference_points": cover.reference_points,
        "weights": cover.weights,
        "covered": cover.covered,
    }
    partitions = partition(hashes, store.partitions, seed + 2)
    found = map_partitions(
        _herd_partition,
        [selected(features, rows) for rows in partitions],
        shared,
        bandwidth_sq,
        n,
        executor=store.executor,
        folder=store.folder,
    )
    union = np.concatenate(
        [rows[chosen] for rows, (chosen, _, _) in zip(partitions, found, strict=True)]
    )
    chosen, gains = cover.greedy(selected(features, union), n)
    best = max(range(len(partitions)), key=lambda i: found[i][2])
    best_chosen, best_gains, best_value = found[best]
    if len(best_chosen) == n and best_value > cover.value:
        return partitions[best][best_chosen], best_gains
    return union[chosen], gains


def _herd_partition(
    rows: np.ndarray | LazyRows,
    shared: dict[str, np.ndarray],
    bandwidth_sq: float,
    n: int,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Choose from a partition; return rows, gains and the coverage reached."""
    cover = Coverage(shared["reference_points"], shared["weights"], bandwidth_sq)
    cover.covered = shared["covered"].copy()
    chosen, gains = cover.greedy(rows, min(n, len(rows)))
    return chosen, gains, cover.value
