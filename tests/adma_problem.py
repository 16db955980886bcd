"""Random features and centres, for the tests of ADMA."""

import numpy as np
import torch

A1, A2, B = -4, -5, -2
DIMENSIONS = {A1: 30, A2: 45, B: 12}


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def problem(seed, n, K, dtype=np.float64, n_classes=4, K_all=None):
    """Features of n images and K centres at three layers, and probabilities."""
    rng = np.random.default_rng(seed)
    pool, centers = {}, {}
    for layer, d in DIMENSIONS.items():
        size = 3.0 if layer != B else 1.0
        pool[layer] = (size * rng.standard_normal((n, d))).astype(dtype)
        centers[layer] = (size * rng.standard_normal((K, d))).astype(dtype)
        pool[layer][0] = centers[layer][K // 2]  # an image that is a centre
    K_all = K + 3 if K_all is None else K_all
    source_proba = rng.dirichlet(np.full(K_all, 0.5), size=n)
    classes = rng.permutation(K_all)[:K].tolist()
    source_proba[1, classes] = 0  # no probability where there are centres
    proba = rng.dirichlet(np.full(n_classes, 0.7), size=n)
    return pool, centers, proba, source_proba, classes
