"""Windows: rectangles of an image or of a feature map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Window:
    """A rectangle of a feature map."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, maps: torch.Tensor) -> torch.Tensor:
        """Cut the window out of maps of shape (b, channels, H, W)."""
        rows = slice(self.top, self.top + self.height)
        return maps[:, :, rows, self.left : self.left + self.width]


def n_distinct(height: int, width: int) -> int:
    """Count the windows that :func:`random_windows` can draw."""
    return len(_intervals(height, 1)) * len(_intervals(width, 1))


def random_windows(
    height: int, width: int, n: int, rng: np.random.Generator
) -> list[Window]:
    """Draw n windows half as high and wide as a map, halves rounded up.

    If there are fewer than n such windows, those that are a row or a column larger are
    drawn from as well. All are equally likely, and distinct as far as there are enough.
    """
    rows, columns = _intervals(height, 0), _intervals(width, 0)
    if len(rows) * len(columns) < n:
        rows, columns = _intervals(height, 1), _intervals(width, 1)
    n_all = len(rows) * len(columns)
    drawn = rng.choice(n_all, n, replace=n > n_all)
    pairs = [(rows[i // len(columns)], columns[i % len(columns)]) for i in drawn]
    return [Window(row[0], column[0], row[1], column[1]) for row, column in pairs]


def _intervals(side: int, more: int) -> list[tuple[int, int]]:
    """Starts and lengths of a half of `side`, and of up to `more` beyond a half."""
    half = -(-side // 2)
    lengths = range(half, min(half + more, side) + 1)
    return [(start, n) for n in lengths for start in range(side - n + 1)]
