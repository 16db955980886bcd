"""Labelled images in folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..images.folder import images_by_class


@dataclass(frozen=True)
class LabelledImages:
    """A data set as it is read.

    Attributes
    ----------
    X : images
    y : ndarray of shape (n,), or of 0 and 1, shape (n, n_labels)
        The latter with several labels per image.
    X_test : images or None
        Of the official split; None where there is none.
    y_test : ndarray or None
        With several labels per image, -1 where one is not counted.
    classes : ndarray or None
        With several labels per image, the names of the columns.
    """

    X: Any
    y: np.ndarray
    X_test: Any = None
    y_test: np.ndarray | None = None
    classes: np.ndarray | None = None


def class_folders(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a folder with a subfolder of images for each class.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    X : ndarray of str, shape (n,)
        Paths.
    y : ndarray of str, shape (n,)
        The subfolders' names.

    Raises
    ------
    ValueError
        If there are not at least two classes with images.
    """
    found = {name: paths for name, paths in images_by_class(folder).items() if paths}
    if len(found) < 2:
        raise ValueError(
            f"{str(folder)!r} must hold a subfolder with images for each of at least "
            f"two classes; found {sorted(found)}."
        )
    X = [path for paths in found.values() for path in paths]
    y = [name for name, paths in found.items() for _ in paths]
    return np.array(X, dtype=object), np.array(y)


def read_folder(folder: Path) -> LabelledImages:
    """Read class folders, or ``train`` and ``test`` that hold such.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    LabelledImages
        With a split where there are ``train`` and ``test``.
    """
    train, test = folder / "train", folder / "test"
    if train.is_dir() and test.is_dir():
        return LabelledImages(*class_folders(train), *class_folders(test))
    return LabelledImages(*class_folders(folder))
