"""A source network and a folder of source images, for the tests of centres."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def source():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    return X, rng.integers(0, 5, 40)


def same(a, b):
    np.testing.assert_array_equal(a.inputs, b.inputs)
    np.testing.assert_array_equal(a.classes, b.classes)
