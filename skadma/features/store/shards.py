"""A feature store's files: its manifest, and of each shard the keys and the columns."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from ..._utils.atomic import write_atomically
from ..._utils.lazy_rows import LazyRows, working_dtype
from ...images.decoding import Range
from ..cache import arrays_digest

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
    dtype: str
    shard_rows: int
    sizes: list[int] = field(default_factory=list)
    from_files: bool = False
    value_range: Range | None = None  # of images of more than 8 bits

    @property
    def n_rows(self) -> int:
        """Number of images."""
        return sum(self.sizes)

    @cached_property
    def bounds(self) -> np.ndarray:
        """First row of each shard, and the number of images."""
        return np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.intp)

    def by_shard(
        self, rows: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield each shard's number, which of the rows it has, and where."""
        numbers = np.searchsorted(self.bounds, rows, side="right") - 1
        order = np.argsort(numbers, kind="stable")
        starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
        for some in np.split(order, starts[1:]) if len(order) else ():
            number = int(numbers[some[0]])
            yield number, some, rows[some] - self.bounds[number]


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a store; None if there is no store."""
    path = folder / "store.json"
    if not path.exists():
        return None
    content = _read_json(path)
    if (found := content["value_range"]) is not None:
        content["value_range"] = tuple(found)
    return Manifest(**content)


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
        _write_json(path, content)
        number, start = number + 1, start + size
    read_images.cache_clear()
    manifest = replace(manifest, sizes=[*manifest.sizes, *sizes])
    _write_json(folder / "store.json", asdict(manifest))
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


@lru_cache(maxsize=32)
def read_images(folder: Path, number: int) -> tuple[list[str], list[str]]:
    """Read the keys of a shard's images, and their paths if they are files."""
    content = _read_json(_images_file(folder, number))
    return content["keys"], content["paths"] or content["keys"]


def _images_file(folder: Path, number: int) -> Path:
    return folder / "images" / f"{number:06d}.json"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dict, the format's name and a digest of both."""
    content = {"format": _FORMAT, **content}
    text = json.dumps({"sha256": _digest_of_text(content), **content})
    write_atomically(path, lambda tmp_path: tmp_path.write_text(text, "utf-8"))


def _read_json(path: Path) -> dict[str, Any]:
    """Read what :func:`_write_json` wrote; raise StoreError if it was changed."""
    try:
        content = json.loads(path.read_text("utf-8"))
        if content.get("format") != _FORMAT:
            raise ValueError("it is of no feature store of this version of skadma")
        if content.pop("sha256", None) != _digest_of_text(content):
            raise ValueError("it was changed or damaged")
    except (OSError, ValueError, AttributeError) as error:
        raise StoreError(
            f"{str(path)!r} cannot be read: {error}. Remove the store's folder, or "
            "take another one, and build the store anew."
        ) from error
    del content["format"]
    return content


def _digest_of_text(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


# --- the shards of a column ---------------------------------------------------------


def shard_file(folder: Path, column: str, number: int) -> Path:
    """Return the path of one shard of a column."""
    return folder / column / f"{number:06d}.safetensors"


def write_shard(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays and their digest to a file, completely or not at all."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    content = safetensors.numpy.save(contiguous, {"sha256": arrays_digest(contiguous)})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda tmp_path: tmp_path.write_bytes(content))


def file_state(path: Path) -> tuple[int, ...] | None:
    """What of a file changes with its content; None if there is none."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def check_shard(shard: tuple[Path, int]) -> str | None:
    """Compare a file of so many rows with its digest; return what is wrong, or None."""
    path, n_rows = shard
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
    return None if arrays_digest(arrays) == expected else "was changed or damaged"


def map_array(path: Path, name: str) -> np.ndarray:
    """Map an array of a shard's file into memory, read-only."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = path.stat().st_size
            if length > size:
                raise ValueError("its header is longer than the file")
            entry = json.loads(file.read(length))[name]
        begin = entry["data_offsets"][0]
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


def drop_columns(folder: Path, names: Iterable[str]) -> None:
    """Remove columns."""
    for name in names:
        for path in (folder / name).glob("*.safetensors"):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # other files are in it, or it is gone
            (folder / name).rmdir()


class ShardedRows(LazyRows):
    """Rows of an array of a column, over all shards; half precision as single."""

    def __init__(
        self, folder: Path, column: str, name: str, manifest: Manifest, block: int
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
        is_float = first.dtype.kind == "f"
        dtype = working_dtype(first.dtype) if is_float else first.dtype
        super().__init__((manifest.n_rows, *first.shape[1:]), dtype, block)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        result = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for number, some, inside in self._manifest.by_shard(rows):
            # Mapped for each read: pages that stay mapped count as the process's.
            path = shard_file(self._folder, self._column, number)
            result[some] = map_array(path, self._name)[inside]
        return result
