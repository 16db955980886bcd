"""Audits and the estimates from them: formulas, designs, coverage, bad input."""

import numpy as np
import pytest
from scipy.stats import binomtest, hypergeom

from skadma import ProbeClassifier
from skadma._utils.intervals import wilson_interval
from skadma.evaluation import Audit, audit_sample, estimate, forecast_accuracy
from skadma.evaluation._estimate import (
    exact_interval,
    population_weights,
    share_of_mistakes,
)

METHODS = ["random", "stratified"]


def population(n=400, seed=0, n_classes=3):
    """Probabilities, predictions and labels; the model is too sure of itself."""
    rng = np.random.RandomState(seed)
    proba = rng.dirichlet(np.full(n_classes, 0.5), n)
    truth = 0.7 * proba + 0.3 / n_classes
    y = np.array([rng.choice(n_classes, p=p) for p in truth])
    return proba, proba.argmax(axis=1), y


def answer(audit, predicted, y, **options):
    return estimate(audit, predicted[audit.indices], y[audit.indices], **options)


# --- formulas -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "n", "N"), [(0, 5, 20), (5, 5, 20), (7, 10, 40), (3, 3, 3)]
)
def test_the_exact_interval_inverts_the_tails(x, n, N):
    inside = [
        total
        for total in range(x, N - (n - x) + 1)
        if hypergeom.cdf(x, N, total, n) > 0.025
        and hypergeom.sf(x - 1, N, total, n) > 0.025
    ]
    found = exact_interval(x, n, 0.95, N)
    assert found == (inside[0] / N, inside[-1] / N)


def test_intervals_of_known_value():
    # Brown, Cai & DasGupta's form by hand, and the textbook's 8 of 10.
    np.testing.assert_allclose(
        wilson_interval(0.8, 10, 0.95), (0.4902, 0.9433), atol=1e-4
    )
    np.testing.assert_allclose(exact_interval(8, 10, 0.95), (0.4439, 0.9748), atol=1e-4)
    for x, n in ((0, 7), (3, 7), (7, 7), (45, 50)):
        known = binomtest(x, n).proportion_ci(0.9, method="exact")
        np.testing.assert_allclose(exact_interval(x, n, 0.9), known)
    # A large population is as good as an infinite one.
    large = exact_interval(8, 10, 0.95, 10**6)
    np.testing.assert_allclose(large, exact_interval(8, 10, 0.95), atol=1e-4)


# --- designs --------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 3, 50, 400])
def test_draws_are_distinct_and_repeatable(method, n):
    proba, *_ = population()
    audit = audit_sample(proba, n, method=method, random_state=3)
    again = audit_sample(proba, n, method=method, random_state=3)
    assert len(audit) == len(set(audit.indices.tolist())) == n
    np.testing.assert_array_equal(audit.indices, again.indices)
    assert audit.method == method and audit.n_population == 400
    assert population_weights(audit).sum() == pytest.approx(1)
    other = audit_sample(proba, n, method=method, random_state=4)
    assert n == 400 or (audit.indices != other.indices).any()


def test_strata_are_cut_by_confidence_and_doubt_gets_more():
    right = np.linspace(0.5, 1, 1000)
    audit = audit_sample(np.c_[right, 1 - right], 60, random_state=0)
    strata = [audit.indices[audit.strata == k] for k in np.unique(audit.strata)]
    assert len(strata) == 5
    ends = [(part.min(), part.max()) for part in strata]
    assert all(a[1] < b[0] for a, b in zip(ends, ends[1:], strict=False))
    rates = [
        len(part) / audit.stratum_sizes[audit.strata == k][0]
        for k, part in enumerate(strata)
    ]
    assert rates[0] > 1.2 * rates[-1] and min(rates) > 0.5 * 60 / 1000
    sizes = dict(zip(audit.strata, audit.stratum_sizes, strict=True))
    assert sum(sizes.values()) == 1000


@pytest.mark.parametrize("method", METHODS)
def test_unbiased_and_covered(method):
    proba, predicted, y = population(600)
    true = (predicted == y).mean()
    confusion = np.zeros((3, 3))
    np.add.at(confusion, (y, predicted), 1)
    found = [
        answer(audit_sample(proba, 60, method=method, random_state=seed), predicted, y)
        for seed in range(400)
    ]  # fmt: skip
    values = np.array([each.value for each in found])
    error = values.std() / np.sqrt(400)
    assert abs(values.mean() - true) < 4 * error
    covered = np.mean([each.low <= true <= each.high for each in found])
    assert covered >= 0.925
    tables = np.array([each.confusion for each in found])
    spread = 4 * tables.std(axis=0) / np.sqrt(400) + 1e-9
    assert (abs(tables.mean(axis=0) - confusion) < spread + 0.02 * confusion).all()
    for k in range(3):
        recall = (predicted[y == k] == k).mean()
        shares = [each.recall[k] for each in found]
        assert np.mean([s.low <= recall <= s.high for s in shares]) >= 0.92


def test_strata_save_labels_where_confidence_tells():
    rng = np.random.RandomState(0)
    right = np.where(np.arange(1000) < 200, 0.6, 0.99)
    proba, predicted = np.c_[right, 1 - right], np.zeros(1000, int)
    y = (rng.uniform(size=1000) > right).astype(int)
    spread = {}
    for method in METHODS:
        spread[method] = np.std([
            answer(audit_sample(proba, 60, method=method, random_state=seed), predicted,
                   y, classes=[0, 1]).value
            for seed in range(200)
        ])  # fmt: skip
    assert spread["stratified"] < 0.85 * spread["random"]


@pytest.mark.parametrize("method", METHODS)
def test_all_labels_leave_no_doubt(method):
    proba, predicted, y = population(80)
    audit = audit_sample(proba, 80, method=method, random_state=0)
    found = answer(audit, predicted, y)
    true = (predicted == y).mean()
    assert found.value == pytest.approx(true)
    assert (found.low, found.high) == (pytest.approx(true), pytest.approx(true))
    beyond = answer(audit, predicted, y, finite=False)
    assert beyond.low < true - 0.03 and beyond.high > true + 0.03
    # Half of them answered is as a sample.
    part = y[audit.indices].astype(float)
    part[::2] = np.nan
    half = estimate(audit, predicted[audit.indices], part)
    assert half.n_labels == 40 and half.high - half.low > 0.05


def test_several_audits_are_one_larger():
    proba, predicted, y = population(2000)
    first = audit_sample(proba, 40, method="random", random_state=0)
    second = audit_sample(proba, 60, method="random", random_state=1)
    rows = np.concatenate([first.indices, second.indices])
    both = estimate([first, second], predicted[rows], y[rows])
    assert both.value == pytest.approx((predicted == y)[rows].mean())
    assert both.n_labels == 100
    alone = answer(first, predicted, y)
    assert both.high - both.low < 0.8 * (alone.high - alone.low)
    mixed = [first, audit_sample(proba, 60, random_state=1)]
    rows = np.concatenate([part.indices for part in mixed])
    assert estimate(mixed, predicted[rows], y[rows]).method == "random+stratified"


# --- answers that are missing, few, or wrong ------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_be_answered_is_left_out(method):
    """Of the doubtful stratum, half cannot be told: the rest stands for it."""
    proba, predicted, y = population(900)
    doubtful = proba.max(axis=1) < 0.6
    rng = np.random.RandomState(0)
    hidden = doubtful & (rng.uniform(size=900) < 0.5)
    true = (predicted == y)[~hidden].mean()
    shown = np.where(hidden, None, y.astype(object))
    values = [
        answer(audit_sample(proba, 90, method=method, random_state=seed), predicted,
               shown, classes=[0, 1, 2])
        for seed in range(200)
    ]  # fmt: skip
    assert np.mean([each.value for each in values]) == pytest.approx(true, abs=0.012)
    assert np.mean([v.low <= true <= v.high for v in values]) > 0.92


@pytest.mark.parametrize("method", METHODS)
def test_three_labels_give_a_wide_interval_and_advice(method):
    audit = audit_sample(
        np.tile([0.9, 0.1], (500, 1)), 3, method=method, random_state=0
    )
    found = estimate(audit, ["ok"] * 3, ["ok"] * 3, classes=["crack", "ok"])
    assert found.value == 1 and found.high == 1 and 0.2 < found.low < 0.5
    text = str(found)
    assert "from 3 labels" in text and "The interval is wide: about" in text
    assert "Fewer than 5 of the labels are of crack, ok" in text
    assert np.isnan(found.recall["crack"].value)
    assert found.recall["crack"][1:] == (0, 1, 0)
    assert 100 < found._labels_for(0.05) <= 500


def test_strings_and_classes_in_any_order():
    audit = audit_sample(np.full((4, 2), 0.5), 4, method="random", random_state=0)
    found = estimate(
        audit, ["b", "b", "a", "a"], ["b", "a", "a", None], classes=["b", "a"]
    )
    assert found.classes.tolist() == ["b", "a"]
    np.testing.assert_allclose(found.confusion, [[4 / 3, 0], [4 / 3, 4 / 3]])
    assert found.recall["a"].value == 0.5 and found.recall["b"].value == 1


def test_wrong_input_is_refused_with_what_to_do():
    proba = np.full((10, 2), 0.5)
    with pytest.raises(ValueError, match="from 1 to 10"):
        audit_sample(proba, 11)
    with pytest.raises(ValueError, match="one of random, stratified"):
        audit_sample(proba, 5, method="best")
    with pytest.raises(ValueError, match="only method='random'"):
        audit_sample(np.full((10, 2), np.nan), 5)
    assert len(audit_sample(np.full((10, 2), np.nan), 5, method="random")) == 5
    with pytest.raises(ValueError, match="not decision values"):
        audit_sample(proba * 3, 5)
    audit = audit_sample(proba, 5, random_state=0)
    with pytest.raises(ValueError, match="Label some of them"):
        estimate(audit, [0] * 5, [None] * 5, classes=[0, 1])
    with pytest.raises(
        ValueError, match="5 images, but there are 5 predictions and 4 y"
    ):
        estimate(audit, [0] * 5, [1] * 4)
    with pytest.raises(ValueError, match=r"\[7\] are none of the classes"):
        estimate(audit, [0] * 5, [7] * 5, classes=[0, 1])
    with pytest.raises(ValueError, match="between 0 and 1"):
        estimate(audit, [0] * 5, [1] * 5, confidence=95)


def test_no_mistake_seen_is_not_none():
    proba = np.tile([0.95, 0.05], (1000, 1))
    for method in METHODS:
        audit = audit_sample(proba, 40, method=method, random_state=0)
        share, variance = share_of_mistakes(
            audit, np.zeros(40, bool), np.ones(40, bool), True
        )
        assert share == 0 and variance > 0
    assert isinstance(audit, Audit)


# --- forecasts ------------------------------------------------------------------------


def test_a_forecast_has_the_truth_about_four_times_of_five():
    """Of a probe of digits, now and with more labels; the sets of docs are others."""
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    inside, widths = [], []
    for seed in range(12):
        order = np.random.default_rng(seed).permutation(len(y))
        probes = {
            n: ProbeClassifier().fit(X[order[:n]], y[order[:n]])
            for n in (40, 60, 90, 140)
        }
        proba = probes[40].predict_proba(X[order[40:]])
        for found in forecast_accuracy(proba, 40):
            n = 40 + found.n_more
            true = probes[n].score(X[order[n:]], y[order[n:]])
            inside.append(found.low <= true <= found.high)
            widths.append(found.high - found.low)
            assert found.low <= found.value <= found.high
    assert np.mean(inside) >= 0.6 and np.mean(widths) < 0.35
    more = [found.value for found in forecast_accuracy(proba, 40)]
    assert more == sorted(more)
    for wrong in (np.ones(3), np.ones((0, 2))):
        with pytest.raises(ValueError, match="proba has the shape"):
            forecast_accuracy(wrong, 40)
    with pytest.raises(ValueError, match="takes 30 labels; there are 29"):
        forecast_accuracy(proba, 29)
