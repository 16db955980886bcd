"""How much of weighted rows is covered, and what others would add."""

from __future__ import annotations

import numpy as np

from ..blocks import LazyRows

_CHUNK = 1024
"""Rows compared with the witnesses at once."""
_AHEAD = 32
"""Gains brought up to date at once: reading the witnesses takes the time."""


class Coverage:
    """How much of some weighted rows is covered, and what others would add.

    Parameters
    ----------
    witnesses : ndarray of shape (m, d), float32
        The rows to cover.
    weights : ndarray of shape (m,)
        What each counts.
    width : float
        sigma^2, the squared distance at which a row covers 1/e.
    """

    def __init__(
        self, witnesses: np.ndarray, weights: np.ndarray, width: float
    ) -> None:
        self.witnesses = witnesses
        self.weights = weights.astype(np.float32)
        self.width = width
        self.covered = np.zeros(len(witnesses), dtype=np.float32)
        self._norms = np.einsum("ij,ij->i", witnesses, witnesses)

    def add(self, rows: np.ndarray) -> None:
        """Let rows cover what they can."""
        for start in range(0, len(rows), _CHUNK):
            alike = self._alike(rows[start : start + _CHUNK])
            self.covered = np.maximum(self.covered, alike.max(axis=0))

    @property
    def value(self) -> float:
        """What is covered."""
        return float(self.weights.astype(np.float64) @ self.covered)

    def gains(self, rows: np.ndarray | LazyRows) -> np.ndarray:
        """What each row would add to the coverage, shape (n,), float64."""
        found = np.empty(len(rows))
        for start in range(0, len(rows), _CHUNK):
            more = self._alike(rows[start : start + _CHUNK])
            more -= self.covered
            np.maximum(more, 0, out=more)
            found[start : start + _CHUNK] = more @ self.weights
        return found

    def greedy(
        self, rows: np.ndarray | LazyRows, n: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Add the row that adds most, n times.

        Parameters
        ----------
        rows : ndarray or LazyRows of shape (l, d)
        n : int
            At most l.

        Returns
        -------
        chosen : ndarray of int, shape (n,)
        gains : ndarray of shape (n,)
        """
        gains = self.gains(rows)
        up_to_date = np.ones(len(rows), dtype=bool)
        chosen = np.empty(n, dtype=np.intp)
        added = np.empty(n)
        for k in range(n):
            n_ahead = _AHEAD
            # A gain only falls as others are added, so that an old one is a bound.
            while not up_to_date[i := int(gains.argmax())]:
                n_ahead = min(n_ahead, len(rows) - k)
                ahead = np.argpartition(gains, len(rows) - n_ahead)[-n_ahead:]
                ahead = np.union1d(ahead[~up_to_date[ahead]], i)  # i may be of many
                gains[ahead] = self.gains(rows[ahead])
                up_to_date[ahead] = True
                n_ahead = min(2 * n_ahead, _CHUNK)
            chosen[k], added[k] = i, gains[i]
            self.add(rows[i : i + 1])
            up_to_date[:] = False
            gains[i] = -np.inf
        return chosen, added

    def _alike(self, rows: np.ndarray) -> np.ndarray:
        norms = np.einsum("ij,ij->i", rows, rows)
        squared = rows @ self.witnesses.T
        squared *= -2
        squared += norms[:, None]
        squared += self._norms
        np.maximum(squared, 0, out=squared)
        squared /= -self.width
        return np.exp(squared, out=squared)


def share_distance(
    rows: np.ndarray | LazyRows,
    n_shares: int,
    rng: np.random.Generator,
    n_examined: int = 2000,
) -> float:
    """Mean squared distance from a row to the last of the n / n_shares nearest to it.

    Parameters
    ----------
    rows : ndarray or LazyRows of shape (n, d)
    n_shares : int
    rng : Generator
    n_examined : int
        Rows that are looked at, drawn.

    Returns
    -------
    float
        Greater than 0.
    """
    if len(rows) > n_examined:
        some = rows[rng.choice(len(rows), n_examined, replace=False)]
    else:
        some = rows[:]
    norms = np.einsum("ij,ij->i", some, some)
    squared = norms + norms[:, None] - 2 * (some @ some.T)
    k = min(max(len(some) // n_shares, 1), len(some) - 1)  # 0 is the row itself
    found = float(np.partition(squared, k, axis=1)[:, k].mean())
    # Below that is rounding: copies of an image would not cover each other.
    return max(found, 1e-5 * float(norms.mean()), float(np.finfo(np.float32).tiny))
