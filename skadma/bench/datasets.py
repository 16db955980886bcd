"""Data sets by name: a pool to choose from and a test set to measure on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ..images.dataset import take
from .demo import load_elpv
from .folders import LabelledImages, read_folder
from .official import (
    read_dogs_vs_cats,
    read_indoor67,
    read_inria_person,
    read_voc2012,
    read_voc2012_multilabel,
)

_TEST_SHARE = 0.3
"""Of a data set without an official split: the paper's 70/30."""


@dataclass(frozen=True)
class Split:
    """A data set as a benchmark uses it.

    Attributes
    ----------
    X_pool, X_test : images
    y_pool, y_test : ndarray of int
        Numbers of classes, or the matrices of label indicators.
    classes : ndarray
        The classes' names, by number.
    """

    X_pool: Any
    y_pool: np.ndarray
    X_test: Any
    y_test: np.ndarray
    classes: np.ndarray


def split_dataset(
    images: LabelledImages,
    seed: int,
    pool_size: int | None = None,
    test_size: int | None = None,
) -> Split:
    """Split into pool and test set, and thin both out.

    The official split where there is one, else 70/30. Whatever is drawn is drawn by
    the seed and keeps the classes' shares, with one label per image.

    Parameters
    ----------
    images : LabelledImages
    seed : int
    pool_size, test_size : int, optional
        At most that many images.

    Returns
    -------
    Split
    """
    if images.y_test is None:
        X, X_test, y, y_test = train_test_split(
            np.arange(len(images.y)),
            images.y,
            test_size=_TEST_SHARE,
            stratify=images.y,
            random_state=seed,
        )
        X, X_test = take(images.X, X), take(images.X, X_test)
    else:
        X, y, X_test, y_test = images.X, images.y, images.X_test, images.y_test
    pool, test = _thinned(y, pool_size, seed), _thinned(y_test, test_size, seed)
    if images.classes is not None:
        X, X_test = take(X, pool), take(X_test, test)
        return Split(X, y[pool], X_test, y_test[test], images.classes)
    classes = np.unique(np.concatenate([y, y_test]))
    return Split(
        take(X, pool),
        np.searchsorted(classes, y[pool]),
        take(X_test, test),
        np.searchsorted(classes, y_test[test]),
        classes,
    )


def _thinned(y: np.ndarray, size: int | None, seed: int) -> np.ndarray:
    """Indices of at most `size` entries, sorted."""
    if size is None or size >= len(y):
        return np.arange(len(y))
    if y.ndim == 2:
        chosen = np.random.default_rng(seed).choice(len(y), size, replace=False)
        return np.sort(chosen)
    _, members, counts = np.unique(y, return_inverse=True, return_counts=True)
    # A class of one image cannot be stratified, nor can fewer images than classes.
    alike = counts[members] >= 2
    stratify = y if alike.all() and len(counts) <= min(size, len(y) - size) else None
    kept, _ = train_test_split(
        np.arange(len(y)), train_size=size, stratify=stratify, random_state=seed
    )
    return np.sort(kept)


def load_dataset(
    name: str, path: str | Path | None = None, root: str | Path | None = None
) -> LabelledImages:
    """Read a data set.

    Parameters
    ----------
    name : str
        One of `DATASETS`.
    path : str or Path, optional
        Its folder, in place of the usual one; relative to `root`.
    root : str or Path, optional
        The folder that holds the data sets.

    Returns
    -------
    LabelledImages

    Raises
    ------
    ValueError
        If there is no data set of that name, or its folder is not laid out as it
        should be.
    FileNotFoundError
        If its folder is not there.
    """
    if name not in DATASETS:
        raise ValueError(
            f"There is no data set {name!r}; there are {sorted(DATASETS)}. A folder "
            "with a subfolder for each class is read by {'class': 'folder', 'path': "
            "...}."
        )
    read, usual = DATASETS[name]
    if usual is None:
        if path is not None:
            raise ValueError(f"The data set {name!r} comes in a package: no path.")
        return read()
    return read(find_data(path or usual, root, f"The data set {name!r}"))


def find_data(path: str | Path, root: str | Path | None, what: str) -> Path:
    """Find a folder or file, relative to the root of the data.

    Parameters
    ----------
    path : str or Path
    root : str or Path, optional
    what : str
        For the message: what is looked for.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    """
    if not str(path):
        raise FileNotFoundError(f"{what} has no usual folder: say where by 'path'.")
    found = Path(path)
    if not found.is_absolute() and root is None:
        raise FileNotFoundError(
            f"{what} is {str(path)!r} in the folder of all data: say where that is by "
            "--data or the environment variable SKADMA_DATA."
        )
    found = Path(root or "") / found
    if not found.exists():
        raise FileNotFoundError(f"{what} should be at {str(found)!r}: nothing there.")
    return found


# --- readers --------------------------------------------------------------------------


def _elpv() -> LabelledImages:
    return LabelledImages(*load_elpv())


def _digits() -> LabelledImages:
    X, y = load_digits(return_X_y=True)
    images = np.rint(X.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return LabelledImages(images, y)


DATASETS: dict[str, tuple[Callable[..., LabelledImages], str | None]] = {
    "cifar10": (read_folder, "cifar10-sample"),
    "digits": (_digits, None),
    "dogs-vs-cats": (read_dogs_vs_cats, "dogs-vs-cats"),
    "elpv": (_elpv, None),
    "folder": (read_folder, ""),
    "indoor67": (read_indoor67, "indoor67"),
    "inria-person": (read_inria_person, "INRIAPerson"),
    "voc2012": (read_voc2012, "VOCdevkit"),
    "voc2012-multilabel": (read_voc2012_multilabel, "VOCdevkit"),
}
"""What reads a data set, and its usual folder (None: it comes in a package)."""
