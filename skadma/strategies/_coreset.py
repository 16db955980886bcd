"""CoreSet: k-center greedy."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np
from sklearn.utils.extmath import row_norms

from .._utils.lazy_rows import AnyRows, per_row, selected
from ._greedy import choose_from_partitions, lazy_greedy
from ._pool_features import PoolFeatures
from .base import BatchStrategy


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
    """
    first, centers = np.empty(0, dtype=np.intp), labeled
    if not len(labeled):
        first = rng.integers(len(rows), size=1)
        centers = rows[first]
    squared = per_row(rows, partial(_nearest, centers=centers))
    squared[first] = -np.inf
    added: list[np.ndarray] = []

    def update(ahead: np.ndarray, since: int) -> np.ndarray:
        now = _nearest(rows[ahead], np.concatenate(added[since:]))
        return np.minimum(squared[ahead], now)

    def add(i: int) -> None:
        added.append(rows[i : i + 1])

    chosen, found = lazy_greedy(squared, n - len(first), update, add, n_ahead=32)
    found = np.concatenate([np.full(len(first), np.inf), found])
    return np.concatenate([first, chosen]), np.sqrt(np.maximum(found, 0))


def _nearest(rows: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Squared distance of each row to the nearest centre, shape (b,), float64."""
    found = np.full(len(rows), np.inf, dtype=rows.dtype)
    for start in range(0, len(centers), 256):
        some = centers[start : start + 256]
        squared = row_norms(some, squared=True) - 2 * (rows @ some.T)
        found = np.minimum(found, squared.min(axis=1))
    return found.astype(np.float64) + row_norms(rows, squared=True)


def k_center_over_partitions(
    pool: PoolFeatures, n: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose from each partition of a store, then from what they chose.

    The radius is at most 4 times the optimum's. Malkomes, Kusner, Chen, Weinberger &
    Moseley, Fast Distributed k-Center Clustering with Outliers on Massive Data,
    NeurIPS 2015.
    """
    assert pool.store is not None
    choose = partial(_k_center_of_partition, labeled=pool.labeled, n=n)
    _, _, union = choose_from_partitions(choose, pool.features, pool.store, seed)
    rng = np.random.default_rng(seed)
    candidates = selected(pool.features, union)[:]
    chosen, distances = k_center_greedy(candidates, pool.labeled, n, rng)
    return union[chosen], distances


def _k_center_of_partition(
    rows: AnyRows, labeled: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)  # the order of a partition is random
    return k_center_greedy(rows, labeled, min(n, len(rows)), rng)
