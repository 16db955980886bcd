"""Check tables of probabilities, and match labels with their columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..targets.labels import as_labels, unlabelled_mask


def check_proba(proba: ArrayLike) -> np.ndarray:
    """Check a table of class probabilities (n, n_classes); rows may be all NaN."""
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
    """Return the classes of the columns, and each label's column.

    The classes are those in `y`, sorted, if None.
    """
    labels = as_labels(y)
    if (missing := unlabelled_mask(labels, [-1])).any():
        raise ValueError(
            f"{missing.sum()} entries of y are None or NaN, the first is number "
            f"{missing.argmax()}. Leave these images out."
        )
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


def known_rows(
    proba: ArrayLike, y: ArrayLike, classes: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows that have probabilities, those, their labels' columns, classes.

    Rows are indices into `proba`.
    """
    table = check_proba(proba)
    names, given = class_numbers(y, table.shape[1], classes)
    if len(given) != len(table):
        raise ValueError(f"proba has {len(table)} rows, but there are {len(given)} y.")
    rows = np.flatnonzero(~np.isnan(table).any(axis=1))
    if not len(rows):
        raise ValueError("proba has no row with probabilities.")
    return rows, table[rows], given[rows], names
