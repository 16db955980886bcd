"""Windows: rectangles cut out of an image or of the maps that a network makes of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Window:
    """A rectangle of a map.

    Attributes
    ----------
    top, left, height, width : int
    """

    top: int
    left: int
    height: int
    width: int

    def cut(self, maps: torch.Tensor) -> torch.Tensor:
        """Cut it out of maps of shape (b, channels, H, W)."""
        rows = slice(self.top, self.top + self.height)
        return maps[:, :, rows, self.left : self.left + self.width]


def n_distinct(height: int, width: int) -> int:
    """Count the windows that :func:`random_windows` draws from."""
    return len(_intervals(height)) * len(_intervals(width))


def random_windows(
    height: int, width: int, n: int, rng: np.random.Generator
) -> list[Window]:
    """Draw windows from a half to four sevenths of a map high and wide.

    All such windows are equally likely, and different as far as there are so many.

    Parameters
    ----------
    height, width : int
        Of the map.
    n : int
        How many windows.
    rng : Generator

    Returns
    -------
    list of Window
    """
    rows, columns = _intervals(height), _intervals(width)
    n_all = len(rows) * len(columns)
    drawn = rng.choice(n_all, n, replace=n > n_all)
    pairs = [(rows[i // len(columns)], columns[i % len(columns)]) for i in drawn]
    return [Window(row[0], column[0], row[1], column[1]) for row, column in pairs]


def _intervals(side: int) -> list[tuple[int, int]]:
    """Starts and lengths from a half of `side` to four sevenths, both rounded up."""
    lengths = range(-(-side // 2), -(-4 * side // 7) + 1)
    return [(start, n) for n in lengths for start in range(side - n + 1)]
