"""CoreSet: k-center greedy."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np

from .._utils.lazy_rows import BLOCK_ROWS, AnyRows, per_row, selected
from ..features.store.executing import run_all
from ..features.store.hashing import partition
from ._distances import squared_norms
from ._pool_features import PoolFeatures
from .base import BatchStrategy

_AHEAD = 32
"""Rows compared again at first."""


class CoreSet(BatchStrategy):
    r"""Choose images far from all that have a label: k-center greedy [1]_.

    Each next image is the one whose nearest labelled or chosen image is farthest,

    .. math:: u = \arg\max_i \min_{j \in s} \|x_i - x_j\|

    (Algorithm 1), which is at most twice the optimum's radius. Where nothing has a
    label the first one is drawn. Each choice costs n d operations.

    Parameters
    ----------
    layer : int or str, default=-2
        The layer of a CNNClassifier whose outputs are the features; rows of other
        classifiers are taken as they are.
    features : {"current", "initial"}, default="current"
        Of which network: the one being adapted, or the pretrained one.
    random_state : int, RandomState instance or None, default=None
        Draws the first image.

    References
    ----------
    .. [1] Sener & Savarese, Active Learning for Convolutional Neural Networks: A
       Core-Set Approach, ICLR 2018.
    """

    needs: ClassVar[str] = "features, of the labelled too"
    cost: ClassVar[str] = "1 pass; (b + labelled) n d"
    memory: ClassVar[str] = "n d"
    multilabel: ClassVar[bool] = True
    _use_proba = False

    def _select(
        self, pool: PoolFeatures, n_instances: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        if pool.store is not None and pool.store.partitions > 1:
            return k_center_over_partitions(pool, n_instances, int(rng.integers(2**31)))
        return k_center_greedy(pool.features, pool.labeled, n_instances, rng)


def k_center_greedy(
    rows: AnyRows, labeled: np.ndarray, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose n rows, each the farthest from those before and from `labeled`.

    Returns the rows' numbers and the distance of each to the nearest of those before
    it. Without labelled rows the first one is drawn, and its distance is inf.

    A row's distance to the nearest chosen row only falls, so its last known distance
    is an upper bound: a row is compared again only if its bound is the largest one.
    """
    chosen = np.empty(n, dtype=np.intp)
    distances = np.empty(n)
    centers = labeled
    if not len(labeled):
        chosen[0], distances[0] = int(rng.integers(len(rows))), np.inf
        centers = rows[chosen[:1]]
    nearest = per_row(rows, lambda block: _nearest(block, centers))
    n_chosen = 0 if len(labeled) else 1
    nearest[chosen[:n_chosen]] = -np.inf
    seen = np.full(len(rows), n_chosen)  # choices that each distance takes into account
    others = rows[:0] if len(labeled) else centers
    for k in range(n_chosen, n):
        n_ahead = _AHEAD
        while seen[i := int(nearest.argmax())] < k:
            n_ahead = min(n_ahead, len(rows))
            ahead = np.argpartition(nearest, len(rows) - n_ahead)[-n_ahead:]
            stale = (seen[ahead] < k) & (nearest[ahead] > -np.inf)
            ahead = np.union1d(ahead[stale], i)  # i may be one of many equals
            now = _nearest(rows[ahead], others[seen[ahead].min() :])
            nearest[ahead] = np.minimum(nearest[ahead], now)
            seen[ahead] = k
            n_ahead = min(2 * n_ahead, BLOCK_ROWS)
        chosen[k], distances[k] = i, np.sqrt(max(nearest[i], 0))
        others = np.concatenate([others, rows[chosen[k : k + 1]]])
        nearest[i] = -np.inf
    return chosen, distances


def _nearest(rows: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Squared distance of each row to the nearest centre, shape (b,), float64."""
    found = np.full(len(rows), np.inf, dtype=rows.dtype)
    for start in range(0, len(centers), 256):
        some = centers[start : start + 256]
        squared = squared_norms(some) - 2 * (rows @ some.T)
        found = np.minimum(found, squared.min(axis=1))
    return found.astype(np.float64) + squared_norms(rows)


def k_center_over_partitions(
    pool: PoolFeatures, n: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose from each partition of a store, then from what they chose.

    The radius is at most 4 times the optimum's. Malkomes, Kusner, Chen, Weinberger &
    Moseley, Fast Distributed k-Center Clustering with Outliers on Massive Data,
    NeurIPS 2015.
    """
    store = pool.store
    assert store is not None
    partitions = partition(store.hashes, store.partitions, seed)
    found = run_all(
        partial(_k_center_of_partition, labeled=pool.labeled, n=n),
        [selected(pool.features, indices) for indices in partitions],
        store.executor,
    )
    union = np.concatenate(
        [indices[chosen] for indices, chosen in zip(partitions, found, strict=True)]
    )
    rng = np.random.default_rng(seed)
    candidates = selected(pool.features, union)[:]
    chosen, distances = k_center_greedy(candidates, pool.labeled, n, rng)
    return union[chosen], distances


def _k_center_of_partition(rows: AnyRows, labeled: np.ndarray, n: int) -> np.ndarray:
    rng = np.random.default_rng(0)  # the order of a partition is random
    return k_center_greedy(rows, labeled, min(n, len(rows)), rng)[0]
