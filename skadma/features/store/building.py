"""What a feature store is made of: images with names, divided into shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...classifier import CNNClassifier
from ...images.dataset import ImageDataset, StoredImages
from ...images.forms import UnreadableImageError
from ..adapter import cnn_adapter
from .columns import StoreError
from .plan import Plan, check_keys, cut, read_images, write_images, write_plan


def check_estimator(estimator: Any) -> None:
    """Refuse a classifier without a network.

    Raises
    ------
    TypeError
    """
    if not isinstance(estimator, CNNClassifier):
        raise TypeError(
            f"A feature store keeps what a network says of images, so it needs a "
            f"CNNClassifier; got {estimator!r}. Rows of other classifiers are taken as "
            "a memory-mapped array: np.load(file, mmap_mode='r')."
        )


def name_images(
    estimator: CNNClassifier, X: Any, keys: Sequence[str] | None
) -> tuple[list[str], list[str] | None]:
    """Keys of images, and their paths if they are files."""
    if isinstance(X, StoredImages):
        raise TypeError("X is a feature store already; give the images.")
    dataset = cnn_adapter(estimator).image_dataset(X)
    paths = None
    if dataset.from_files:
        paths = [str(Path(path).absolute()) for path in X]
    if keys is not None:
        names = check_keys(keys)
    elif paths is not None:
        names = check_keys(paths)
    else:
        names = numbered_keys(dataset)
    if len(names) != len(dataset):
        raise ValueError(f"X has {len(dataset)} images, keys {len(names)} entries.")
    return names, paths


def numbered_keys(dataset: ImageDataset) -> list[str]:
    """Names of images by their places and by what they are.

    Parameters
    ----------
    dataset : ImageDataset

    Returns
    -------
    list of str
        A file is what it is by its path, size and time of change.
    """
    return [f"{i:09d}-{_identity(dataset, i)}" for i in range(len(dataset))]


def _identity(dataset: ImageDataset, i: int) -> str:
    try:
        return dataset.keyed(i)[0]
    except UnreadableImageError:
        return "unreadable"


def write_planned(
    folder: Path, plan: Plan, names: list[str], paths: list[str] | None
) -> Plan:
    """Write down that images are to be scanned; return the plan with them."""
    number, start = len(plan.sizes), 0
    sizes = cut(len(names), plan.shard_rows)
    for size in sizes:
        some = slice(start, start + size)
        where = None if paths is None else paths[some]
        write_images(folder, number, names[some], where)
        number, start = number + 1, start + size
    plan = replace(plan, sizes=[*plan.sizes, *sizes])
    write_plan(folder, plan)
    return plan


def check_same(folder: Path, known: Plan, plan: Plan, names: list[str]) -> None:
    """Refuse to go on with a store of something else."""
    for what in ("network", "layer", "dtype", "from_files"):
        if getattr(known, what) != getattr(plan, what):
            raise StoreError(
                f"The folder {str(folder)!r} has a feature store with another {what}: "
                f"{getattr(known, what)}, not {getattr(plan, what)}. Take another "
                "folder."
            )
    start = 0
    for number, size in enumerate(known.sizes):
        if read_images(folder, number)[0] != names[start : start + size]:
            raise StoreError(
                f"The folder {str(folder)!r} has a feature store of other images than "
                f"X from number {start} on. FeatureStore.open(folder).append(...) adds "
                "images; other images need another folder."
            )
        start += size
    if start != len(names):
        raise StoreError(
            f"The feature store in {str(folder)!r} is of {start} images, X of "
            f"{len(names)}. FeatureStore.open(folder).append(...) adds images."
        )


def join_images(first: Any, more: Any) -> Any:
    """Put images that are no files behind others."""
    if isinstance(first, np.ndarray):
        return np.concatenate([first, more])
    return [*first, *more]
