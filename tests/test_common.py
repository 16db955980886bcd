"""scikit-learn's whole battery, with the failures expected that are named here."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from skadma import ActiveLearner, AdaFilterClassifier, CNNClassifier
from skadma.strategies import MarginSampling, RandomSampling


# Classes, whose names in the tests' names are the same in every process.
class FlatNetwork(nn.Sequential):
    """A network that takes rows of any length."""

    def __init__(self):
        super().__init__(nn.Flatten(), nn.LazyLinear(64), nn.ReLU(), nn.Linear(64, 10))


class FlatNetworkWithAConvolution(nn.Sequential):
    """Another one; its convolution is the second of three layers."""

    def __init__(self):
        super().__init__(
            nn.Flatten(),
            nn.LazyLinear(64),
            nn.ReLU(),
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, 4, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(36, 10),
        )


def expected_failures(estimator):
    if isinstance(estimator, CNNClassifier):
        return {
            "check_sample_weight_equivalence_on_dense_data": "A row that is there "
            "twice fills batches in another way than a row of weight 2, and float32 "
            "sums differ from 1e-7 on; tests/test_weights.py has the equivalence for "
            "batches of all rows."
        }
    return {
        "check_classifiers_classes": "It has a task with the labels -1 and 1 alone, "
        "without `classes`, which a learner refuses: -1 may be a gap there, see "
        "tests/test_labels.py."
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
@parametrize_with_checks(
    [
        CNNClassifier(
            FlatNetwork, n_frozen_layers=0, lr=0.01, head_lr=0.01, random_state=0
        ),
        AdaFilterClassifier(
            FlatNetworkWithAConvolution,
            n_frozen_layers=0,
            lr=0.01,
            head_lr=0.01,
            random_state=0,
        ),
        ActiveLearner(LogisticRegression(), RandomSampling(), random_state=0),
        ActiveLearner(LogisticRegression(), MarginSampling(), random_state=0),
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learns_battery(estimator, check):
    try:
        check(estimator)
    except AssertionError as error:
        # On some processors MKL's sums depend on a row's place in the batch: float32
        # fails at the check's 1e-7 there. test_order_does_not_matter has its tolerance.
        if "not invariant when applied to a datasetwith different sample" in str(error):
            pytest.xfail("float32 sums depend on a row's place on this processor")
        raise


@pytest.mark.parametrize(
    ("kind", "network"),
    [
        (CNNClassifier, FlatNetwork),
        (AdaFilterClassifier, FlatNetworkWithAConvolution),
    ],
)
def test_order_does_not_matter(kind, network):
    X = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    y = np.arange(60) % 3
    clf = kind(network, n_frozen_layers=0, lr=0.01, head_lr=0.01, random_state=0)
    clf.fit(X, y)
    order = np.random.default_rng(1).permutation(60)
    for predict in (clf.decision_function, clf.predict_proba):
        np.testing.assert_allclose(predict(X[order]), predict(X)[order], atol=1e-6)
