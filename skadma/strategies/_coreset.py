"""CoreSet: cover the pool."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ._batch import BatchStrategy
from ._pool import Pool

_AHEAD = 32
"""Rows compared with all others at once: reading the features takes the time."""


class CoreSet(BatchStrategy):
    r"""Choose images far from all that have a label: k-center greedy [1]_.

    Each next image is the one whose nearest labelled or chosen image is farthest,

    .. math:: u = \arg\max_i \min_{j \in s} \|x_i - x_j\|

    (Algorithm 1), which is at most twice the optimum's radius. Where nothing has a
    label the first one is drawn. Takes n d operations for an image chosen.

    Parameters
    ----------
    layer : int or str, default=-2
        The layer of a CNNClassifier whose outputs are the features; rows of other
        classifiers are taken as they are.
    features : {"current", "initial"}, default="current"
        Of which network: the one being adapted, or M0.
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
        self, pool: Pool, n_instances: int, rng: np.random.Generator, iteration: float
    ) -> tuple[np.ndarray, np.ndarray]:
        return k_center_greedy(pool.features, pool.labeled, n_instances, rng)


def k_center_greedy(
    features: np.ndarray, labeled: np.ndarray, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose rows, each the farthest from those before and from `labeled`.

    Parameters
    ----------
    features : ndarray of shape (m, d)
    labeled : ndarray of shape (l, d)
    n : int
        At most m.
    rng : Generator
        Draws the first row where l is 0.

    Returns
    -------
    chosen : ndarray of int, shape (n,)
    distances : ndarray of shape (n,)
        Of each to the nearest of those before it, inf for a drawn one.
    """
    norms = np.einsum("ij,ij->i", features, features)
    nearest = np.full(len(features), np.inf)
    for start in range(0, len(labeled), 256):
        some = labeled[start : start + 256]
        squared = np.einsum("ij,ij->i", some, some) - 2 * (features @ some.T)
        nearest = np.minimum(nearest, squared.min(axis=1) + norms)
    known: dict[int, np.ndarray] = {}
    chosen = np.empty(n, dtype=np.intp)
    distances = np.empty(n)
    for k in range(n):
        drawn = k == 0 and not len(labeled)
        i = int(rng.integers(len(features))) if drawn else int(nearest.argmax())
        chosen[k] = i
        distances[k] = np.sqrt(max(nearest[i], 0))
        if i not in known:
            known = _squared_distances(features, norms, i, nearest)
        nearest = np.minimum(nearest, known[i])
        nearest[chosen[: k + 1]] = -np.inf
    return chosen, distances


def _squared_distances(
    features: np.ndarray, norms: np.ndarray, i: int, nearest: np.ndarray
) -> dict[int, np.ndarray]:
    """Distances to row i and, for the price of one, to those that may come next."""
    n_ahead = min(_AHEAD, len(features))
    rows = np.append(np.argpartition(-nearest, n_ahead - 1)[: n_ahead - 1], i)
    products = features[rows] @ features.T
    squared = norms + norms[rows, None] - 2 * products
    return dict(zip(rows.tolist(), squared, strict=True))
