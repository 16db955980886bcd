"""What every strategy keeps to, and the uncertainty strategies by hand."""

import inspect

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skadma import SourceCenters, strategies
from skadma.strategies import (
    ADMA,
    EntropySampling,
    LeastConfident,
    MarginSampling,
    QueryStrategy,
    RandomSampling,
)

from .conftest import tiny_classifier

ALL = [
    getattr(strategies, name)
    for name in strategies.__all__
    if inspect.isclass(getattr(strategies, name))
    and issubclass(getattr(strategies, name), QueryStrategy)
    and getattr(strategies, name) is not QueryStrategy
]
OF_PROBABILITIES = [LeastConfident, MarginSampling, EntropySampling]


@pytest.fixture(scope="module")
def make(pictures):
    centers = SourceCenters.from_dataset(
        tiny_classifier(), pictures[0], np.arange(24) % 5
    )

    def make(kind, **params):
        return kind(centers, **params) if kind is ADMA else kind(**params)

    return make


@pytest.fixture(scope="module")
def fitted(pictures):
    X, y = pictures
    return tiny_classifier(max_epochs=5).fit(X[:10], y[:10])


def test_all_are_found():
    assert {ADMA, RandomSampling, *OF_PROBABILITIES} == set(ALL)


@pytest.mark.parametrize("kind", ALL)
class TestEvery:
    def test_signature(self, kind):
        query = inspect.signature(kind.query).parameters
        assert list(query) == [
            "self", "estimator", "X_pool", "n_instances", "iteration",
        ]  # fmt: skip
        assert query["n_instances"].default == 1
        assert query["iteration"].kind is inspect.Parameter.KEYWORD_ONLY

    @pytest.mark.parametrize("n", [1, 2, 5, 24])
    def test_distinct_indices_best_first(self, kind, n, make, fitted, pictures):
        strategy = make(kind, random_state=0)
        indices = strategy.query(fitted, pictures[0], n)
        assert indices.shape == (n,)
        assert indices.dtype.kind == "i"
        assert len(set(indices)) == n
        again, utilities = strategy(fitted, pictures[0], n_instances=n)
        np.testing.assert_array_equal(again, indices)
        assert (np.diff(utilities) <= 0).all()

    def test_no_state(self, kind, make, fitted, pictures):
        strategy = make(kind, random_state=3)
        before = dict(vars(strategy))
        first = strategy.query(fitted, pictures[0], 4)
        assert vars(strategy) == before
        np.testing.assert_array_equal(first, strategy.query(fitted, pictures[0], 4))
        np.testing.assert_array_equal(
            first, clone(strategy).query(fitted, pictures[0], 4)
        )

    def test_unfitted(self, kind, make, pictures):
        clf = tiny_classifier()
        indices = make(kind, random_state=0).query(clf, pictures[0], 6)
        assert len(set(indices)) == 6
        assert not hasattr(clf, "net_")

    def test_unreadable_image_is_never_chosen(self, kind, make, pictures, tmp_path):
        X, y = pictures
        paths = [tmp_path / f"{i}.png" for i in range(24)]
        for image, path in zip(X, paths, strict=True):
            Image.fromarray(image).save(path)
        clf = tiny_classifier(on_bad_image="skip").fit(paths[:10], y[:10])
        strategy = make(kind, random_state=0)
        if kind is RandomSampling:
            return  # it never looks at the images
        whole = strategy.score(clf, paths, iteration=1).total
        paths[7].write_bytes(b"broken")
        with pytest.warns(UserWarning, match=r"1 unreadable.*7\.png") as caught:
            indices = strategy.query(clf, paths, 23, iteration=1)
        assert len(caught) == 1
        assert set(indices) == set(range(24)) - {7}
        kept = np.arange(24) != 7
        with pytest.warns(UserWarning):
            total = strategy.score(clf, paths, iteration=1).total
        assert np.isnan(total[7])
        np.testing.assert_allclose(total[kept], whole[kept], atol=1e-5)
        with (
            pytest.warns(UserWarning),
            pytest.raises(ValueError, match="only 23 of the 24"),
        ):
            strategy.query(clf, paths, 24, iteration=1)


def test_random_is_uniform():
    X = np.zeros((10, 1))
    counts = np.zeros(10)
    for seed in range(600):
        counts[RandomSampling(random_state=seed).query(None, X, 3)] += 1
    assert (np.abs(counts - 180) < 60).all()


def test_ties_are_broken_at_random_but_repeatably(pictures):
    X, _ = pictures
    chosen = [
        tuple(MarginSampling(random_state=seed).query(tiny_classifier(), X, 4))
        for seed in (0, 0, 1, 2)
    ]
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) == 3


class FixedProbabilities(LogisticRegression):
    """A classifier whose answers are its input."""

    def predict_proba(self, X):
        return np.asarray(X)


@pytest.mark.parametrize(
    ("kind", "order", "best"),
    [
        (LeastConfident, [1, 2, 0], 1 - 0.4),
        (MarginSampling, [2, 1, 0], 1.0),
        (EntropySampling, [1, 2, 0], -(0.4 * np.log(0.4) + 0.6 * np.log(0.3))),
    ],
)
def test_uncertainty_by_hand(kind, order, best):
    proba = [[0.8, 0.1, 0.1], [0.4, 0.3, 0.3], [0.45, 0.45, 0.1]]
    indices, utilities = kind()(FixedProbabilities(), np.array(proba), 3)
    assert indices.tolist() == order
    assert utilities[0] == pytest.approx(best)


@pytest.mark.parametrize("kind", OF_PROBABILITIES)
def test_any_classifier(kind):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 2))
    y = (X[:, 0] > 0).astype(int)
    for estimator in (
        LogisticRegression(),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ):
        unfitted = kind(random_state=0).query(estimator, X, 5)
        assert len(set(unfitted)) == 5
        estimator.fit(X, y)
        (index,) = kind().query(estimator, X)
        distances = np.abs(estimator.decision_function(X))
        assert index == distances.argmin()


def test_a_classifier_without_probabilities():
    with pytest.raises(TypeError, match="no predict_proba"):
        MarginSampling().query(LinearSVC(), np.zeros((3, 2)))
