"""Caches for network outputs, in memory and on disk.

An entry is an array under a *namespace* (network, weights, cut and size) and a
*key* (which image). Caches are limited in size; what does not fit is computed again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import Any, Self, TypeAlias

import numpy as np
import safetensors
import safetensors.numpy

from .._utils.atomic import write_atomically

_log = logging.getLogger(__name__)

DEFAULT_LIMIT = 2 * 1024**3
"""Bytes kept in a process, and on disk, unless something else is asked for."""

_IDLE = 10_000
"""A namespace without access during this many accesses to others may be dropped."""

_HEADER = 256
"""Bytes of a file beside the numbers, at most."""

_SHARE = 16
"""A folder is measured again once 1 / 16 of its limit was added."""


class _Shared:
    """Clones of an estimator share it; another process starts with an empty one."""

    limit: int
    half = False

    def __deepcopy__(self, memo: dict[str, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.limit,)


class MemoryCache(_Shared):
    """A cache in the process's memory.

    When it is full, namespaces that were not used for long are dropped; otherwise the
    first entries stay. (A pool that is a little too large would lose each entry just
    before its next use if the oldest one were dropped.)

    Parameters
    ----------
    limit : int
        Bytes.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.limit = limit
        self.nbytes = 0
        self._lock = Lock()
        self._entries: dict[str, dict[str, np.ndarray]] = {}
        self._last_use: dict[str, int] = {}
        self._n_accesses = 0

    def get(self, namespace: str, key: str) -> np.ndarray | None:
        """Return an entry, or None where there is none."""
        with self._lock:
            return self._use(namespace).get(key)

    def put(self, namespace: str, key: str, value: np.ndarray) -> None:
        """Keep an entry if there is room."""
        with self._lock:
            entries = self._use(namespace)
            if key in entries:
                return
            if self.nbytes + value.nbytes > self.limit:
                self._drop_idle()
            if self.nbytes + value.nbytes <= self.limit:
                entries[key] = value
                self.nbytes += value.nbytes

    def _use(self, namespace: str) -> dict[str, np.ndarray]:
        self._n_accesses += 1
        self._last_use[namespace] = self._n_accesses
        return self._entries.setdefault(namespace, {})

    def _drop_idle(self) -> None:
        for namespace, last_use in list(self._last_use.items()):
            if self._n_accesses - last_use > _IDLE:
                del self._last_use[namespace]
                dropped = self._entries.pop(namespace)
                self.nbytes -= sum(array.nbytes for array in dropped.values())

    def clear(self) -> None:
        """Drop all entries."""
        with self._lock:
            self._entries.clear()
            self._last_use.clear()
            self.nbytes = 0


class DiskCache(_Shared):
    """A cache in a folder, which processes may share.

    An entry is written to a temporary file and then renamed, so that a reader, or the
    next run after a kill, never reads an incomplete one. Each has a SHA-256, which is
    compared whenever the entry is read. A damaged file counts as missing, with a
    message in the log, and is written again.

    Parameters
    ----------
    folder : str or Path
        A subfolder ``skadma-activations`` is made in it; nothing else is touched.
    limit : int
        Bytes. Once the folder has that many, nothing more is written, by whichever
        object. Several processes may exceed it by a sixteenth each.
    half : bool, default=False
        Keep float32 entries in half precision. Outputs of a network are rounded to it
        when they are computed, too: they do not depend on what is in the cache.
    """

    def __init__(
        self, folder: str | Path, limit: int = DEFAULT_LIMIT, *, half: bool = False
    ) -> None:
        self.folder = Path(folder) / "skadma-activations"
        self.limit = limit
        self.half = half
        self._usage = _usage_of(self.folder.resolve())

    @property
    def nbytes(self) -> int:
        """Size of the files, as far as this process knows."""
        with self._usage.lock:
            return self._usage.measured(self.limit)

    def _path(self, namespace: str, key: str) -> Path:
        return self.folder / namespace / key[:2] / f"{key}.safetensors"

    def get(self, namespace: str, key: str) -> np.ndarray | None:
        """Return an entry, or None where there is none."""
        path = self._path(namespace, key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        try:
            # Not NumPy's format: its header is parsed as Python, and in several threads
            # that fails now and then (SystemError, until Python 3.13).
            found = safetensors.numpy.load(content)
            entry = found["entry"]
            if found["sha256"].tobytes() == _digest(namespace, key, entry):
                return entry.astype(np.float32) if entry.dtype == np.float16 else entry
        except (safetensors.SafetensorError, KeyError, ValueError):
            pass
        _log.warning("%s was changed or damaged; it is computed anew", path)
        return None

    def put(self, namespace: str, key: str, value: np.ndarray) -> None:
        """Keep an entry if there is room."""
        path, usage = self._path(namespace, key), self._usage
        if self.half and value.dtype == np.float32:
            value = value.astype(np.float16)
        with usage.lock:
            # A damaged file is written again.
            added = value.nbytes + _HEADER - _size(path)
            if usage.failed or usage.measured(self.limit) + added > self.limit:
                return
            usage.add(added)
        value = np.ascontiguousarray(value)
        digest = np.frombuffer(_digest(namespace, key, value), np.uint8)
        content = safetensors.numpy.save({"entry": value, "sha256": digest})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lambda tmp: tmp.write_bytes(content), durable=False)
        except OSError as error:  # the disk is full: nothing that is needed is lost
            with usage.lock:
                usage.add(-added)
                usage.failed = True
            _log.warning(
                "No more is kept in %s until it is cleared: %s", self.folder, error
            )

    def clear(self) -> None:
        """Remove the entries' folder, and write again after an error."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with self._usage.lock:
            self._usage.nbytes = None
            self._usage.failed = False

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(DiskCache, half=self.half), (self.folder.parent, self.limit)


def _digest(namespace: str, key: str, value: np.ndarray) -> bytes:
    return bytes.fromhex(arrays_digest({f"{namespace}/{key}": value}))


class _Usage:
    """What this process knows of a folder's size, for all caches in it.

    Attributes and methods are used under `lock`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = Lock()
        self.nbytes: int | None = None
        self.failed = False
        self._added = 0

    def measured(self, limit: int) -> int:
        """Return the size; it is measured anew when much was added since."""
        if self.nbytes is None or self._added > limit // _SHARE:
            files = self.folder.rglob("*.safetensors")
            self.nbytes = sum(_size(path) for path in files)
            self._added = 0
        return self.nbytes

    def add(self, nbytes: int) -> None:
        self.nbytes = (self.nbytes or 0) + nbytes
        self._added += nbytes


_usage_of = cache(_Usage)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # another process cleared it
        return 0


Cache: TypeAlias = MemoryCache | DiskCache

process_cache = MemoryCache()
"""The cache of ``memory=None``, shared by all estimators of the process."""


def open_cache(memory: Any) -> Cache | None:
    """Return the cache for an estimator's parameter `memory`; None for no cache."""
    if memory is None:
        return process_cache
    if isinstance(memory, (MemoryCache, DiskCache)):
        return memory
    location = getattr(memory, "location", memory)
    if location is False or location is None:  # joblib.Memory(None) caches nothing
        return None
    if isinstance(location, (str, os.PathLike)):
        return DiskCache(Path(location).absolute())
    raise ValueError(
        f"memory={memory!r} must be None (in the process), False (no cache), a folder "
        "or a joblib.Memory."
    )


def arrays_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Compute the SHA-256 of arrays and their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{array.shape}{array.dtype.str}".encode())
        digest.update(array.view(np.uint8).reshape(-1).data)
    return digest.hexdigest()
