"""How much of weighted rows is covered, and what others would add."""

from __future__ import annotations

import numpy as np

from .._utils.lazy_rows import LazyRows
from ._bounds import GainBounds
from ._distances import squared_distances, squared_norms

_CHUNK = 1024
"""Rows compared with the reference_points at once."""
_AHEAD = 8
"""Gains computed anew at once: reading the reference_points takes the time."""
_OLD, _BOUNDED, _EXACT = range(3)
"""What is known of a gain: one of before, a bound of today's, today's."""


class Coverage:
    """How much of some weighted rows is covered, and what others would add.

    Parameters
    ----------
    reference_points : ndarray of shape (m, d), float32
        The rows to cover.
    weights : ndarray of shape (m,)
        What each counts.
    width : float
        sigma^2, the squared distance at which a row covers 1/e.
    """

    def __init__(
        self, reference_points: np.ndarray, weights: np.ndarray, width: float
    ) -> None:
        self.reference_points = reference_points
        self.weights = weights.astype(np.float32)
        self.width = width
        self.covered = np.zeros(len(reference_points), dtype=np.float32)
        self._norms = squared_norms(reference_points)

    def add(self, rows: np.ndarray) -> None:
        """Let rows cover what they can."""
        for start in range(0, len(rows), _CHUNK):
            alike = self.alike(rows[start : start + _CHUNK])
            self.covered = np.maximum(self.covered, alike.max(axis=0))

    @property
    def value(self) -> float:
        """What is covered."""
        return float(self.weights.astype(np.float64) @ self.covered)

    def gains(self, rows: np.ndarray | LazyRows) -> np.ndarray:
        """What each row would add to the coverage, shape (n,), float64."""
        found = np.empty(len(rows))
        for start in range(0, len(rows), _CHUNK):
            more = self.alike(rows[start : start + _CHUNK])
            found[start : start + _CHUNK] = self.gains_of(more)
        return found

    def gains_of(self, alike: np.ndarray) -> np.ndarray:
        """What rows would add, of how alike they are to the references; overwrites it.

        Parameters
        ----------
        alike : ndarray of shape (b, m), float32

        Returns
        -------
        ndarray of shape (b,)
        """
        alike -= self.covered
        np.maximum(alike, 0, out=alike)
        return alike @ self.weights

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
        chosen = np.empty(n, dtype=np.intp)
        added = np.empty(n)
        with GainBounds(len(rows), self.weights) as bounds:
            gains = _LazyGains(self, rows, bounds)
            for k in range(n):
                chosen[k], added[k] = gains.take()
                self.add(rows[chosen[k : k + 1]])
        return chosen, added

    def alike(self, rows: np.ndarray) -> np.ndarray:
        """How much rows cover each witness, shape (b, m), float32."""
        # As squared_distances, but in place: here a query spends most of its time.
        squared = rows @ self.reference_points.T
        squared *= -2
        squared += squared_norms(rows)[:, None]
        squared += self._norms
        np.maximum(squared, 0, out=squared)
        squared /= -self.width
        return np.exp(squared, out=squared)


class _LazyGains:
    """Gains of rows; only those that may be the greatest are brought up to date.

    A gain only falls as rows are added, so that an old one is a bound. Where old gains
    do not decide, closer bounds do, which cost no product with the references; the
    gains of the few rows that are left are computed anew.
    """

    def __init__(
        self, cover: Coverage, rows: np.ndarray | LazyRows, bounds: GainBounds
    ) -> None:
        self._cover, self._rows, self._bounds = cover, rows, bounds
        self._gains = np.empty(len(rows))
        self._state = np.full(len(rows), _EXACT, dtype=np.int8)
        self._best = 0.0
        for start in range(0, len(rows), _CHUNK):
            alike = cover.alike(rows[start : start + _CHUNK])
            bounds.keep(start, alike)
            self._gains[start : start + _CHUNK] = cover.gains_of(alike)

    def take(self) -> tuple[int, float]:
        """Find the row of the greatest gain; it is not found again."""
        gains, state = self._gains, self._state
        if state[gains.argmax()] == _OLD:  # a few first, as a mark for the others
            some = _greatest(np.flatnonzero(gains > 0), gains, _CHUNK // 4)
            self._bound(some)
            self._compute(_greatest(some, gains, _AHEAD))
        while state[i := int(gains.argmax())] != _EXACT and gains[i] > 0:
            rivals = np.flatnonzero((state == state[i]) & (gains >= self._best))
            if state[i] == _OLD:
                self._bound(rivals)
            else:
                self._compute(_greatest(rivals, gains, _AHEAD))
        gain = float(gains[i])
        state[:], gains[i], self._best = _OLD, -np.inf, 0.0
        return i, gain

    def _bound(self, numbers: np.ndarray) -> None:
        """Lower bounds of gains to what is kept; compute those that have none."""
        kept = numbers[numbers < self._bounds.n_kept]
        closer = self._bounds.of(kept, self._cover.covered)
        self._gains[kept] = np.minimum(self._gains[kept], closer)
        self._state[kept] = _BOUNDED
        others = numbers[len(kept) :]
        for start in range(0, len(others), _CHUNK):
            some = others[start : start + _CHUNK]
            self._compute(some[self._gains[some] >= self._best])

    def _compute(self, numbers: np.ndarray) -> None:
        """Set the gains of some rows to what they are now."""
        found = self._cover.gains(self._rows[numbers])
        self._gains[numbers] = found
        self._state[numbers] = _EXACT
        self._best = max(self._best, found.max(initial=0))


def _greatest(numbers: np.ndarray, gains: np.ndarray, n: int) -> np.ndarray:
    """Those n of some rows that have the greatest gains, ascending."""
    if len(numbers) <= n:
        return numbers
    return np.sort(numbers[np.argpartition(gains[numbers], -n)[-n:]])


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
    norms = squared_norms(some)
    squared = squared_distances(some @ some.T, norms[:, None], norms)
    k = min(max(len(some) // n_shares, 1), len(some) - 1)  # 0 is the row itself
    found = float(np.partition(squared, k, axis=1)[:, k].mean())
    # Below that is rounding: copies of an image would not cover each other.
    return max(found, 1e-5 * float(norms.mean()), float(np.finfo(np.float32).tiny))
