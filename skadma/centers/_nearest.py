"""Class means over any number of images, and the members nearest to them (Eq. 1-2)."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from .._utils.atomic import write_atomically
from ..features.adapter import CNNAdapter
from ..images.dataset import content_key, n_images, take

_SECONDS_BETWEEN_WRITES = 30


@dataclass
class _Batch:
    """Images with their penultimate features z, classes and weights in the mean."""

    rows: np.ndarray
    z: np.ndarray
    classes: np.ndarray
    weights: np.ndarray


def nearest_to_class_mean(
    adapter: CNNAdapter,
    X: Any,
    numbers: np.ndarray,
    *,
    checkpoint: str | Path | None,
    verbose: bool,
) -> np.ndarray:
    """Find the member nearest to each class's mean: indices into X, sorted by class.

    `numbers` are the images' source classes, shape (n,).
    """
    classes, counts = np.unique(numbers, return_counts=True)
    if (counts == 1).all():
        nearest = np.argsort(numbers)
        _refuse_missing(classes, adapter.readable(X)[nearest])
        return nearest

    def batches(start: int) -> Iterator[_Batch]:
        some = take(X, np.arange(start, n_images(X))) if start else X
        for batch in adapter.iter_outputs(some, source_layers=[-2]):
            (z,) = batch.source.values()
            rows = batch.indices + start
            yield _Batch(rows, _numpy(z), numbers[rows], np.ones(len(rows)))

    seen = _identity(adapter, X) if checkpoint is not None else ""
    source = adapter.source
    described = f"{source.namespace}{n_images(X)}{content_key(numbers)}{seen}"
    progress = _Progress(n_images(X), verbose, checkpoint, described)
    nearest = _two_passes(batches, source.n_classes, progress)[classes]
    _refuse_missing(classes, nearest >= 0)
    return nearest


def _refuse_missing(classes: np.ndarray, found: np.ndarray) -> None:
    if not found.all():
        raise ValueError(
            f"The source classes {classes[~found][:5].tolist()} have no image that can "
            "be decoded."
        )


def _identity(adapter: CNNAdapter, X: Any) -> str:
    """Hash a sample of the images: names, sizes and times of files, or pixels.

    Empty for a Dataset, whose images may be different ones each time.
    """
    if isinstance(X, Dataset):
        return ""
    sample = np.unique(np.linspace(0, n_images(X) - 1, 64).astype(int))
    if adapter.takes_rows(X):
        return content_key(np.asarray(take(X, sample)))
    some = take(X, sample)
    dataset = adapter.image_dataset(take(some, adapter.readable(some)))
    return "".join(dataset.keyed(i)[0] for i in range(len(dataset)))


def nearest_by_prediction(adapter: CNNAdapter, X: Any, *, verbose: bool) -> np.ndarray:
    """Find, per class, the image nearest to the mean of those predicted as the class.

    The mean is weighted by the pretrained network's confidence. Returns indices into
    X, shape (K,); -1 for classes that no image is predicted as.
    """

    def batches(start: int) -> Iterator[_Batch]:
        for batch in adapter.iter_outputs(X, source_layers=[-2, -1]):
            z, scores = (batch.source[layer] for layer in sorted(batch.source))
            confidence, classes = torch.softmax(scores.double(), dim=1).max(dim=1)
            yield _Batch(
                batch.indices, _numpy(z), classes.cpu().numpy(), _numpy(confidence)
            )

    progress = _Progress(n_images(X), verbose)
    return _two_passes(batches, adapter.source.n_classes, progress)


def _two_passes(
    batches: Callable[[int], Iterator[_Batch]], n_classes: int, progress: _Progress
) -> np.ndarray:
    """Compute means (Eq. 1), then the nearest members (Eq. 2; the first of equals)."""
    state = progress.read()
    if not state:
        state = {
            "position": np.zeros(2, dtype=np.int64),  # pass, images seen in it
            "weights": np.zeros(n_classes),
            "nearest": np.full(n_classes, -1),
            "smallest": np.full(n_classes, np.inf),
        }
    for number, name in enumerate(("means", "nearest")):
        if state["position"][0] > number:
            continue
        begin = int(state["position"][1])
        with progress.bar(name, begin) as bar:
            for batch in batches(begin):
                if not len(batch.rows):
                    continue
                (_add, _compare)[number](state, batch)
                state["position"][1] = batch.rows[-1] + 1
                progress.write(state)
                bar.update(len(batch.rows))
        state["position"][:] = number + 1, 0
    progress.forget()
    return state["nearest"]


def _add(state: dict[str, np.ndarray], batch: _Batch) -> None:
    if "sums" not in state:
        state["sums"] = np.zeros((len(state["weights"]), batch.z.shape[1]))
    np.add.at(state["sums"], batch.classes, batch.z * batch.weights[:, None])
    np.add.at(state["weights"], batch.classes, batch.weights)


def _compare(state: dict[str, np.ndarray], batch: _Batch) -> None:
    means = state["sums"][batch.classes] / state["weights"][batch.classes][:, None]
    distances = np.square(batch.z - means).sum(axis=1)
    for row, k, distance in zip(batch.rows, batch.classes, distances, strict=True):
        if distance < state["smallest"][k]:
            state["smallest"][k] = distance
            state["nearest"][k] = row


class _Progress:
    """Progress bars, and a checkpoint file of the state so far."""

    def __init__(
        self,
        n: int,
        verbose: bool,
        checkpoint: str | Path | None = None,
        described: str = "",
    ) -> None:
        self.n = n
        self.verbose = verbose
        self.path = None if checkpoint is None else Path(checkpoint)
        self.key = hashlib.blake2b(described.encode(), digest_size=16).hexdigest()
        self._written = time.monotonic()

    def bar(self, name: str, begin: int) -> tqdm:
        return tqdm(
            total=self.n,
            initial=begin,
            desc=name,
            unit="image",
            disable=not self.verbose,
        )

    def read(self) -> dict[str, np.ndarray]:
        if self.path is None or not self.path.is_file():
            return {}
        try:
            with safetensors.safe_open(self.path, framework="numpy") as file:
                key = (file.metadata() or {}).get("skadma-means")
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except safetensors.SafetensorError as error:
            raise ValueError(self._refused(f"cannot be read ({error})")) from error
        if key != self.key:
            raise ValueError(
                self._refused(
                    "belongs to other images, other labels or another network"
                )
            )
        return state

    def _refused(self, reason: str) -> str:
        return (
            f"checkpoint={str(self.path)!r} {reason}. Delete it to begin anew, or "
            "name another file."
        )

    def write(self, state: dict[str, np.ndarray]) -> None:
        if self.path is None:
            return
        if time.monotonic() - self._written < _SECONDS_BETWEEN_WRITES:
            return
        metadata = {"skadma-means": self.key}
        write_atomically(
            self.path,
            lambda tmp_path: safetensors.numpy.save_file(state, tmp_path, metadata),
        )
        self._written = time.monotonic()

    def forget(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def _numpy(values: torch.Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
