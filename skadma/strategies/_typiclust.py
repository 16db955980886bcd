"""TypiClust: typical images first."""

from __future__ import annotations

import warnings
from typing import ClassVar

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.extmath import row_norms

from .._utils.lazy_rows import BLOCK_ROWS, AnyRows, joined, per_row
from ._pool_features import PoolFeatures
from .base import BatchStrategy

_MAX_CLUSTERS = 500
_N_NEIGHBORS = 20
_BATCH = 5000
"""Rows of a mini-batch."""
_STEPS = 100
"""Mini-batches."""


class TypiClust(BatchStrategy):
    r"""Choose the most typical image of each cluster without a label [1]_.

    The labelled and the unlabelled images are put into as many clusters as there will
    be labels, 500 at most. In turn, the largest cluster of those with the fewest labels
    gives its most typical image,

    .. math:: \text{typicality}(x) =
              \Big(\frac{1}{K} \sum_{z \in K\text{-NN}(x)} \|x - z\|\Big)^{-1}

    (Eq. 1). The K = 20 neighbours are of the cluster: all others, where it has fewer.

    Parameters
    ----------
    layer, features, random_state
        See :class:`CoreSet`.

    References
    ----------
    .. [1] Hacohen, Dekel & Weinshall, Active Learning on a Budget: Opposite Strategies
       Suit High and Low Budgets, ICML 2022.
    """

    needs: ClassVar[str] = "features, of the labelled too"
    cost: ClassVar[str] = "1 pass; k-means with labelled + b clusters"
    memory: ClassVar[str] = "n d"
    multilabel: ClassVar[bool] = True
    _use_proba = False

    def __init__(
        self,
        *,
        layer: int | str = -2,
        features: str = "initial",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(layer=layer, features=features, random_state=random_state)

    def _select(
        self, pool: PoolFeatures, n_instances: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        n_labeled = len(pool.labeled)
        every = joined(pool.labeled, pool.features)
        n_clusters = min(n_labeled + n_instances, _MAX_CLUSTERS)
        clusters = cluster(every, n_clusters, rng)
        typical = np.zeros(len(every))
        for label in np.unique(clusters):
            members = np.flatnonzero(clusters == label)
            if len(members) > BLOCK_ROWS:  # so many evenly spaced ones are measured
                some = np.linspace(0, len(members) - 1, BLOCK_ROWS).astype(np.intp)
                members = members[some]
            typical[members] = typicality(every[members], _N_NEIGHBORS)
        # The best of the largest cluster among those with the fewest labels, in turn.
        n_clusters = clusters.max() + 1
        n_labels = np.bincount(clusters[:n_labeled], minlength=n_clusters)
        clusters, typical = clusters[n_labeled:], typical[n_labeled:]
        sizes = np.bincount(clusters, minlength=n_clusters)
        left = sizes.copy()
        chosen = np.empty(n_instances, dtype=np.intp)
        scores = np.empty(n_instances)
        for k in range(n_instances):
            label = next(c for c in np.lexsort((-sizes, n_labels)) if left[c])
            members = np.flatnonzero(clusters == label)
            best = members[typical[members].argmax()]
            chosen[k], scores[k] = best, typical[best]
            typical[best] = -np.inf
            n_labels[label] += 1
            left[label] -= 1
        return chosen, scores


def cluster(features: AnyRows, n_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Put rows into clusters by k-means, of many rows in mini-batches; shape (n,)."""
    n_clusters = min(n_clusters, len(features))
    if n_clusters == len(features):
        return np.arange(len(features))
    seed = int(rng.integers(2**31))
    # Copies of images give fewer clusters than asked for.
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        if len(features) > BLOCK_ROWS:
            return _cluster_by_batches(features, n_clusters, seed)
        # By default some seven candidates are drawn for each centre, which takes longer
        # than all the rest and gives no better clusters here.
        start, _ = kmeans_plusplus(
            features[:].astype(np.float64),
            n_clusters,
            n_local_trials=1,
            random_state=seed,
        )
        model = KMeans(n_clusters, init=start.astype(np.float32), n_init=1)
        return model.fit_predict(features[:].astype(np.float32))


def _cluster_by_batches(features: AnyRows, n_clusters: int, seed: int) -> np.ndarray:
    """Mini-batch k-means: the rows of each batch are drawn, then read."""
    rng = np.random.default_rng(seed)
    n = len(features)
    n_first = min(n, max(3 * _BATCH, 3 * n_clusters))
    first: np.ndarray = features[np.sort(rng.choice(n, n_first, replace=False))]
    start, _ = kmeans_plusplus(
        first.astype(np.float64), n_clusters, n_local_trials=1, random_state=seed
    )
    model = MiniBatchKMeans(
        n_clusters, init=start.astype(np.float32), n_init=1, random_state=seed
    )
    for _ in range(_STEPS):
        drawn = np.sort(rng.integers(n, size=min(n, _BATCH)))
        model.partial_fit(features[drawn].astype(np.float32))
    return per_row(features, lambda rows: model.predict(rows.astype(np.float32)))


def typicality(features: np.ndarray, n_neighbors: int) -> np.ndarray:
    """Reciprocal mean distance to the nearest other rows; 0 for a single row."""
    k = min(n_neighbors, len(features) - 1)
    if k == 0:
        return np.zeros(1)
    if len(features) <= 1000:  # faster than a tree for so few
        norms = row_norms(features, squared=True)
        squared = norms[:, None] + norms - 2 * (features @ features.T)
        np.fill_diagonal(squared, np.inf)
        nearest = np.partition(squared, k - 1, axis=1)[:, :k]
        distances = np.sqrt(np.maximum(nearest, 0))
    else:
        distances, _ = NearestNeighbors(n_neighbors=k).fit(features).kneighbors()
    with np.errstate(divide="ignore"):
        return 1 / distances.mean(axis=1)
