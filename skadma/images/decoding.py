"""Pixels of image files, PIL images and arrays: (H, W, 3) uint8 arrays."""

from __future__ import annotations

import contextlib
import importlib
import os
import struct
import sys
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

ACCEPTED = (
    "Accepted are: a uint8 array (n, H, W), (n, H, W, 3) or (n, 3, H, W), 4 channels "
    "being RGBA; floats in [0, 1] of the same shapes; a 2-D array with image_shape=; a "
    "list, array or Series of paths; a list or column of PIL images or arrays; a torch "
    "Dataset of images"
)

FORMATS = [
    "AVIF", "BMP", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "MPO", "PCX", "PNG",
    "PPM", "SGI", "TGA", "TIFF", "WEBP",
]  # fmt: skip
"""Formats of files. Without EPS and its kin, for which Pillow runs Ghostscript. HEIF
needs the package pillow-heif."""

PIXELS = "SKADMA_MAX_IMAGE_PIXELS"
"""Environment variable: the number of pixels above which no image is decoded."""

Range = tuple[float, float]
FoundRange = tuple[Range, bool, bool]
"""A range, whether the file states it, and whether it is the full range of the type."""

_BITS, _SAMPLE_FORMAT, _S_MIN, _S_MAX = 258, 339, 340, 341
"""Tags of TIFF files."""

_SIGNED = 2
"""A sample format of TIFF files."""

_BYTES = {
    f"{channels};16{order}": tuple(f"{channels.upper()};16{o}" for o in (order, other))
    for channels in ("RGB", "RGBX", "RGBA", "RGBa")
    for order, other in ("LB", "BL", "NB" if sys.byteorder == "little" else "NL")
}
"""Pillow's names of 16-bit colours, and those by which it reads their upper and their
lower bytes."""

_FULL_RANGE = {
    np.dtype(np.uint16): (0, 65535),
    np.dtype(np.int16): (-32768, 32767),
    np.dtype(np.uint32): (0, 2**32 - 1),
    np.dtype(np.int32): (-(2**31), 2**31 - 1),
}
"""All that the type of an image's values can hold."""


class UnreadableImageError(ValueError):
    """An image is missing, or cannot be decoded or resized.

    `reason` is the message without the advice, for those who have taken it.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(f"{reason} {advice}".rstrip())
        self.reason = reason


def from_file(
    file: str | BinaryIO,
    path: str,
    least: int | None = None,
    value_range: Range | None = None,
    *,
    to_be_seen: bool = False,
) -> np.ndarray:
    """Decode an open file, or one by its path.

    Values of more than 8 bits are scaled by `value_range`, else by what the file
    states, else by its type or, for an image `to_be_seen`, by its own largest value.
    With `least`, a JPEG is decoded at the smallest of 1/1, 1/2, 1/4 and 1/8 of its size
    that leaves both sides at least that long.
    """
    try:
        with Image.open(file, formats=_formats()) as image:
            if least is not None:
                image.draft(None, (least, least))  # does nothing but to a JPEG
            raw = _raw_mode(image)
            image.load()
            values = wide_values(image, raw, file)
            if values is None:
                return from_pil(image, path, value_range)
            if value_range is None:
                value_range = declared_range(image, values, file)
            if value_range is None and to_be_seen:
                value_range = range_of_values(values)
            return _from_values(image, values, value_range)
    except UnreadableImageError:
        raise
    except Exception as error:  # Pillow's plugins raise almost anything
        raise unreadable(path, error) from error


@lru_cache
def _prepare_pillow() -> None:
    """Load Pillow's plugins, that for HEIF too, and set the limit on pixels."""
    Image.init()
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    if limit := os.environ.get(PIXELS):
        if not limit.isdecimal():
            raise ValueError(f"{PIXELS}={limit!r}: it must be a number of pixels.")
        Image.MAX_IMAGE_PIXELS = int(limit) // 2  # Pillow refuses twice as many


@lru_cache
def _formats() -> tuple[str, ...]:
    _prepare_pillow()
    return tuple(name for name in FORMATS if name in Image.OPEN)


@lru_cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of image files, lower case, with the dot."""
    _prepare_pillow()
    return frozenset(s for s, name in Image.EXTENSION.items() if name in FORMATS)


def unreadable(path: str, error: Exception) -> UnreadableImageError:
    """Make the error that names a file and the reason."""
    return UnreadableImageError(
        f"The image {path!r} cannot be read ({type(error).__name__}: {error}).",
        "Mend or remove it, or set on_bad_image='skip'.",
    )


def find_range(image: str | Image.Image | np.ndarray) -> FoundRange | None:
    """Find the range of an image of more than 8 bits; a string is a file's path."""
    values: np.ndarray | None = None
    if isinstance(image, str):
        if not _may_be_wide(image):
            return None
        with Image.open(image, formats=_formats()) as opened:
            values = wide_values(opened, _raw_mode(opened), image)
            declared = values is not None and declared_range(opened, values, image)
    elif isinstance(image, Image.Image):
        values = wide_values(image)
        declared = values is not None and declared_range(image, values, None)
    elif image.dtype.kind == "u" and image.dtype.itemsize == 2:
        values, declared = image, None
    if values is None:
        return None
    found = declared or range_of_values(values)
    return found, bool(declared), not declared and found == _FULL_RANGE[values.dtype]


def _may_be_wide(path: str) -> bool:
    """Whether a file's first bytes leave it open; most of 8 bits are told by them."""
    with Path(path).open("rb") as file:
        head = file.read(26)
    if head.startswith(b"\x89PNG"):
        return head[24:25] == b"\x10"  # 16 bits
    return not head.startswith((b"\xff\xd8", b"RIFF", b"GIF8", b"BM"))


def _upright(image: Image.Image) -> Image.Image:
    """Rotate a photograph by its EXIF orientation, as viewers do."""
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:  # a broken entry; the pixels are fine
        return image


def from_pil(image: Image.Image, what: str, value_range: Range | None) -> np.ndarray:
    """Convert a PIL image."""
    if _raw_mode(image) in _BYTES:
        warnings.warn(
            f"{what} is a PIL image of a file with 16-bit colours, of which Pillow "
            "keeps the upper 8 bits. Give the file's path, and all bits are read.",
            stacklevel=2,
        )
    if (values := wide_values(image)) is not None:
        return _from_values(image, values, value_range)
    image = _upright(image)
    if image.mode == "F":
        return from_unchecked_array(np.asarray(image), what, value_range)
    if image.mode in ("La", "RGBa"):  # multiplied by alpha
        image = image.convert(image.mode.upper())
    return from_array(np.asarray(image.convert("RGB")), what)


def _from_values(
    image: Image.Image, values: np.ndarray, value_range: Range | None
) -> np.ndarray:
    """Convert an image's values of more than 8 bits."""
    scaled = Image.fromarray(scale(values, value_range or _FULL_RANGE[values.dtype]))
    scaled.getexif().update(image.getexif())
    return from_array(np.asarray(_upright(scaled)), "")


def from_unchecked_array(
    array: np.ndarray, what: str, value_range: Range | None = None
) -> np.ndarray:
    """Convert an array, or raise ValueError where it is no image."""
    if not channel_axis(array.shape):
        raise ValueError(
            f"{what} has shape {array.shape}; an image is (H, W), (H, W, 3) or "
            "(3, H, W), with 1, 3 or 4 channels."
        )
    check_values(array, what, value_range, allow_uint16=True)
    return from_array(array, what, value_range)


def from_array(
    image: np.ndarray, what: str, value_range: Range | None = None
) -> np.ndarray:
    """Convert an array whose shape and values are checked.

    Of RGBA the last channel is dropped, as Pillow's ``convert`` does.
    """
    image = native(image)
    if value_range is not None and image.dtype != np.uint8 and image.dtype.kind != "b":
        image = scale(image, value_range)
    elif image.dtype.kind == "f":
        image = np.rint(image * 255).astype(np.uint8)
    elif image.dtype == np.uint16:
        image = np.rint(image / 257).astype(np.uint8)
    elif image.dtype.kind == "b":
        image = image.astype(np.uint8) * 255
    if image.ndim == 2:
        image = image[..., None]
    elif channel_axis(image.shape) == "first":
        image = image.transpose(1, 2, 0)
    if image.shape[2] == 1:
        image = np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image[..., :3])


def channel_axis(shape: tuple[int, ...]) -> str:
    """Return "last" or "first", "none" for (H, W), "" for what is no image's shape."""
    if 0 in shape or len(shape) not in (2, 3):
        return ""
    if len(shape) == 2:
        return "none"
    if shape[-1] in (1, 3):
        return "last"
    if shape[0] in (1, 3):
        return "first"
    if shape[-1] == 4:
        return "last"
    return "first" if shape[0] == 4 < min(shape[1:]) else ""


def native(array: np.ndarray) -> np.ndarray:
    """Bring an array to the byte order of this machine."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def check_values(
    array: np.ndarray, what: str, value_range: Range | None, *, allow_uint16: bool
) -> None:
    """Raise ValueError where an array's values are no pixels."""
    kind = array.dtype.kind
    if kind == "b" or array.dtype == np.uint8:
        return
    if allow_uint16 and kind == "u" and array.dtype.itemsize == 2:
        return
    low, high = array.min(), array.max()
    if kind == "f" and (np.isnan(low) or np.isnan(high)):
        raise ValueError(f"{what} contains NaN. {ACCEPTED}.")
    if value_range is not None and kind in "iuf":
        return
    if kind == "f":
        if low < 0 or high > 1:
            raise ValueError(
                f"{what} has {array.dtype} values from {low:.4g} to {high:.4g}; floats "
                "must be in [0, 1]. Scale them, or cast pixel values from 0 to 255 "
                f"with X.astype(np.uint8). {ACCEPTED}."
            )
        return
    fits = low >= 0 and high <= 255
    advice = "Cast them with X.astype(np.uint8)."
    if not fits:
        advice = (
            f"Scale them to 0 to 255, or give what is black and what is white, for "
            f"example value_range=({min(low, 0)}, {high})."
        )
    raise ValueError(
        f"{what} has {array.dtype} values from {low} to {high}. {advice} {ACCEPTED}."
    )


# --- the range of values of images of more than 8 bits -------------------------------


def scale(values: np.ndarray, value_range: Range) -> np.ndarray:
    """Map a range of values to 0 to 255, as uint8; what lies outside is clipped."""
    low, high = value_range
    scaled = (values.astype(np.float64) - low) * 255 / (high - low)
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def wide_values(
    image: Image.Image, raw: str = "", file: str | BinaryIO | None = None
) -> np.ndarray | None:
    """Return the values of an image of more than 8 bits; None for one of 8.

    They are (H, W) or, of a `file` with colours, (H, W, 3); `raw` is its raw mode. Of
    PIL images with colours there are 8 bits, as Pillow keeps no more.
    """
    if not image.mode.startswith("I"):
        return None if file is None else _wide_colours(raw, file)
    values = np.asarray(image)
    dtype = _dtype(image)
    if dtype is None:
        fits = values.size == 0 or (values.min() >= 0 and values.max() <= 65535)
        dtype = np.dtype(np.uint16 if fits else np.int32)
    return values.astype(dtype)  # Pillow reads uint32 as int32


def _raw_mode(image: Image.Image) -> str:
    """Pillow's name of how a file has its pixels; empty once they are loaded."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return ""
    args = image.tile[0][3]  # by position, as tiles are plain tuples before Pillow 11
    return str(args[0] if isinstance(args, tuple) and args else args)


def _wide_colours(raw: str, file: str | BinaryIO) -> np.ndarray | None:
    """Read both bytes of 16-bit colours: of each value, Pillow keeps the upper one."""
    if raw == "LA;16B":  # four bytes of a pixel: upper and lower one, twice
        grey = _decode_as("RGBA", file).astype(np.uint16)
        return grey[..., 0] << 8 | grey[..., 1]
    if raw not in _BYTES:
        return None
    upper, lower = (_decode_as(name, file) for name in _BYTES[raw])
    values = upper.astype(np.uint16) << 8 | lower
    if raw.startswith("RGBa"):  # multiplied by alpha
        alpha = values[..., 3:]
        _, opaque = range_of_values(alpha)
        values = values * (opaque / np.maximum(alpha, 1))
        values = values.clip(0, opaque).astype(np.uint16)
    return values[..., :3]


def _decode_as(raw: str, file: str | BinaryIO) -> np.ndarray:
    """Decode a file by another one of Pillow's raw modes."""
    if not isinstance(file, str):
        file.seek(0)
    with Image.open(file, formats=_formats()) as again:
        for i, tile in enumerate(again.tile):
            args = (raw, *tile[3][1:]) if isinstance(tile[3], tuple) else raw
            make: Any = getattr(tile, "_make", tuple)
            again.tile[i] = make((*tile[:3], args))
        return np.asarray(again)


def _dtype(image: Image.Image) -> np.dtype | None:
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return np.dtype(np.uint16) if image.mode != "I" else None
    bits = 16 if _first(tags.get(_BITS)) <= 16 else 32
    kind = "i" if _first(tags.get(_SAMPLE_FORMAT)) == _SIGNED else "u"
    return np.dtype(f"{kind}{bits // 8}")


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
    """Bits that the sBIT chunk of a PNG file states, which precedes the pixels."""
    if isinstance(file, str):
        with Path(file).open("rb") as opened:
            return _significant_bits(opened)
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"sBIT" and length:
            return max(file.read(min(length, 3))) or 16
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
