"""Strategies that put the pool into clusters."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from skadma.strategies import (
    ClusterMargin,
    TypiClust,
    _typiclust,
)
from skadma.strategies._typiclust import cluster, typicality

from .conftest import Unfitted


def test_typicality_by_hand():
    X = np.array([[0.0], [1.0], [3.0], [7.0]])
    np.testing.assert_allclose(typicality(X, 2), [1 / 2, 2 / 3, 2 / 5, 1 / 5])
    np.testing.assert_allclose(typicality(X, 20), [3 / 11, 1 / 3, 1 / 3, 3 / 17])
    assert typicality(X[:1], 3).tolist() == [0]


def test_typiclust_takes_one_of_each_cluster(blobs):
    X, y = blobs
    chosen = TypiClust(random_state=0).query(Unfitted(), X, 8)
    assert sorted(y[chosen]) == list(range(8))
    center_distance = np.array(
        [np.linalg.norm(X[i] - X[y == y[i]].mean(0)) for i in range(len(X))]
    )
    assert np.median(center_distance[chosen]) < np.quantile(center_distance, 0.3)
    # What has a label already is left for last.
    have = [int(np.flatnonzero(y == c)[0]) for c in (0, 1, 2)]
    more = TypiClust(random_state=0).query(Unfitted(), X, 5, X_labeled=X[have])
    assert sorted(y[more]) == [3, 4, 5, 6, 7]


def test_cluster_margin_spreads_small_margins(blobs):
    X, y = blobs
    clf = LogisticRegression().fit(X, y % 2)
    chosen, utilities = ClusterMargin()(clf, X, 6)
    proba = clf.predict_proba(X)
    margin = np.abs(proba[:, 0] - proba[:, 1])
    np.testing.assert_allclose(utilities, 1 - margin[chosen])
    assert set(chosen) <= set(np.argsort(margin)[:60])
    assert len(set(y[chosen])) >= len(set(y[np.argsort(margin)[:6]]))


@pytest.mark.parametrize("block_rows", [1000, 100])
def test_clusters_are_the_same_with_any_number_of_threads(block_rows, monkeypatch):
    monkeypatch.setattr(_typiclust, "BLOCK_ROWS", block_rows)
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(12, 48))
    rows = centers[rng.integers(0, 12, 900)] + rng.normal(size=(900, 48))
    found = []
    for n_threads in (1, 2, 3, 4):
        with threadpool_limits(n_threads):
            found.append(cluster(rows.astype(np.float32), 40, np.random.default_rng(0)))
    assert all(np.array_equal(found[0], other) for other in found[1:])
    assert len(np.unique(found[0])) == 40
