"""When learners stop."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score

from skadma import ActiveLearner
from skadma.stopping import EstimatedScore, LabelBudget, StablePredictions, TargetScore
from skadma.strategies import MarginSampling


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:600] / 16, y[:600]


def learner(stopping, **params):
    params = {"n_rounds": None, "n_instances": 20, "random_state": 0, **params}
    return ActiveLearner(
        LogisticRegression(max_iter=500), MarginSampling(), stopping=stopping, **params
    )


def test_budget_and_pool(digits):
    X, y = digits
    assert learner(LabelBudget(70)).fit(X, y).labeled_.sum() == 80
    assert learner(LabelBudget(70), n_rounds=2).fit(X, y).labeled_.sum() == 40
    assert learner(None).fit(X[:50], y[:50]).labeled_.sum() == 50


def test_target(digits):
    X, y = digits
    rule = TargetScore(0.75, X[400:], y[400:])
    found = learner(rule).fit(X[:400], y[:400])
    assert found.score(X[400:], y[400:]) >= 0.75
    assert found.labeled_.sum() < 400
    rounds = list(clone(found).set_params(stopping=None).rounds(X[:400], y[:400]))
    assert len(found.history_) < len(rounds)


def test_stable_predictions(digits):
    X, y = digits
    rule = StablePredictions(X[400:], threshold=0.97, window=2)
    found = learner(rule)
    seen = []
    for _ in found.rounds(X[:400], y[:400]):
        seen.append(found.predict(X[400:]))
    kappas = [cohen_kappa_score(a, b) for a, b in zip(seen, seen[1:], strict=False)]
    np.testing.assert_allclose(rule.agreements_, kappas)
    assert np.mean(kappas[-2:]) >= 0.97
    assert all(np.mean(kappas[i : i + 2]) < 0.97 for i in range(len(kappas) - 2))
    before = len(found.history_)
    assert len(found.fit(X[:400], y[:400]).history_) == before  # nothing is left over


def test_combinations(digits):
    X, y = digits
    either = LabelBudget(60) | TargetScore(2.0, X, y)
    both = LabelBudget(40) & LabelBudget(100)
    assert learner(either).fit(X, y).labeled_.sum() == 60
    assert clone(learner(both)).fit(X, y).labeled_.sum() == 100
    with pytest.raises(ValueError, match="'stopping' parameter"):
        learner("soon").fit(X, y)


class Watched(np.ndarray):
    """Labels that remember which of them were read."""

    def __array_finalize__(self, other):
        self.read = getattr(other, "read", None)

    def __getitem__(self, index):
        if self.read is not None:
            self.read.update(np.atleast_1d(np.arange(400)[index]).tolist())
        return np.asarray(super().__getitem__(index))


def test_estimated_score_keeps_its_labels_to_itself(digits):
    X, y = digits
    rule = EstimatedScore(0.8, n_labels=60, random_state=0)
    found = learner(rule)
    read = set()
    for _ in found.rounds(X[:400], y[:400]):
        if not read:  # from now on every access counts
            found.y_ = found.y_.view(Watched)
            found.y_.read = read
        assert not (found.labeled_ & found.reserved_).any()
    apart = rule.audit_.indices
    assert found.reserved_.sum() == 60 and found.reserved_[apart].all()
    assert read <= set(np.flatnonzero(found.labeled_ | found.reserved_).tolist())
    bounds = [each.low for each in rule.estimates_]
    assert bounds[-1] >= 0.8 and all(low < 0.8 for low in bounds[:-1])
    assert found.labeled_.sum() == 20 * len(bounds) < 340
    right = (found.predict(X[apart]) == y[apart]).sum()
    one_sided = binomtest(int(right), 60, alternative="greater").proportion_ci(0.9)
    assert bounds[-1] == pytest.approx(one_sided.low)
    assert rule.estimates_[-1].n_labels == 60


def test_estimated_score_that_is_never_reached_uses_up_the_rest(digits):
    X, y = digits
    rule = EstimatedScore(0.98, n_labels=150, random_state=0) | LabelBudget(1000)
    found = learner(rule).fit(X[:200], y[:200])
    assert found.labeled_.sum() == 50 and found.reserved_.sum() == 150
    again = learner(None).fit(X[:200], y[:200])
    assert not again.reserved_.any()


def test_estimated_score_refuses_what_cannot_be_shown(digits):
    X, y = digits
    with pytest.raises(ValueError, match="At least 45 are needed"):
        learner(EstimatedScore(0.95, n_labels=44)).fit(X, y)
    with pytest.raises(ValueError, match="Lower n_labels"):
        learner(EstimatedScore(0.5)).fit(X[:100], y[:100])
    for wrong in (EstimatedScore(95), EstimatedScore(0.9, confidence=0.4)):
        with pytest.raises(ValueError, match="must be between"):
            learner(wrong).fit(X, y)
