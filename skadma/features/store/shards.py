"""A feature store's files: its manifest, and of each shard the keys and the columns."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import ArrayLike

from ..._utils.atomic import write_atomically
from ..._utils.lazy_rows import LazyRows, working_dtype

_FORMAT = "skadma-features-1"
_MIN_ROWS = 8
"""A smaller last shard joins the one before: a batch of so few images gives outputs
that differ in the last bits from those of the same images among others."""

_DTYPES = {
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "U8": np.uint8,
    "U64": np.uint64,
    "BOOL": np.bool_,
}


class StoreError(ValueError):
    """A feature store is missing, damaged, or of other images or another network."""


# --- the manifest -------------------------------------------------------------------


@dataclass(frozen=True)
class Manifest:
    """The settings of a store and the sizes of its shards: the file store.json."""

    network: str  # namespace of the pretrained network's outputs
    layer: int  # position of the layer whose outputs are stored
    head: int  # position of the last layer
    width: int  # of the stored outputs
    dtype: str
    shard_rows: int
    sizes: list[int] = field(default_factory=list)
    from_files: bool = False

    @property
    def n_rows(self) -> int:
        """Number of images."""
        return sum(self.sizes)

    @cached_property
    def bounds(self) -> np.ndarray:
        """First row of each shard, and the number of images."""
        return np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.intp)

    def shards_of(self, rows: ArrayLike) -> np.ndarray:
        """Return the number of the shard that each row is in."""
        return np.searchsorted(self.bounds, rows, side="right") - 1


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a store; None if there is no store."""
    path = folder / "store.json"
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(f"{str(path)!r} cannot be read: {error}.") from error
    try:
        if content.pop("format") != _FORMAT:
            raise ValueError("its format is another")
        return Manifest(**content)
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise StoreError(
            f"{str(path)!r} is no feature store of this version of skadma: {error}."
        ) from error


def add_images(
    folder: Path, manifest: Manifest, keys: list[str], paths: list[str] | None
) -> Manifest:
    """Write images' keys and paths as new shards, then the manifest with these."""
    if paths == keys:
        paths = None
    number, start = len(manifest.sizes), 0
    sizes = shard_sizes(len(keys), manifest.shard_rows)
    for size in sizes:
        rows = slice(start, start + size)
        content = {"keys": keys[rows], "paths": None if paths is None else paths[rows]}
        path = _images_file(folder, number)
        path.parent.mkdir(exist_ok=True)
        _write_text(path, json.dumps(content))
        number, start = number + 1, start + size
    _read_images.cache_clear()
    manifest = replace(manifest, sizes=[*manifest.sizes, *sizes])
    _write_text(
        folder / "store.json", json.dumps({"format": _FORMAT, **asdict(manifest)})
    )
    return manifest


def shard_sizes(n: int, shard_rows: int) -> list[int]:
    """Divide `n` images into shards."""
    sizes = [shard_rows] * (n // shard_rows)
    rest = n % shard_rows
    if rest and sizes and rest < _MIN_ROWS:
        sizes[-1] += rest
    elif rest:
        sizes.append(rest)
    return sizes


def read_images(folder: Path, number: int) -> tuple[list[str], list[str]]:
    """Read the keys of a shard's images, and their paths if they are files."""
    return _read_images(_images_file(folder, number))


@lru_cache(maxsize=32)
def _read_images(path: Path) -> tuple[list[str], list[str]]:
    try:
        content = json.loads(path.read_text("utf-8"))
        keys = content["keys"]
        return keys, content["paths"] or keys
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{str(path)!r} of a feature store cannot be read: {error}. Build it anew."
        ) from error


def _images_file(folder: Path, number: int) -> Path:
    return folder / "images" / f"{number:06d}.json"


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda tmp_path: tmp_path.write_text(text, "utf-8"))


# --- the shards of a column ---------------------------------------------------------


def shard_file(folder: Path, column: str, number: int) -> Path:
    """Return the path of one shard of a column."""
    return folder / column / f"{number:06d}.safetensors"


def write_shard(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays and their digest to a file, completely or not at all."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    content = safetensors.numpy.save(contiguous, {"sha256": digest_of(contiguous)})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda tmp_path: tmp_path.write_bytes(content))


def check_shard(path: Path, n_rows: int) -> str | None:
    """Compare a shard's content with its digest; return what is wrong, or None."""
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


def digest_of(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of arrays and their names, in hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{array.shape}{array.dtype.str}".encode())
        digest.update(array.view(np.uint8).reshape(-1).data)
    return digest.hexdigest()


def map_array(path: Path, name: str) -> np.ndarray:
    """Map an array of a shard's file into memory, read-only."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if length > size:
                raise ValueError("its header is longer than the file")
            entry = json.loads(file.read(length))[name]
        begin, end = entry["data_offsets"]
        if 8 + length + end > size:
            raise ValueError("it is cut short")
        dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", 8 + length + begin, shape)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{str(path)!r} is no shard of a feature store ({error}). "
            "FeatureStore.verify() lists what is wrong; repair=True removes it, and it "
            "is computed anew."
        ) from error


def drop_columns(folder: Path, *prefixes: str, keep: str | None = None) -> None:
    """Remove the columns whose names begin with a prefix, except with `keep`."""
    for column in folder.iterdir():
        is_kept = keep is not None and column.name.startswith(keep)
        if column.is_dir() and column.name.startswith(prefixes) and not is_kept:
            for path in column.glob("*.safetensors"):
                path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # other files are in it
                column.rmdir()


class ShardedRows(LazyRows):
    """Rows of an array of a column, over all shards.

    With `raw`, half precision is not read as single precision.
    """

    def __init__(
        self,
        folder: Path,
        column: str,
        name: str,
        manifest: Manifest,
        block: int,
        *,
        raw: bool = False,
    ) -> None:
        self._folder, self._column, self._name = folder, column, name
        self._manifest = manifest
        found = sorted((folder / column).glob("*.safetensors"))
        if not found:
            raise StoreError(
                f"The feature store {str(folder)!r} has no column {column!r} yet. "
                "FeatureStore.compute(estimator) makes it."
            )
        first = map_array(found[0], name)
        dtype = first.dtype if raw else working_dtype(first.dtype)
        super().__init__((manifest.n_rows, *first.shape[1:]), dtype, block)

    def _shard(self, number: int) -> np.ndarray:
        # Mapped for each read: pages that stay mapped count as the process's.
        return map_array(shard_file(self._folder, self._column, number), self._name)

    def _read(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            rows = np.arange(rows.start, rows.stop)
        result = np.empty((len(rows), *self.shape[1:]), self.dtype)
        numbers = self._manifest.shards_of(rows)
        order = np.argsort(numbers, kind="stable")
        starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
        for some in np.split(order, starts[1:]) if len(order) else ():
            number = int(numbers[some[0]])
            result[some] = self._shard(number)[
                rows[some] - self._manifest.bounds[number]
            ]
        return result
