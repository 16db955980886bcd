"""BADGE: diverse and uncertain images by the last layer's gradients."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from sklearn.utils.extmath import row_norms

from .._utils.lazy_rows import AnyRows, row_by_row
from ._pool_features import PoolFeatures
from .base import BatchStrategy


class BADGE(BatchStrategy):
    r"""Choose by k-means++ among the last layer's gradients [1]_.

    The gradient of the loss at the predicted label :math:`\hat y` has the block

    .. math:: g_{x, c} = (p_c - 1[\hat y = c]) \, h(x)

    for class c (Eq. 1), h being the last layer's input. The first image is that of the
    largest gradient, the others are drawn with the squared distance to the nearest one
    chosen as weight. A gradient is an outer product, so distances come from those of
    its two factors,

    .. math:: \|g_x - g_z\|^2 = \|g_x\|^2 + \|g_z\|^2
              - 2 \, (a_x \cdot a_z)(h_x \cdot h_z),

    with a in place of p minus the predicted label's indicator, and the n x C x d
    numbers are never stored. Before the first fit there are no gradients and the
    features themselves take their place.

    Parameters
    ----------
    layer, features, random_state
        See :class:`CoreSet`.

    References
    ----------
    .. [1] Ash, Zhang, Krishnamurthy, Langford & Agarwal, Deep Batch Active Learning by
       Diverse, Uncertain Gradient Lower Bounds, ICLR 2020.
    """

    needs: ClassVar[str] = "probabilities, features"
    cost: ClassVar[str] = "1 pass; b n (C + d)"
    memory: ClassVar[str] = "n (C + d)"

    _use_labeled = False

    def _select(
        self, pool: PoolFeatures, n_instances: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        if pool.proba is None:
            factors = row_by_row(lambda rows: np.ones((len(rows), 1)), pool.features)
        else:
            factors = row_by_row(gradient_factors, pool.proba)
        return kmeans_plusplus_of_products(factors, pool.features, n_instances, rng)


def gradient_factors(proba: np.ndarray) -> np.ndarray:
    """Probabilities minus the predicted label's indicator, shape (n, C).

    The loss's gradient is the outer product of such a row and the last layer's input.
    """
    factors = proba.copy()
    factors[np.arange(len(factors)), factors.argmax(axis=1)] -= 1
    return factors


def kmeans_plusplus_of_products(
    a: AnyRows, h: AnyRows, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose n outer products of rows of `a` and `h` by k-means++.

    Returns the rows' numbers and their squared distances to those chosen before.
    """
    norms = row_by_row(
        lambda a, h: row_norms(a, squared=True) * row_norms(h, squared=True), a, h
    )[:]
    nearest = norms.copy()
    chosen = np.empty(n, dtype=np.intp)
    weights = np.empty(n)
    free = np.ones(len(h), dtype=bool)
    for k in range(n):
        i = int(norms.argmax()) if k == 0 else _draw(nearest, free, rng)
        chosen[k], weights[k] = i, nearest[i]
        free[i] = False
        a_i, h_i = a[i : i + 1][0], h[i : i + 1][0]
        inner = row_by_row(lambda a, h, x=a_i, z=h_i: (a @ x) * (h @ z), a, h)[:]
        squared = norms[i] + norms - 2 * inner
        nearest = squared if k == 0 else np.minimum(nearest, squared)
        np.maximum(nearest, 0, out=nearest)
    return chosen, weights


def _draw(weights: np.ndarray, free: np.ndarray, rng: np.random.Generator) -> int:
    weights = np.where(free, weights, 0.0)
    total = weights.sum()
    if not total > 0:  # only copies of chosen images are left
        weights, total = free.astype(float), free.sum()
    return int(rng.choice(len(weights), p=weights / total))
