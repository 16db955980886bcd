"""UncertaintyHerding against the literal objective, and by hand."""

import itertools
import math

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression

from skadma.strategies import (
    UncertaintyHerding,
    _uncertainty_herding,
)
from skadma.strategies._uncertainty_herding import Coverage, share_distance


@pytest.fixture
def blobs():
    return make_blobs(80, 6, centers=5, cluster_std=2.0, random_state=0)


def coverage(rows, weights, chosen, width):
    """U(S), term by term."""
    if not chosen:
        return 0.0
    return sum(
        w * max(math.exp(-((x - s) ** 2).sum() / width) for s in chosen)
        for x, w in zip(rows, weights, strict=True)
    )


def literal(X, n_labeled, weights, n, normalize):
    """The greedy algorithm, every candidate tried at every step."""
    rows = X - X.mean(axis=0)
    if normalize:
        rows = np.array([x / np.linalg.norm(x) for x in rows])
    k = len(rows) // (n_labeled + n)
    shares = [sorted(((x - z) ** 2).sum() for z in rows)[k] for x in rows]
    width = float(np.mean(shares))
    chosen, pool, gains = list(rows[:n_labeled]), rows[n_labeled:], []
    expected: list[int] = []
    for _ in range(n):
        before = coverage(pool, weights, chosen, width)
        found = {
            i: coverage(pool, weights, [*chosen, pool[i]], width) - before
            for i in range(len(pool))
            if i not in expected
        }
        best = max(found, key=lambda i: found[i])
        expected.append(best)
        gains.append(found[best])
        chosen.append(pool[best])
    return expected, gains


@pytest.mark.parametrize("normalize", [True, False])
def test_is_the_literal_algorithm(blobs, normalize):
    X, y = blobs
    clf = LogisticRegression(C=0.01).fit(X[:12], y[:12] % 3)
    ordered = map(sorted, clf.predict_proba(X[12:]))
    weights = [1 - (p[-1] - p[-2]) for p in ordered]
    expected, gains = literal(X, 12, weights, 4, normalize)
    strategy = UncertaintyHerding(normalize=normalize)
    chosen, utilities = strategy(clf, X[12:], 4, X_labeled=X[:12])
    assert chosen.tolist() == expected
    np.testing.assert_allclose(utilities, gains, rtol=1e-4)


@pytest.mark.parametrize("n_labeled", [0, 7])
def test_all_images_weigh_the_same_before_the_first_fit(blobs, n_labeled):
    X, _ = blobs
    expected, gains = literal(X, n_labeled, np.ones(80 - n_labeled), 5, True)
    chosen, utilities = UncertaintyHerding()(
        LogisticRegression(), X[n_labeled:], 5, X_labeled=X[:n_labeled]
    )
    assert chosen.tolist() == expected
    np.testing.assert_allclose(utilities, gains, rtol=1e-4)


def test_first_labels_go_to_all_clusters():
    X, y = make_blobs(400, 20, centers=10, cluster_std=0.3, random_state=1)
    chosen = UncertaintyHerding().query(LogisticRegression(), X, 10)
    assert len(set(y[chosen])) == 10


def test_a_batch_is_nearly_the_best_one(blobs):
    """Greedy choice of a monotone submodular function: at least 1 - 1/e of it."""
    X = blobs[0][:14].astype(np.float32)
    weights = np.random.default_rng(0).random(14)
    cover = Coverage(X, weights, 30.0)
    _, gains = cover.greedy(X, 4)
    best = max(
        coverage(X, weights, list(X[list(S)]), 30.0)
        for S in itertools.combinations(range(14), 4)
    )
    assert best * (1 - 1 / math.e) < gains.sum() <= best * (1 + 1e-5)
    assert gains.sum() == pytest.approx(float(weights @ cover.covered), rel=1e-5)


def test_chooses_uncertain_images():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, size=(1000, 2))
    clf = LogisticRegression(C=1e4).fit(X, X[:, 0] > 0)
    strategy = UncertaintyHerding(normalize=False)
    chosen = strategy.query(clf, X, 30, X_labeled=X[:0])
    assert np.abs(X[chosen, 0]).max() < 0.3
    assert np.ptp(X[chosen, 1]) > 1.5  # all along the border


def test_goes_on_where_nothing_is_left_to_gain(blobs):
    X, y = blobs
    copies = np.repeat(X[:3], 10, axis=0)
    chosen = UncertaintyHerding().query(LogisticRegression(), copies, 8)
    assert len(set(chosen)) == 8
    assert len(set(chosen[:3] // 10)) == 3

    class Confident(LogisticRegression):
        def predict_proba(self, X):
            return np.tile([1.0, 0.0], (len(X), 1))

    confident = Confident().fit(X, y % 2)
    expected = UncertaintyHerding().query(LogisticRegression(), X, 5)
    assert UncertaintyHerding().query(confident, X, 5).tolist() == expected.tolist()
    assert sorted(UncertaintyHerding().query(confident, X[:9], 9)) == list(range(9))
    assert UncertaintyHerding().query(confident, X[:1], 1).tolist() == [0]


def test_covers_the_rest_once_the_uncertain_are_covered(blobs):
    X, y = blobs

    class ConfidentButOnce(LogisticRegression):
        def predict_proba(self, rows):
            uncertain = (rows == X[7]).all(axis=1)
            return np.column_stack([1 - uncertain / 2, uncertain / 2])

    clf = ConfidentButOnce().fit(X, y % 2)
    chosen = UncertaintyHerding().query(clf, X, 6)
    assert chosen[0] == 7
    others = np.delete(np.arange(len(X)), 7)
    expected = UncertaintyHerding().query(
        LogisticRegression(), X[others], 5, X_labeled=X[[7]]
    )
    assert chosen[1:].tolist() == others[expected].tolist()


def test_large_pools_are_measured_on_some(monkeypatch):
    X, y = make_blobs(3000, 8, centers=12, cluster_std=1.0, random_state=2)
    clf = LogisticRegression().fit(X[:40], y[:40] % 3)

    def covered(chosen):
        rows = X - X.mean(axis=0)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        width = share_distance(rows, 60, np.random.default_rng(0))
        p = np.sort(clf.predict_proba(X[40:]), axis=1)
        cover = Coverage(rows[40:], 1 - (p[:, -1] - p[:, -2]), width)
        cover.add(rows[:40])
        before = float(cover.weights @ cover.covered)
        cover.add(rows[40:][chosen])
        return float(cover.weights @ cover.covered) - before

    strategy = UncertaintyHerding(random_state=0)
    with_all, gains = strategy(clf, X[40:], 20, X_labeled=X[:40])
    assert gains.sum() == pytest.approx(covered(with_all), rel=0.02)
    monkeypatch.setattr(_uncertainty_herding, "_N_REFERENCE_POINTS", 600)
    with_some, estimate = strategy(clf, X[40:], 20, X_labeled=X[:40])
    assert with_all.tolist() != with_some.tolist()
    assert covered(with_some) > 0.9 * covered(with_all)
    assert estimate.sum() == pytest.approx(covered(with_some), rel=0.2)
    drawn = np.random.default_rng(0).choice(2960, 20, replace=False)
    assert covered(drawn) < covered(with_some)


def test_share_distance_is_literal():
    X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    squared = np.sort(((X[:, None] - X) ** 2).sum(-1), axis=1)
    rng = np.random.default_rng(0)
    assert share_distance(X, 7, rng) == pytest.approx(squared[:, 8].mean(), rel=1e-5)
    assert share_distance(X, 99, rng) == pytest.approx(squared[:, 1].mean(), rel=1e-5)
    assert share_distance(X, 1, rng) == pytest.approx(squared[:, 59].mean(), rel=1e-5)
    assert share_distance(np.ones((5, 2), np.float32), 2, rng) > 0
    assert share_distance(np.zeros((1, 2), np.float32), 1, rng) > 0
    assert share_distance(np.tile(X, (60, 1)), 420, rng) < squared[:, 8].mean()


def eager(X, weights, n):
    """Every gain anew for each choice."""
    cover = Coverage(X, weights, 30.0)
    chosen, gains = [], []
    for _ in range(n):
        every = cover.gains(X)
        every[chosen] = -1
        chosen.append(int(every.argmax()))
        gains.append(every.max())
        cover.add(X[chosen[-1:]])
    return chosen, gains


def test_lazy_choice_is_the_eager_one(blobs, monkeypatch):
    X = np.concatenate([blobs[0], blobs[0][:20], blobs[0][:20]]).astype(np.float32)
    weights = np.random.default_rng(0).random(120)
    weights[30:50] = 0
    monkeypatch.setattr(_uncertainty_herding, "_CHUNK", 16)
    monkeypatch.setattr(_uncertainty_herding, "_AHEAD", 2)
    chosen, gains = Coverage(X, weights, 30.0).greedy(X, 60)
    expected, most = eager(X, weights, 60)
    assert len(set(chosen)) == 60
    assert (X[chosen] == X[expected]).all()  # which of two copies is left open
    np.testing.assert_allclose(gains, most, rtol=1e-5, atol=1e-6)
