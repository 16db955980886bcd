"""scikit-learn's whole battery, with no failure expected."""

import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

from skadma import ActiveLearner, AdaFilterClassifier, CNNClassifier
from skadma.strategies import MarginSampling, RandomSampling


def flat_network():
    """A network that takes rows of any length."""
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(64), nn.ReLU(), nn.Linear(64, 10))


def flat_network_with_a_convolution():
    """Another one; its convolution is the second of three layers."""
    return nn.Sequential(
        nn.Flatten(),
        nn.LazyLinear(64),
        nn.ReLU(),
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 4, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, 10),
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
@parametrize_with_checks(
    [
        CNNClassifier(
            flat_network, n_frozen_layers=0, lr=0.01, head_lr=0.01, random_state=0
        ),
        AdaFilterClassifier(
            flat_network_with_a_convolution,
            n_frozen_layers=0,
            lr=0.01,
            head_lr=0.01,
            random_state=0,
        ),
        ActiveLearner(LogisticRegression(), RandomSampling(), random_state=0),
        ActiveLearner(LogisticRegression(), MarginSampling(), random_state=0),
    ]
)
def test_scikit_learns_battery(estimator, check):
    check(estimator)
