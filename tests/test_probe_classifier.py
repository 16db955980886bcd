"""ProbeClassifier: the closed-form probe on a table of embeddings."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, softmax
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from skadma import ActiveLearner, CNNClassifier, ProbeClassifier
from skadma.strategies import MarginSampling, UncertaintyHerding
from skadma.training.probe import fit_probe

from . import reference
from .conftest import tiny_classifier


@parametrize_with_checks([ProbeClassifier(), ProbeClassifier(class_weight="balanced")])
def test_scikit_learns_battery(estimator, check):
    check(estimator)


def table(n=24, d=40, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % n_classes)
    return rng.normal(5, 1, (n, d)) + 2 * np.eye(n_classes, d)[y], y


def unit(away):
    return away / np.linalg.norm(away, axis=1, keepdims=True)


# --- leave-one-out --------------------------------------------------------------------


def refitted_without(i, rows, y, weights, sharpness, n_classes):
    """Scores of row i by a literal fit to the others; classes without one get -10."""
    keep = (np.arange(len(y)) != i) & (weights > 0)
    scores, seen = np.full(n_classes, -10.0), np.unique(y[keep])
    if len(seen) == 1:
        scores[seen] = 0
    else:
        found, _ = reference.probe_scores(
            rows[keep], y[keep], weights[keep], rows[i], sharpness
        )
        scores[seen] = found - found.mean()
    return scores


@pytest.mark.parametrize(("n", "d"), [(24, 40), (40, 6), (5, 9)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("alone", [False, True])
def test_leave_one_out_is_exact(n, d, weighted, alone):
    X, y = table(n, d)
    if alone:
        y[0] = 3
    weights = np.ones(n)
    if weighted:
        weights = np.random.default_rng(1).uniform(0.2, 3, n)
        weights[1] = 0
    clf = ProbeClassifier(classes=range(5)).fit(X, y, weights)
    rows, weights = unit(X - clf.center_), weights / weights[weights > 0].mean()
    for i in range(n):
        scores = refitted_without(i, rows, y, weights, clf.sharpness_, 5)
        np.testing.assert_allclose(clf.loo_proba_[i], softmax(scores), atol=1e-9)


@pytest.mark.parametrize("y", [[0], [1, 1], [0, 1], [0, 1, 2], [0, 0, 1]])
def test_leave_one_out_of_few_rows(y):
    X, y = table(len(y))[0], np.array(y)
    clf = ProbeClassifier(classes=range(3)).fit(X, y)
    rows = unit(X - clf.center_) if len(y) > 1 else X
    for i, found in enumerate(clf.loo_proba_):
        wanted = np.full(3, -10.0)  # nothing is known without the only row
        if len(y) > 1:
            wanted = refitted_without(i, rows, y, np.ones(len(y)), clf.sharpness_, 3)
        np.testing.assert_allclose(found, softmax(wanted), atol=1e-9)


def test_leave_one_out_of_several_labels():
    X, y = table()
    labels = np.stack([y == 0, y > 0, np.arange(24) == 5, y < 9], axis=1).astype(int)
    clf = ProbeClassifier().fit(X, labels)
    assert clf.sharpness_.shape == (4, 2)
    rows = unit(X - clf.center_)
    for k, column in enumerate(labels.T):
        for i in range(24):
            absent, present = refitted_without(
                i, rows, column, np.ones(24), clf.sharpness_[k], 2
            )
            np.testing.assert_allclose(
                clf.loo_proba_[i, k], expit(present - absent), atol=1e-9
            )


def test_leave_one_out_is_near_a_refit_of_everything():
    """Of the mean and of the two factors as well."""
    X, y = load_digits(return_X_y=True)
    X, y = X[:100], y[:100]
    clf = ProbeClassifier().fit(X, y)
    for i in range(0, 100, 5):
        other = ProbeClassifier().fit(np.delete(X, i, 0), np.delete(y, i))
        np.testing.assert_allclose(
            clf.loo_proba_[[i]], other.predict_proba(X[[i]]), atol=0.03
        )
    assert clf.loo_proba_.argmax(1).tolist() != clf.predict(X).tolist()


def test_leave_one_out_tells_the_accuracy():
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))  # they are by writers
    (X, X_test), (y, y_test) = (np.split(rows[order], [300]) for rows in (X, y))
    clf = ProbeClassifier().fit(X, y)
    correct = (clf.loo_proba_.argmax(1) == y).mean()
    assert abs(correct - clf.score(X_test, y_test)) < 0.03


def test_nothing_of_the_number_of_rows_squared():
    X, y = table(3000, 16, 5)
    tracemalloc.start()
    ProbeClassifier().fit(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000**2  # bytes: an eighth of a matrix (n, n)


# --- weights --------------------------------------------------------------------------


def test_a_weight_of_two_is_two_rows():
    X, y = table()
    weights = np.arange(24) % 4
    again = np.random.default_rng(0).permutation(np.repeat(np.arange(24), weights))
    once = ProbeClassifier().fit(X, y, weights)
    often = ProbeClassifier().fit(X[again], y[again])
    np.testing.assert_allclose(once.predict_proba(X), often.predict_proba(X), atol=1e-9)
    np.testing.assert_allclose(once.loo_proba_[again], often.loo_proba_, atol=1e-9)


def test_rows_of_no_weight_are_not_there():
    X, y = table()
    y[20:] = 7
    weights = np.repeat([2.0, 0.0], [20, 4])
    clf, alone = ProbeClassifier().fit(X, y, weights), ProbeClassifier()
    alone.fit(X[:20], y[:20], weights[:20])
    assert clf.classes_.tolist() == [0, 1, 2] and clf.n_labels_ == 20
    np.testing.assert_array_equal(clf.predict_proba(X), alone.predict_proba(X))
    np.testing.assert_array_equal(clf.loo_proba_[:20], alone.loo_proba_)
    np.testing.assert_array_equal(clf.loo_proba_[20:], alone.predict_proba(X[20:]))


@pytest.mark.parametrize("total", [1e-9, 1, 1e9])
def test_the_sum_of_weights_does_not_matter(total):
    X, y = table()
    weights = np.random.default_rng(0).uniform(0.5, 2, 24)
    one = ProbeClassifier().fit(X, y, weights)
    other = ProbeClassifier().fit(X, y, weights / weights.sum() * total)
    np.testing.assert_allclose(one.loo_proba_, other.loo_proba_, atol=1e-9)
    weights[:5] = 1e20
    assert np.isfinite(ProbeClassifier().fit(X, y, weights).loo_proba_).all()


def test_the_order_of_rows_does_not_matter():
    X, y = table()
    order = np.random.default_rng(0).permutation(24)
    one, other = ProbeClassifier().fit(X, y), ProbeClassifier().fit(X[order], y[order])
    np.testing.assert_array_equal(one.coef_, other.coef_)
    np.testing.assert_array_equal(one.loo_proba_[order], other.loo_proba_)


def test_class_weights_multiply_sample_weights():
    X, y = table(n=25)
    y[:10] = 0
    names, weights = np.array(["a", "b", "c"])[y], 1 + np.arange(25) % 2
    wanted = ProbeClassifier().fit(X, names, weights * np.array([0.5, 3, 1])[y])
    clf = ProbeClassifier(class_weight={"a": 0.5, "b": 3}).fit(X, names, weights)
    np.testing.assert_allclose(clf.predict_proba(X), wanted.predict_proba(X))
    counts = np.bincount(y, weights)
    wanted.fit(X, names, weights * (counts.sum() / 3 / counts)[y])
    clf.set_params(class_weight="balanced").fit(X, names, weights)
    np.testing.assert_allclose(clf.predict_proba(X), wanted.predict_proba(X))
    clf.set_params(class_weight=dict.fromkeys("abc", 0))
    with pytest.raises(ValueError, match="zero for every class in y"):
        clf.fit(X, names)


def test_class_weights_of_several_labels():
    X, y = table()
    labels = np.stack([y == 0, np.arange(24) < 5], axis=1).astype(int)
    for class_weight in ("balanced", {1: 4.0}):
        both = ProbeClassifier(class_weight=class_weight).fit(X, labels)
        for k, column in enumerate(labels.T):
            by = {1: 4.0}
            if class_weight == "balanced":
                by = {0: 12 / (column == 0).sum(), 1: 12 / column.sum()}
            weights = np.where(column, by[1], by.get(0, 1.0))
            weights /= weights.mean()
            rows = unit(X - X.mean(0))
            alone = fit_probe(rows, column, 2, weights)
            np.testing.assert_allclose(
                both.coef_[k], alone.coef[1] - alone.coef[0], atol=1e-6
            )


# --- the same as CNNClassifier --------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "weighted"),
    [({}, False), ({"class_weight": "balanced"}, False), ({}, True)],
)
def test_the_same_as_a_network_with_a_probe(pictures, params, weighted):
    X, y = pictures
    weights = np.random.default_rng(0).uniform(0.5, 2, 24) if weighted else np.ones(24)
    weights /= weights.mean()
    cnn = tiny_classifier(training="probe", **params).fit(X, y, sample_weight=weights)
    rows = tiny_classifier().embed(X, -2)[-2]
    clf = ProbeClassifier(**params).fit(rows, y, weights)
    np.testing.assert_allclose(clf.predict_proba(rows), cnn.predict_proba(X), atol=1e-3)
    labels = np.stack([y == 0, y > 0], axis=1).astype(int)
    if not params:
        cnn.fit(X, labels, sample_weight=weights)
        clf.fit(rows, labels, weights)
        np.testing.assert_allclose(
            clf.predict_proba(rows), cnn.predict_proba(X), atol=1e-3
        )


def test_the_same_on_several_layers(pictures):
    X, y = pictures
    cnn = CNNClassifier(
        "layers/resnet18", weights=None, image_size=32, training="probe"
    ).fit(X, y)
    rows = cnn.embed(X, -2)[-2]
    clf = ProbeClassifier(block_widths=cnn.net_.module_.head.block_widths).fit(rows, y)
    np.testing.assert_allclose(clf.predict_proba(rows), cnn.predict_proba(X), atol=1e-3)


# --- use ------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [MarginSampling, UncertaintyHerding])
@pytest.mark.parametrize("several", [False, True])
def test_strategies_choose_by_it(strategy, several):
    X, y = load_digits(n_class=3, return_X_y=True)
    labels = np.stack([y == 0, y > 0], axis=1).astype(int) if several else y
    learner = ActiveLearner(
        ProbeClassifier(), strategy(), n_instances=5, n_rounds=4, random_state=0
    ).fit(X, labels)
    fitted = learner.estimator_
    assert learner.labeled_.sum() == fitted.n_labels_ == len(fitted.loo_proba_)
    assert fitted.score(X, labels) > 0.9
    chosen = strategy(random_state=0).query(fitted, X, 6)
    assert len(set(chosen)) == 6
    if strategy is MarginSampling and not several:
        proba = np.sort(fitted.predict_proba(X), axis=1)
        margins = proba[:, -1] - proba[:, -2]
        np.testing.assert_allclose(margins[chosen], np.sort(margins)[:6])


def test_it_needs_no_torch():
    code = (
        "import sys, numpy as np; from skadma import ProbeClassifier;"
        "ProbeClassifier().fit(np.eye(4), [0, 1, 0, 1]).predict(np.eye(4));"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_float32_and_names_of_columns():
    X, y = table()
    frame = pd.DataFrame(X.astype(np.float32), columns=[f"x{k}" for k in range(40)])
    clf = ProbeClassifier().fit(frame, y)
    assert clf.feature_names_in_[1] == "x1"
    assert clf.loo_proba_.dtype == np.float64
    np.testing.assert_allclose(
        clf.predict_proba(frame),
        ProbeClassifier().fit(X, y).predict_proba(X),
        atol=1e-3,
    )
    assert cross_val_score(ProbeClassifier(), X, y, cv=3).mean() > 0.5


def test_known_classes_and_names_of_labels():
    X, y = table()
    clf = ProbeClassifier(classes=["a", "b", "c", "z"])
    clf.fit(X, np.array(["a", "b", "c"])[y])
    assert clf.classes_.tolist() == ["a", "b", "c", "z"]
    assert clf.predict_proba(X)[:, 3].max() < 1e-4
    labels = np.stack([y == 0, y > 0], axis=1).astype(int)
    clf.set_params(classes=["big", "old"]).fit(X, labels)
    assert clf.classes_.tolist() == ["big", "old"] and clf.multilabel_
    np.testing.assert_array_equal(clf.predict(X), clf.predict_proba(X) > 0.5)
    assert clf.decision_function(X).shape == (24, 2)


def test_what_it_refuses():
    X, y = table()
    clf = ProbeClassifier().fit(X, y)
    before = dict(vars(clf))
    for wrong in ([20, 19], [41, -1], [40.0], [], ["40"]):
        clf.set_params(block_widths=wrong)
        with pytest.raises(ValueError, match="block_widths=.*number of columns"):
            clf.fit(X, y)
    clf.set_params(block_widths=None)
    for X_wrong, y_wrong, words in (
        (np.where(X > 5, np.nan, X), y, "NaN"),
        (X[:5], y, "inconsistent numbers of samples"),
        (X, np.where(y == 0, "nan", "b"), "look like missing ones"),
        (X, np.full(24, np.nan), "NaN"),
        (X, np.full((24, 2), 2), "has a 1 for each label"),
    ):
        with pytest.raises(ValueError, match=words):
            clf.fit(X_wrong, y_wrong)
    with pytest.raises(ValueError, match="not among classes"):
        clf.set_params(classes=[0, 1]).fit(X, y)
    clf.set_params(classes=None)
    with pytest.raises(ValueError, match="non-zero|zero for every image"):
        clf.fit(X, y, np.zeros(24))
    assert all(vars(clf)[name] is value for name, value in before.items())
    with pytest.raises(ValueError, match="39 features"):
        clf.predict(X[:, 1:])
