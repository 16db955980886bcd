"""Images for the page: decoded as for the network, encoded anew."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

from PIL import Image

from ...features.cache import LRUCache
from ...images.forms import UnreadableImageError, from_file

SIZES = {"small": 256, "view": 1600, "full": 8000}
"""Longest side in pixels, by name."""
_EXACT = 512
"""Up to this side pictures are sent without loss."""
_MAX_BYTES = 512 << 20
"""Of a file; a larger one is not shown."""


class Pictures:
    """Encode images, and keep the latest up to `limit` bytes. For many threads."""

    def __init__(self, limit: int = 64 << 20) -> None:
        self._kept = LRUCache(limit)

    def get(self, sha256: str, path: Path, size: str) -> tuple[bytes, str]:
        """Encode the file with this digest; return the bytes and the media type.

        UnreadableImageError if it is gone, has changed, or cannot be decoded.
        """
        answer = self._kept.get((sha256, size))
        if answer is None:
            answer = _encode(sha256, path, SIZES[size])
            self._kept.put((sha256, size), answer, len(answer[0]))
        return answer


def _encode(sha256: str, path: Path, side: int) -> tuple[bytes, str]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UnreadableImageError(f"{path.name!r} is too large to be shown.")
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{path.name!r} cannot be read: {error}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UnreadableImageError(f"{path.name!r} is another picture by now.")
    image = Image.fromarray(from_file(io.BytesIO(data), path.name))
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if max(image.size) <= _EXACT and side > SIZES["small"]:
        image.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue(), "image/png"
    image.save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue(), "image/jpeg"
