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


def from_sheet(sheet: Image.Image, k: int, side: int) -> np.ndarray:
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
    ndarray of uint8, shape (k, 3, side, side)
    """
    columns = math.isqrt(k - 1) + 1
    pixels = np.asarray(sheet.convert("RGB")).transpose(2, 0, 1)
    rows = pixels.reshape(3, -1, side, columns, side)
    return rows.transpose(1, 3, 0, 2, 4).reshape(-1, 3, side, side)[:k].copy()


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """Bring square images to another size.

    Parameters
    ----------
    images : ndarray of uint8, shape (k, 3, old, old)
    side : int

    Returns
    -------
    ndarray of uint8, shape (k, 3, side, side)
    """
    if images.shape[-1] == side:
        return images
    out = np.empty((len(images), 3, side, side), dtype=np.uint8)
    for new, image in zip(out, images, strict=True):
        pixels = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        new[:] = np.asarray(
            pixels.resize((side, side), Image.Resampling.BICUBIC)
        ).transpose(2, 0, 1)
    return out
