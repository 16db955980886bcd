"""What the frozen part of a network makes of an image, kept for the next time.

An entry is a float32 array under a *space* (which network, weights, cut and size) and
a *key* (which image). Caches are limited in size; entries that no longer fit are simply
computed again.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
import safetensors
import safetensors.numpy

from .._utils.atomic import write_atomically

_log = logging.getLogger(__name__)

DEFAULT_LIMIT = 2 * 1024**3
"""Bytes kept in a process, and on disk, unless something else is asked for."""


_ENTRY = "entry"
"""Name of the array in an entry's file."""

_IDLE = 10_000
"""Accesses to a memory cache after which a space that had none is out of use."""


_SHARE = 16
"""What adapted networks said lately may take one part in so many of a cache's limit."""


class LRUCache:
    """What is of use for a while; in the process, the last used of it.

    Parameters
    ----------
    limit : int
        Bytes. The last thing is kept whatever its size.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nbytes = 0
        self._kept: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, name: Any) -> Any:
        """Return what was kept under a name, or None."""
        with self._lock:
            if name not in self._kept:
                return None
            self._kept.move_to_end(name)
            return self._kept[name][0]

    def keep(self, name: Any, value: Any, nbytes: int) -> None:
        """Keep something of that many bytes; what was not used for longest goes."""
        with self._lock:
            self.nbytes += nbytes - self._kept.pop(name, (None, 0))[1]
            while self._kept and self.nbytes > self.limit:
                self.nbytes -= self._kept.popitem(last=False)[1][1]
            self._kept[name] = value, nbytes

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self.nbytes = 0

    def __deepcopy__(self, memo: dict) -> LRUCache:
        return self  # clones of an estimator share it

    def __reduce__(self) -> tuple:
        return LRUCache, (self.limit,)  # another process starts with an empty one


class Cache(Protocol):
    """Where outputs are kept."""

    recent: LRUCache
    """What adapted networks said of batches of images."""

    def get(self, space: str, key: str) -> np.ndarray | None:
        """Return an entry, or None where there is none."""

    def put(self, space: str, key: str, value: np.ndarray) -> None:
        """Keep an entry if there is room."""

    def clear(self) -> None:
        """Forget everything."""


class MemoryCache:
    """A cache in the process's memory.

    When it is full, a space that was not used for long makes room for another one;
    otherwise the first entries stay. (Evicting the oldest entry would lose every entry
    of a pool that is a little too large just before its turn comes.)

    Parameters
    ----------
    limit : int
        Bytes. What adapted networks said lately (`recent`) takes a sixteenth more.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.limit = limit
        self.recent = LRUCache(limit // _SHARE)
        self.nbytes = 0
        self._lock = Lock()
        self._spaces: dict[str, dict[str, np.ndarray]] = {}
        self._last_use: dict[str, int] = {}
        self._n_accesses = 0

    def get(self, space: str, key: str) -> np.ndarray | None:
        """Return an entry, or None where there is none."""
        with self._lock:
            return self._use(space).get(key)

    def put(self, space: str, key: str, value: np.ndarray) -> None:
        """Keep an entry if there is room."""
        with self._lock:
            entries = self._use(space)
            if key in entries:
                return
            if self.nbytes + value.nbytes > self.limit:
                self._drop_idle()
            if self.nbytes + value.nbytes <= self.limit:
                entries[key] = value
                self.nbytes += value.nbytes

    def __deepcopy__(self, memo: dict) -> MemoryCache:
        return self  # clones of an estimator share it

    def __reduce__(self) -> tuple:
        return MemoryCache, (self.limit,)  # another process starts with an empty one

    def _use(self, space: str) -> dict[str, np.ndarray]:
        self._n_accesses += 1
        self._last_use[space] = self._n_accesses
        return self._spaces.setdefault(space, {})

    def _drop_idle(self) -> None:
        for space, last_use in list(self._last_use.items()):
            if self._n_accesses - last_use > _IDLE:
                del self._last_use[space]
                dropped = self._spaces.pop(space)
                self.nbytes -= sum(array.nbytes for array in dropped.values())

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._spaces.clear()
            self._last_use.clear()
            self.nbytes = 0
        self.recent.clear()


class DiskCache:
    """A cache in a folder, which processes may share.

    An entry is written under another name and then renamed, so that a reader, or the
    next run after a kill, never sees half of it. A file that is damaged all the same
    counts as missing and is written anew.

    Parameters
    ----------
    folder : str or Path
        A subfolder ``skadma-activations`` is made in it; nothing else is touched.
    limit : int
        Bytes. Once the folder has that many, nothing more is written.
    """

    def __init__(self, folder: str | Path, limit: int = DEFAULT_LIMIT) -> None:
        self.folder = Path(folder) / "skadma-activations"
        self.limit = limit
        self.recent = LRUCache(limit // _SHARE)
        self._nbytes: int | None = None

    @property
    def nbytes(self) -> int:
        """Size of the files, as far as this process knows."""
        if self._nbytes is None:
            files = self.folder.rglob("*.safetensors")
            self._nbytes = sum(_size(path) for path in files)
        return self._nbytes

    def _path(self, space: str, key: str) -> Path:
        return self.folder / space / key[:2] / f"{key}.safetensors"

    def get(self, space: str, key: str) -> np.ndarray | None:
        """Return an entry, or None where there is none."""
        try:
            # Not NumPy's format: its header is parsed as Python, and in several threads
            # that fails now and then (SystemError, until Python 3.13).
            return safetensors.numpy.load(self._path(space, key).read_bytes())[_ENTRY]
        except (OSError, safetensors.SafetensorError, KeyError, ValueError):
            return None

    def put(self, space: str, key: str, value: np.ndarray) -> None:
        """Keep an entry if there is room."""
        if self.nbytes + value.nbytes > self.limit:
            return
        path = self._path(space, key)
        try:
            self._write(path, value)
        except OSError as error:  # the disk is full: nothing that is needed is lost
            self.limit = 0
            _log.warning("No more is kept in %s: %s", self.folder, error)
            return
        self._nbytes = self.nbytes + value.nbytes

    def _write(self, path: Path, value: np.ndarray) -> None:
        content = safetensors.numpy.save({_ENTRY: np.ascontiguousarray(value)})
        try:
            self._put_file(path, content)
        except FileNotFoundError:  # the first of its folder
            path.parent.mkdir(parents=True, exist_ok=True)
            self._put_file(path, content)

    @staticmethod
    def _put_file(path: Path, content: bytes) -> None:
        write_atomically(path, lambda part: part.write_bytes(content), durable=False)

    def clear(self) -> None:
        """Remove the entries' folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._nbytes = None
        self.recent.clear()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # another process cleared it
        return 0


process_cache = MemoryCache()
"""What ``memory=None`` means: one cache for all estimators of the process."""


@lru_cache(maxsize=64)
def _disk_cache(folder: Path) -> DiskCache:
    """One object per folder and process: it counts the files' size only once."""
    return DiskCache(folder)


def open_cache(memory: Any) -> Cache | None:
    """Find the cache that the parameter `memory` means.

    Parameters
    ----------
    memory : None, False, str, Path, joblib.Memory, MemoryCache or DiskCache
        None: the process's cache. False: none. A folder, or joblib's Memory for its
        location. A cache with a limit of its own.

    Raises
    ------
    ValueError
        If it is something else.
    """
    if memory is None:
        return process_cache
    if memory is False:
        return None
    if isinstance(memory, (MemoryCache, DiskCache)):
        return memory
    location = getattr(memory, "location", memory)
    if isinstance(location, (str, os.PathLike)):
        return _disk_cache(Path(location).absolute())
    if location is None and hasattr(memory, "location"):
        return None  # joblib.Memory(None) caches nothing
    raise ValueError(
        f"memory={memory!r} must be None (in the process), False (no cache), a folder "
        "or a joblib.Memory."
    )
