"""Class means over any number of images, and the members nearest to them (Eq. 1-2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._utils.processes import progress_bar
from ..features.adapter import CNNAdapter
from ..images.selection import n_images


def nearest_to_class_mean(
    adapter: CNNAdapter, X: Any, numbers: np.ndarray, *, verbose: bool
) -> np.ndarray:
    """Find the member nearest to each class's mean: indices into X, sorted by class.

    `numbers` are the images' source classes, shape (n,).
    """
    classes, members, counts = np.unique(
        numbers, return_inverse=True, return_counts=True
    )
    if (counts == 1).all():
        nearest = np.argsort(numbers)
        found = adapter.readable(X)[nearest]
    else:
        nearest = _two_passes(adapter, X, members, len(classes), verbose)
        found = nearest >= 0
    if not found.all():
        raise ValueError(
            f"The source classes {classes[~found][:5].tolist()} have no image that can "
            "be decoded."
        )
    return nearest


def _two_passes(
    adapter: CNNAdapter, X: Any, members: np.ndarray, n_classes: int, verbose: bool
) -> np.ndarray:
    """Compute means (Eq. 1), then the nearest members (Eq. 2; the first of equals)."""
    sums = np.zeros((n_classes, adapter.width(adapter.position(-2), adapted=False)))
    counts = np.zeros(n_classes)
    for rows, z in _features(adapter, X, "means", verbose):
        np.add.at(sums, members[rows], z)
        np.add.at(counts, members[rows], 1)
    nearest = np.full(n_classes, -1)
    smallest = np.full(n_classes, np.inf)
    for rows, z in _features(adapter, X, "nearest", verbose):
        own = members[rows]
        distances = np.square(z - sums[own] / counts[own][:, None]).sum(axis=1)
        for row, k, distance in zip(rows, own, distances, strict=True):
            if distance < smallest[k]:
                smallest[k], nearest[k] = distance, row
    return nearest


def _features(
    adapter: CNNAdapter, X: Any, what: str, verbose: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield indices of images and their penultimate features z, batch by batch."""
    n = n_images(X)
    with progress_bar(total=n, desc=what, unit="image", disable=not verbose) as bar:
        for batch in adapter.iter_outputs(X, source_layers=[-2]):
            (z,) = batch.source.values()
            yield batch.indices, z.double().cpu().numpy()
            bar.update(len(batch.indices))
