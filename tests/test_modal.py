"""modAL drives skadma, and skadma's strategies drive modAL's learner."""

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.fixes import parse_version

from skadma import ActiveLearner, SourceCenters
from skadma.strategies import (
    ADMA,
    AIFT,
    BADGE,
    BALD,
    CEAL,
    ClusterMargin,
    CoreSet,
    DropQuery,
    EntropySampling,
    LeastConfident,
    MarginSampling,
    ProbCover,
    RandomSampling,
    TypiClust,
    UncertaintyHerding,
    from_modal,
)

from .conftest import tiny_classifier

if parse_version(sklearn.__version__) >= parse_version("1.8"):
    pytest.skip(
        "modAL 0.4.2.1 cannot teach with scikit-learn >= 1.8; the oldest-supported "
        "environment runs this file",
        allow_module_level=True,
    )
models = pytest.importorskip("modAL.models")
uncertainty = pytest.importorskip("modAL.uncertainty")


def strategies(X):
    centers = SourceCenters.from_dataset(tiny_classifier(), X, np.arange(24) % 5)
    return [
        ADMA(centers, random_state=0),
        ADMA(centers, layer_a=(-4, -5), weights="distance", random_state=0),
        RandomSampling(random_state=0),
        LeastConfident(random_state=0),
        MarginSampling(random_state=0),
        EntropySampling(random_state=0),
        AIFT(random_state=0),
        BADGE(random_state=0),
        BALD(random_state=0),
        CEAL(random_state=0),
        ClusterMargin(random_state=0),
        CoreSet(random_state=0),
        DropQuery(random_state=0),
        ProbCover(random_state=0),
        TypiClust(random_state=0),
        UncertaintyHerding(random_state=0),
    ]


@pytest.mark.parametrize("n_instances", [1, 2, 5])
@pytest.mark.parametrize("number", range(16))
def test_rounds_in_modal(number, n_instances, pictures):
    X, y = pictures
    strategy = strategies(X)[number]
    calls = []

    def counted(*args, **kwargs):
        calls.append(1)
        return strategy(*args, **kwargs)

    clf = tiny_classifier(classes=[0, 1, 2])
    learner = models.ActiveLearner(
        estimator=clf,
        query_strategy=counted,
        X_training=X[:4],
        y_training=y[:4],
    )
    pool = np.arange(4, 24)
    for round_ in range(3):
        expected = strategy.query(
            learner.estimator, X[pool], n_instances, X_labeled=learner.X_training
        )
        indices, images = learner.query(X[pool], n_instances=n_instances)
        # A bare array of two would be taken apart, any other run twice.
        assert len(calls) == round_ + 1
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_array_equal(images, X[pool][indices])
        learner.teach(X[pool[indices]], y[pool[indices]])
        pool = np.delete(pool, indices)
        assert learner.estimator.n_labels_ == 24 - len(pool)
    assert learner.X_training.shape == (4 + 3 * n_instances, 32, 32, 3)
    assert learner.predict(X).shape == (24,)


def test_the_strategy_object_itself(pictures):
    X, y = pictures
    strategy = strategies(X)[0]
    learner = models.ActiveLearner(
        estimator=tiny_classifier(classes=[0, 1, 2]),
        query_strategy=strategy,
        X_training=X[:4],
        y_training=y[:4],
    )
    indices, _, utilities = learner.query(X[4:], n_instances=2, return_metrics=True)
    assert indices.shape == utilities.shape == (2,)
    total = strategy.score(learner.estimator, X[4:], iteration=2).total
    np.testing.assert_array_equal(utilities, total[indices])


def test_round_zero_without_labels(pictures):
    X, _ = pictures
    strategy = strategies(X)[0]
    clf = tiny_classifier(classes=[0, 1, 2])
    learner = models.ActiveLearner(estimator=clf, query_strategy=strategy)
    indices, _ = learner.query(X, n_instances=3)
    np.testing.assert_array_equal(indices, strategy.query(clone(clf), X, 3))


def test_pipeline_in_modal(pictures):
    X, y = pictures
    learner = models.ActiveLearner(
        estimator=make_pipeline(FunctionTransformer(), tiny_classifier()),
        query_strategy=strategies(X)[0],
        X_training=X[:6],
        y_training=y[:6],
    )
    indices, _ = learner.query(X[6:], n_instances=2)
    learner.teach(X[6:][indices], y[6:][indices])
    assert learner.estimator[-1].n_labels_ == 8


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("uncertainty_sampling", LeastConfident),
        ("margin_sampling", MarginSampling),
        ("entropy_sampling", EntropySampling),
    ],
)
@pytest.mark.parametrize("n_instances", [1, 2, 5])
def test_modals_strategies_drive_the_classifier(theirs, ours, n_instances, pictures):
    X, y = pictures
    learner = models.ActiveLearner(
        estimator=tiny_classifier(classes=[0, 1, 2]),
        query_strategy=getattr(uncertainty, theirs),
        X_training=X[:4],
        y_training=y[:4],
    )
    for _ in range(3):
        indices, images = learner.query(X, n_instances=n_instances)
        mine = ours().query(learner.estimator, X, n_instances)
        assert set(indices) == set(mine)
        learner.teach(images, y[indices])


def uncertain_and_dense(learner, X, n_instances=1):
    from modAL.density import information_density

    score = uncertainty.classifier_uncertainty(learner, X)
    score = score * information_density(X.reshape(len(X), -1) / 255)
    best = np.argsort(-score)[:n_instances]
    return best, score[best]


def modals(name):
    if name == "density":
        return uncertain_and_dense
    module, function = name.split(".")
    return getattr(pytest.importorskip(f"modAL.{module}"), function)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("uncertainty.uncertainty_sampling", {}),
        ("uncertainty.margin_sampling", {"random_tie_break": True}),
        ("uncertainty.entropy_sampling", {}),
        ("batch.uncertainty_batch_sampling", {}),
        ("density", {}),
    ],
)
def test_modals_functions_in_our_learner(name, kwargs, pictures):
    X, y = pictures
    strategy = from_modal(modals(name), **kwargs)
    # Ranked batches measure distances between rows.
    X, clf = X.reshape(24, -1), tiny_classifier(image_shape=(32, 32, 3))
    learner = ActiveLearner(clf, strategy, n_rounds=3, n_instances=3, random_state=0)
    y_start = np.where(np.arange(24) < 3, y, -1)
    for labels in (y, y_start):
        learner.fit(X, labels)
        chosen = learner.query(3)
        assert len(set(chosen)) == 3
        assert not learner.labeled_[chosen].any()
        np.testing.assert_array_equal(learner.query(3), chosen)


def test_from_modal_is_what_modal_chooses(pictures):
    X, y = pictures
    rows = X.reshape(24, -1).astype(float)
    clf = LogisticRegression(max_iter=50).fit(rows[:6], y[:6])
    theirs = models.ActiveLearner(
        clf, modals("batch.uncertainty_batch_sampling"), rows[:6], y[:6]
    )
    expected, _ = theirs.query(rows[6:], n_instances=4)
    ours = from_modal(modals("batch.uncertainty_batch_sampling"))
    got = ours.query(clf, rows[6:], 4, X_labeled=rows[:6], y_labeled=y[:6])
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "name",
    [
        "vote_entropy_sampling",
        "consensus_entropy_sampling",
        "max_disagreement_sampling",
    ],
)
def test_modals_committee_functions(name, pictures):
    X, y = pictures
    committee = VotingClassifier(
        [("a", tiny_classifier()), ("b", tiny_classifier(lr=1e-2))], voting="soft"
    ).fit(X[:12], y[:12])
    strategy = from_modal(modals(f"disagreement.{name}"))
    assert len(set(strategy.query(committee, X[12:], 4))) == 4
