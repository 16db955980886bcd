"""Centres as one picture, to look at or to ship."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image


def to_sheet(images: np.ndarray) -> Image.Image:
    """Lay images out in rows, black where the last row has none.

    Parameters
    ----------
    images : ndarray of uint8, shape (k, 3, side, side)

    Returns
    -------
    PIL.Image.Image
        As wide as high, or one row higher.
    """
    k, _, side, _ = images.shape
    columns = math.isqrt(k - 1) + 1
    rows = -(-k // columns)
    sheet = np.zeros((rows * side, columns * side, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * side, i % columns * side
        sheet[top : top + side, left : left + side] = image.transpose(1, 2, 0)
    return Image.fromarray(sheet)


def from_sheet(sheet: Image.Image, k: int, side: int) -> list[Image.Image]:
    """Cut :func:`to_sheet`'s picture into its images.

    Parameters
    ----------
    sheet : PIL.Image.Image
    k : int
        How many there are.
    side : int
        Of each, in pixels.

    Returns
    -------
    list of PIL.Image.Image
    """
    columns = math.isqrt(k - 1) + 1
    corners = ((i % columns * side, i // columns * side) for i in range(k))
    return [sheet.crop((x, y, x + side, y + side)) for x, y in corners]
