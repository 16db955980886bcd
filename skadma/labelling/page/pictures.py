"""Pictures for the browser: decoded as for the network, encoded anew."""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from ...features.cache import DiskCache
from ...images.decoding import Range, UnreadableImageError, from_file

SIZES = {"small": 256, "view": 1600, "full": 8000}  # longest side in pixels
_EXACT = 512  # up to this side pictures are sent without loss
_MAX_BYTES = 512 << 20  # of a file; a larger one is not shown


def encode(
    sha256: str, path: Path, size: str, value_range: Range | None = None
) -> tuple[bytes, str]:
    """Encode the file with this digest, if it can be read; return its type, too."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UnreadableImageError(f"{path.name!r} is too large to be shown.")
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{path.name!r} cannot be read: {error}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UnreadableImageError(f"{path.name!r} is another picture by now.")
    return _encode(data, path.name, size, value_range)


def _encode(
    data: bytes, name: str, size: str, value_range: Range | None = None
) -> tuple[bytes, str]:
    """Decode as for the network, and encode."""
    side, file = SIZES[size], io.BytesIO(data)
    pixels = from_file(file, name, value_range=value_range, to_be_seen=True)
    image = Image.fromarray(pixels)
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if max(image.size) <= _EXACT and side > SIZES["small"]:
        image.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue(), "image/png"
    quality = 85 if side == SIZES["small"] else 92
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue(), "image/jpeg"


def encode_small(
    kept: DiskCache, value_range: Range | None, sha256: str, path: Path
) -> tuple[bytes, str]:
    """Encode a thumbnail, kept by content; anew, as the folder may be anybody's."""
    if (known := kept.get("thumbnails", sha256)) is not None:
        with suppress(UnreadableImageError):
            return _encode(known.tobytes(), path.name, "small")
    data, kind = encode(sha256, path, "small", value_range)
    if kept.nbytes > 0.95 * kept.limit:
        kept.clear()
    kept.put("thumbnails", sha256, np.frombuffer(data, np.uint8))
    return data, kind
