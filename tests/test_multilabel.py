"""Several labels per image: the classifier, the learner, the strategies."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.special import expit
from sklearn.base import clone
from sklearn.datasets import make_multilabel_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain
from sklearn.neural_network import MLPClassifier
from skorch.dataset import ValidSplit
from torch import nn

from skadma import ActiveLearner, AdaFilterClassifier
from skadma.stopping import TargetScore
from skadma.strategies import (
    ADMA,
    BADGE,
    CoreSet,
    EntropySampling,
    LeastConfident,
    MarginSampling,
    ProbCover,
    RandomSampling,
    TypiClust,
    UncertaintyHerding,
    from_modal,
    from_skactiveml,
)
from skadma.strategies.adma import uncertainty

from .conftest import kinds_of_strategies, learner_for, tiny_classifier
from .test_weights import parameters, plain_classifier


@pytest.fixture(scope="module")
def tagged():
    """30 pictures, each with any of three colours."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (30, 3))
    X = rng.integers(0, 90, (30, 32, 32, 3)) + 150 * y[:, None, None]
    return X.astype(np.uint8), y


def fitted(tagged, **params):
    return tiny_classifier(**{"max_epochs": 30, **params}).fit(*tagged)


# --- CNNClassifier ---------------------------------------------------------------


def test_scikit_learns_form(tagged):
    X, y = tagged
    clf = fitted(tagged, max_epochs=60)
    assert clf.multilabel_
    assert clf.classes_.tolist() == [0, 1, 2]
    scores, proba, found = (
        clf.decision_function(X),
        clf.predict_proba(X),
        clf.predict(X),
    )
    assert scores.shape == proba.shape == found.shape == (30, 3)
    np.testing.assert_allclose(proba, expit(scores.astype(float)))
    np.testing.assert_array_equal(found, scores > 0)
    assert clf.score(X, y) == (found == y).all(axis=1).mean()
    assert f1_score(y, found, average="macro") > 0.9
    assert clf.n_labels_ == 30


def test_loss_is_the_binary_cross_entropy_of_all_labels(tagged):
    X, y = tagged
    clf = plain_classifier(lr=0, head_lr=0).fit(X, y)
    expected = log_loss(y.ravel(), clf.predict_proba(X).ravel())
    assert clf.net_.history[-1, "train_loss"] == pytest.approx(expected, rel=1e-5)


def test_weights(tagged):
    X, y = tagged
    weights = np.random.default_rng(0).integers(0, 4, 30)
    weighted = plain_classifier().fit(X, y, sample_weight=weights)
    repeated = plain_classifier().fit(X.repeat(weights, 0), y.repeat(weights, 0))
    np.testing.assert_allclose(parameters(weighted), parameters(repeated), atol=2e-7)
    assert not np.allclose(
        parameters(weighted), parameters(plain_classifier().fit(X, y)), atol=1e-4
    )
    with pytest.raises(ValueError, match="criterion__pos_weight"):
        tiny_classifier(class_weight="balanced").fit(X, y)


@pytest.mark.parametrize(
    "form",
    [sparse.csr_array, pd.DataFrame, np.ndarray.tolist, lambda y: y.astype(bool),
     lambda y: y.astype(float)],
)  # fmt: skip
def test_forms_of_y(tagged, form):
    X, y = tagged
    np.testing.assert_array_equal(
        fitted((X, form(y)), max_epochs=1).predict_proba(X),
        fitted(tagged, max_epochs=1).predict_proba(X),
    )


def test_it_goes_on(tagged):
    X, y = tagged
    names = ["red", "green", "blue"]
    clf = tiny_classifier(classes=names, warm_start=True).fit(X, y)
    assert clf.classes_.tolist() == names  # in the columns' order
    first = clf.predict_proba(X)
    assert not np.allclose(clf.fit(X, y).predict_proba(X), first)
    partial = tiny_classifier().partial_fit(X[:9], y[:9]).partial_fit(X[9:], y[9:])
    assert partial.n_labels_ == 30
    before = clf.predict_proba(X)
    for labels, message in [
        (y[:, 0], "fitted with several labels per image"),
        (y[:, :2], "2 columns, but there are 3 labels"),
        (2 * y, "got 2 in row"),
        (np.where(y, y, np.nan), "got nan in row"),
        (np.where(np.arange(30)[:, None] == 4, -1, y), "the first is row 4"),
        (np.where(y, "a", "b"), "1 for each label"),
    ]:
        with pytest.raises(ValueError, match=message):
            clf.fit(X, labels)
    np.testing.assert_array_equal(clf.predict_proba(X), before)
    with pytest.raises(ValueError, match="fitted with one label per image"):
        tiny_classifier().partial_fit(X, y[:, 0]).partial_fit(X, y)


def test_what_is_around_the_training_still_works(tagged):
    X, y = tagged
    clf = fitted(tagged, train_split=ValidSplit(3), verbose=0, max_epochs=2)
    assert "valid_loss" in clf.net_.history[-1]
    assert np.isfinite(
        fitted(tagged, criterion=nn.MultiLabelSoftMarginLoss).predict_proba(X)
    ).all()
    search = GridSearchCV(tiny_classifier(), {"max_epochs": [1, 20]}, cv=2)
    assert search.fit(X, y).best_params_ == {"max_epochs": 20}
    ada = AdaFilterClassifier("resnet18", weights=None, image_size=32, max_epochs=1)
    assert ada.fit(X, y).predict(X).shape == (30, 3)
    two = fitted((X, y[:, :2]), max_epochs=1)
    assert two.decision_function(X).shape == (30, 2)


# --- uncertainties ---------------------------------------------------------------


def test_uncertainty_is_the_mean_over_labels():
    rng = np.random.default_rng(0)
    p = rng.random((7, 4))
    pairs = np.stack([1 - p, p], axis=2)
    by_hand = {
        "gini": 2 * p * (1 - p),
        "entropy": -p * np.log(p) - (1 - p) * np.log(1 - p),
        "margin": 1 - np.abs(2 * p - 1),
        "least_confident": np.minimum(p, 1 - p),
    }
    for kind, each in by_hand.items():
        np.testing.assert_allclose(uncertainty(pairs, kind), each.mean(axis=1))
    joint = np.array([1.0])  # of the 16 sets of labels of one image
    for q in p[0]:
        joint = np.concatenate([joint * (1 - q), joint * q])
    entropy = -(joint * np.log(joint)).sum()
    assert uncertainty(pairs, "entropy")[0] == pytest.approx(entropy / 4)


@pytest.mark.parametrize(
    "estimator",
    [
        RandomForestClassifier(20, random_state=0),
        OneVsRestClassifier(LogisticRegression()),
        MLPClassifier(max_iter=20, random_state=0),
        ClassifierChain(LogisticRegression()),
    ],
    ids=lambda e: type(e).__name__,
)
def test_any_multilabel_classifier(estimator):
    X, y = make_multilabel_classification(60, n_classes=4, random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Stochastic Optimizer")
        estimator.fit(X, y)
    found = estimator.predict_proba(X)
    p = np.stack([c[:, 1] for c in found], 1) if isinstance(found, list) else found
    score = LeastConfident().score(estimator, X).total
    np.testing.assert_allclose(score, np.minimum(p, 1 - p).mean(axis=1))
    assert UncertaintyHerding().query(estimator, X, 5).shape == (5,)


def test_a_forests_label_without_examples():
    X, y = make_multilabel_classification(40, n_classes=3, random_state=0)
    y[:, 1], y[:, 2] = 0, 1
    forest = RandomForestClassifier(9, random_state=0).fit(X, y)
    p = forest.predict_proba(X)[0][:, 1]
    np.testing.assert_allclose(
        LeastConfident().score(forest, X).total, np.minimum(p, 1 - p) / 3
    )


# --- ActiveLearner ---------------------------------------------------------------


ABLE = [kind for kind in kinds_of_strategies() if kind.multilabel]


@pytest.mark.parametrize("kind", ABLE)
def test_simulation_and_by_hand(kind, centers, tagged):
    X, y = tagged
    strategy = ADMA(centers) if kind is ADMA else kind()
    simulated = learner_for(strategy).fit(X, y)
    assert simulated.multilabel_
    assert [len(i) for i in simulated.queried_indices_] == [4, 4, 4]
    assert 0 <= simulated.score(X, y) <= 1
    poisoned = np.where(simulated.labeled_[:, None], y, 1 - y)
    np.testing.assert_array_equal(
        clone(simulated).fit(X, poisoned).predict_proba(X), simulated.predict_proba(X)
    )
    hand = learner_for(strategy).fit(X, np.full((30, 3), np.nan))
    for indices in simulated.queried_indices_:
        np.testing.assert_array_equal(hand.query(), indices)
        hand.teach(indices, y[indices])
    np.testing.assert_array_equal(hand.predict_proba(X), simulated.predict_proba(X))


def test_adma_mixes_in_the_doubt_of_all_labels(centers, tagged):
    X, _ = tagged
    clf = fitted(tagged)
    found = ADMA(centers, uncertainty="least_confident").score(clf, X, iteration=3)
    p = clf.predict_proba(X)
    np.testing.assert_allclose(
        found.uncertainty, np.minimum(p, 1 - p).mean(axis=1), rtol=1e-6
    )


def test_gaps_and_corrections(tagged):
    X, y = tagged
    first = np.where(np.arange(30)[:, None] < 8, y, -1)
    learner = learner_for(MarginSampling(), classes=["r", "g", "b"]).fit(X, first)
    assert learner.classes_.tolist() == ["r", "g", "b"]
    assert learner.labeled_.sum() == 8
    assert (learner.query() >= 8).all()
    before = learner.predict_proba(X)
    for labels, message in [
        ([[1, 0]], "2 columns"),
        ([[1, 0, -1]], "got -1 in row 0"),
        ([[-1, -1, -1]], "the first is row 0"),
        ([[1, 0, 1]] * 2, "1 indices, but 2 labels"),
    ]:
        with pytest.raises(ValueError, match=message):
            learner.teach([9], labels)
    np.testing.assert_array_equal(learner.predict_proba(X), before)
    learner.teach([9], sparse.csr_array([[1, 0, 1]])).teach([0], 1 - y[0])
    assert learner.y_[[0, 9]].tolist() == [(1 - y[0]).tolist(), [1, 0, 1]]
    half = first.astype(float)
    half[20, 1] = 1
    with pytest.raises(ValueError, match="row 20"):
        learner.fit(X, half)
    single = learner_for(MarginSampling()).fit(X, [*[0, 1, 2] * 3, *[-1] * 21])
    with pytest.raises(ValueError, match="one label per image"):
        single.teach([9, 10], [[0, 1, 1], [1, 0, 0]])


def test_with_groups_weights_and_stopping(tagged):
    X, y = tagged
    groups = np.arange(30) // 3
    learner = learner_for(
        UncertaintyHerding(), n_instances=2, n_rounds=None,
        stopping=TargetScore(0.0, X, y),
    )  # fmt: skip
    learner.fit(X, y, sample_weight=np.arange(1, 31), groups=groups)
    assert [len(i) for i in learner.queried_indices_] == [6]
    result = cross_validate(learner_for(RandomSampling()), X, y, cv=3)
    assert np.isfinite(result["test_score"]).all()


def test_other_classifiers_inside():
    X, y = make_multilabel_classification(80, n_classes=3, random_state=0)
    learner = ActiveLearner(
        RandomForestClassifier(20), EntropySampling(), n_rounds=4, random_state=0
    )
    assert learner.fit(X, y).predict(X).shape == (80, 3)
    assert learner.score(X, y) > 0.4


def test_strategies_for_one_label_say_so(tagged):
    X, y = tagged
    clf = fitted(tagged, max_epochs=1)
    assert set(ABLE) >= {
        ADMA, RandomSampling, LeastConfident, MarginSampling, EntropySampling,
        TypiClust, CoreSet, ProbCover, UncertaintyHerding,
    }  # fmt: skip
    for strategy in [BADGE(), from_modal(lambda learner, X: [0])]:
        with pytest.raises(ValueError, match=r"one label per image.*TypiClust"):
            strategy.query(clf, X, 3)
        with pytest.raises(ValueError, match="one label per image"):
            learner_for(strategy).fit(X, y)
    pytest.importorskip("skactiveml")
    from skactiveml.pool import Falcun

    with pytest.raises(ValueError, match="one label per image"):
        learner_for(from_skactiveml(Falcun())).fit(X, y)
