"""Simulations, searches and pipelines with ActiveLearner."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skadma import ActiveLearner
from skadma.strategies import (
    ADMA,
    EntropySampling,
    LeastConfident,
    MarginSampling,
    RandomSampling,
)

from .conftest import learner_for, tiny_classifier


def strategies(centers):
    return [
        ADMA(centers),
        ADMA(centers, layer_a=(-4, -5), features="initial", weights="distance"),
        RandomSampling(),
        LeastConfident(),
        MarginSampling(),
        EntropySampling(),
    ]


@pytest.mark.parametrize("number", range(6))
def test_simulation(number, centers, pictures):
    X, y = pictures
    learner = learner_for(strategies(centers)[number]).fit(X, y)
    assert [len(i) for i in learner.queried_indices_] == [4, 4, 4]
    queried = np.concatenate(learner.queried_indices_)
    assert len(set(queried)) == 12
    np.testing.assert_array_equal(np.flatnonzero(learner.labeled_), np.sort(queried))
    table = pd.DataFrame(learner.history_)
    assert table["n_labels"].tolist() == [4, 8, 12]
    assert (table["query_seconds"] > 0).all()
    assert (table["adapt_seconds"] > 0).all()
    assert all(np.isfinite(scores).all() for scores in table["scores"])
    assert learner.predict_proba(X).shape == (24, 3)
    assert 0 <= learner.score(X, y) <= 1


@pytest.mark.parametrize("number", range(6))
def test_labels_never_queried_are_never_read(number, centers, pictures):
    """Poison them: same queries, same network, to the bit."""
    X, y = pictures
    learner = learner_for(strategies(centers)[number]).fit(X, y)
    hidden = ~learner.labeled_
    assert hidden.sum() == 12
    poisoned = y.copy()
    poisoned[hidden] = np.roll(y[hidden], 1)
    assert (poisoned != y).sum() > 1
    again = clone(learner).fit(X, poisoned)
    for mine, theirs in zip(
        learner.queried_indices_, again.queried_indices_, strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(learner.predict_proba(X), again.predict_proba(X))


def test_labels_outside_the_classes_are_never_read_either(centers, pictures):
    X, y = pictures
    learner = learner_for(ADMA(centers), classes=[0, 1, 2]).fit(X, y)
    poisoned = np.where(learner.labeled_, y, 77)
    again = clone(learner).fit(X, poisoned)
    np.testing.assert_array_equal(learner.predict_proba(X), again.predict_proba(X))


def test_rounds_can_be_watched(centers, pictures):
    X, y = pictures
    learner = learner_for(ADMA(centers))
    seen = [(row["n_labels"], learner.score(X, y)) for row in learner.rounds(X, y)]
    assert [n for n, _ in seen] == [4, 8, 12]
    np.testing.assert_array_equal(
        learner.predict_proba(X), clone(learner).fit(X, y).predict_proba(X)
    )


def test_algorithm_1_goes_on_and_restart_does_not(pictures):
    X, y = pictures
    going = learner_for(RandomSampling()).fit(X, y)
    fresh = learner_for(RandomSampling(), warm_start=False).fit(X, y)
    labelled = np.concatenate(fresh.queried_indices_)
    labelled.sort()
    seed = fresh.estimator_.random_state
    once = tiny_classifier(classes=[0, 1, 2], random_state=seed).fit(
        X[labelled], y[labelled]
    )
    np.testing.assert_array_equal(fresh.predict_proba(X), once.predict_proba(X))
    assert not np.allclose(going.predict_proba(X), once.predict_proba(X))


def test_grid_over_lambda_and_layers(centers, pictures):
    X, y = pictures
    search = GridSearchCV(
        learner_for(ADMA(centers), n_rounds=2),
        {"strategy__trade_off": [0.05, 1.0], "strategy__layer_a": [-4, (-4, -5)]},
        cv=2,
    ).fit(X, y)
    assert len(search.cv_results_["params"]) == 4
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.predict(X).shape == (24,)
    loaded = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(loaded.predict(X), search.predict(X))


def test_grid_over_strategies_and_estimators(centers, pictures):
    X, y = pictures
    search = GridSearchCV(
        learner_for(ADMA(centers), n_rounds=1),
        {
            "strategy": [ADMA(centers), RandomSampling()],
            "estimator__n_frozen_layers": [0, 2],
        },
        cv=2,
    ).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_cross_validate(centers, pictures):
    X, y = pictures
    result = cross_validate(
        learner_for(ADMA(centers)), X, y, cv=3, return_estimator=True
    )
    assert len(result["test_score"]) == 3
    assert all(e.labeled_.shape == (16,) for e in result["estimator"])


def test_inside_and_around_a_pipeline(centers, pictures):
    X, y = pictures
    plain = learner_for(ADMA(centers)).fit(X, y)
    inside = Pipeline(
        [("same", FunctionTransformer()), ("learner", learner_for(ADMA(centers)))]
    ).fit(X, y)
    np.testing.assert_array_equal(inside.predict_proba(X), plain.predict_proba(X))
    around = ActiveLearner(
        make_pipeline(FunctionTransformer(), tiny_classifier()),
        ADMA(centers),
        n_rounds=3,
        n_instances=4,
        random_state=0,
    ).fit(X, y)
    np.testing.assert_array_equal(around.predict_proba(X), plain.predict_proba(X))


@pytest.mark.parametrize(
    "classifier",
    [
        LogisticRegression(max_iter=2000),
        RandomForestClassifier(20, warm_start=True),
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
    ],
)
@pytest.mark.parametrize("strategy", [MarginSampling(), EntropySampling()])
def test_any_classifier(classifier, strategy):
    X, y = load_digits(return_X_y=True)
    learner = ActiveLearner(
        classifier, strategy, n_rounds=8, n_instances=20, random_state=0
    ).fit(X[:1000], y[:1000])
    assert learner.score(X[1000:], y[1000:]) > 0.7


def test_pickle_goes_on(centers, pictures):
    X, y = pictures
    learner = learner_for(ADMA(centers), classes=[0, 1, 2]).fit(X, np.full(24, -1))
    first = learner.query()
    learner.teach(first, y[first])
    loaded = pickle.loads(pickle.dumps(learner))
    for each in (learner, loaded):
        indices = each.query()
        each.teach(indices, y[indices])
    np.testing.assert_array_equal(learner.predict_proba(X), loaded.predict_proba(X))


_RUN = """
import numpy as np
from tests.conftest import tiny_classifier
from skadma import ActiveLearner, SourceCenters
from skadma.strategies import ADMA
rng = np.random.default_rng(0)
X = rng.integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
y = np.arange(24) % 3
centers = SourceCenters.from_dataset(tiny_classifier(), X, np.arange(24) % 5)
learner = ActiveLearner(
    tiny_classifier(random_state=None), ADMA(centers), n_rounds=3, n_instances=4,
    random_state=5).fit(X, y)
print([i.tolist() for i in learner.queried_indices_])
print(learner.predict_proba(X).tobytes().hex())
"""


def test_same_seed_same_result_in_two_processes(request):
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", _RUN],
            cwd=request.config.rootpath,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    out = [run.communicate()[0] for run in runs]
    assert out[0] == out[1]
    assert len(out[0].splitlines()) == 2


def test_seeds_differ(pictures):
    X, y = pictures
    queried = [
        learner_for(RandomSampling(), random_state=seed).fit(X, y).queried_indices_[0]
        for seed in range(3)
    ]
    assert len({tuple(i) for i in queried}) == 3


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_rounds": 0}, "n_rounds"),
        ({"n_instances": 1.5}, "n_instances"),
        ({"strategy": "margin"}, "strategy"),
    ],
)
def test_wrong_parameters(params, message, pictures):
    learner = learner_for(RandomSampling()).set_params(**params)
    with pytest.raises(ValueError, match=message):
        learner.fit(*pictures)


def test_lengths_must_agree(pictures):
    with pytest.raises(ValueError, match="24 images, y 3"):
        learner_for(RandomSampling()).fit(pictures[0], [0, 1, 2])


def test_data_frames_keep_their_columns():
    X, y = load_digits(return_X_y=True, as_frame=True)
    chosen = ["pixel_3_3", "pixel_4_4", "pixel_2_5"]
    classifier = make_pipeline(
        ColumnTransformer([("some", StandardScaler(), chosen)]), LogisticRegression()
    )
    learner = ActiveLearner(classifier, MarginSampling(), n_rounds=3, random_state=0)
    learner.fit(X[:300], y[:300])
    assert learner.feature_names_in_[0] == "pixel_0_0"
    assert learner.predict(X[300:310]).shape == (10,)
