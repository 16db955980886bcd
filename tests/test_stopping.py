"""When learners stop."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score

from skadma import ActiveLearner
from skadma.stopping import LabelBudget, StablePredictions, TargetScore
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
