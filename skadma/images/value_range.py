"""Which values mean black and white in images of more than 8 bits."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

Range = tuple[float, float]

_BITS, _SAMPLE_FORMAT, _S_MIN, _S_MAX = 258, 339, 340, 341
"""Tags of TIFF files."""
_SIGNED = 2
"""A sample format of TIFF files."""

_FULL = {
    np.dtype(np.uint16): (0, 65535),
    np.dtype(np.int16): (-32768, 32767),
    np.dtype(np.uint32): (0, 2**32 - 1),
    np.dtype(np.int32): (-(2**31), 2**31 - 1),
}


def scale(values: np.ndarray, value_range: Range) -> np.ndarray:
    """Map a range of values to 0 to 255, as uint8; what lies outside is clipped."""
    low, high = value_range
    scaled = (values.astype(np.float64) - low) * 255 / (high - low)
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def wide_values(image: Image.Image) -> np.ndarray:
    """Return the values of an image of mode "I" or "I;16" in the type of its file."""
    values = np.asarray(image)
    dtype = _dtype(image)
    if dtype is None:
        fits = values.size == 0 or (values.min() >= 0 and values.max() <= 65535)
        dtype = np.dtype(np.uint16 if fits else np.int32)
    return values.astype(dtype)  # Pillow reads uint32 as int32


def _dtype(image: Image.Image) -> np.dtype | None:
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return np.dtype(np.uint16) if image.mode != "I" else None
    bits = 16 if _first(tags.get(_BITS)) <= 16 else 32
    kind = "i" if _first(tags.get(_SAMPLE_FORMAT)) == _SIGNED else "u"
    return np.dtype(f"{kind}{bits // 8}")


def full_range(values: np.ndarray) -> Range:
    """Return all that the type of an image's values can hold."""
    return _FULL[values.dtype]


def declared_range(
    image: Image.Image, values: np.ndarray, file: str | BinaryIO | None
) -> Range | None:
    """Return the range that a file states: tags of TIFF files, sBIT of PNG files.

    By its standard a PNG file has its bits at the upper end, but many have them at the
    lower one: those whose values are that small.
    """
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        low, high = _first(tags.get(_S_MIN)), _first(tags.get(_S_MAX))
        if high > low:
            return low, high
        bits = _first(tags.get(_BITS))
        return (0, 2**bits - 1) if 8 < bits < 16 else None
    bits = 16
    if image.format == "PNG" and file is not None:
        bits = _significant_bits(file)
    return (0, 2**bits - 1) if bits < 16 and values.max() < 2**bits else None


def _first(value: object) -> float:
    value = value[0] if isinstance(value, tuple) and value else value
    return value if isinstance(value, (int, float)) else 0


def _significant_bits(file: str | BinaryIO) -> int:
    """Bits that the sBIT chunk of a grey PNG file states, which precedes the pixels."""
    if isinstance(file, str):
        with Path(file).open("rb") as opened:
            return _significant_bits(opened)
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"sBIT" and length:
            return file.read(1)[0] or 16
        if kind == b"IDAT":
            break
        file.seek(length + 4, 1)
    return 16


def range_of_values(values: np.ndarray) -> Range:
    """Return what the fewest bits hold, from 8 on, in which all values fit."""
    low, high = int(values.min()), int(values.max())
    if low < 0:
        bits = max(7, high.bit_length(), (-low - 1).bit_length())
        return -(2**bits), 2**bits - 1
    return 0, 2 ** max(8, high.bit_length()) - 1
