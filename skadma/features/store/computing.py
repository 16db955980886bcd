"""Compute the outputs of one shard's images, in this process or another one."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..._utils.atomic import file_digest, write_atomically
from ...images.dataset import ImageDataset
from ...images.decoding import Range
from ..adapter import CNNAdapter, cnn_adapter
from .hashing import key_hashes
from .shards import file_state, shard_file, write_shard

try:
    import cloudpickle
except ImportError:  # joblib before 1.6 contains it
    from joblib.externals import cloudpickle

CONTENT = "content"
"""The column of what depends on the images alone: digests, keys' hashes, readable."""

SOURCE = "source"
"""The pretrained network, in the names of its columns."""


def network_name(network: str, value_range: Range | None) -> str:
    """Name a network for images of a range of values, in the names of columns."""
    if value_range is None:
        return network
    low, high = map(float, value_range)
    return f"{network}-{low}_{high}"


@dataclass(frozen=True)
class Column:
    """The outputs of a layer of the pretrained network or of an adapted one."""

    network: str
    layer: int
    dtype: str

    @property
    def name(self) -> str:
        """Name of the column's folder."""
        return f"{self.network}-{self.layer:03d}"

    @property
    def adapted(self) -> bool:
        """Whether the network is an adapted one."""
        return not self.network.startswith(SOURCE)


@dataclass(frozen=True)
class ShardTask:
    """A shard whose columns are to be computed."""

    folder: Path
    number: int
    images: Any
    keys: Sequence[str]
    columns: Sequence[Column]
    content: bool
    value_range: Range | None  # of the store, for digests of pixels
    skip_unreadable: bool
    network: CNNAdapter | Path  # for other processes the latter, see send_estimator


def compute_shard(task: ShardTask) -> int:
    """Compute a shard's columns, write them, and return the number of images."""
    adapter = task.network
    if isinstance(adapter, Path):
        adapter = _received(adapter)
    adapter = replace(
        adapter,
        memory=False if adapter.memory is None else adapter.memory,
        skips_unreadable=adapter.skips_unreadable or task.skip_unreadable,
    )
    dataset = adapter.with_value_range(task.value_range).image_dataset(task.images)
    n = len(task.keys)
    # Read before the images, so that a file that changes meanwhile is tried again.
    states = file_states(task.images) if dataset.from_files else np.zeros(n, np.uint64)
    readable = np.zeros(n, dtype=bool)
    arrays = {}
    for column in task.columns:
        width = adapter.width(column.layer, adapted=column.adapted)
        arrays[column.name] = np.full((n, width), np.nan, column.dtype)
    layers = sorted({column.layer for column in task.columns if column.adapted})
    source_layers = sorted({c.layer for c in task.columns if not c.adapted})
    with warnings.catch_warnings():
        if task.skip_unreadable:
            warnings.filterwarnings("ignore", ".* unreadable image")
        for batch in adapter.iter_outputs(task.images, layers, source_layers):
            readable[batch.indices] = True
            for column in task.columns:
                outputs = batch.adapted if column.adapted else batch.source
                rows = outputs[column.layer].cpu().numpy()
                with np.errstate(over="ignore"):
                    arrays[column.name][batch.indices] = rows
    for column in task.columns:
        _check_finite(arrays[column.name][readable], column, task)
        path = shard_file(task.folder, column.name, task.number)
        write_shard(path, {"rows": arrays[column.name]})
    if task.content:
        digests = [image_digest(dataset, task.images, i) for i in range(n)]
        content = {
            "sha256": np.frombuffer(b"".join(digests), np.uint8).reshape(n, 32),
            "hash": key_hashes(task.keys),
            "readable": readable,
            "state": np.where(readable, np.uint64(0), states),
        }
        write_shard(shard_file(task.folder, CONTENT, task.number), content)
    return n


def _check_finite(rows: np.ndarray, column: Column, task: ShardTask) -> None:
    n_wrong = int((~np.isfinite(rows).all(axis=1)).sum())
    if n_wrong:
        raise ValueError(
            f"The network's outputs for {n_wrong} image(s) are NaN or infinite as "
            f"{column.dtype}, in the shard that begins with {task.keys[0]!r}. If they "
            "exceed 65,504, build the store with dtype='float32'; else the network's "
            "weights or the image's values are at fault."
        )


def image_digest(dataset: ImageDataset, X: Any, i: int) -> bytes:
    """SHA-256 of an image's file, or of its pixels; zeros if it cannot be read."""
    try:
        if dataset.from_files:
            return bytes.fromhex(file_digest(Path(X[i])))
        return hashlib.sha256(dataset[i].numpy().tobytes()).digest()
    except (OSError, ValueError):
        return bytes(32)


def file_states(paths: Sequence[str]) -> np.ndarray:
    """Hash each file's size and time of change, uint64; 1 if there is no file."""
    states = np.ones(len(paths), dtype=np.uint64)
    for i, path in enumerate(paths):
        if (state := file_state(Path(path))) is not None:
            states[i] = key_hashes([f"{state[1]}|{state[2]}"])[0]
    return states


# --- an estimator for other processes -----------------------------------------------


def send_estimator(adapter: CNNAdapter, folder: Path) -> Path:
    """Write an estimator to a file that all workers find and its SHA-256 names."""
    # As dask and joblib do: it takes classes of an interactive session.
    sent = adapter.estimator, adapter.source_fingerprint, adapter.value_range
    content = cloudpickle.dumps(sent)
    path = folder / "networks" / f"{hashlib.sha256(content).hexdigest()}.pickle"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        for old in path.parent.glob("*.pickle"):
            old.unlink(missing_ok=True)
        write_atomically(path, lambda tmp_path: tmp_path.write_bytes(content))
    return path


@lru_cache(maxsize=2)
def _received(path: Path) -> CNNAdapter:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.stem:
        raise ValueError(f"{str(path)!r} was changed or damaged.")
    estimator, fingerprint, value_range = pickle.loads(content)
    adapter = cnn_adapter(estimator)
    if adapter.source_fingerprint != fingerprint:
        raise ValueError(
            f"A worker's pretrained network has other weights (fingerprint "
            f"{adapter.source_fingerprint}) than the one that was asked for "
            f"({fingerprint}). Give all machines the same versions of the "
            "packages, and the same weights file."
        )
    return adapter.with_value_range(value_range)
