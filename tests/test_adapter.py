"""An estimator of another package with an adapter, under the strategies."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from skadma import ActiveLearner, SourceCenters
from skadma.features.estimators import NetworkAdapter, get_adapter
from skadma.features.extractor import OutputBatch
from skadma.strategies import (
    ADMA,
    AIFT,
    BALD,
    CoreSet,
    DropQuery,
    MarginSampling,
    TypiClust,
    UncertaintyHerding,
)

from .conftest import tiny_classifier
from .reference import adma_parts

CLASSES = 5
"""Of the source task."""


class TwoLayers(ClassifierMixin, BaseEstimator):
    """Two random layers, kept as they are, and a logistic regression on them."""

    def __init__(self, seed=0):
        self.seed = seed

    def weights(self):
        rng = np.random.default_rng(self.seed)
        shapes = (64, 24), (24, 12), (12, CLASSES)
        return [rng.normal(size=shape) / shape[0] ** 0.5 for shape in shapes]

    def features(self, X):
        first, second, _ = self.weights()
        a = np.maximum(np.asarray(X) @ first, 0)
        return a, np.maximum(a @ second, 0)

    def fit(self, X, y):
        self.head_ = LogisticRegression(C=1000, max_iter=2000).fit(
            self.features(X)[1], y
        )
        self.classes_ = self.head_.classes_
        self.n_labels_ = len(y)
        return self

    def predict_proba(self, X):
        check_is_fitted(self)
        return self.head_.predict_proba(self.features(X)[1])

    def predict(self, X):
        return self.head_.predict(self.features(X)[1])

    def __sklearn_is_fitted__(self):
        return hasattr(self, "head_")

    def __skadma_adapter__(self):
        return TwoLayersAdapter(self)


class TwoLayersAdapter(NetworkAdapter):
    """Yields outputs in batches of 50."""

    source_name = "two-layers"
    source_fingerprint = "0"
    image_size = 8
    n_layers = 3

    @property
    def fitted(self):
        return hasattr(self.estimator, "head_")

    def position(self, layer):
        return range(3)[layer]

    def iter_outputs(
        self, X, layers=(), source_layers=(), *, derived=None, progress=None
    ):
        for start in range(0, len(X), 50):
            a, b = self.estimator.features(X[start : start + 50])
            source_scores = b @ self.estimator.weights()[2]
            scores = source_scores
            if self.fitted:
                head = self.estimator.head_
                scores = b @ head.coef_.T + head.intercept_
            adapted, source = (
                {
                    self.position(layer): torch.from_numpy(outputs[layer])
                    for layer in asked
                }
                for asked, outputs in (
                    (layers, (a, b, scores)),
                    (source_layers, (a, b, source_scores)),
                )
            )
            yield OutputBatch(np.arange(start, start + len(a)), adapted, source, None)

    def iter_outputs_prepared(
        self,
        inputs,
        layers=(),
        source_layers=(),
        *,
        derived=None,
    ):
        return self.iter_outputs(inputs, layers, source_layers)


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return (X[:300] / 16).astype(np.float32), y[:300]


@pytest.fixture(scope="module")
def centers():
    X, y = load_digits(return_X_y=True)
    some = [1000 + int(np.flatnonzero(y[1000:] == k)[0]) for k in range(CLASSES)]
    return SourceCenters(
        inputs=(X[some] / 16).astype(np.float32),
        classes=np.arange(CLASSES),
        network="two-layers",
        fingerprint="0",
        image_size=8,
    )


@pytest.mark.parametrize(
    "strategy",
    [
        MarginSampling(random_state=0),
        UncertaintyHerding(random_state=0),
        CoreSet(random_state=0),
        TypiClust(random_state=0),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_a_layer_gives_the_same_choice_as_a_table_of_its_outputs(strategy, digits):
    X, y = digits
    estimator = TwoLayers().fit(X[:60], y[:60])
    pool, labelled = (estimator.features(some)[1] for some in (X[60:], X[:60]))
    expected = strategy.query(estimator.head_, pool, 8, X_labeled=labelled)
    found = strategy.query(estimator, X[60:], 8, X_labeled=X[:60])
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("features", ["published", "current", "initial"])
@pytest.mark.parametrize("layer_a", [0, -3])
def test_adma_by_the_formulas(features, layer_a, digits, centers):
    X, y = digits
    estimator = TwoLayers().fit(X[:60], y[:60])
    pool = X[60:100]
    strategy = ADMA(centers, trade_off=0.25, layer_a=layer_a, features=features)
    found = strategy.score(estimator, pool, iteration=2)
    outputs, own = estimator.features(pool), estimator.features(centers.inputs)
    scores = outputs[1] @ estimator.weights()[2]
    exp = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected = adma_parts(
        dict(enumerate(outputs)),
        dict(enumerate(own)),
        estimator.predict_proba(pool),
        exp / exp.sum(axis=1, keepdims=True),
        range(CLASSES),
        layers_a=[0],
        layer_b=1,
        trade_off=0.25,
        iteration=2,
    )
    assert found.distinctiveness == pytest.approx(expected["distinctiveness"])
    assert found.uncertainty == pytest.approx(expected["uncertainty"])
    assert found.total == pytest.approx(expected["total"])


@pytest.mark.parametrize("name", ["margin", "herding", "adma"])
def test_a_learner_from_the_first_round_to_the_last(name, digits, centers):
    X, y = digits
    strategy = {
        "margin": MarginSampling(),
        "herding": UncertaintyHerding(),
        "adma": ADMA(centers, layer_a=0),
    }[name]
    learner = ActiveLearner(
        TwoLayers(), strategy, n_rounds=4, n_instances=15, random_state=0
    )
    learner.fit(X, y)
    assert learner.labeled_.sum() == len(np.unique(learner.queried_indices_)) == 60
    assert learner.score(X, y) > 0.4  # chance is 0.1
    again = learner.fit(X, y).queried_indices_
    assert np.array_equal(again, learner.queried_indices_)


def test_inside_a_pipeline(digits, centers):
    X, y = digits
    plain = TwoLayers().fit(X[:60], y[:60])
    scaled = make_pipeline(FunctionTransformer(lambda rows: rows / 16), TwoLayers())
    scaled.fit(X[:60] * 16, y[:60])
    strategy = ADMA(centers, layer_a=0, random_state=0)
    expected = strategy.query(plain, X[60:], 5)
    assert strategy.query(scaled, X[60:] * 16, 5).tolist() == expected.tolist()


def test_a_missing_method_of_an_adapter_is_named(digits, centers):
    X, y = digits
    estimator = TwoLayers().fit(X[:60], y[:60])
    with pytest.raises(
        TypeError, match="'iter_patch_outputs'.*TwoLayers.*another strategy"
    ):
        AIFT().query(estimator, X[60:], 2)
    for strategy in (BALD(), DropQuery()):
        with pytest.raises(TypeError, match="'predict_features'.*TwoLayers"):
            strategy.query(estimator, X[60:], 2)
    with pytest.raises(TypeError, match="LogisticRegression.*__skadma_adapter__"):
        centers.outputs(estimator.head_, [0], initial=True)
    with pytest.raises(ValueError, match="the package has none for 'two-layers'"):
        ADMA(layer_a=0).query(estimator, X[60:], 2)


def test_centres_of_another_network_are_refused(digits, centers):
    X, y = digits
    other = tiny_classifier(max_epochs=0)
    with pytest.raises(ValueError, match="made with two-layers"):
        centers.check_fits(other)


def test_get_adapter():
    assert get_adapter(LogisticRegression()) is None
    assert get_adapter(TwoLayers()).n_layers == 3
    clf = tiny_classifier(max_epochs=0)
    assert get_adapter(clf).n_layers == len(clf.layers())
    assert get_adapter(clf).n_frozen == sum(row.frozen for row in clf.layers())
