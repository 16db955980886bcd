"""The scan of one shard, wherever it is done."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from ..._utils.atomic import file_digest
from ...classifier import CNNClassifier
from ...images.dataset import ImageDataset
from ...persistence.network_file import read_network, write_network
from ..cnn_adapter import CNNAdapter
from .columns import shard_file, write_shard
from .hashing import key_hashes

CONTENT = "content"
"""The column of what images are, whatever a network says of them."""


@dataclass(frozen=True)
class Column:
    """Something that a network says of images.

    Attributes
    ----------
    name : str
    source : bool
        By M0; else by the network being adapted.
    layer : int
        Position.
    dtype : str
    """

    name: str
    source: bool
    layer: int
    dtype: str


@dataclass(frozen=True)
class Network:
    """A classifier as it is sent: its parameters, and where its weights are.

    Attributes
    ----------
    estimator : CNNClassifier
        Not fitted.
    file : Path or None
        Weights, in a file that is named by what is in it; None before the first fit.
    fingerprint : str
        Of M0's weights.
    """

    estimator: CNNClassifier
    file: Path | None
    fingerprint: str


@dataclass(frozen=True)
class ShardTask:
    """A shard to scan.

    Attributes
    ----------
    folder : Path
        The store's.
    number : int
    images : images
    keys : sequence of str
    columns : sequence of Column
        What to write; and what the images are, if `content`.
    content : bool
    network : Network or None
        None: done in this process, which has the classifier.
    skip_unreadable : bool
        Leave out images that cannot be decoded, whatever the classifier does.
    """

    folder: Path
    number: int
    images: Any
    keys: Sequence[str]
    columns: Sequence[Column]
    content: bool
    network: Network | None = None
    skip_unreadable: bool = False


def scan_shard(task: ShardTask, estimator: CNNClassifier | None = None) -> int:
    """Scan a shard and write what was found.

    Parameters
    ----------
    task : ShardTask
    estimator : CNNClassifier, optional
        Else it is read from the task's file, once for a process.

    Returns
    -------
    int
        How many images.

    Raises
    ------
    UnreadableImageError
        If an image cannot be decoded and the classifier does not skip such ones.
    ValueError
        If what the network says cannot be kept.
    """
    if estimator is None:
        assert task.network is not None
        estimator = _received(
            task.network.file, task.network.fingerprint, _Same(task.network.estimator)
        )
    looking = copy.copy(estimator)
    looking.verbose = 0
    if looking.memory is None:  # the process's cache would only fill up
        looking.memory = False
    if task.skip_unreadable:
        looking.on_bad_image = "skip"
    n = len(task.keys)
    found: dict[str, np.ndarray] = {}
    readable = np.zeros(n, dtype=bool)
    layers = sorted({c.layer for c in task.columns if not c.source})
    source_layers = sorted({c.layer for c in task.columns if c.source})
    with warnings.catch_warnings():
        if task.skip_unreadable:
            warnings.filterwarnings("ignore", ".* unreadable image")
        for batch in CNNAdapter(looking).iter_outputs(
            task.images, layers, source_layers
        ):
            readable[batch.indices] = True
            for column in task.columns:
                outputs = batch.source if column.source else batch.adapted
                rows = outputs[column.layer].cpu().numpy()
                if column.name not in found:
                    shape = n, rows.shape[1]
                    found[column.name] = np.full(shape, np.nan, np.dtype(column.dtype))
                with np.errstate(over="ignore"):
                    found[column.name][batch.indices] = rows
    for column in task.columns:
        array = found.get(column.name)
        if array is None:  # not one could be decoded
            width = _width(looking, column)
            array = np.full((n, width), np.nan, np.dtype(column.dtype))
        _check(array[readable], column, task)
        write_shard(shard_file(task.folder, column.name, task.number), {"rows": array})
    if task.content:
        arrays = {
            "sha256": _digests(looking, task.images),
            "hash": key_hashes(task.keys),
            "readable": readable,
        }
        write_shard(shard_file(task.folder, CONTENT, task.number), arrays)
    return n


def _width(estimator: CNNClassifier, column: Column) -> int:
    source = estimator.source_network()
    head = len(source.graph.layers) - 1
    if column.layer == head and not column.source and hasattr(estimator, "classes_"):
        return len(estimator.classes_)
    return int(np.prod(source.output_shapes[column.layer]))


def _check(rows: np.ndarray, column: Column, task: ShardTask) -> None:
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(wrong):
        advice = (
            "If the network's numbers exceed 65,504, build the store with "
            "dtype='float32'."
            if column.dtype == "float16"
            else "The network's weights or the image's values are at fault."
        )
        raise ValueError(
            f"What the network says of {len(wrong)} image(s) is NaN or infinite as "
            f"{column.dtype}, in the shard that begins with {task.keys[0]!r}. {advice}"
        )


def _digests(estimator: CNNClassifier, X: Any) -> np.ndarray:
    """SHA-256 of files' bytes or of arrays, shape (n, 32); zeros if unreadable."""
    dataset = CNNAdapter(estimator).image_dataset(X)
    found = np.zeros((len(dataset), 32), dtype=np.uint8)
    for i in range(len(dataset)):
        digest = content_digest(dataset, X, i)
        if digest:
            found[i] = np.frombuffer(bytes.fromhex(digest), dtype=np.uint8)
    return found


def content_digest(dataset: ImageDataset, X: Any, i: int) -> str:
    """SHA-256 of an image's file, or of its pixels where it is none; "" if unreadable.

    Parameters
    ----------
    dataset : ImageDataset
        Of `X`.
    X : images
    i : int
    """
    try:
        if dataset.from_files:
            return file_digest(Path(X[i]))
        return hashlib.sha256(dataset[i].numpy().tobytes()).hexdigest()
    except (OSError, ValueError):
        return ""


# --- a network on its way to workers ------------------------------------------------


def network_key(estimator: CNNClassifier) -> str:
    """Name the network being adapted by its weights: 32 hex digits."""
    found = hashlib.sha256(estimator.source_network().namespace.encode())
    state = estimator.net_.module_.state_dict()
    for name in sorted(state):
        array = state[name].detach().cpu().contiguous().numpy()
        found.update(f"{name}{array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()[:32]


def send(estimator: CNNClassifier, folder: Path) -> Network:
    """Write a classifier's weights where all workers find them.

    Parameters
    ----------
    estimator : CNNClassifier
    folder : Path
        The store's.

    Returns
    -------
    Network
    """
    fingerprint = estimator.source_network().fingerprint
    if not hasattr(estimator, "net_"):
        return Network(clone(estimator), None, fingerprint)
    (folder / "networks").mkdir(exist_ok=True)
    file = folder / "networks" / f"{network_key(estimator)}.safetensors"
    if not file.exists():
        for old in file.parent.glob("*.safetensors"):
            old.unlink(missing_ok=True)
        write_network(estimator, file)
    return Network(clone(estimator), file, fingerprint)


class _Same:
    """Lets `lru_cache` name a network by its file, not by its estimator."""

    def __init__(self, value: CNNClassifier) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Same):
            return False
        mine, theirs = self.value.get_params(), other.value.get_params()
        return repr(sorted(mine.items())) == repr(sorted(theirs.items()))

    def __hash__(self) -> int:
        return 0


@lru_cache(maxsize=2)
def _received(file: Path | None, fingerprint: str, same: _Same) -> CNNClassifier:
    """Make the classifier that was sent, once for a process."""
    estimator = same.value
    found = estimator.source_network().fingerprint
    if found != fingerprint:
        raise ValueError(
            f"A worker's pretrained network has other weights (fingerprint {found}) "
            f"than the one that was asked for ({fingerprint}). Give all machines the "
            "same versions of the packages, and the same weights file."
        )
    if file is not None:
        read_network(estimator, file)
    return estimator
