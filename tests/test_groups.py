"""Weights and groups in ActiveLearner: passed on, and never split."""

import numpy as np
import pytest
from PIL import Image
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skadma import ActiveLearner
from skadma.strategies import CEAL, MarginSampling, RandomSampling, TypiClust

from .conftest import tiny_classifier

GROUPS = np.repeat(list("abcdefgh"), [1, 5, 2, 4, 3, 3, 2, 4])  # of 24 pictures


class Spy(LogisticRegression):
    """Keeps what each fit was given."""

    fits: list = []  # noqa: RUF012

    def fit(self, X, y, sample_weight=None):
        self.fits.append((X, y, sample_weight))
        return super().fit(X, y, sample_weight)


@pytest.fixture
def digits():
    X, y = load_digits(return_X_y=True)
    Spy.fits.clear()
    return X[:200] / 16, y[:200]


def learner_for(estimator, strategy=None, **params):
    defaults = {"n_rounds": 3, "n_instances": 20, "random_state": 0}
    strategy = strategy or RandomSampling()
    return ActiveLearner(estimator, strategy, **{**defaults, **params})


# --- weights ---------------------------------------------------------------------


@pytest.mark.parametrize("routing", [False, True])
@pytest.mark.parametrize("piped", [False, True])
def test_the_revealed_images_weights_reach_the_classifier(digits, routing, piped):
    X, y = digits
    weights = np.arange(1, 201) / 10
    with config_context(enable_metadata_routing=routing):
        inner = Spy(max_iter=200)
        if routing:
            inner.set_fit_request(sample_weight=True)
        if piped:
            inner = Pipeline([("same", FunctionTransformer()), ("clf", inner)])
        learner = learner_for(inner).fit(X, y, sample_weight=weights)
    rows = np.concatenate(learner.queried_indices_)
    assert len(Spy.fits) == 3
    for number, (_, labels, given) in enumerate(Spy.fits, start=1):
        revealed = np.sort(rows[: 20 * number])
        np.testing.assert_array_equal(given, weights[revealed])
        np.testing.assert_array_equal(labels, y[revealed])


def test_believed_labels_have_their_images_weights(digits):
    X, y = digits
    weights = np.arange(1, 201) / 10
    learner_for(Spy(max_iter=200), CEAL(threshold=2.0)).fit(X, y, sample_weight=weights)
    X_seen, _, given = Spy.fits[-1]
    assert len(X_seen) > 60
    rows = [int(np.flatnonzero((row == X).all(axis=1))[0]) for row in X_seen]
    np.testing.assert_array_equal(given, weights[rows])


def test_weights_by_hand_are_those_of_the_simulation(pictures):
    X, y = pictures
    weights = np.random.default_rng(0).random(24)
    make = {"estimator": tiny_classifier(), "n_instances": 4, "classes": [0, 1, 2]}
    simulated = learner_for(**make).fit(X, y, sample_weight=weights)
    hand = learner_for(**make).fit(X, np.full(24, -1), sample_weight=weights)
    for indices in simulated.queried_indices_:
        hand.teach(indices, y[indices])
    np.testing.assert_array_equal(simulated.predict_proba(X), hand.predict_proba(X))
    resumed = learner_for(**make, warm_start=False)
    labelled = np.where(hand.labeled_, y, -1)
    resumed.resume(X, labelled, sample_weight=weights).adapt()
    fresh = clone(resumed).fit(X, labelled, sample_weight=weights)
    np.testing.assert_array_equal(resumed.predict_proba(X), fresh.predict_proba(X))
    unweighted = clone(resumed).fit(X, labelled)
    assert not np.allclose(unweighted.predict_proba(X), fresh.predict_proba(X))


def test_weights_that_cannot_be_passed_on(digits):
    X, y = digits
    with pytest.raises(ValueError, match="KNeighborsClassifier takes no sample_weight"):
        learner_for(KNeighborsClassifier()).fit(X, y, sample_weight=np.ones(200))
    with pytest.raises(ValueError, match="inconsistent"):
        learner_for(Spy()).fit(X, y, sample_weight=np.ones(199))
    with (
        config_context(enable_metadata_routing=True),
        pytest.raises(ValueError, match="not explicitly set as requested"),
    ):
        learner_for(Spy()).fit(X, y, sample_weight=np.ones(200))


def test_other_parameters_of_fit_are_passed_on(digits):
    X, y = digits
    pipe = Pipeline([("scale", StandardScaler()), ("clf", Spy(max_iter=200))])
    weights = np.arange(1, 201) / 10
    learner = learner_for(pipe, n_rounds=1)
    learner.fit(X, y, scale__sample_weight=weights)
    rows = np.sort(learner.queried_indices_[0])
    scaler = StandardScaler().fit(X[rows], sample_weight=weights[rows])
    np.testing.assert_array_equal(Spy.fits[0][0], scaler.transform(X[rows]))


def test_routed_by_cross_validate_and_a_search(digits):
    X, y = digits
    weights = np.random.default_rng(0).random(200)
    groups = np.arange(200) // 4
    with config_context(enable_metadata_routing=True):
        inner = Spy(max_iter=200).set_fit_request(sample_weight=True)
        inner.set_score_request(sample_weight=False)
        learner = learner_for(inner, n_instances=8)
        learner.set_score_request(sample_weight=True)
        params = {"sample_weight": weights, "groups": groups}
        found = cross_validate(
            learner, X, y, params=params, cv=GroupKFold(2), return_estimator=True,
            return_indices=True, error_score="raise",
        )  # fmt: skip
        for fitted, rows in zip(
            found["estimator"], found["indices"]["train"], strict=True
        ):
            for asked in fitted.queried_indices_:
                assert len(asked) == 32
                assert len(np.unique(groups[rows][asked])) == 8
        search = GridSearchCV(learner, {"n_rounds": [1, 2]}, cv=GroupKFold(2))
        assert search.fit(X, y, **params).best_params_ == {"n_rounds": 2}
        apart = clone(learner).set_fit_request(groups=False)
        cross_validate(apart, X, y, params=params, cv=GroupKFold(2),
                       error_score="raise")  # fmt: skip
    assert all(given is not None for _, _, given in Spy.fits)


def test_cross_validate_without_routing(digits):
    """The splitter's groups, and by params the learner's."""
    X, y = digits
    groups = np.arange(200) // 4
    found = cross_validate(
        learner_for(Spy(max_iter=200), n_instances=5), X, y, groups=groups,
        params={"groups": groups, "sample_weight": np.arange(1, 201)},
        cv=GroupKFold(2), return_estimator=True, error_score="raise",
    )  # fmt: skip
    assert [[len(i) for i in e.queried_indices_] for e in found["estimator"]] == [
        [20, 20, 20], [20, 20, 20],
    ]  # fmt: skip
    assert Spy.fits[0][2].shape == (20,)


# --- groups ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy", [RandomSampling(), MarginSampling(), TypiClust()], ids=repr
)
def test_a_round_is_of_whole_groups(strategy, pictures):
    X, y = pictures
    learner = learner_for(
        tiny_classifier(), strategy, n_instances=3, n_rounds=None
    ).fit(X, y, groups=GROUPS)
    assert [len(set(GROUPS[i])) for i in learner.queried_indices_] == [3, 3, 2]
    rows = np.concatenate(learner.queried_indices_)
    assert sorted(rows) == list(range(24))
    for asked, row in zip(learner.queried_indices_, learner.history_, strict=True):
        changes = GROUPS[asked][1:] != GROUPS[asked][:-1]
        assert changes.sum() == len(set(GROUPS[asked])) - 1  # groups stay together
        assert len(row["scores"]) == len(asked)
        for name in set(GROUPS[asked]):
            assert len(set(row["scores"][GROUPS[asked] == name])) == 1


def test_groups_are_taken_by_their_best_image(digits):
    X, y = digits
    groups = np.arange(200) // 8
    learner = learner_for(Spy(max_iter=200), MarginSampling(), n_instances=4)
    labelled = np.where(groups < 10, y, -1)
    learner.fit(X, labelled, groups=groups)
    asked, scores = learner.query_with_scores()
    proba = np.sort(learner.predict_proba(X), axis=1)
    doubt = 1 - (proba[:, -1] - proba[:, -2])
    best = {g: doubt[groups == g].max() for g in range(10, 25)}
    expected = sorted(best, key=best.get, reverse=True)[:4]
    assert list(dict.fromkeys(groups[asked])) == expected
    for g, first in zip(expected, asked[::8], strict=True):
        assert doubt[first] == best[g]
    np.testing.assert_allclose(scores, np.repeat([best[g] for g in expected], 8))


def test_groups_of_one_are_no_groups(pictures):
    X, y = pictures
    learner = learner_for(tiny_classifier(), TypiClust(), n_instances=4)
    plain = clone(learner).fit(X, y)
    single = learner.fit(X, y, groups=[f"image {i}" for i in range(24)])
    np.testing.assert_array_equal(
        np.concatenate(plain.queried_indices_), np.concatenate(single.queried_indices_)
    )
    np.testing.assert_array_equal(plain.predict_proba(X), single.predict_proba(X))


def test_groups_by_hand(pictures):
    X, y = pictures
    learner = learner_for(
        tiny_classifier(), MarginSampling(), n_instances=2, classes=[0, 1, 2]
    )
    first = np.where(np.isin(GROUPS, ["b", "c"]), y, -1)
    learner.fit(X, first, groups=GROUPS)
    indices = learner.query()
    assert len(set(GROUPS[indices])) == 2
    before = learner.predict_proba(X)
    group = np.flatnonzero(GROUPS == "d")
    with pytest.raises(ValueError, match=r"group 'd' would be split.*\[11\]"):
        learner.teach(group[:-1], y[group[:-1]])
    assert not learner.labeled_[group].any()
    np.testing.assert_array_equal(learner.predict_proba(X), before)
    learner.teach(group[::-1], y[group[::-1]])
    assert learner.labeled_[group].all()
    learner.teach(group[:1], [2])  # a correction splits nothing
    assert len(set(GROUPS[learner.query(5)])) == 5
    np.testing.assert_array_equal(learner.query(6), learner.query(5))
    labelled = np.where(learner.labeled_, learner.y_, -1)
    resumed = clone(learner).resume(X, labelled, groups=GROUPS)
    assert len(set(GROUPS[resumed.query(5)])) == 5


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (GROUPS[1:], "23 entries for 24"),
        ([None, *GROUPS[1:]], "None or NaN"),
        ([np.nan] * 24, "None or NaN"),
        (np.zeros((24, 2)), "1d"),
        (np.arange(24) // 2, r"group 2 would be split.*\[5\]"),
    ],
)
def test_groups_that_cannot_be(pictures, groups, message):
    X, y = pictures
    labelled = np.where(np.arange(24) < 5, y, -1)
    with pytest.raises(ValueError, match=message):
        learner_for(tiny_classifier()).fit(X, labelled, groups=groups)


def test_groups_with_images_that_cannot_be_decoded(pictures, tmp_path):
    X, y = pictures
    for i, image in enumerate(X):
        Image.fromarray(image).save(tmp_path / f"{i:02}.png")
    bad = np.flatnonzero(np.isin(GROUPS, ["b", "f"]))
    for i in [0, *bad]:
        (tmp_path / f"{i:02}.png").write_bytes(b"no image")
    paths = sorted(map(str, tmp_path.iterdir()))
    learner = learner_for(
        tiny_classifier(on_bad_image="skip", max_epochs=1), MarginSampling(),
        n_rounds=None, n_instances=3,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="unreadable"):
        learner.fit(paths, y, groups=GROUPS)
    rows = np.concatenate(learner.queried_indices_)
    assert set(GROUPS[rows]) == set("cdegh")  # groups without a readable image are left
    assert len(rows) == np.isin(GROUPS, list("cdegh")).sum()
    with pytest.warns(UserWarning, match="unreadable"):
        learner.fit(paths, np.where(np.isin(GROUPS, ["c", "d"]), y, -1), groups=GROUPS)
        assert set(GROUPS[learner.query(6)]) == set("egh")
