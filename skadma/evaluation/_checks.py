"""Probabilities, and the labels that belong to them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def check_proba(proba: ArrayLike) -> np.ndarray:
    """Check a table of class probabilities.

    Parameters
    ----------
    proba : array-like of shape (n, n_classes)
        Rows of NaN stand for images without.

    Returns
    -------
    ndarray of float, shape (n, n_classes)

    Raises
    ------
    ValueError
        If it is no such table.
    """
    table = np.asarray(proba, dtype=float)
    if table.ndim != 2 or table.shape[1] < 2 or not len(table):
        raise ValueError(
            "proba must have a row per image and a column per class, at least two; "
            f"got the shape {table.shape}."
        )
    empty = np.isnan(table).all(axis=1)
    wrong = ~empty & ~(
        (table >= 0).all(axis=1) & (np.abs(table.sum(axis=1) - 1) < 1e-3)
    )
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"{wrong.sum()} rows of proba are no probabilities: they must be at least "
            f"0 and sum to 1, but row {row} is {table[row].tolist()}. Pass what "
            "predict_proba gives, not decision values."
        )
    return table


def class_numbers(
    y: ArrayLike, n_classes: int, classes: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray]:
    """Say which column of probabilities each label means.

    Parameters
    ----------
    y : array-like of shape (n,)
    n_classes : int
        How many columns there are.
    classes : array-like or None
        Those of the columns; those in `y`, sorted, if None.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
    numbers : ndarray of int, shape (n,)

    Raises
    ------
    ValueError
        If the columns are more or fewer than the classes, or a label is none of them.
    """
    labels = np.asarray(y)
    names = np.unique(labels) if classes is None else np.asarray(classes)
    if len(names) != n_classes or len(np.unique(names)) != n_classes:
        hint = ". Say by classes= what they are" if classes is None else ""
        raise ValueError(
            f"proba has {n_classes} columns, but the classes are {names.tolist()}"
            f"{hint}."
        )
    unknown = np.setdiff1d(labels, names)
    if len(unknown):
        raise ValueError(
            f"The labels {unknown.tolist()} are none of the classes {names.tolist()}."
        )
    order = np.argsort(names)
    return names, order[np.searchsorted(names, labels, sorter=order)]
