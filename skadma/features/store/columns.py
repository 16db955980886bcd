"""What is known of a pool's images, on the disk: a file for each shard of a column."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from ..._utils.atomic import write_atomically
from ..._utils.lazy_rows import LazyRows, working_dtype

_DTYPES = {
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "U8": np.uint8,
    "U64": np.uint64,
    "BOOL": np.bool_,
}


class StoreError(ValueError):
    """A feature store that is missing, damaged or of something else."""


def shard_file(folder: Path, column: str, number: int) -> Path:
    """Name the file of one shard of a column."""
    return folder / column / f"{number:06d}.safetensors"


def write_shard(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a file, brought to the disk whole or not at all.

    Parameters
    ----------
    path : Path
    arrays : mapping of str to ndarray
    """
    own = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    content = safetensors.numpy.save(own, {"sha256": digest_of(own)})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda part: part.write_bytes(content))


def check_shard(path: Path, n_rows: int) -> str | None:
    """Read a shard's file whole and compare it with the digest it was written with.

    Parameters
    ----------
    path : Path
    n_rows : int

    Returns
    -------
    str or None
        What is wrong.
    """
    try:
        with safetensors.safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            expected = (file.metadata() or {}).get("sha256")
    except FileNotFoundError:
        return "is missing"
    except (OSError, safetensors.SafetensorError, ValueError, KeyError) as error:
        return f"cannot be read ({error})"
    if any(len(array) != n_rows for array in arrays.values()):
        return f"is not of {n_rows} images"
    return None if digest_of(arrays) == expected else "was changed or damaged"


def map_array(path: Path, name: str) -> np.ndarray:
    """Map an array of a shard's file into memory.

    Parameters
    ----------
    path : Path
    name : str
        Of the array.

    Returns
    -------
    ndarray
        Read-only.

    Raises
    ------
    StoreError
        If the file is missing or damaged.
    """
    try:
        state = path.stat()
        dtype, shape, offset = _header(path, state.st_mtime_ns, state.st_size)[name]
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", offset, shape)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{str(path)!r} is no part of a feature store ({error}). "
            "FeatureStore.verify() lists what is wrong; repair=True removes it, and it "
            "is scanned anew."
        ) from error


@lru_cache(maxsize=10_000)
def _header(
    path: Path, changed: int, size: int
) -> dict[str, tuple[Any, tuple[int, ...], int]]:
    """Types, shapes and offsets of a safetensors file's arrays."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size:
            raise ValueError("its header is longer than the file")
        header = json.loads(file.read(length))
    found = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        if 8 + length + end > size:
            raise ValueError("it is cut short")
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        found[name] = dtype, tuple(entry["shape"]), 8 + length + begin
    return found


def digest_of(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of arrays and their names, in hexadecimal digits."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name}{array.shape}{array.dtype.str}".encode())
        found.update(array.view(np.uint8).reshape(-1).data)
    return found.hexdigest()


class StoredRows(LazyRows):
    """Rows of a column.

    Parameters
    ----------
    folder : Path
        The store's.
    column, name : str
        The array `name` of the column's files.
    sizes : sequence of int
        Rows of the shards.
    block : int
    raw : bool, default=False
        Read numbers as they are: half precision not as single.
    """

    def __init__(
        self,
        folder: Path,
        column: str,
        name: str,
        sizes: Sequence[int],
        block: int,
        *,
        raw: bool = False,
    ) -> None:
        self._folder, self._column, self._name = folder, column, name
        self._bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)
        found = sorted((folder / column).glob("*.safetensors"))
        if not found:
            raise StoreError(f"The feature store {str(folder)!r} has no {column!r}.")
        first = map_array(found[0], name)
        dtype = first.dtype if raw else working_dtype(first.dtype)
        super().__init__((int(self._bounds[-1]), *first.shape[1:]), dtype, block)

    def _shard(self, number: int) -> np.ndarray:
        # Mapped anew each time: what stayed mapped would count as this process's.
        return map_array(shard_file(self._folder, self._column, number), self._name)

    def _read(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            return self._read_slice(rows.start, rows.stop)
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        numbers = np.searchsorted(self._bounds, rows, side="right") - 1
        order = np.argsort(numbers, kind="stable")
        starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
        for some in np.split(order, starts[1:]) if len(order) else ():
            number = int(numbers[some[0]])
            found[some] = self._shard(number)[rows[some] - self._bounds[number]]
        return found

    def _read_slice(self, start: int, stop: int) -> np.ndarray:
        found = np.empty((stop - start, *self.shape[1:]), self.dtype)
        number = int(np.searchsorted(self._bounds, start, side="right")) - 1
        at = start
        while at < stop:
            first, end = self._bounds[number], min(stop, self._bounds[number + 1])
            if end > at:
                found[at - start : end - start] = self._shard(number)[
                    at - first : end - first
                ]
                at = end
            number += 1
        return found


def drop_columns(folder: Path, *prefixes: str, keep: str | None = None) -> None:
    """Remove columns by the beginnings of their names.

    Parameters
    ----------
    folder : Path
    *prefixes : str
    keep : str, optional
        Columns whose names begin so stay.
    """
    for column in folder.iterdir():
        stays = keep is not None and column.name.startswith(keep)
        if column.is_dir() and column.name.startswith(prefixes) and not stays:
            for path in column.glob("*.safetensors"):
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # something else is in it
                column.rmdir()
