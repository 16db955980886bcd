"""The strategies that choose batches, against literal versions and by hand."""

import math

import numpy as np
import pytest
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skadma import ActiveLearner
from skadma.strategies import (
    BADGE,
    BALD,
    CEAL,
    ClusterMargin,
    CoreSet,
    DropQuery,
    ProbCover,
    QueryByCommittee,
    TypiClust,
    UncertaintyHerding,
)
from skadma.strategies._badge import kmeans_plusplus_of_products
from skadma.strategies._coreset import k_center_greedy
from skadma.strategies._dropout import drop
from skadma.strategies._pool_features import extract_pool_features
from skadma.strategies._probcover import _greedy_cover, pure_radius

from .conftest import Unfitted, tiny_classifier


def test_coreset_is_the_literal_algorithm(blobs):
    X, _ = blobs
    labeled = [4, 9]
    chosen = list(labeled)
    for _ in range(12):
        radius = [
            min(np.linalg.norm(X[i] - X[j]) for j in chosen) for i in range(len(X))
        ]
        chosen.append(int(np.argmax(radius)))
    got = CoreSet().query(Unfitted(), X, 12, X_labeled=X[labeled])
    assert got.tolist() == chosen[2:]


def test_coreset_covers_and_tells_the_radius(blobs):
    X, y = blobs
    chosen, distances = k_center_greedy(X, X[:0], 8, np.random.default_rng(0))
    assert len(set(y[chosen])) == 8
    assert np.isinf(distances[0])
    last = min(np.linalg.norm(X[chosen[-1]] - X[i]) for i in chosen[:-1])
    assert distances[-1] == pytest.approx(last)


@pytest.mark.parametrize("seed", range(3))
def test_badge_is_the_literal_algorithm(seed):
    rng = np.random.default_rng(seed)
    h, proba = rng.normal(size=(60, 5)), rng.dirichlet(np.ones(4), size=60)
    a = proba.copy()
    a[np.arange(60), proba.argmax(1)] -= 1
    gradients = np.array([np.outer(x, z).ravel() for x, z in zip(a, h, strict=True)])
    mine = np.random.default_rng(7)
    expected = [int(np.linalg.norm(gradients, axis=1).argmax())]
    while len(expected) < 15:
        weights = np.array(
            [min(((g - gradients[j]) ** 2).sum() for j in expected) for g in gradients]
        )
        weights[expected] = 0
        expected.append(int(mine.choice(60, p=weights / weights.sum())))
    drawn, _ = kmeans_plusplus_of_products(a, h, 15, np.random.default_rng(7))
    assert drawn.tolist() == expected


def test_badge_prefers_the_uncertain(blobs):
    X, y = blobs
    clf = LogisticRegression().fit(X, y > 3)
    margin = np.abs(clf.decision_function(X))
    chosen = np.concatenate([BADGE(random_state=s).query(clf, X, 5) for s in range(10)])
    assert np.median(margin[chosen]) < np.median(margin)


def test_probcover_is_the_literal_greedy_cover(blobs):
    X, _ = blobs
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    near = np.linalg.norm(unit[:, None] - unit, axis=2) <= 0.3
    covered = near[:2].any(axis=0)
    gains = []
    for _ in range(6):
        best = max(range(len(X)), key=lambda i: (near[i] & ~covered).sum())
        gains.append((near[best] & ~covered).sum())
        covered |= near[best]
    chosen, utilities = ProbCover(delta=0.3)(Unfitted(), X, 6, X_labeled=X[:2])
    covered = near[:2].any(axis=0)
    for i, utility in zip(chosen, utilities, strict=True):
        assert utility == (near[i] & ~covered).sum()
        covered |= near[i]
    assert utilities[0] == gains[0]


def test_probcover_goes_on_where_all_is_covered():
    from scipy import sparse

    covers = sparse.csr_matrix(np.ones((5, 5)))
    chosen, utilities = _greedy_cover(
        covers, np.zeros(5, bool), 5, np.random.default_rng(0)
    )
    assert sorted(chosen) == list(range(5))
    assert utilities.tolist() == [5, 0, 0, 0, 0]


def test_pure_radius_keeps_clusters_apart(blobs):
    X, y = blobs
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    delta = pure_radius(unit, 8, np.random.default_rng(0))
    near = np.linalg.norm(unit[:, None] - unit, axis=2) <= delta
    pure = [(y[near[i]] == y[i]).all() for i in range(len(X))]
    assert np.mean(pure) > 0.8


def test_bald_is_the_mutual_information(pictures):
    X, y = pictures
    clf = tiny_classifier(max_epochs=5).fit(X, y)
    strategy = BALD(n_samples=7, random_state=3)
    chosen, utilities = strategy(clf, X, len(X))
    head = clf.net_.module_.network.head
    features = clf.embed(X, -2)[-2]
    rng = np.random.default_rng([3, 2, len(X), 0])
    samples = []
    for _ in range(7):
        scores = drop(features, 0.5, rng) @ head.weight.detach().numpy().T
        scores = (scores + head.bias.detach().numpy()).astype(np.float64)
        e = np.exp(scores - scores.max(1, keepdims=True))
        samples.append(e / e.sum(1, keepdims=True))
    entropy = [[-sum(q * math.log(q) for q in row) for row in p] for p in samples]
    mean = np.mean(samples, axis=0)
    total = [-sum(q * math.log(q) for q in row) for row in mean]
    expected = np.array(total) - np.mean(entropy, axis=0)
    np.testing.assert_allclose(utilities, expected[chosen], atol=1e-6)
    assert (np.diff(utilities) <= 1e-12).all()


def test_dropquery_prefers_what_changes(blobs):
    X, y = blobs
    clf = LogisticRegression().fit(X, y > 3)
    chosen, utilities = DropQuery(random_state=0)(clf, X, 5)
    assert len(set(chosen)) == 5
    assert (utilities > 0.5).all()


def test_ceal_labels_the_confident(blobs):
    X, y = blobs
    y = y % 2
    clf = LogisticRegression().fit(X, y)
    proba = clf.predict_proba(X)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(proba * np.log(proba), axis=1)
    for t, delta in ((0, 0.2), (3, 0.2 - 3 * 0.05), (9, 0)):
        indices, labels = CEAL(threshold=0.2, decay=0.05).pseudo_labels(
            clf, X, iteration=t
        )
        np.testing.assert_array_equal(indices, np.flatnonzero(entropy < delta))
        np.testing.assert_array_equal(labels, proba[indices].argmax(1))
    assert len(CEAL().pseudo_labels(Unfitted(), X)[0]) == 0
    with pytest.raises(ValueError, match="'threshold' parameter of CEAL"):
        CEAL(threshold=-1).query(clf, X)


class Recording(LogisticRegression):
    """Counts what it is fitted with."""

    sizes = []

    def fit(self, X, y):
        self.sizes.append(len(y))
        return super().fit(X, y)


def test_a_learner_trains_on_pseudo_labels(blobs):
    X, y = blobs
    Recording.sizes.clear()
    learner = ActiveLearner(
        Recording(), CEAL(threshold=0.3, decay=0), n_rounds=4, n_instances=10,
        random_state=0,
    ).fit(X, y % 2)  # fmt: skip
    assert Recording.sizes[0] == 10  # no pseudo-labels before the first fit
    assert Recording.sizes[-1] > 40
    assert learner.labeled_.sum() == 40  # pseudo-labels are not kept
    plain = [row["n_labels"] for row in learner.history_]
    assert plain == [10, 20, 30, 40]


def test_committee_by_hand():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 3))
    y = np.where(X[:, 0] + X[:, 1] > 0, "yes", "no")
    forest = RandomForestClassifier(5, max_depth=3, random_state=0).fit(X[:30], y[:30])
    p = np.array([tree.predict_proba(X) for tree in forest.estimators_])
    mean = p.mean(axis=0)
    kl = []
    for i in range(80):
        terms = [
            q * math.log(q / mean[i, k]) if q > 0 else 0
            for c in p
            for k, q in enumerate(c[i])
        ]
        kl.append(sum(terms) / 5)
    total = QueryByCommittee().score(forest, X).total
    np.testing.assert_allclose(total, kl, atol=1e-12)


def test_committee_of_networks(pictures):
    X, y = pictures
    committee = VotingClassifier(
        [("a", tiny_classifier(max_epochs=2)), ("b", tiny_classifier(lr=1e-2))],
        voting="soft",
    )
    assert len(set(QueryByCommittee().query(committee, X, 4))) == 4
    committee.fit(X[:12], y[:12])
    assert len(set(QueryByCommittee().query(committee, X, 4))) == 4
    with pytest.raises(TypeError, match="needs a fitted ensemble"):
        QueryByCommittee().query(LogisticRegression().fit(X.reshape(24, -1), y), X)


def test_a_learner_passes_the_labelled_images(blobs):
    """CoreSet in a learner never takes a copy of a labelled image."""
    X, y = blobs
    X = np.concatenate([X, X])
    learner = ActiveLearner(
        LogisticRegression(max_iter=9999),
        CoreSet(),
        n_rounds=4,
        n_instances=4,
        random_state=0,
    ).fit(X, np.tile(y, 2))
    chosen = np.concatenate(learner.queried_indices_) % 300
    assert len(set(chosen)) == 16


def test_steps_before_the_classifier_are_fitted_to_the_pool_once():
    """Not to the labelled, of which there may be one."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 6)) * 5 + 3
    steps = make_pipeline(StandardScaler(), PCA(3), LogisticRegression())
    found = extract_pool_features(steps, X[1:], X[:1], -2, initial=False)
    by_hand = make_pipeline(StandardScaler(), PCA(3)).fit(X[1:])
    np.testing.assert_allclose(found.features, by_hand.transform(X[1:]))
    np.testing.assert_allclose(found.labeled, by_hand.transform(X[:1]))


@pytest.mark.parametrize("kind", [BADGE, BALD, ClusterMargin, UncertaintyHerding])
def test_a_classifier_without_probabilities_is_refused(kind, blobs):
    X, y = blobs
    with pytest.raises(TypeError, match="no predict_proba"):
        kind(random_state=0).query(RidgeClassifier().fit(X, y), X, 3)


def test_sparse_rows(blobs):
    X, y = blobs
    clf = LogisticRegression().fit(X, y)
    for kind in (CoreSet, BADGE, TypiClust, UncertaintyHerding):
        strategy = kind(random_state=0)
        expected = strategy.query(clf, X, 4, X_labeled=X[:3])
        found = strategy.query(
            clf, sparse.csr_matrix(X), 4, X_labeled=sparse.csr_matrix(X[:3])
        )
        assert found.tolist() == expected.tolist()


def test_ceal_gives_no_pseudo_labels_for_a_single_class(pictures):
    X, y = pictures
    clf = tiny_classifier().fit(X[:3], [0, 0, 0])
    assert len(CEAL(threshold=0.9).pseudo_labels(clf, X)[0]) == 0
