"""How much of weighted rows is covered, and what others would add."""

from __future__ import annotations

import numpy as np

from ..blocks import LazyRows

_CHUNK = 1024
"""Rows compared with the witnesses at once."""
_KEPT_BYTES = 128 * 2**20
"""Comparisons with the witnesses that are kept of the rows that are looked at most."""
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
        """What rows would add, of how alike they are to the witnesses; overwrites it.

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
        gains = self.gains(rows)
        up_to_date = np.ones(len(rows), dtype=bool)
        chosen = np.empty(n, dtype=np.intp)
        added = np.empty(n)
        kept = _Kept(self, rows)
        for k in range(n):
            n_ahead = _AHEAD
            # A gain only falls as others are added, so that an old one is a bound.
            while not up_to_date[i := int(gains.argmax())]:
                n_ahead = min(n_ahead, len(rows) - k)
                ahead = np.argpartition(gains, len(rows) - n_ahead)[-n_ahead:]
                ahead = np.union1d(ahead[~up_to_date[ahead]], i)  # i may be of many
                kept.bring_up_to_date(ahead, gains)
                up_to_date[ahead] = True
                n_ahead = min(2 * n_ahead, _CHUNK)
            chosen[k], added[k] = i, gains[i]
            self.add(rows[i : i + 1])
            up_to_date[:] = False
            gains[i] = -np.inf
        return chosen, added

    def alike(self, rows: np.ndarray) -> np.ndarray:
        """How much rows cover each witness, shape (b, m), float32."""
        norms = np.einsum("ij,ij->i", rows, rows)
        squared = rows @ self.witnesses.T
        squared *= -2
        squared += norms[:, None]
        squared += self._norms
        np.maximum(squared, 0, out=squared)
        squared /= -self.width
        return np.exp(squared, out=squared)


class _Kept:
    """Gains of rows; of those with the greatest, how alike they are is kept.

    A greedy choice looks at the same rows again and again, and comparing them with the
    witnesses is what takes the time.
    """

    def __init__(self, cover: Coverage, rows: np.ndarray | LazyRows) -> None:
        m = max(len(cover.witnesses), 1)
        n_slots = min(len(rows), max(_KEPT_BYTES // (4 * m), 1))
        self._cover, self._rows = cover, rows
        self._alike = np.empty((n_slots, m), dtype=np.float32)
        self._owner = np.full(n_slots, -1)
        self._slot = np.full(len(rows), -1)

    def bring_up_to_date(self, numbers: np.ndarray, gains: np.ndarray) -> None:
        """Set the gains of some rows to what they are now.

        Parameters
        ----------
        numbers : ndarray of int, shape (b,)
            Of the rows.
        gains : ndarray of shape (n,)
            What the gains were, of all rows; changed.
        """
        slots = self._slot[numbers]
        known, new = numbers[slots >= 0], numbers[slots < 0]
        if len(known):
            gains[known] = self._cover.gains_of(self._alike[slots[slots >= 0]])
        if len(new):
            alike = self._cover.alike(self._rows[new])
            self._keep(new, alike, gains)
            gains[new] = self._cover.gains_of(alike)

    def _keep(self, new: np.ndarray, alike: np.ndarray, gains: np.ndarray) -> None:
        """Keep new rows in the place of those with the least gains."""
        worth = np.where(self._owner < 0, -np.inf, gains[self._owner])
        n = min(len(new), len(worth))
        slots = np.argpartition(worth, n - 1)[:n]
        before = self._owner[slots]
        self._slot[before[before >= 0]] = -1
        self._owner[slots] = new[:n]
        self._slot[new[:n]] = slots
        self._alike[slots] = alike[:n]


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
