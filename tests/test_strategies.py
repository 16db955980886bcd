"""What every strategy keeps to, and the uncertainty strategies by hand."""

import importlib
import inspect
import pickle
import pkgutil
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from skadma import ActiveLearner, SourceCenters, strategies
from skadma.strategies import (
    ADMA,
    AIFT,
    BADGE,
    CoreSet,
    EntropySampling,
    LeastConfident,
    MarginSampling,
    ModALStrategy,
    QueryByCommittee,
    QueryStrategy,
    RandomSampling,
    ScoringStrategy,
    SkactivemlStrategy,
)

from .conftest import kinds_of_strategies, tiny_classifier

ALL = [
    kind
    for kind in kinds_of_strategies()
    # These need another estimator or a package: tested in files of their own.
    if kind not in (QueryByCommittee, ModALStrategy, SkactivemlStrategy)
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
    assert {ADMA, RandomSampling, CoreSet, *OF_PROBABILITIES} < set(ALL)
    assert len(ALL) >= 15
    for module in pkgutil.iter_modules(strategies.__path__, "skadma.strategies."):
        if module.name.endswith("_to_skactiveml") and not find_spec("skactiveml"):
            continue
        for name, kind in inspect.getmembers(importlib.import_module(module.name)):
            if name[0] == "_" or not inspect.isclass(kind) or inspect.isabstract(kind):
                continue
            if issubclass(kind, QueryStrategy) and kind.__module__ == module.name:
                assert getattr(strategies, name, None) is kind, f"export {name}"


@pytest.mark.parametrize("kind", ALL)
class TestEvery:
    def test_signature(self, kind):
        query = inspect.signature(kind.query).parameters
        assert list(query) == [
            "self", "estimator", "X_pool", "n_instances", "iteration", "X_labeled",
            "y_labeled", "n_rounds",
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
        assert utilities.shape == (n,)
        if isinstance(strategy, ScoringStrategy):
            assert (np.diff(utilities) <= 0).all()

    @pytest.mark.parametrize("n", [0, -1, 25, 1.5, True, "3", None])
    def test_refuses_a_number(self, kind, n, make, fitted, pictures):
        with pytest.raises(ValueError, match="must be an int from 1 to .* 24"):
            make(kind).query(fitted, pictures[0], n)

    def test_changes_nothing(self, kind, make, fitted, pictures):
        X = pictures[0].copy()
        before = pickle.dumps(fitted.net_.module_.state_dict())
        training = [m.training for m in fitted.net_.module_.modules()]
        np.random.random()  # noqa: NPY002 - or a first draw makes a new block
        state = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
        make(kind).query(fitted, X, 4, X_labeled=X[:3], y_labeled=[0, 1, 2])
        np.testing.assert_array_equal(X, pictures[0])
        assert pickle.dumps(fitted.net_.module_.state_dict()) == before
        assert [m.training for m in fitted.net_.module_.modules()] == training
        np.testing.assert_array_equal(np.random.get_state()[1], state[0])  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), state[1])

    def test_pickles_and_clones(self, kind, make, fitted, pictures):
        strategy = make(kind, random_state=1)
        expected = strategy.query(fitted, pictures[0], 4)
        for copied in (pickle.loads(pickle.dumps(strategy)), clone(strategy)):
            np.testing.assert_array_equal(
                copied.query(fitted, pictures[0], 4), expected
            )

    @pytest.mark.parametrize("n", [1, 2, 3])
    def test_tiny_pools(self, kind, n, make, fitted, pictures):
        indices = make(kind).query(fitted, pictures[0][:n], n)
        assert sorted(indices) == list(range(n))

    def test_copies_of_one_image(self, kind, make, fitted, pictures):
        X = np.repeat(pictures[0][:1], 9, axis=0)
        assert len(set(make(kind).query(fitted, X, 5, X_labeled=X[:2]))) == 5

    def test_one_class_so_far(self, kind, make, pictures):
        X, _ = pictures
        clf = tiny_classifier(classes=["a", "b"]).fit(X[:3], ["a"] * 3)
        assert len(set(make(kind).query(clf, X, 5, X_labeled=X[:3]))) == 5

    def test_in_a_learner(self, kind, make, pictures):
        X, y = pictures
        learner = ActiveLearner(
            tiny_classifier(), make(kind), n_rounds=3, n_instances=4, random_state=0
        ).fit(X, y)
        assert learner.labeled_.sum() == 12
        again = clone(learner).fit(X, y)
        for mine, other in zip(
            learner.queried_indices_, again.queried_indices_, strict=True
        ):
            np.testing.assert_array_equal(mine, other)

    def test_a_classifier_of_rows(self, kind, make):
        rng = np.random.default_rng(0)
        X = rng.normal(size=(50, 4))
        y = (X[:, 0] > 0).astype(int)
        for estimator in (LogisticRegression(), LogisticRegression().fit(X, y)):
            if kind in (ADMA, AIFT):
                with pytest.raises(TypeError, match="needs a CNNClassifier"):
                    make(kind).query(estimator, X, 5)
            else:
                chosen = make(kind).query(estimator, X, 5, X_labeled=X[:3])
                assert len(set(chosen)) == 5

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
            return  # it never reads the images
        if not isinstance(strategy, ScoringStrategy):
            paths[7].write_bytes(b"broken")
            with pytest.warns(UserWarning, match=r"1 unreadable.*7\.png"):
                chosen = strategy.query(clf, paths, 23, X_labeled=paths[6:8])
            assert set(chosen) == set(range(24)) - {7}
            with (
                pytest.warns(UserWarning),
                pytest.raises(ValueError, match="only 23 of the 24"),
            ):
                strategy.query(clf, paths, 24)
            return
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


@pytest.mark.parametrize(
    "strategy",
    [MarginSampling(), EntropySampling(), LeastConfident(), CoreSet(), BADGE(), AIFT()],
    ids=lambda strategy: type(strategy).__name__,
)
@pytest.mark.parametrize("on_bad_image", ["raise", "skip"])
def test_what_is_not_finite_is_named(strategy, on_bad_image, pictures, tmp_path):
    """NaN means an unreadable image, or it is an error: it is never sorted away."""
    X, y = pictures
    paths = [str(tmp_path / f"{i:02}.png") for i in range(24)]
    for path, image in zip(paths, X, strict=True):
        Image.fromarray(image).save(path)
    clf = tiny_classifier(on_bad_image=on_bad_image, max_epochs=1).fit(paths, y)
    if on_bad_image == "skip":
        Path(paths[0]).write_bytes(b"")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert 0 not in strategy.query(clf, paths, 23)
    with torch.no_grad():
        clf.net_.module_.network.penultimate.weight[0] = np.nan
    clf.net_.module_.eval()
    named = "01.png" if on_bad_image == "skip" else "00.png"
    with (
        pytest.raises(ValueError, match=f"NaN or infinite, the first: .*{named}"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        strategy.query(clf, paths, 4)
