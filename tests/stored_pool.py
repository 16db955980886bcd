"""A feature store, for the tests of the strategies that choose from it."""

import numpy as np
import pytest

from skadma.features.store import FeatureStore

from .conftest import tiny_classifier


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of 200 pictures in shards of 48, and a fitted classifier."""
    rng = np.random.default_rng(0)
    y = rng.integers(4, size=200)
    X = rng.integers(0, 120, (200, 32, 32, 3))
    X[np.arange(200), :, :, y % 3] += (60 + 20 * y)[:, None, None]
    X = X.astype(np.uint8)
    clf = tiny_classifier(memory=False).fit(X[:24], y[:24])
    folder = tmp_path_factory.mktemp("store")
    return FeatureStore.build(clf, X, folder, shard_rows=48), clf, X
