"""ActiveLearner by hand: labels that come round by round."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skadma import ActiveLearner
from skadma.stopping import TargetScore
from skadma.strategies import (
    ADMA,
    CoreSet,
    LeastConfident,
    MarginSampling,
    RandomSampling,
    TypiClust,
)

from .conftest import TinyCNN, learner_for, tiny_classifier


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
    with pytest.raises(ValueError, match="n_instances == 0, must be >= 1"):
        learner.query(0)
    assert sorted(learner.query(22)) == sorted(set(range(24)) - {0, 5, 9})
    np.testing.assert_array_equal(learner.predict_proba(X), before)
    assert learner.labeled_.sum() == 3
    learner.teach([0], [2])  # a label is corrected
    assert learner.labeled_.sum() == 3


def test_pool_is_used_up(pictures):
    X, y = pictures
    learner = learner_for(RandomSampling(), n_instances=9, n_rounds=9).fit(X, y)
    assert [len(i) for i in learner.queried_indices_] == [9, 9, 6]
    with pytest.raises(ValueError, match="No unlabelled image is left"):
        learner.query()


def test_waits_for_a_second_class():
    X, y = np.arange(40.0)[:, None], np.repeat([0, 1], 20)
    learner = ActiveLearner(
        LogisticRegression(), RandomSampling(), n_rounds=9, n_instances=1,
        random_state=4,
    )  # fmt: skip
    fitted = [hasattr(learner.estimator_, "coef_") for _ in learner.rounds(X, y)]
    assert not fitted[0]
    assert fitted[-1]


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
    left = [*bad, 20, 21, 22, 23]
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
        known = np.where(np.arange(24) < 20, y, -1)
        known[bad] = -1
        learner.fit(paths, known)
        assert sorted(learner.query(9)) == [20, 21, 22, 23]
        with pytest.raises(ValueError, match="only 4 of the 9 images"):
            learner.strategy_.query(learner.estimator_, [paths[i] for i in left], 9)
        learner.teach([20, 21, 22, 23], y[20:])
        with pytest.raises(ValueError, match="only 0 of the 5 images"):
            learner.query(1)


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


@pytest.mark.parametrize("seed", [None, 0, np.random.RandomState(0)], ids=str)
@pytest.mark.parametrize(
    "strategy", [RandomSampling, MarginSampling, LeastConfident, CoreSet, TypiClust]
)
def test_query_again(strategy, seed):
    """The same answer until `teach`, whatever the seed."""
    X = np.random.default_rng(0).normal(size=(40, 4))
    learner = ActiveLearner(
        GaussianNB(), strategy(random_state=seed), classes=[0, 1], n_instances=6
    ).fit(X, [0, 1] + [None] * 38)
    first, scores = learner.query_with_scores()
    for again in (learner, clone_of(learner)):
        found, same = again.query_with_scores()
        np.testing.assert_array_equal(found, first)
        np.testing.assert_array_equal(same, scores)
    learner.query(3)
    np.testing.assert_array_equal(learner.query(), first)
    learner.teach(first, np.arange(6) % 2)
    assert not set(first) & set(learner.query())


def clone_of(learner):
    return pickle.loads(pickle.dumps(learner))


class Failing(GaussianNB):
    """Fails when it is told to, after it has changed."""

    fails = False

    def __init__(self, random_state=None, classes=None):
        super().__init__()
        self.random_state = random_state
        self.classes = classes

    def fit(self, X, y):
        if isinstance(self.random_state, np.random.RandomState):
            self.random_state.rand()
        self.theta_ = None
        if Failing.fails:
            raise Failing.fails
        return super().fit(X, y)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyboardInterrupt(), MemoryError()], ids=repr
)
@pytest.mark.parametrize("way", ["teach", "adapt", "fit", "resume"])
def test_nothing_is_changed_by_a_failure(monkeypatch, wrapped, error, way):
    X = np.random.default_rng(0).normal(size=(20, 3))
    inner = Failing(random_state=np.random.RandomState(0))
    estimator = make_pipeline(StandardScaler(), inner) if wrapped else inner
    strategy = MarginSampling(random_state=np.random.RandomState(1))
    learner = ActiveLearner(estimator, strategy, n_instances=4)
    learner.fit(X, [0, 1, 0, 1] + [-1] * 16)
    chosen = learner.query()
    learner.teach(chosen, [0, 1, 0, 1])
    chosen = learner.query()
    before = pickle.dumps(learner), learner.predict_proba(X)
    monkeypatch.setattr(Failing, "fails", error)
    if way == "resume":
        monkeypatch.setattr("skadma.learner.can_be_stored", lambda *_: 1 / 0)
        learner.set_params(store="somewhere")
        with pytest.raises(ZeroDivisionError):
            learner.resume(X[:9], [2, 3, 4] * 3)
        learner.set_params(store="auto")
    else:
        with pytest.raises(type(error)):
            if way == "teach":
                learner.teach(chosen, [0, 1, 2, 2])
            elif way == "adapt":
                learner.adapt()
            else:
                learner.fit(X[:9], [2, 3, 4, 2, 3, 4, -1, -1, -1])
    monkeypatch.setattr(Failing, "fails", False)
    assert pickle.dumps(learner) == before[0]
    np.testing.assert_array_equal(learner.predict_proba(X), before[1])
    np.testing.assert_array_equal(learner.query(), chosen)
    learner.teach(chosen, [0, 1, 2, 2])
    assert learner.classes_.tolist() == [0, 1, 2]
    assert [row["n_labels"] for row in learner.history_] == [8, 12]


def test_a_network_that_fails(pictures, monkeypatch):
    X, y = pictures
    learner = learner_for(MarginSampling(), classes=[0, 1, 2], random_state=0)
    learner.fit(X, np.where(np.arange(24) < 6, y, -1))
    chosen = learner.query()
    other = clone_of(learner).teach(chosen, y[chosen])
    before = learner.predict_proba(X)
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr("skadma.classifier.train", lambda *_: 1 / 0)
        learner.teach(chosen, y[chosen])
    assert learner.labeled_.sum() == 6
    assert not learner.history_
    np.testing.assert_array_equal(learner.predict_proba(X), before)
    np.testing.assert_array_equal(learner.query(), chosen)
    learner.teach(chosen, y[chosen])
    np.testing.assert_array_equal(learner.predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize("n_instances", [2, 3, 7, 50])
def test_the_last_round(n_instances):
    """By hand as many are chosen as the simulation chooses."""
    X, y = np.random.default_rng(0).normal(size=(12, 3)), np.arange(12) % 2
    params = {"n_instances": n_instances, "n_rounds": None}
    simulated = ActiveLearner(GaussianNB(), RandomSampling(), **params).fit(X, y)
    hand = ActiveLearner(GaussianNB(), RandomSampling(), classes=[0, 1], **params)
    hand.fit(X, [None] * 12)
    while not hand.labeled_.all():
        chosen = hand.query()
        hand.teach(chosen, y[chosen])
    sizes = [len(chosen) for chosen in hand.queried_indices_]
    assert sizes == [len(chosen) for chosen in simulated.queried_indices_]
    with pytest.raises(ValueError, match="No unlabelled image is left"):
        hand.query()


def test_the_last_groups():
    X, groups = np.random.default_rng(0).normal(size=(12, 3)), np.arange(12) // 4
    hand = ActiveLearner(GaussianNB(), RandomSampling(), classes=[0, 1], n_instances=2)
    hand.fit(X, [None] * 12, groups=groups)
    for n_left in (4, 0):
        chosen = hand.query()
        hand.teach(chosen, chosen % 2)
        assert (~hand.labeled_).sum() == n_left
