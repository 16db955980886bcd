"""Data sets by name: a pool to choose from and a test set to measure on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import elpv_dataset.utils as elpv_dataset
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ..images.folder import images_by_class
from ..images.selection import take

_TEST_SHARE = 0.3
"""Of a data set without an official split: the paper's 70/30."""


@dataclass(frozen=True)
class LabelledImages:
    """A data set: what a reader of your own returns.

    Attributes
    ----------
    X : images
        The pool; without an official split, all images.
    y : ndarray of shape (n,) or of int, shape (n, n_classes)
        Labels. With several per image, a column of 0 and 1 for each of `classes`.
    X_test : images, optional
        The test set of an official split.
    y_test : ndarray, optional
        As `y`; with several labels per image -1 where a label is not counted.
    classes : ndarray, optional
        Names of the columns, with several labels per image.
    """

    X: Any
    y: np.ndarray
    X_test: Any = None
    y_test: Any = None
    classes: Any = None


def split_dataset(
    images: LabelledImages,
    seed: int,
    pool_size: int | None = None,
    test_size: int | None = None,
) -> LabelledImages:
    """Split into pool and test set, and thin both out.

    The official split where there is one, else 70/30. Whatever is drawn is drawn by
    the seed and keeps the classes' shares, with one label per image; that label is
    returned as its number among `classes`.
    """
    X, y, X_test, y_test = images.X, images.y, images.X_test, images.y_test
    if y_test is None:
        every = np.arange(len(y))
        pool, test = train_test_split(
            every, test_size=_TEST_SHARE, stratify=y, random_state=seed
        )
        X, y, X_test, y_test = take(X, pool), y[pool], take(X, test), y[test]
    classes = images.classes
    if classes is None:
        classes = np.unique(np.concatenate([y, y_test]))
        y, y_test = np.searchsorted(classes, y), np.searchsorted(classes, y_test)
    pool, test = _thinned(y, pool_size, seed), _thinned(y_test, test_size, seed)
    return LabelledImages(
        take(X, pool), y[pool], take(X_test, test), y_test[test], classes
    )


def _thinned(y: np.ndarray, size: int | None, seed: int) -> np.ndarray:
    """Draw the indices of at most `size` entries, sorted."""
    if size is None or size >= len(y):
        return np.arange(len(y))
    stratify = None
    if y.ndim == 1:
        counts = np.unique(y, return_counts=True)[1]
        # A class of one image cannot be stratified, nor can fewer images than classes.
        if counts.min() >= 2 and len(counts) <= min(size, len(y) - size):
            stratify = y
    kept, _ = train_test_split(
        np.arange(len(y)), train_size=size, stratify=stratify, random_state=seed
    )
    return np.sort(kept)


def load_dataset(
    name: str, path: str | Path | None = None, root: str | Path | None = None
) -> LabelledImages:
    """Read one of `DATASETS`, or by ``"module:function"``.

    From the folder `path`, or the usual one; relative to `root`.
    """
    read, usual = find_reader(name)
    if usual is None:
        if path is not None:
            raise ValueError(f"The data set {name!r} comes in a package: no path.")
        return read()
    return read(find_data(path or usual, root, f"The data set {name!r}"))


def find_reader(name: str) -> tuple[Callable[..., LabelledImages], str | None]:
    """Return what reads a data set, and its usual folder as in `DATASETS`."""
    if name in DATASETS:
        return DATASETS[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise ValueError(
            f"There is no data set {name!r}; there are {sorted(DATASETS)}. A folder "
            "with a subfolder for each class is read by {'class': 'folder', 'path': "
            "...}, any other by a function of yours, {'class': 'module:function'}."
        )
    try:
        return getattr(import_module(module), function), ""
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"The reader {name!r} cannot be imported ({error}). Is its folder in "
            "PYTHONPATH?"
        ) from error


def find_data(path: str | Path, root: str | Path | None, what: str) -> Path:
    """Find a folder or file relative to the data's root; `what` is for messages."""
    if not str(path):
        raise FileNotFoundError(f"{what} has no usual folder: say where by 'path'.")
    found = Path(root or "") / path
    if root is None and not found.is_absolute():
        raise FileNotFoundError(
            f"{what} is {str(path)!r} in the folder of all data: say where that is by "
            "--data or the environment variable SKADMA_DATA."
        )
    if not found.exists():
        raise FileNotFoundError(f"{what} should be at {str(found)!r}: nothing there.")
    return found


# --- readers --------------------------------------------------------------------------


def class_folders(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of a folder's subfolders, and each one's subfolder's name."""
    found = {name: paths for name, paths in images_by_class(folder).items() if paths}
    if len(found) < 2:
        raise ValueError(
            f"{str(folder)!r} must hold a subfolder with images for each of at least "
            f"two classes; found {sorted(found)}."
        )
    X = np.array([path for paths in found.values() for path in paths], dtype=object)
    return X, np.repeat(list(found), [len(paths) for paths in found.values()])


def read_folder(folder: Path) -> LabelledImages:
    """Read class folders, or ``train`` and ``test`` that hold such."""
    train, test = folder / "train", folder / "test"
    if train.is_dir() and test.is_dir():
        return LabelledImages(*class_folders(train), *class_folders(test))
    return LabelledImages(*class_folders(folder))


def load_elpv() -> tuple[np.ndarray, np.ndarray]:
    """Read the photographs of solar cells, uint8 (2624, 300, 300), and their labels.

    "defective" where the experts' defect probability is at least 0.5, else "sound".
    """
    X, probability, _ = elpv_dataset.load_dataset()
    return X, np.where(probability >= 0.5, "defective", "sound")


def _digits() -> LabelledImages:
    X, y = load_digits(return_X_y=True)
    images = np.rint(X.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return LabelledImages(images, y)


DATASETS: dict[str, tuple[Callable[..., LabelledImages], str | None]] = {
    "cifar10": (read_folder, "cifar10-sample"),
    "digits": (_digits, None),
    "dogs-vs-cats": (read_folder, "dogs-vs-cats"),
    "elpv": (lambda: LabelledImages(*load_elpv()), None),
    "folder": (read_folder, ""),
}
"""What reads a data set, and its usual folder (None: it comes in a package)."""
