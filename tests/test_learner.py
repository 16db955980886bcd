"""ActiveLearner: simulation, by hand, in searches and pipelines; no label leaks."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skadma import ActiveLearner, SourceCenters
from skadma.stopping import TargetScore
from skadma.strategies import (
    ADMA,
    EntropySampling,
    LeastConfident,
    MarginSampling,
    RandomSampling,
    TypiClust,
)

from .conftest import TinyCNN, tiny_classifier


@pytest.fixture(scope="module")
def centers(pictures):
    X, y = pictures
    return SourceCenters.from_dataset(tiny_classifier(), X, np.arange(24) % 5)


def learner_for(strategy, **params):
    defaults = {"n_rounds": 3, "n_instances": 4, "random_state": 0}
    return ActiveLearner(tiny_classifier(), strategy, **{**defaults, **params})


def strategies(centers):
    return [
        ADMA(centers),
        ADMA(centers, layer_a=(-4, -5), features="initial", weights="distance"),
        RandomSampling(),
        LeastConfident(),
        MarginSampling(),
        EntropySampling(),
    ]


def test_fit_with_labels_builds_the_network_once(pictures):
    X, y = pictures
    built = []

    def build():
        built.append(1)
        return TinyCNN()

    start = np.where(np.arange(len(y)) < 8, y, -1)
    estimator = tiny_classifier().set_params(backbone=build)
    ActiveLearner(estimator, TypiClust(), random_state=0).fit(X, start).query(2)
    assert len(built) == 1


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


def test_by_hand_is_the_same_as_the_simulation(centers, pictures):
    X, y = pictures
    simulated = learner_for(ADMA(centers)).fit(X, y)
    hand = learner_for(ADMA(centers), classes=[0, 1, 2]).fit(X, np.full(24, -1))
    for expected in simulated.queried_indices_:
        indices = hand.query()
        np.testing.assert_array_equal(indices, expected)
        np.testing.assert_array_equal(hand.query(), expected)  # nothing changed
        hand.teach(indices, y[indices])
    np.testing.assert_array_equal(simulated.predict_proba(X), hand.predict_proba(X))
    assert [row["n_labels"] for row in hand.history_] == [4, 8, 12]


def test_resumed_from_labels_and_a_fitted_classifier(centers, pictures):
    X, y = pictures
    hand = learner_for(ADMA(centers), classes=[0, 1, 2]).fit(X, np.full(24, -1))
    for _ in range(2):
        indices = hand.query()
        hand.teach(indices, y[indices])
    resumed = learner_for(ADMA(centers), classes=[0, 1, 2])
    resumed.resume(X, np.where(hand.labeled_, y, -1), iteration=2)
    assert not hasattr(resumed.estimator_, "net_")
    resumed.estimator_ = pickle.loads(pickle.dumps(hand.estimator_))
    indices, scores = resumed.query_with_scores()
    np.testing.assert_array_equal(indices, hand.query())
    assert len(scores) == 4
    for learner in (hand, resumed):
        learner.teach(indices, y[indices])
    np.testing.assert_array_equal(hand.predict_proba(X), resumed.predict_proba(X))
    fresh = learner_for(RandomSampling(), warm_start=False, classes=[0, 1, 2])
    labelled = np.where(np.arange(24) < 9, y, -1)
    np.testing.assert_array_equal(
        fresh.resume(X, labelled).adapt().predict_proba(X),
        clone(fresh).fit(X, labelled).predict_proba(X),
    )


@pytest.mark.parametrize(
    ("coded", "missing"),
    [
        (lambda y: np.where(np.arange(24) < 6, y, -1), -1),
        (lambda y: np.where(np.arange(24) < 6, y.astype(float), np.nan), np.nan),
        (
            lambda y: np.array(
                [f"c{v}" if i < 6 else None for i, v in enumerate(y)], dtype=object
            ),
            None,
        ),
    ],
)
def test_initial_labels(coded, missing, pictures):
    X, y = pictures
    labels = coded(y)
    learner = learner_for(MarginSampling()).fit(X, labels)
    assert learner.labeled_.sum() == 6
    assert learner.history_ == []
    indices = learner.query(3)
    assert (indices >= 6).all()
    known = np.array([labels[list(y).index(v)] for v in (0, 1, 2)])
    learner.teach(indices, known[y[indices]])
    assert learner.labeled_.sum() == 9
    assert set(learner.predict(X)) <= set(learner.classes_)


def test_classes_that_come_up_later(pictures):
    X, y = pictures
    names = np.array(["a", "b", "c"])[y]
    learner = learner_for(MarginSampling()).fit(X, [None] * 24)
    for label in "abc":
        learner.teach(np.flatnonzero(names == label)[:2], [label, label])
    assert learner.classes_.tolist() == ["a", "b", "c"]
    assert learner.predict_proba(X).shape == (24, 3)


def test_teach_refuses_and_loses_nothing(pictures):
    X, y = pictures
    learner = learner_for(MarginSampling(), classes=[0, 1, 2])
    with pytest.raises(NotFittedError):
        learner.query()
    learner.fit(X, np.full(24, -1)).teach([0, 5, 9], y[[0, 5, 9]])
    before = learner.predict_proba(X)
    for indices, labels, message in [
        ([1, 1], [0, 0], "distinct"),
        ([24], [0], "from 0 to 23"),
        ([1, 2], [0], "2 indices, but 1 labels"),
        ([1], [3], "not among"),
        ([1], [None], "None"),
        ([0.5], [1], "list of int"),
    ]:
        with pytest.raises(ValueError, match=message):
            learner.teach(indices, labels)
    with pytest.raises(ValueError, match="from 1 to"):
        learner.query(22)
    np.testing.assert_array_equal(learner.predict_proba(X), before)
    assert learner.labeled_.sum() == 3
    learner.teach([0], [2])  # a label is corrected
    assert learner.labeled_.sum() == 3


def test_pool_is_used_up(pictures):
    X, y = pictures
    learner = learner_for(RandomSampling(), n_instances=9, n_rounds=9).fit(X, y)
    assert [len(i) for i in learner.queried_indices_] == [9, 9, 6]
    with pytest.raises(ValueError, match="size of the pool, 0"):
        learner.query()


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


def test_waits_for_a_second_class():
    X, y = np.arange(40.0)[:, None], np.repeat([0, 1], 20)
    learner = ActiveLearner(
        LogisticRegression(), RandomSampling(), n_rounds=9, n_instances=1,
        random_state=4,
    )  # fmt: skip
    fitted = [hasattr(learner.estimator_, "coef_") for _ in learner.rounds(X, y)]
    assert not fitted[0]
    assert fitted[-1]


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
    out = [
        subprocess.run(
            [sys.executable, "-c", _RUN],
            cwd=request.config.rootpath,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
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


@pytest.mark.parametrize("none", [None, -1, float("nan")], ids=str)
def test_missing_among_strings(none):
    X = np.random.default_rng(0).normal(size=(60, 3))
    learner = ActiveLearner(LogisticRegression(), MarginSampling(), n_rounds=2)
    learner.fit(X, ["cat", "dog"] * 10 + [none] * 40)
    assert learner.classes_.tolist() == ["cat", "dog"]
    assert learner.labeled_.sum() == 20
    with pytest.raises(ValueError, match="label"):
        learner.teach([30, 31], ["cat", none])
    assert learner.labeled_.sum() == 20


def test_missing_in_a_series():
    X = np.random.default_rng(0).normal(size=(6, 3))
    y = pd.Series(["cat", "dog", pd.NA, pd.NA, pd.NA, pd.NA], dtype="string")
    learner = ActiveLearner(LogisticRegression(), MarginSampling()).fit(X, y)
    assert learner.classes_.tolist() == ["cat", "dog"]
    assert learner.labeled_.sum() == 2


def test_what_stands_for_no_label_cannot_be_taught():
    X = np.random.default_rng(0).normal(size=(20, 3))
    learner = ActiveLearner(LogisticRegression(), MarginSampling())
    learner.fit(X, [0, 1, 2] + [-1] * 17)
    with pytest.raises(ValueError, match="stands for none"):
        learner.teach([5], [-1])
    assert learner.classes_.tolist() == [0, 1, 2]
    learner.set_params(classes=[-1, 1]).fit(X, [None] * 20)
    assert learner.teach([5, 6], [-1, 1]).predict(X[5:7]).tolist() == [-1, 1]


def test_waiting_for_a_second_class():
    X, y = load_digits(return_X_y=True)
    rule = TargetScore(0.99, X, y)
    learner = ActiveLearner(
        LogisticRegression(max_iter=200), RandomSampling(), n_rounds=5, n_instances=1,
        stopping=rule, random_state=0,
    )  # fmt: skip
    assert learner.fit(X / 16, y).labeled_.sum() == 5
    by_hand = ActiveLearner(LogisticRegression(), RandomSampling())
    by_hand.fit(X[:20] / 16, [0, 0, 0] + [-1] * 17)
    assert len(by_hand.query(3)) == 3
    assert by_hand.teach([10], [1]).predict(X[:1] / 16).shape == (1,)


@pytest.mark.parametrize(
    "strategy", [RandomSampling(), MarginSampling(), TypiClust()], ids=repr
)
def test_images_that_cannot_be_decoded_are_never_asked_for(
    strategy, pictures, tmp_path
):
    X, y = pictures
    for i, image in enumerate(X):
        Image.fromarray(image).save(tmp_path / f"{i:02}.png")
    bad = [2, 3, 5, 7, 11]
    for i in bad:
        (tmp_path / f"{i:02}.png").write_bytes(b"no image")
    paths = sorted(map(str, tmp_path.iterdir()))
    learner = ActiveLearner(
        tiny_classifier(on_bad_image="skip", max_epochs=1), strategy, n_rounds=None,
        n_instances=3, random_state=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ unreadable")
        learner.fit(paths, y)
    asked = np.concatenate(learner.queried_indices_)
    assert sorted(asked) == sorted(set(range(24)) - set(bad))
