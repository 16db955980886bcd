"""Rows of numbers that are read from the disk a block at a time, with one interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

BLOCK_ROWS = 16_384
"""Rows that are read at once; a pool of no more is read whole."""


class LazyRows(ABC):
    """Rows of numbers that are read when they are indexed.

    ``rows[a:b]`` and ``rows[indices]`` are arrays, as of an array in memory.

    Parameters
    ----------
    shape : tuple of int
        (n, ...).
    dtype : dtype
    block : int, default=16384
        Rows to read at once.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: Any, block: int = BLOCK_ROWS
    ) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype)
        self.block = block

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        if isinstance(key, slice):
            key = np.arange(*key.indices(len(self)))
        indices = np.asarray(key, dtype=np.intp)
        if indices.ndim != 1:
            raise IndexError("Rows are taken by a slice or by a 1-D array of numbers.")
        wrong = indices[(indices < -len(self)) | (indices >= len(self))]
        if len(wrong):
            raise IndexError(f"row {wrong[0]} of {len(self)}")
        return self._read(np.where(indices < 0, indices + len(self), indices))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype=dtype)

    def select(self, indices: np.ndarray) -> LazyRows:
        """Return some of the rows, by an array of their numbers, unread."""
        return _Selected(self, np.asarray(indices, dtype=np.intp))

    @abstractmethod
    def _read(self, rows: np.ndarray) -> np.ndarray:
        """Read rows by their numbers, which are in range."""


class MappedRows(LazyRows):
    """Rows of a memory-mapped array.

    Parameters
    ----------
    array : ndarray of shape (n, d)
    block : int, default=16384
    """

    def __init__(self, array: np.ndarray, block: int = BLOCK_ROWS) -> None:
        super().__init__(array.shape, array.dtype, block)
        self.array = array

    def _read(self, rows: np.ndarray) -> np.ndarray:
        return self.array[rows]


class _Joined(LazyRows):
    def __init__(self, first: np.ndarray, others: LazyRows) -> None:
        n = len(first) + len(others)
        super().__init__((n, *others.shape[1:]), others.dtype, others.block)
        self.first, self.others = first, others

    def _read(self, rows: np.ndarray) -> np.ndarray:
        m = len(self.first)
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        of_first = rows < m
        found[of_first] = self.first[rows[of_first]]
        found[~of_first] = self.others[rows[~of_first] - m]
        return found


class _Selected(LazyRows):
    def __init__(self, rows: LazyRows, indices: np.ndarray) -> None:
        super().__init__((len(indices), *rows.shape[1:]), rows.dtype, rows.block)
        self._rows, self._indices = rows, indices

    def _read(self, rows: np.ndarray) -> np.ndarray:
        return self._rows[self._indices[rows]]


class _Mapped(LazyRows):
    def __init__(
        self, function: Callable[..., np.ndarray], sources: Sequence[LazyRows]
    ) -> None:
        first = sources[0]
        some = function(*(rows[:1] for rows in sources))
        super().__init__((len(first), *some.shape[1:]), some.dtype, first.block)
        self._function, self._sources = function, sources

    def _read(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for start in range(0, len(rows), self.block):
            some = rows[start : start + self.block]
            found[start : start + len(some)] = self._function(
                *(source[some] for source in self._sources)
            )
        return found


AnyRows: TypeAlias = np.ndarray | LazyRows
"""Rows in memory or on the disk: what the functions below and strategies take."""


def iter_blocks(rows: AnyRows) -> Iterator[tuple[int, np.ndarray]]:
    """Yield starts and rows of blocks; an array is one block."""
    block = rows.block if isinstance(rows, LazyRows) else max(len(rows), 1)
    for start in range(0, len(rows) or 1, block):
        yield start, rows[start : start + block]


def row_by_row(function: Callable[..., np.ndarray], *rows: Any) -> Any:
    """Apply a function of each row, or of the same row of several arrays.

    At once to arrays, to LazyRows when they are read.
    """
    if isinstance(rows[0], LazyRows):
        return _Mapped(function, rows)
    return function(*rows)


def selected(rows: Any, indices: np.ndarray) -> Any:
    """Select rows of an array, or of LazyRows without reading them."""
    return rows.select(indices) if isinstance(rows, LazyRows) else rows[indices]


def joined(first: np.ndarray, others: Any) -> Any:
    """Concatenate rows in memory and an array, or LazyRows without reading them."""
    if isinstance(others, LazyRows):
        return _Joined(first, others)
    return np.concatenate([first, others])


def working_dtype(dtype: np.dtype) -> np.dtype:
    """Return the type to compute with: single for half precision, double for ints."""
    if dtype in (np.float32, np.float64):
        return dtype
    return np.dtype(np.float32 if dtype == np.float16 else np.float64)


def as_working(rows: np.ndarray) -> np.ndarray:
    """Cast features to the type to compute with."""
    return rows.astype(working_dtype(rows.dtype), copy=False)


def per_row(rows: Any, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Compute a number for each row of an array, or block by block of LazyRows."""
    return np.concatenate([function(block) for _, block in iter_blocks(rows)])
