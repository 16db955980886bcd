"""Upper bounds of what rows would add to a coverage, kept in 16 bits a comparison."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any

import numpy as np

_IN_MEMORY = 256 * 2**20
"""Bytes that are held in memory; more lie in a temporary file."""
_LEVELS = 65_533
"""Into how many steps [0, 1] is cut: what is rounded up is at most 65,535."""
_CHUNK = 256
"""Rows that are read at once."""


class GainBounds:
    """Upper bounds of rows' gains, of how alike they are to the reference_points.

    A product of all rows with all references takes most of the time of a greedy choice,
    so that it is done once. Its results, rounded up, lie in memory or in a temporary
    file without a name; where the disk has no room for twice as much, those of the
    first rows only.

    Parameters
    ----------
    n_rows : int
    weights : ndarray of shape (m,), float32
        Of the reference_points.

    Attributes
    ----------
    n_kept : int
        The rows before this one have a bound.
    """

    def __init__(self, n_rows: int, weights: np.ndarray) -> None:
        m = max(len(weights), 1)
        self._weights = weights
        self._file: Any = None
        self.n_kept = min(n_rows, _IN_MEMORY // (2 * m))
        folder = _folder()
        room = shutil.disk_usage(folder).free
        if self.n_kept < n_rows and room > 2 * (2 * m * n_rows):
            self._file = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115
            self.n_kept = n_rows
        else:
            self._levels = np.empty((self.n_kept, len(weights)), np.uint16)

    def __enter__(self) -> GainBounds:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def keep(self, start: int, alike: np.ndarray) -> None:
        """Keep how alike rows are to the reference_points.

        Parameters
        ----------
        start : int
            Number of the first of the rows, which is that after the last one kept.
        alike : ndarray of shape (b, m), float32
            In [0, 1].
        """
        alike = alike[: max(self.n_kept - start, 0)]
        levels = alike * np.float32(_LEVELS)
        levels += 2  # cut off to an integer that is greater by 1 at least
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
        """Bound the gains of some rows.

        Parameters
        ----------
        numbers : ndarray of int, shape (b,)
            Of the rows, less than `n_kept` and ascending.
        covered : ndarray of shape (m,), float32
            How far each witness is covered.

        Returns
        -------
        ndarray of shape (b,)
            Not less than what :meth:`Coverage.gains_of` finds.
        """
        found = np.empty(len(numbers))
        floor = (covered * np.float32(_LEVELS)).astype(np.uint16)
        for start in range(0, len(numbers), _CHUNK):
            levels = self._read(numbers[start : start + _CHUNK])
            np.maximum(levels, floor, out=levels)
            levels -= floor
            more = levels.astype(np.float32) @ self._weights
            found[start : start + _CHUNK] = more
        # Each of two sums of m numbers is off by m eps / 2 of itself at most.
        rounding = 1.1 * len(covered) * np.finfo(np.float32).eps
        return found * ((1 + rounding) / _LEVELS)

    def _read(self, numbers: np.ndarray) -> np.ndarray:
        """What was kept of rows, ascending, as an array of its own."""
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


def _folder() -> str:
    """Where large temporary files belong: /tmp lies in memory on many a Linux."""
    found = tempfile.gettempdir()
    return "/var/tmp" if found == "/tmp" and os.access("/var/tmp", os.W_OK) else found
