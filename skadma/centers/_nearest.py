"""Class means over any number of images, and the members nearest to them (Eq. 1-2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from .._utils.processes import progress_bar
from ..features.adapter import CNNAdapter
from ..images.dataset import n_images

_Batch = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Images' indices, penultimate features z, classes, and weights in the mean."""


def nearest_to_class_mean(
    adapter: CNNAdapter, X: Any, numbers: np.ndarray, *, verbose: bool
) -> np.ndarray:
    """Find the member nearest to each class's mean: indices into X, sorted by class.

    `numbers` are the images' source classes, shape (n,).
    """
    classes, counts = np.unique(numbers, return_counts=True)

    def batches() -> Iterator[_Batch]:
        for batch in adapter.iter_outputs(X, source_layers=[-2]):
            (z,) = batch.source.values()
            rows = batch.indices
            yield rows, _numpy(z), numbers[rows], np.ones(len(rows))

    if (counts == 1).all():
        nearest = np.argsort(numbers)
        found = adapter.readable(X)[nearest]
    else:
        size = int(classes.max()) + 1
        nearest = _two_passes(batches, adapter, n_images(X), size, verbose)[classes]
        found = nearest >= 0
    if not found.all():
        raise ValueError(
            f"The source classes {classes[~found][:5].tolist()} have no image that can "
            "be decoded."
        )
    return nearest


def nearest_by_prediction(adapter: CNNAdapter, X: Any, *, verbose: bool) -> np.ndarray:
    """Find, per class, the image nearest to the mean of those predicted as the class.

    The mean is weighted by the pretrained network's confidence. Returns indices into
    X, shape (K,); -1 for classes that no image is predicted as.
    """

    def batches() -> Iterator[_Batch]:
        for batch in adapter.iter_outputs(X, source_layers=[-2, -1]):
            z, scores = (batch.source[layer] for layer in sorted(batch.source))
            confidence, classes = torch.softmax(scores.double(), dim=1).max(dim=1)
            yield batch.indices, _numpy(z), classes.cpu().numpy(), _numpy(confidence)

    n_classes = adapter.source.n_classes
    return _two_passes(batches, adapter, n_images(X), n_classes, verbose)


def _two_passes(
    batches: Callable[[], Iterator[_Batch]],
    adapter: CNNAdapter,
    n: int,
    n_classes: int,
    verbose: bool,
) -> np.ndarray:
    """Compute means (Eq. 1), then the nearest members (Eq. 2; the first of equals)."""
    sums = np.zeros((n_classes, adapter.width(adapter.position(-2), adapted=False)))
    weights = np.zeros(n_classes)
    nearest = np.full(n_classes, -1)
    smallest = np.full(n_classes, np.inf)
    with progress_bar(total=n, desc="means", unit="image", disable=not verbose) as bar:
        for rows, z, classes, confidence in batches():
            np.add.at(sums, classes, z * confidence[:, None])
            np.add.at(weights, classes, confidence)
            bar.update(len(rows))
    with progress_bar(
        total=n, desc="nearest", unit="image", disable=not verbose
    ) as bar:
        for rows, z, classes, _ in batches():
            means = sums[classes] / weights[classes][:, None]
            distances = np.square(z - means).sum(axis=1)
            for row, k, distance in zip(rows, classes, distances, strict=True):
                if distance < smallest[k]:
                    smallest[k], nearest[k] = distance, row
            bar.update(len(rows))
    return nearest


def _numpy(values: torch.Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
