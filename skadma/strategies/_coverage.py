"""How much chosen rows cover of weighted reference points, and greedy choice by it."""

from __future__ import annotations

import numpy as np

from .._utils.lazy_rows import BLOCK_ROWS, AnyRows
from ._distances import squared_distances, squared_norms

_CHUNK = 1024
"""Rows compared with the reference points at once."""
_AHEAD = 8
"""Gains recomputed at first: reading the reference points dominates the time."""


class Coverage:
    """Coverage of weighted reference points by the rows added so far.

    A row at squared distance r from a reference point covers exp(-r / bandwidth_sq)
    of it.

    Parameters
    ----------
    reference_points : ndarray of shape (m, d), float32
    weights : ndarray of shape (m,)
    bandwidth_sq : float
        sigma^2, the squared distance at which a row covers 1/e.
    """

    def __init__(
        self, reference_points: np.ndarray, weights: np.ndarray, bandwidth_sq: float
    ) -> None:
        self.reference_points = reference_points
        self.weights = weights.astype(np.float32)
        self.bandwidth_sq = bandwidth_sq
        self.covered = np.zeros(len(reference_points), dtype=np.float32)
        self._norms = squared_norms(reference_points)

    def add(self, rows: np.ndarray) -> None:
        """Update the coverage with more rows."""
        for start in range(0, len(rows), _CHUNK):
            similarity = self.similarity(rows[start : start + _CHUNK])
            self.covered = np.maximum(self.covered, similarity.max(axis=0))

    @property
    def value(self) -> float:
        """Weighted sum of the coverage."""
        return float(self.weights.astype(np.float64) @ self.covered)

    def gains(self, rows: AnyRows) -> np.ndarray:
        """How much each row would add to `value`, shape (n,), float64."""
        found = np.empty(len(rows))
        for start in range(0, len(rows), _CHUNK):
            more = self.similarity(rows[start : start + _CHUNK])
            more -= self.covered
            np.maximum(more, 0, out=more)
            found[start : start + _CHUNK] = more @ self.weights
        return found

    def greedy(self, rows: AnyRows, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Add the row of the greatest gain, n times; return the rows and their gains.

        A gain only falls as rows are added, so an old gain is an upper bound: a gain is
        recomputed only if its bound is the largest one.
        """
        chosen = np.empty(n, dtype=np.intp)
        added = np.empty(n)
        gains = self.gains(rows)
        exact = np.ones(len(rows), dtype=bool)
        for k in range(n):
            n_ahead = _AHEAD
            while not exact[i := int(gains.argmax())] and gains[i] > 0:
                n_ahead = min(n_ahead, len(rows))
                ahead = np.argpartition(gains, len(rows) - n_ahead)[-n_ahead:]
                old = ~exact[ahead] & (gains[ahead] > 0)
                ahead = np.union1d(ahead[old], i)  # i may be one of many equals
                gains[ahead] = self.gains(rows[ahead])
                exact[ahead] = True
                n_ahead = min(2 * n_ahead, BLOCK_ROWS)
            chosen[k], added[k] = i, gains[i]
            self.add(rows[chosen[k : k + 1]])
            gains[i] = -np.inf
            exact[:] = False
        return chosen, added

    def similarity(self, rows: np.ndarray) -> np.ndarray:
        """How much rows cover each reference point, shape (b, m), float32."""
        # As squared_distances, but in place: a query spends most of its time here.
        squared = rows @ self.reference_points.T
        squared *= -2
        squared += squared_norms(rows)[:, None]
        squared += self._norms
        np.maximum(squared, 0, out=squared)
        squared /= -self.bandwidth_sq
        return np.exp(squared, out=squared)


def share_distance(
    rows: AnyRows, n_shares: int, rng: np.random.Generator, n_examined: int = 2000
) -> float:
    """Mean squared distance from a row to the last of the n / n_shares nearest to it.

    Estimated on at most `n_examined` rows, which are drawn; greater than 0.
    """
    if len(rows) > n_examined:
        some = rows[rng.choice(len(rows), n_examined, replace=False)]
    else:
        some = rows[:]
    norms = squared_norms(some)
    squared = squared_distances(some @ some.T, norms[:, None], norms)
    k = min(max(len(some) // n_shares, 1), len(some) - 1)  # 0 is the row itself
    found = float(np.partition(squared, k, axis=1)[:, k].mean())
    # Below that is rounding: copies of an image would not cover each other.
    return max(found, 1e-5 * float(norms.mean()), float(np.finfo(np.float32).tiny))
