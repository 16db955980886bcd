"""Images for the page: decoded as for the network, encoded anew."""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from pathlib import Path

from PIL import Image

from ...images.forms import UnreadableImageError, from_file
from ...images.value_range import Range

SIZES = {"small": 256, "view": 1600, "full": 8000}
"""Longest side in pixels, by name."""
_EXACT = 512
"""Up to this side pictures are sent without loss."""
_MAX_BYTES = 512 << 20
"""Of a file; a larger one is not shown."""


class Pictures:
    """Encode images, and keep the latest up to `limit` bytes. For many threads."""

    def __init__(self, limit: int = 64 << 20, value_range: Range | None = None) -> None:
        self._value_range = value_range
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[tuple[str, str], tuple[bytes, str]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, sha256: str, path: Path, size: str) -> tuple[bytes, str]:
        """Encode the file with this digest; return the bytes and the media type.

        UnreadableImageError if it is gone, has changed, or cannot be decoded.
        """
        key = sha256, size
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        answer = _encode(sha256, path, SIZES[size], self._value_range)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = answer
                self._size += len(answer[0])
            while self._size > self._limit and len(self._kept) > 1:
                _, (data, _) = self._kept.popitem(last=False)
                self._size -= len(data)
        return answer


def _encode(
    sha256: str, path: Path, side: int, value_range: Range | None
) -> tuple[bytes, str]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UnreadableImageError(f"{path.name!r} is too large to be shown.")
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{path.name!r} cannot be read: {error}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UnreadableImageError(f"{path.name!r} is another picture by now.")
    file = io.BytesIO(data)
    pixels = from_file(file, path.name, value_range=value_range, to_be_seen=True)
    image = Image.fromarray(pixels)
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if max(image.size) <= _EXACT and side > SIZES["small"]:
        image.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue(), "image/png"
    image.save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue(), "image/jpeg"
