"""Out-of-fold probabilities, suspects among labels, and calibration."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import calibration_curve
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skadma.evaluation import (
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
    out_of_fold_proba,
    suspects,
)

from .conftest import tiny_classifier


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:400] / 16, y[:400]


def classifier():
    return LogisticRegression(max_iter=500)


class Remembers(ClassifierMixin, BaseEstimator):
    """Certain of the label of an image that it saw, of nothing else."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.known_ = {tuple(row): label for row, label in zip(X, y, strict=True)}
        return self

    def predict_proba(self, X):
        k = len(self.classes_)
        proba = np.full((len(X), k), 1 / k)
        for i, row in enumerate(X):
            if tuple(row) in self.known_:
                proba[i] = self.classes_ == self.known_[tuple(row)]
        return proba


# --- out of fold ----------------------------------------------------------------------


def test_no_label_is_seen_by_the_model_that_predicts_its_image():
    X, y = np.arange(60.0).reshape(30, 2), np.repeat([0, 1, 2], 10)
    proba = out_of_fold_proba(Remembers(), X, y)
    np.testing.assert_allclose(proba, 1 / 3)


@pytest.mark.parametrize("n_folds", [2, 3, 7])
def test_classes_are_dealt_evenly(n_folds):
    y = np.array([0] * 20 + [1] * 7 + [2] * 2)
    sizes = []

    class Counts(Remembers):
        def fit(self, X, y):
            sizes.append(np.bincount(y, minlength=3))
            return super().fit(X, y)

    out_of_fold_proba(Counts(), np.arange(29.0)[:, None], y, n_folds=n_folds)
    held = np.array([20, 7, 2]) - np.array(sizes)
    assert len(held) == n_folds and (held.sum(axis=0) == [20, 7, 2]).all()
    assert (np.ptp(held, axis=0) <= 1).all() and np.ptp(held.sum(axis=1)) <= 1
    assert (np.array(sizes)[:, 2] >= 1).all()  # never both of the class of two


def test_the_only_image_of_a_class_is_not_judged(digits):
    X, y = digits
    alone = np.concatenate([np.flatnonzero(y == 3)[:1], np.flatnonzero(y < 3)])
    proba = out_of_fold_proba(classifier(), X[alone], y[alone])
    assert np.isnan(proba[0]).all() and np.isfinite(proba[1:]).all()
    assert proba[1:, 3].max() > 0  # the class is known to the models all the same
    assert 0 not in suspects(y[alone], proba).indices


def test_columns_are_those_of_all_classes(digits, pictures):
    X, y = digits
    names = np.array(list("jihgfedcba"))
    few = np.flatnonzero(y < 3)
    proba = out_of_fold_proba(classifier(), X[few], names[y[few]], classes=names)
    assert proba.shape == (len(few), 10)
    assert (proba[:, 7:].argmax(axis=1) == 2 - y[few]).mean() > 0.95
    assert (proba[:, :7] == 0).all()
    X, y = pictures
    proba = out_of_fold_proba(tiny_classifier(), X, y, classes=[0, 1, 2, 3], n_folds=2)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    assert proba.shape == (24, 4) and (proba[:, 3] > 0).all()


def test_repeatable_and_the_estimator_is_left_alone(digits):
    X, y = digits
    model = make_pipeline(StandardScaler(), classifier())
    first = out_of_fold_proba(model, X, y, n_folds=3)
    np.testing.assert_array_equal(first, out_of_fold_proba(model, X, y, n_folds=3))
    other = out_of_fold_proba(model, X, y, n_folds=3, random_state=1)
    assert (other != first).any()
    assert not hasattr(model[-1], "coef_")


def test_what_cannot_be_judged_is_refused(digits):
    X, y = digits
    with pytest.raises(ValueError, match="two classes with at least two labels"):
        out_of_fold_proba(classifier(), X[:3], [0, 0, 1])
    with pytest.raises(ValueError, match="at least 2 are needed"):
        out_of_fold_proba(classifier(), X, y, n_folds=1)
    with pytest.raises(ValueError, match="X has 400 images, y 399"):
        out_of_fold_proba(classifier(), X, y[1:])
    with pytest.raises(ValueError, match="not among classes"):
        out_of_fold_proba(classifier(), X, y, classes=[0, 1])


# --- suspects -------------------------------------------------------------------------


def test_order_and_suggestions():
    proba = np.array(
        [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.4, 0.1], [0.2, 0.2, 0.6]]
    )
    found = suspects(["a", "c", "b", "c"], proba, classes=["a", "b", "c"])
    assert found.indices.tolist() == [1, 2, 3, 0]
    np.testing.assert_allclose(found.scores, [0.7, 0.6, 0.4, 0.3])
    assert found.suggested.tolist() == ["b", "a", "c", "a"]


def test_flipped_labels_come_first(digits):
    X, y = digits
    rng = np.random.RandomState(0)
    flipped = rng.choice(len(y), 20, replace=False)
    noisy = y.copy()
    noisy[flipped] = (y[flipped] + rng.randint(1, 10, 20)) % 10
    found = suspects(noisy, out_of_fold_proba(classifier(), X, noisy))
    assert np.isin(found.indices[:20], flipped).mean() > 0.8
    assert (found.suggested[:15] == y[found.indices[:15]]).mean() > 0.8
    likely = found.indices[found.likely]
    assert np.isin(flipped, likely).mean() > 0.7 and len(likely) < 60


def test_likely_is_the_confident_joint_written_slowly():
    rng = np.random.RandomState(0)
    y = rng.randint(0, 4, 200)
    proba = rng.dirichlet(np.ones(4), 200)
    found = suspects(y, proba)
    t = [np.mean([p[k] for p, label in zip(proba, y, strict=True) if label == k])
         for k in range(4)]  # fmt: skip
    for i, likely in zip(found.indices, found.likely, strict=True):
        sure = [k for k in range(4) if proba[i, k] >= t[k]]
        assert likely == bool(sure and max(sure, key=lambda k: proba[i, k]) != y[i])


def test_wrong_tables_are_refused():
    with pytest.raises(ValueError, match="row 1 is"):
        suspects([0, 1], [[0.5, 0.5], [2.0, -1.0]])
    with pytest.raises(ValueError, match="3 columns, but the classes are"):
        suspects([0, 1], np.full((2, 3), 1 / 3))
    with pytest.raises(ValueError, match=r"\[5\] are none of the classes"):
        suspects([0, 5], np.full((2, 2), 0.5), classes=[0, 1])
    with pytest.raises(ValueError, match="2 rows, but there are 3"):
        suspects([0, 1, 1], np.full((2, 2), 0.5))
    with pytest.raises(ValueError, match="shape"):
        suspects([0, 1], [0.5, 0.5])


# --- calibration ----------------------------------------------------------------------


def overconfident(n=4000, temperature=2.5, seed=0):
    """Probabilities that are right once that temperature is applied."""
    rng = np.random.RandomState(seed)
    logits = rng.normal(size=(n, 4)) * 2
    truth = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (truth.cumsum(axis=1) < rng.uniform(size=(n, 1))).sum(axis=1)
    sure = np.exp(temperature * logits)
    return sure / sure.sum(axis=1, keepdims=True), y, truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_is_found_and_undoes_it(temperature):
    proba, y, truth = overconfident(temperature=temperature)
    found = fit_temperature(proba, y)
    assert found == pytest.approx(temperature, rel=0.06)
    np.testing.assert_allclose(apply_temperature(proba, temperature), truth, atol=1e-5)
    mended = apply_temperature(proba, found)
    assert (mended.argmax(axis=1) == proba.argmax(axis=1)).all()
    assert expected_calibration_error(mended, y) < 0.03
    if temperature != 1:
        assert expected_calibration_error(proba, y) > 0.06


def test_calibration_error_written_slowly():
    proba, y, _ = overconfident(n=103)
    rows = sorted(range(103), key=lambda i: proba[i].max())
    total = 0
    for b in range(7):
        mine = [i for place, i in enumerate(rows) if b <= 7 * place / 103 < b + 1]
        if mine:
            sure = np.mean([proba[i].max() for i in mine])
            right = np.mean([proba[i].argmax() == y[i] for i in mine])
            total += len(mine) / 103 * abs(sure - right)
    found = expected_calibration_error(proba, y, n_bins=7)
    assert found == pytest.approx(total)


def test_a_model_is_less_sure_out_of_fold_and_the_temperature_carries_over(digits):
    """What is fitted out of fold serves images that nobody labelled."""
    X, y = load_digits(return_X_y=True)
    X = X / 16
    model = LogisticRegression(C=1e5, max_iter=1000)
    folds = out_of_fold_proba(model, X[:60], y[:60], classes=np.arange(10))
    model.fit(X[:60], y[:60])
    own, new = model.predict_proba(X[:60]), model.predict_proba(X[60:])
    before = expected_calibration_error(new, y[60:])
    folded = fit_temperature(folds, y[:60], classes=np.arange(10))
    wrong = fit_temperature(own, y[:60], classes=np.arange(10))
    after = expected_calibration_error(apply_temperature(new, folded), y[60:])
    assert wrong < 1 < folded
    assert after < 0.7 * before
    assert expected_calibration_error(apply_temperature(new, wrong), y[60:]) > before


def test_few_labels_move_the_temperature_little():
    proba = np.tile([0.999, 0.001], (1000, 1))
    y = np.arange(1000) % 2
    found = [fit_temperature(proba[:n], y[:n], classes=[0, 1]) for n in (4, 40, 1000)]
    assert 1.05 < found[0] < found[1] < found[2] <= 20


def test_calibration_refuses_what_it_cannot_use():
    proba = np.full((4, 2), 0.5)
    with pytest.raises(ValueError, match="n_bins=0"):
        expected_calibration_error(proba, [0, 1, 0, 1], n_bins=0)
    with pytest.raises(ValueError, match="above 0"):
        apply_temperature(proba, 0)
    with pytest.raises(ValueError, match="no row with probabilities"):
        fit_temperature(np.full((4, 2), np.nan), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="4 rows, but there are 3"):
        fit_temperature(proba, [0, 1, 0])


def test_calibration_error_by_scikit_learns_curve():
    proba, y, _ = overconfident(n=500)
    error = expected_calibration_error(proba, y, n_bins=5)
    assert error > expected_calibration_error(apply_temperature(proba, 2.5), y)
    right, sure = proba.argmax(axis=1) == y, proba.max(axis=1)
    curve = calibration_curve(right, sure, n_bins=5, strategy="quantile")
    assert error == pytest.approx(np.abs(np.subtract(*curve)).mean())
