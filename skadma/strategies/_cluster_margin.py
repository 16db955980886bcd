"""Cluster-Margin: images of small margin from many clusters."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from sklearn.cluster import AgglomerativeClustering

from ._pool_features import PoolFeatures
from ._uncertainty import row_uncertainty
from .base import BatchStrategy

_CANDIDATES = 10
"""Candidates for each image to choose: the paper's k_m / k_t."""


class ClusterMargin(BatchStrategy):
    """Choose images of small margin, in turn from many clusters [1]_.

    Ten times as many images as to choose, those with the smallest margin between the
    two most probable classes, are put into clusters by average linkage, as many as
    images to choose. From the smallest to the largest, clusters give one image each in
    turn (Algorithm 2). The paper clusters the whole pool once; here it is this
    shortlist, whose distances fit into memory whatever the pool's size.

    Parameters
    ----------
    layer, features, random_state
        See :class:`CoreSet`.

    References
    ----------
    .. [1] Citovsky, DeSalvo, Gentile, Karydas, Rajagopalan, Rostamizadeh & Kumar,
       Batch Active Learning at Scale, NeurIPS 2021.
    """

    needs: ClassVar[str] = "probabilities, features"
    cost: ClassVar[str] = "1 pass; (10 b)^2 d"
    memory: ClassVar[str] = "n (C + d)"

    _use_labeled = False

    def _select(
        self, pool: PoolFeatures, n_instances: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        score = np.zeros(len(pool.features))
        if pool.proba is not None:
            score = row_uncertainty(pool.proba, "margin")
        ties = rng.permutation(len(score))
        short = np.lexsort((ties, -score))[: _CANDIDATES * n_instances]
        clusters = np.arange(len(short))
        if len(short) > 2:
            n_clusters = min(n_instances, len(short))
            clusters = AgglomerativeClustering(
                n_clusters, linkage="average"
            ).fit_predict(pool.features[short])
        # The shortlist is ordered by margin, and so is each cluster.
        rank = np.empty(len(short), dtype=np.intp)
        for label in range(clusters.max() + 1):
            members = np.flatnonzero(clusters == label)
            rank[members] = np.arange(len(members))
        sizes = np.bincount(clusters)[clusters]
        order = np.lexsort((clusters, sizes, rank))[:n_instances]
        return short[order], score[short[order]]
