"""Several labels per image: matrices of zeros and ones, and what a net gets of y."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse


def is_indicator(y: Any) -> bool:
    """Tell whether `y` has several columns: scikit-learn's multi-label form."""
    if sparse.issparse(y):
        return True
    try:
        shape = np.asarray(y).shape
    except ValueError:  # rows of several lengths
        return False
    return len(shape) == 2 and shape[1] > 1


def check_indicator(y: Any, name: str) -> np.ndarray:
    """Check the labels of a multi-label task.

    Parameters
    ----------
    y : array-like or sparse matrix of shape (n, n_labels)
    name : str
        Of the estimator, for messages.

    Returns
    -------
    ndarray of int, shape (n, n_labels)

    Raises
    ------
    ValueError
        If there is anything but zeros and ones.
    """
    y, missing = partial_indicator(y, name)
    if missing.any():
        raise ValueError(
            f"{name}: rows of y are -1, None or NaN, the first is row "
            f"{missing.argmax()}. Pass only labelled images."
        )
    return y


def partial_indicator(y: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Check the labels of a multi-label task of which rows may be missing.

    Parameters
    ----------
    y : array-like or sparse matrix of shape (n, n_labels)
        A row that is missing is -1, None or NaN throughout.
    name : str
        Of the estimator, for messages.

    Returns
    -------
    y : ndarray of int, shape (n, n_labels)
        -1 in the rows that are missing.
    missing : ndarray of bool, shape (n,)

    Raises
    ------
    ValueError
        If there is anything but zeros and ones in the other rows.
    """
    values = np.asarray(y.toarray() if sparse.issparse(y) else y)
    try:
        numbers = values.astype(float)  # None becomes NaN
    except (TypeError, ValueError):
        numbers = np.full(values.shape, np.inf)
    missing = (np.isnan(numbers) | (numbers == -1)).all(axis=1)
    known = numbers[~missing]
    wrong = ~((known == 0) | (known == 1))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        got = values[~missing].tolist()[row][column]
        raise ValueError(
            f"{name}: a y of several columns has a 1 for each label that an image "
            f"has and 0 for the others; got {got!r} in row "
            f"{np.flatnonzero(~missing)[row]}. A row without labels yet is -1 or NaN "
            "throughout. With one label per image y has shape (n,)."
        )
    found = np.full(numbers.shape, -1)
    found[~missing] = known
    return found, missing


def label_names(
    y: np.ndarray, classes: ArrayLike | None, before: np.ndarray | None
) -> np.ndarray:
    """Name the columns of a multi-label y.

    Parameters
    ----------
    y : ndarray of shape (n, n_labels)
    classes : array-like or None
        Names in the columns' order; 0, 1, ... if None.
    before : ndarray or None
        Names of earlier calls.

    Returns
    -------
    ndarray of shape (n_labels,)

    Raises
    ------
    ValueError
        If their number is not that of the columns.
    """
    n_labels = y.shape[1]
    names = before if classes is None else np.asarray(classes)
    for known in (names, before):
        if known is not None and len(known) != n_labels:
            raise ValueError(
                f"y has {n_labels} columns, but there are {len(known)} labels: "
                f"{known.tolist()}. A column for each of them is needed."
            )
    return np.arange(n_labels) if names is None else names


def encode(y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Bring labels to what a loss takes.

    Parameters
    ----------
    y : ndarray of shape (n,), or (n, n_labels) for several labels per image
    classes : ndarray
        Sorted, where there is one label per image.

    Returns
    -------
    ndarray of int, shape (n,), or of float32, shape (n, n_labels)
    """
    return y.astype(np.float32) if y.ndim == 2 else np.searchsorted(classes, y)


def refuse_other_form(multilabel: bool, before: bool) -> None:
    """Refuse to go on with several labels per image after one, or the reverse.

    Raises
    ------
    ValueError
    """
    if multilabel != before:
        forms = ("one label per image", "several labels per image")
        raise ValueError(
            f"y has {forms[multilabel]}, but the network that is to go on training was "
            f"fitted with {forms[before]}. Fit it anew with warm_start=False."
        )
