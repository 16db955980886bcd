"""Strategies that put the pool into clusters."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from skadma.strategies import (
    ClusterMargin,
    GradientClusters,
    TypiClust,
    UncertaintyCover,
    _typiclust,
)
from skadma.strategies._gradient_clusters import _gradients
from skadma.strategies._pool_features import PoolFeatures
from skadma.strategies._typiclust import cluster, typicality

from .conftest import Unfitted


def pool_of(features, proba):
    n = len(features)
    none = np.arange(0)
    return PoolFeatures(
        np.arange(n), features, proba, features[:0], none, lambda rows: rows
    )


def test_gradients_are_literal_or_nearly_so():
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(3), 40)
    h = rng.normal(size=(40, 700))
    literal = []
    for p, row in zip(proba, h, strict=True):
        error = [p[c] - (c == p.argmax()) for c in range(3)]
        literal.append([e * value for e in error for value in row])
    literal = np.array(literal)
    short = _gradients(pool_of(h[:, :600], proba), rng)
    columns = np.arange(2100).reshape(3, 700)[:, :600].ravel()
    np.testing.assert_allclose(short, literal[:, columns], rtol=1e-5)
    draws = [_gradients(pool_of(h, proba), rng) for _ in range(30)]
    assert draws[0].shape == (40, 1024)
    ratio = np.array([pdist(drawn) / pdist(literal) for drawn in draws]) ** 2
    assert abs(ratio.mean() - 1) < 0.03
    assert 0.04 < ratio.std() < 0.12
    before = _gradients(pool_of(h, None), rng)
    np.testing.assert_array_equal(before, h.astype(np.float32))


def test_gradient_clusters_take_the_middles():
    """Uncertain images in separate places, and many confident ones."""
    rng = np.random.default_rng(0)
    # Of the label 0 at x < 0 and 1 at x > 0; three places on either side.
    places = np.array([[x, 60.0 * k] for x in (-0.02, 0.02) for k in (1, 2, 3)])
    uncertain = np.repeat(places, 9, axis=0) + rng.normal(0, [0.001, 1], (54, 2))
    confident = np.stack([rng.choice([-9, 9], 80), rng.normal(0, 1, 80)], axis=1)
    X = np.concatenate([uncertain, confident])
    clf = LogisticRegression(C=1e3, fit_intercept=False)
    clf.fit(np.array([[-3.0, 0], [3, 0]]), [0, 1])
    proba = clf.predict_proba(X)
    gradients = _gradients(pool_of(X, proba), rng)
    groups = [np.arange(9 * k, 9 * k + 9) for k in range(6)] + [np.arange(54, 134)]
    expected = set()
    for group in groups:
        off = np.linalg.norm(gradients[group] - gradients[group].mean(0), axis=1)
        expected.add(int(group[off.argmin()]))
    found = [set(GradientClusters(random_state=s).query(clf, X, 7)) for s in range(5)]
    assert max(len(chosen & expected) for chosen in found) == 7
    before = GradientClusters(random_state=0).query(Unfitted(), X, 7)
    assert len(set(before)) == 7


def test_gradient_clusters_of_copies():
    X = np.repeat([[0.0, 1.0], [2.0, 3.0]], 6, axis=0)
    clf = LogisticRegression().fit(X, X[:, 0] > 1)
    assert len(set(GradientClusters(random_state=0).query(clf, X, 5))) == 5


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


@pytest.mark.parametrize("weight", [0.0, 0.6, 1.0])
def test_uncertainty_cover_is_the_literal_rule(weight):
    """In clusters that k-means cannot miss, with the rule written out."""
    rng = np.random.default_rng(0)
    places = 100.0 * rng.permutation(np.eye(6))
    where = np.repeat(np.arange(6), [12, 9, 15, 11, 10, 13])
    X = places[where] + rng.normal(size=(70, 6))
    clf = LogisticRegression().fit(X[::7] + 30 * rng.normal(size=(10, 6)), [0, 1] * 5)
    labeled = [0, 1, 25]  # of the clusters 0, 0 and 2
    pool = np.setdiff1d(np.arange(70), labeled)
    proba = clf.predict_proba(X[pool])
    uncertain = 1 - np.abs(proba[:, 0] - proba[:, 1])

    def share(values, i):  # rank in (0, 1)
        return (sum(v < values[i] for v in values) + 0.5) / len(values)

    score = np.empty(len(pool))
    for c in range(6):
        all_of_it = np.flatnonzero(where == c)
        mine = np.flatnonzero(where[pool] == c)
        typical = []
        for i in pool[mine]:
            away = sorted(np.linalg.norm(X[i] - X[j]) for j in all_of_it if j != i)
            typical.append(1 / np.mean(away[:5]))
        for k, i in enumerate(mine):
            score[i] = (1 - weight) * share(typical, k)
            score[i] += weight * share(uncertain[mine], k)
    labels = np.array([2, 0, 1, 0, 0, 0])
    expected = []
    for _ in range(3):
        fewest = np.flatnonzero(labels == labels.min())
        masses = [uncertain[where[pool] == c].sum() for c in fewest]
        cluster = fewest[np.argmax(masses)]
        left = [i for i in np.flatnonzero(where[pool] == cluster) if i not in expected]
        expected.append(max(left, key=lambda i: score[i]))
        labels[cluster] += 1
    strategy = UncertaintyCover(weight=weight, n_neighbors=5, random_state=0)
    chosen, utilities = strategy(clf, X[pool], 3, X_labeled=X[labeled])
    assert chosen.tolist() == expected
    np.testing.assert_allclose(utilities, score[expected])


def test_uncertainty_cover_starts_as_typiclust(blobs):
    X, _ = blobs
    first = UncertaintyCover(random_state=0).query(Unfitted(), X, 8)
    assert set(first) == set(TypiClust(random_state=0).query(Unfitted(), X, 8))


def test_cluster_margin_spreads_small_margins(blobs):
    X, y = blobs
    clf = LogisticRegression().fit(X, y % 2)
    chosen, utilities = ClusterMargin()(clf, X, 6)
    proba = clf.predict_proba(X)
    margin = np.abs(proba[:, 0] - proba[:, 1])
    np.testing.assert_allclose(utilities, 1 - margin[chosen])
    assert set(chosen) <= set(np.argsort(margin)[:60])
    assert len(set(y[chosen])) >= len(set(y[np.argsort(margin)[:6]]))


@pytest.mark.parametrize("most_by_all_rows", [10_000_000, 1000])
def test_clusters_are_the_same_with_any_number_of_threads(
    most_by_all_rows, monkeypatch
):
    monkeypatch.setattr(_typiclust, "_SIZE_FOR_ALL_ROWS", most_by_all_rows)
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(12, 48))
    rows = centers[rng.integers(0, 12, 900)] + rng.normal(size=(900, 48))
    found = []
    for n_threads in (1, 2, 3, 4):
        with threadpool_limits(n_threads):
            found.append(cluster(rows.astype(np.float32), 40, np.random.default_rng(0)))
    assert all(np.array_equal(found[0], other) for other in found[1:])
    assert len(np.unique(found[0])) == 40
