"""Pictures for the browser: decoded as for the network, encoded anew."""

from __future__ import annotations

import hashlib
import io
import re
from contextlib import suppress
from pathlib import Path
from threading import Lock

from PIL import Image

from ..._utils.atomic import write_atomically
from ...images.forms import Range, UnreadableImageError, from_file

SIZES = {"small": 256, "view": 1600, "full": 8000}  # longest side in pixels
_EXACT = 512  # up to this side pictures are sent without loss
_MAX_BYTES = 512 << 20  # of a file; a larger one is not shown
_NAME = re.compile(r"[0-9a-f]{64}\.jpg")


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


class Thumbnails:
    """Small pictures in a folder, by content; when it is full, the oldest ones go.

    A file is a JPEG and its SHA-256, and encoded anew: it may be from somebody else.
    """

    def __init__(self, folder: Path, limit: int = 1 << 30) -> None:
        self.folder, self.limit = folder, limit
        self._lock = Lock()
        self._free = 0  # bytes that can be added before the folder is measured again

    def get(
        self, sha256: str, path: Path, value_range: Range | None = None
    ) -> tuple[bytes, str]:
        """Return the small picture of a file, as `encode` does."""
        kept = self.folder / sha256[:2] / f"{sha256}.jpg"
        with suppress(OSError, UnreadableImageError):
            data = kept.read_bytes() if kept.stat().st_size < 1 << 20 else b""
            if hashlib.sha256(data[:-32]).digest() == data[-32:]:
                return _encode(data[:-32], kept.name, "small")
        data, kind = encode(sha256, path, "small", value_range)
        content = data + hashlib.sha256(data).digest()
        with suppress(OSError), self._lock:  # a full disk: it is made again next time
            if self._free < len(content):
                self._make_room()
            self._free -= len(content)
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(kept, lambda tmp: tmp.write_bytes(content), durable=False)
        return data, kind

    def _make_room(self) -> None:
        """Remove the oldest files until an eighth of the limit is free, or more is."""
        found = (p for p in self.folder.glob("??/*.jpg") if _NAME.fullmatch(p.name))
        files = sorted((p.lstat().st_mtime_ns, p.lstat().st_size, p) for p in found)
        self._free = self.limit - sum(size for _, size, _ in files)
        for _, size, path in files:
            if self._free < self.limit // 8:
                path.unlink(missing_ok=True)
                self._free += size
