"""How much chosen rows cover of weighted reference points, and greedy choice by it."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

import numpy as np

from .._utils.lazy_rows import AnyRows
from ._distances import squared_distances, squared_norms

_CHUNK = 1024
"""Rows compared with the reference points at once."""
_AHEAD = 8
"""Gains recomputed at once: reading the reference points dominates the time."""
_OLD, _BOUNDED, _EXACT = range(3)
"""States of a gain: of an earlier step, bounded at this step, exact at this step."""
_IN_MEMORY = 256 * 2**20
"""Bytes of similarities in memory; more are kept in a temporary file."""
_LEVELS = 65_533
"""Steps that [0, 1] is divided into: what is rounded up is at most 65,535."""
_READ_ROWS = 256
"""Rows of similarities read at once."""


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
            similarity = self.similarity(rows[start : start + _CHUNK])
            found[start : start + _CHUNK] = self.gains_of(similarity)
        return found

    def gains_of(self, similarity: np.ndarray) -> np.ndarray:
        """Gains of rows by their similarity (b, m), which is overwritten."""
        similarity -= self.covered
        np.maximum(similarity, 0, out=similarity)
        return similarity @ self.weights

    def greedy(self, rows: AnyRows, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Add the row of the greatest gain, n times; return the rows and their gains.

        A gain only falls as rows are added, so an old gain is an upper bound. Where
        old gains do not decide, closer bounds do, from stored similarities; exact
        gains are recomputed for the few rows that are left.
        """
        chosen = np.empty(n, dtype=np.intp)
        added = np.empty(n)
        with GainBounds(len(rows), self.weights) as bounds:
            gains = _LazyGains(self, rows, bounds)
            for k in range(n):
                chosen[k], added[k] = gains.take()
                self.add(rows[chosen[k : k + 1]])
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


class _LazyGains:
    """Gains of rows, of which only those that may be the greatest are updated."""

    def __init__(self, cover: Coverage, rows: AnyRows, bounds: GainBounds) -> None:
        self._cover, self._rows, self._bounds = cover, rows, bounds
        self._gains = np.empty(len(rows))
        self._state = np.full(len(rows), _EXACT, dtype=np.int8)
        self._best = 0.0
        for start in range(0, len(rows), _CHUNK):
            similarity = cover.similarity(rows[start : start + _CHUNK])
            bounds.keep(start, similarity)
            self._gains[start : start + _CHUNK] = cover.gains_of(similarity)

    def take(self) -> tuple[int, float]:
        """Return the row of the greatest gain, with its gain, and exclude it."""
        gains, state = self._gains, self._state
        if state[gains.argmax()] == _OLD:  # a few first: their gains exclude others
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
        """Lower gains to their bounds; compute those without stored similarities."""
        kept = numbers[numbers < self._bounds.n_kept]
        closer = self._bounds.of(kept, self._cover.covered)
        self._gains[kept] = np.minimum(self._gains[kept], closer)
        self._state[kept] = _BOUNDED
        others = numbers[len(kept) :]
        for start in range(0, len(others), _CHUNK):
            some = others[start : start + _CHUNK]
            self._compute(some[self._gains[some] >= self._best])

    def _compute(self, numbers: np.ndarray) -> None:
        """Compute the exact gains of those rows whose gain is not exact.

        A second computation, among other rows, may round a gain to less than `_best`.
        """
        numbers = numbers[self._state[numbers] != _EXACT]
        found = self._cover.gains(self._rows[numbers])
        self._gains[numbers] = found
        self._state[numbers] = _EXACT
        self._best = max(self._best, found.max(initial=0))


def _greatest(numbers: np.ndarray, gains: np.ndarray, n: int) -> np.ndarray:
    """The n of some rows that have the greatest gains, ascending by number."""
    if len(numbers) <= n:
        return numbers
    return np.sort(numbers[np.argpartition(gains[numbers], -n)[-n:]])


class GainBounds:
    """Upper bounds of rows' gains, from similarities stored in 16 bits each.

    Computing the similarities takes most of the time of a greedy choice, so it is done
    once. They are rounded up and kept in memory or in an unnamed temporary file; where
    the disk has no room for twice as much, those of the first `n_kept` rows only.
    `weights` are those of the reference points, shape (m,).
    """

    def __init__(self, n_rows: int, weights: np.ndarray) -> None:
        m = max(len(weights), 1)
        self._weights = weights
        self._file: Any = None
        self.n_kept = min(n_rows, _IN_MEMORY // (2 * m))
        folder = _temporary_folder()
        free = shutil.disk_usage(folder).free
        if self.n_kept < n_rows and free > 2 * (2 * m * n_rows):
            self._file = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115
            self.n_kept = n_rows
        else:
            self._levels = np.empty((self.n_kept, len(weights)), np.uint16)

    def __enter__(self) -> GainBounds:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def keep(self, start: int, similarity: np.ndarray) -> None:
        """Store similarities (b, m) of the rows from `start` on, the next ones."""
        similarity = similarity[: max(self.n_kept - start, 0)]
        levels = similarity * np.float32(_LEVELS)
        levels += 2  # truncation to an integer leaves at least 1 more
        if self._file is None:
            self._levels[start : start + len(levels)] = levels
            return
        if len(levels):
            rounded = levels.astype(np.uint16)
            try:
                written = self._file.write(rounded.data)
            except OSError:
                written = 0
            if written < rounded.nbytes:  # the disk is full
                self.n_kept = start

    def of(self, numbers: np.ndarray, covered: np.ndarray) -> np.ndarray:
        """Bound the gains of rows (less than `n_kept`, ascending), given the coverage.

        A bound is not less than the gain that :meth:`Coverage.gains` computes.
        """
        found = np.empty(len(numbers))
        floor = (covered * np.float32(_LEVELS)).astype(np.uint16)
        for start in range(0, len(numbers), _READ_ROWS):
            levels = self._read(numbers[start : start + _READ_ROWS])
            np.maximum(levels, floor, out=levels)
            levels -= floor
            more = levels.astype(np.float32) @ self._weights
            found[start : start + _READ_ROWS] = more
        # Each of two sums of m numbers is off by m eps / 2 of itself at most.
        rounding = 1.1 * len(covered) * np.finfo(np.float32).eps
        return found * ((1 + rounding) / _LEVELS)

    def _read(self, numbers: np.ndarray) -> np.ndarray:
        """Levels of rows, ascending, as a new array."""
        if self._file is None:
            return self._levels[numbers]
        first, n = int(numbers[0]), int(numbers[-1] - numbers[0]) + 1
        if n <= 4 * len(numbers):
            return self._read_run(first, n)[numbers - first]
        return np.concatenate([self._read_run(int(i), 1) for i in numbers])

    def _read_run(self, first: int, n: int) -> np.ndarray:
        found = np.empty((n, len(self._weights)), np.uint16)
        self._file.seek(first * found[0].nbytes)
        if self._file.readinto(found.data) != found.nbytes:
            raise OSError("A temporary file was cut short.")
        return found


def _temporary_folder() -> str:
    """The system's temporary folder, but not /tmp, which is often held in memory."""
    found = tempfile.gettempdir()
    return "/var/tmp" if found == "/tmp" and os.access("/var/tmp", os.W_OK) else found


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
