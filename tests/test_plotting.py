"""Displays: that they show what is there."""

import sys

import matplotlib.figure
import numpy as np
import pandas as pd
import pytest

from skadma import ActiveLearner, SourceCenters
from skadma.plotting import LearningCurveDisplay, QueryDisplay
from skadma.strategies import ADMA, MarginSampling

from .conftest import tiny_classifier

matplotlib.use("Agg")


@pytest.fixture
def results():
    rng = np.random.default_rng(0)
    rows = [
        (dataset, "n", strategy, seed, n, rng.random(), rng.random(), "X")
        for dataset in ("one", "two")
        for strategy in ("random", "ADMA")
        for seed in range(3)
        for n in (10, 20, 30)
    ]
    rows += [(d, "n", "all", 0, 99, 0.9, 0.8, "FullyTrained") for d in ("one", "two")]
    columns = ["dataset", "network", "strategy", "seed", "n_labels", "accuracy", "auc",
               "strategy_class"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).sample(frac=1, random_state=0)


@pytest.mark.parametrize("metric", ["accuracy", "auc"])
def test_learning_curves(results, metric):
    two = results[results["dataset"] == "two"]
    display = LearningCurveDisplay.from_results(two, metric=metric)
    assert set(display.lines_) == {"random", "ADMA"}
    for name, line in display.lines_.items():
        mine = results[(results["dataset"] == "two") & (results["strategy"] == name)]
        values = np.array([mine[mine["n_labels"] == n][metric] for n in (10, 20, 30)])
        np.testing.assert_array_equal(line.get_xdata(), [10, 20, 30])
        np.testing.assert_allclose(line.get_ydata(), values.mean(axis=1))
        (band,) = display.bands_[name].get_paths()
        top = values.mean(axis=1) + values.std(axis=1, ddof=1)
        assert band.vertices[:, 1].max() == pytest.approx(top.max())
    assert display.ceiling == {"all": 0.9 if metric == "accuracy" else 0.8}
    assert display.ax_.get_title() == "two, n"
    assert display.figure_ is display.ax_.figure


def test_chosen_curves_on_given_axes(results):
    ax = matplotlib.figure.Figure().subplots()
    chosen = results.query("dataset == 'one' and strategy == 'ADMA'")
    display = LearningCurveDisplay.from_results(chosen, ax=ax)
    assert display.ax_ is ax
    assert list(display.lines_) == ["ADMA"]
    one_seed = results.query("dataset == 'one' and seed == 0")
    display = LearningCurveDisplay.from_results(one_seed, ax=ax)
    assert not display.bands_  # a single seed has no spread


def test_what_cannot_be_drawn(results):
    draw = LearningCurveDisplay.from_results
    with pytest.raises(ValueError, match="one dataset, of .'(one|two)', '(one|two)'"):
        draw(results)
    with pytest.raises(ValueError, match=r"no column \['f1'\]"):
        draw(results, metric="f1")


@pytest.fixture(scope="module")
def adma():
    """A learner after two rounds, and its images."""
    rng = np.random.default_rng(0)
    y = np.tile([0, 1, 2], 10)
    X = rng.integers(0, 90, (30, 32, 32, 3))
    X[np.arange(30), :, :, y] += 120
    X = X.astype(np.uint8)
    source = rng.integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)
    clf = tiny_classifier(max_epochs=1)
    centers = SourceCenters.from_dataset(clf, source, np.arange(5))
    learner = ActiveLearner(
        clf, ADMA(centers), n_rounds=2, n_instances=4, random_state=0
    )
    return learner.fit(X, y), X, source


def test_the_embedding_marks_what_was_queried(adma):
    learner, _, _ = adma
    display = QueryDisplay.from_learner(learner, random_state=0)
    np.testing.assert_array_equal(display.indices, np.arange(30))
    for t, chosen in enumerate(learner.queried_indices_):
        assert (display.rounds[chosen] == t).all()
    assert (display.rounds >= 0).sum() == 8
    others, queried = display.ax_.collections[:2]
    assert len(others.get_offsets()) == 22
    np.testing.assert_allclose(
        queried.get_offsets(), display.embedding[display.rounds >= 0]
    )
    again = QueryDisplay.from_learner(learner, random_state=0)
    np.testing.assert_array_equal(again.embedding, display.embedding)


def test_as_many_drawn_at_random_beside_what_was_queried(adma):
    learner, _, _ = adma
    display = QueryDisplay.from_learner(learner, random_state=0, kind="random")
    assert display.drawn.sum() == (display.rounds >= 0).sum() == 8
    others, drawn = display.ax_.collections[:2]
    assert len(others.get_offsets()) == 22
    np.testing.assert_allclose(drawn.get_offsets(), display.embedding[display.drawn])
    # Of the whole pool: some of them are among the queried ones, some are not.
    both = set(display.rounds[display.drawn] >= 0)
    for seed in range(1, 5):
        other = QueryDisplay.from_learner(learner, random_state=seed, kind="random")
        assert not np.array_equal(other.drawn, display.drawn)
        both |= set(other.rounds[other.drawn] >= 0)
    assert both == {True, False}
    same = display.plot(kind="embedding")
    np.testing.assert_allclose(
        same.ax_.collections[1].get_offsets(), display.embedding[display.rounds >= 0]
    )


def test_a_large_pool_is_thinned(adma):
    learner, _, _ = adma
    display = QueryDisplay.from_learner(learner, max_images=12, random_state=0)
    assert len(display.indices) == len(display.embedding) == 12
    queried = np.sort(np.concatenate(learner.queried_indices_))
    np.testing.assert_array_equal(display.indices[display.rounds >= 0], queried)


def test_examples_lie_beside_their_nearest_centre(adma):
    learner, X, source = adma
    display = QueryDisplay.from_learner(
        learner, n_examples=3, random_state=0, kind="examples"
    )
    first = learner.queried_indices_[0][:3]
    assert [e.index for e in display.examples if e.queried] == first.tolist()
    clf = learner.estimator_
    features, of_centers = (clf.embed(images, -2)[-2] for images in (X, source))
    for example in display.examples:
        distances = ((features[example.index] - of_centers) ** 2).sum(axis=1)
        nearest = distances.argmin()
        np.testing.assert_array_equal(example.image, X[example.index])
        np.testing.assert_array_equal(example.center_image, source[nearest])
        assert example.center_name == str(nearest)
        assert example.queried == learner.labeled_[example.index]
    assert len(display.examples) == 6
    assert len(display.ax_.images) == 12
    assert {"queried", "not queried"} <= {t.get_text() for t in display.ax_.texts}


def test_what_a_learner_cannot_show(pictures):
    X, y = pictures
    learner = ActiveLearner(
        tiny_classifier(max_epochs=1), MarginSampling(), n_rounds=1, random_state=0
    )
    with pytest.raises(ValueError, match="queried nothing yet"):
        QueryDisplay.from_learner(learner.fit(X, np.full(len(y), -1).astype(object)))
    learner.fit(X, y)
    display = QueryDisplay.from_learner(learner, random_state=0)
    with pytest.raises(ValueError, match="give centers= to from_learner"):
        display.plot(kind="examples")
    with pytest.raises(ValueError, match="kind='tsne' must be"):
        display.plot(kind="tsne")


def test_without_matplotlib(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="needs the package matplotlib: pip install"):
        LearningCurveDisplay.from_results(results.query("dataset == 'one'"))
