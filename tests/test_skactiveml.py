"""scikit-activeml both ways, where it is installed.

Its own template tests are in its git repository only. Where the environment variable
SKACTIVEML_TESTS names the folder skactiveml/tests of a checkout, they run too.
"""

import importlib.util
import os
import sys
import types
import unittest
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from torch import nn

from skadma import ActiveLearner, CNNClassifier, SourceCenters
from skadma.strategies import (
    ADMA,
    CoreSet,
    MarginSampling,
    from_skactiveml,
    to_skactiveml,
)

from .conftest import tiny_classifier

skactiveml = pytest.importorskip("skactiveml")
pool = pytest.importorskip("skactiveml.pool")
SklearnClassifier = pytest.importorskip("skactiveml.classifier").SklearnClassifier

THEIRS = ["UncertaintySampling", "Badge", "CoreSet", "TypiClust", "ProbCover",
          "Falcun", "Clue", "ContrastiveAL", "MaxHerding", "DropQuery",
          "GreedySamplingX", "RandomSampling"]  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    return X, np.where(X[:, 0] > 0, "yes", "no")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", THEIRS)
def test_theirs_as_ours(name, rows, pictures):
    strategy = from_skactiveml(getattr(pool, name)())
    strategy.random_state = 0
    X, y = rows
    clf = LogisticRegression().fit(X[:10], y[:10])
    images, labels = pictures
    cnn = tiny_classifier(max_epochs=2).fit(images[:10], labels[:10])
    for estimator, data, known in ((clf, X, y), (cnn, images, labels)):
        chosen, utilities = strategy(
            estimator, data[10:], 5, X_labeled=data[:10], y_labeled=known[:10]
        )
        assert len(set(chosen)) == 5
        assert set(chosen) <= set(range(len(data) - 10))
        assert utilities.shape == (5,)
        again = clone(strategy).query(
            estimator, data[10:], 5, X_labeled=data[:10], y_labeled=known[:10]
        )
        np.testing.assert_array_equal(again, chosen)
    assert len(set(strategy.query(tiny_classifier(), images, 3))) == 3
    learner = ActiveLearner(
        tiny_classifier(), strategy, n_rounds=2, n_instances=4, random_state=0
    ).fit(images, labels)
    assert learner.labeled_.sum() == 8


def test_theirs_sees_the_same_probabilities(rows):
    X, y = rows
    clf = LogisticRegression().fit(X[:10], y[:10])
    theirs = from_skactiveml(pool.UncertaintySampling(method="margin_sampling"))
    got = theirs.query(clf, X[10:], 6, X_labeled=X[:10], y_labeled=y[:10])
    np.testing.assert_array_equal(got, MarginSampling().query(clf, X[10:], 6))


@pytest.mark.parametrize("fit_clf", [True, False])
def test_ours_as_theirs_gives_their_utilities(rows, fit_clf):
    X, y = rows
    partly = np.where(np.arange(60) < 10, np.unique(y, return_inverse=True)[1], np.nan)
    clf = SklearnClassifier(LogisticRegression(), classes=[0, 1])
    if not fit_clf:
        clf.fit(X, partly)
    given = {"X": X, "y": partly, "clf": clf, "fit_clf": fit_clf, "batch_size": 4}
    theirs = pool.UncertaintySampling(method="margin_sampling", random_state=0)
    expected, utilities = theirs.query(**given, return_utilities=True)
    ours = to_skactiveml(MarginSampling(), random_state=0)
    chosen, mine = ours.query(**given, return_utilities=True)
    assert chosen[0] == expected[0]
    np.testing.assert_array_equal(np.isnan(mine[:2]), np.isnan(utilities[:2]))
    np.testing.assert_allclose(mine[0], utilities[0])
    assert np.isnan(mine[:, :10]).all()
    assert np.isnan(mine).sum(axis=1).tolist() == [10, 11, 12, 13]
    some = ours.query(**given, candidates=np.arange(20, 40))
    assert set(some) <= set(range(20, 40))
    samples, of_samples = ours.query(
        **given, candidates=X[20:40], return_utilities=True
    )
    assert of_samples.shape == (4, 20)
    np.testing.assert_array_equal(samples + 20, some)


def test_our_batches_as_theirs(rows):
    X, y = rows
    partly = np.where(np.arange(60) < 10, np.unique(y, return_inverse=True)[1], np.nan)
    clf = SklearnClassifier(LogisticRegression(), classes=[0, 1]).fit(X, partly)
    chosen, utilities = to_skactiveml(CoreSet()).query(
        X, partly, clf, fit_clf=False, batch_size=5, return_utilities=True
    )
    expected = pool.CoreSet(random_state=0).query(X, partly, batch_size=5)
    np.testing.assert_array_equal(chosen, expected)
    assert np.nanargmax(utilities, axis=1).tolist() == chosen.tolist()


@pytest.mark.parametrize("fit_clf", [True, False])
def test_adma_on_images_as_theirs(pictures, fit_clf):
    X, y = pictures
    cnn = tiny_classifier(max_epochs=2)
    centers = SourceCenters.from_dataset(cnn, X, np.arange(24) % 5)
    partly = np.where(np.arange(24) < 8, y, np.nan)
    clf = SklearnClassifier(cnn, classes=[0, 1, 2])
    if not fit_clf:
        clf.fit(X, partly)
    chosen = to_skactiveml(ADMA(centers), random_state=0).query(
        X, partly, clf, fit_clf=fit_clf, batch_size=3
    )
    fitted = clone(clf).fit(X, partly).estimator_
    expected = ADMA(centers).query(fitted, X[8:], 3)
    np.testing.assert_array_equal(chosen, expected + 8)


# --- their own template tests ---------------------------------------------------------


class Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8),
            nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


def _template():
    folder = Path(os.environ["SKACTIVEML_TESTS"])
    sys.modules.setdefault("skactiveml.tests", types.ModuleType("skactiveml.tests"))
    for name in ("utils", "template_query_strategy"):
        full = f"skactiveml.tests.{name}"
        spec = importlib.util.spec_from_file_location(full, folder / f"{name}.py")
        sys.modules[full] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module.TemplateSingleAnnotatorPoolQueryStrategy


if "SKACTIVEML_TESTS" in os.environ:

    class TestTemplate(_template(), unittest.TestCase):
        """Their template tests, with ADMA."""

        def setUp(self):
            cnn = CNNClassifier(Perceptron, max_epochs=1, random_state=0)
            rng = np.random.default_rng(0)
            X = rng.normal(size=(8, 2)).astype(np.float32)
            centers = SourceCenters.from_dataset(cnn, X[:4], np.arange(4))
            super().setUp(
                qs_class=type(to_skactiveml(ADMA(centers))),
                init_default_params={"strategy": ADMA(centers)},
                query_default_params_clf={
                    "X": np.array([[1.0, 2], [5, 8], [8, 4], [5, 4]]),
                    "y": np.array([0, 1, np.nan, np.nan]),
                    "clf": SklearnClassifier(cnn, classes=[0, 1], random_state=0),
                },
            )

        def test_init_param_strategy(self):
            cases = [(MarginSampling(), None), ("margin", TypeError), (3, TypeError)]
            self._test_param("init", "strategy", cases)

        def test_query_param_clf(self):
            super().test_query_param_clf(test_cases=[])

        def test_query(self):
            query = self.qs_class(**self.init_default_params).query
            indices = query(**self.query_default_params_clf, batch_size=2)
            assert sorted(indices) == [2, 3]


def test_their_classifier_is_the_present_model(pictures):
    """The last layer gets the adapted network's features, not the pretrained one's."""
    X, y = pictures
    cnn = tiny_classifier(max_epochs=20).fit(X[:10], y[:10])
    theirs = from_skactiveml(pool.UncertaintySampling(method="margin_sampling"))
    theirs.random_state = 0
    chosen = theirs.query(cnn, X, 6, X_labeled=X[:10], y_labeled=y[:10])
    assert set(chosen) == set(MarginSampling(random_state=0).query(cnn, X, 6))


def test_labels_stay_with_their_images(pictures, tmp_path):
    X, y = pictures
    for i in range(4):
        Image.fromarray(X[i]).save(tmp_path / f"{i}.png")
    (tmp_path / "0.png").write_bytes(b"no image")
    paths = sorted(map(str, tmp_path.iterdir()))
    clf = tiny_classifier(on_bad_image="skip", classes=[0, 1, 2])
    given = {}

    class Recording(pool.RandomSampling):
        def query(self, X, y, **kwargs):
            given.update(X=X, y=y)
            return super().query(X, y, **kwargs)

    with pytest.warns(UserWarning, match="1 unreadable"):
        from_skactiveml(Recording()).query(
            clf, X, 2, X_labeled=paths, y_labeled=[0, 1, 2, 2]
        )
    assert given["y"][:3].tolist() == [0, 1, 1]  # of the classes 1 and 2
    assert np.isnan(given["y"][3:]).all()
    assert len(given["X"]) == len(given["y"]) == 27
    np.testing.assert_allclose(given["X"][:3], clf.embed(X[1:4], -2)[-2], rtol=1e-5)
