"""Embeddings made elsewhere: a table of rows with the paths of their images."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import unicodedata
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

_PATHS = "path", "paths", "filepath", "filename", "filenames", "file", "image"
_ROWS = "embedding", "embeddings", "features"
_KINDS = ".npy", ".npz", ".parquet", ".csv", ".json"


class TableError(ValueError):
    """A table of embeddings cannot be read or used; the message names a remedy."""


@dataclass(frozen=True)
class EmbeddingTable:
    """Embeddings of images: `rows` (n, d), float32, from a `file`.

    `name` is the embedding's: rows of another cannot be compared. `paths` are the
    images', or None where the rows are in the images' order.
    """

    name: str
    rows: np.ndarray
    paths: list[str] | None
    file: Path

    def match(self, images: Sequence[str]) -> np.ndarray:
        """Find the row of each image, -1 where there is none.

        `images` are sorted paths, relative to a folder. The folder that all paths of
        the table begin with may be another. Warns of what has no partner, and of rows
        that are taken by order.
        """
        n, what, first = len(images), f"{str(self.file)!r}", [*images, "none"][0]
        if self.paths is None:
            order = f"of the {n} images, sorted by path, from {first!r} on"
            if len(self.rows) != n:
                raise TableError(
                    f"{what} has {len(self.rows)} rows without paths, which are taken "
                    f"in the order {order}: the numbers differ. Give paths: an .npz "
                    "that has 'paths', or a .txt of the same name, a path a line."
                )
            warnings.warn(f"The rows of {what} are in the order {order}.", stacklevel=2)
            return np.arange(n)
        known = dict.fromkeys(map(_plain, images))
        parts = [PurePosixPath(_plain(path)).parts for path in self.paths]
        cut = max(
            range(1 + len(os.path.commonprefix(parts))),
            key=lambda k: (sum("/".join(p[k:]) in known for p in parts), -k),
        )
        rows = {"/".join(p[cut:]): i for i, p in enumerate(parts)}
        if known.keys().isdisjoint(rows):
            raise TableError(
                f"No path in {what} is one of the {n} images. One there is "
                f"{self.paths[0]!r}, one here {first!r}: give paths as these, or whole."
            )
        counts = Counter(map(_plain, images))
        if twice := [p for p in images if counts[_plain(p)] > 1 and _plain(p) in rows]:
            raise TableError(
                f"{what} has one row for {twice[0]!r} and {twice[1]!r}, two images "
                "whose paths differ in how they are written only. Rename one of them."
            )
        without, extra = known.keys() - rows.keys(), rows.keys() - known.keys()
        for left, text in (without, "images have no row"), (extra, "rows no image"):
            if left:
                some = f"{len(left)} {text} and are left out ({sorted(left)[:3]})"
                warnings.warn(f"{what}: {some}.", stacklevel=2)
        return np.array([rows.get(_plain(path), -1) for path in images])

    def check(self, name: str, width: int, whose: str) -> None:
        """Refuse another embedding than that of `whose` model or campaign."""
        if self.name != name or self.rows.shape[1] != width:
            raise TableError(
                f"{whose} has the embedding {name!r} of {width} numbers, and "
                f"{str(self.file)!r} is {self.name!r} of {self.rows.shape[1]}. Give "
                f"rows of the same; if only the name differs, --features-name {name}."
            )


def read_table(
    file: str | Path | EmbeddingTable, name: str | None = None
) -> EmbeddingTable:
    """Read embeddings of a name, the file's if None; nothing is ever unpickled.

    Beside an .npy may be a list of paths, a .txt of the same name. Lightly's form of
    .csv is read, and FiftyOne's of .json (samples.json). A table stays as it is.
    """
    if isinstance(file, EmbeddingTable):
        return file
    file = Path(file)
    what = f"The table of embeddings {str(file)!r}"
    if file.suffix.lower() not in _KINDS:
        raise TableError(f"{what} is of no known kind: it is {', '.join(_KINDS)}.")
    if not file.is_file():
        raise FileNotFoundError(f"{what} is not there: give the path of a file.")
    try:
        values, paths = _read(file)
        if values.dtype.kind not in "fiu" or values.ndim != 2 or not values.size:
            raise ValueError(f"it is {values.dtype} of shape {values.shape}")
        if paths is not None and len(paths) != len(values):
            raise ValueError(f"it has {len(values)} rows and {len(paths)} paths")
        with np.errstate(over="ignore"):
            rows = np.ascontiguousarray(values, dtype=np.float32)
        if len(wrong := np.flatnonzero(~np.isfinite(rows).all(axis=1))):
            first = paths[wrong[0]] if paths else f"number {wrong[0]}"
            raise ValueError(f"{len(wrong)} rows have NaN or inf, the first is {first}")
        counts = Counter(map(_plain, paths or ()))
        if twice := [path for path, n in counts.items() if n > 1]:
            raise ValueError(f"{len(twice)} paths come twice, the first is {twice[0]}")
    except ImportError as error:
        why = f"{what} needs pyarrow to be read: pip install pyarrow, or make an .npz."
        raise ImportError(why) from error
    except OSError:
        raise
    except Exception as error:  # of a damaged file: any
        raise TableError(
            f"{what} cannot be taken: {str(error) or repr(error)}. Give one row of "
            "finite numbers for each image, all of the same length, and paths as text."
        ) from error
    return EmbeddingTable(name or file.stem, rows, paths, file.absolute())


def _plain(path: str) -> str:
    """One of the ways in which a path can be written."""
    text = unicodedata.normalize("NFC", path.replace("\\", "/"))
    return PurePosixPath(text).as_posix()


def _read(file: Path) -> tuple[np.ndarray, list[str] | None]:
    """Read rows, as a column of vectors or one for each number; and paths."""
    columns: dict[str, Sequence[Any]]
    kind = file.suffix.lower()
    if kind == ".npy":
        beside = file.with_suffix(".txt")
        paths = beside.read_text("utf-8").splitlines() if beside.is_file() else None
        return np.load(file, allow_pickle=False), paths
    if kind == ".npz":
        with np.load(file, allow_pickle=False) as stored:
            columns = {name: stored[name] for name in stored.files}
    elif kind == ".csv":
        with file.open(encoding="utf-8-sig", newline="") as lines:
            header, *cells = (row for row in csv.reader(lines) if row)
        columns = dict(zip(header, zip(*cells, strict=True), strict=True))
    elif kind == ".json":
        samples = json.loads(file.read_text("utf-8"))["samples"]
        columns = {key: [each.get(key) for each in samples] for key in samples[0]}
    else:
        from pyarrow import parquet

        columns = parquet.read_table(file).to_pydict()
    firsts = {name: values[0] for name, values in columns.items() if len(values)}
    texts = [name for name, first in firsts.items() if isinstance(first, str)]
    numbers = [columns[name] for name in columns if name.startswith("embedding_")]
    if numbers:
        rows = np.array(numbers, dtype=np.float64).T
    else:
        vectors = [name for name, first in firsts.items() if _is_vector(first)]
        rows = np.array([_vector(value) for value in columns[_choose(vectors, _ROWS)]])
    return rows, [str(p) for p in columns[_choose(texts, _PATHS)]] if texts else None


def _choose(found: Sequence[str], names: Sequence[str]) -> str:
    """The column with one of the names; the only one, whatever its name."""
    right = [name for name in names if name in found] or found
    if len(right) != 1:
        raise ValueError(f"name one column of {found} {' or '.join(names)}")
    return right[0]


def _is_vector(value: Any) -> bool:
    if isinstance(value, dict):
        return "$binary" in value
    is_row = isinstance(value, (list, np.ndarray)) and len(value) > 0
    return is_row and isinstance(value[0], (int, float, np.number))


def _vector(value: Any) -> Any:
    """A vector; FiftyOne's is a compressed .npy in base64."""
    if not isinstance(value, dict):
        return value
    data = zlib.decompress(base64.b64decode(value["$binary"]["base64"]))
    return np.load(io.BytesIO(data))
