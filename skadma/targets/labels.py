"""Labels: checking them, and telling the unlabelled from the labelled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from .multilabel import check_indicator, is_indicator, label_names, partial_indicator


def check_labels(y: ArrayLike | None, estimator: Any) -> np.ndarray:
    """Check the labels of a classification task.

    Parameters
    ----------
    y : array-like of shape (n,), or (n, n_labels) for several labels per image
    estimator : object
        Named in messages.

    Returns
    -------
    ndarray of the same shape

    Raises
    ------
    ValueError
        If there are none, some are missing, or they are not class labels.
    """
    name = type(estimator).__name__
    if y is None:
        raise ValueError(
            f"{name} requires y to be passed, but the target y is None: pass one label "
            "per image."
        )
    if is_indicator(y):
        return check_indicator(y, name)
    labels: np.ndarray = column_or_1d(unmixed(y), warn=True)
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise ValueError(
            f"{name}: the labels y contain NaN or infinity. Pass only labelled images."
        )
    if labels.dtype.kind == "O" and any(v is None or v != v for v in labels):
        raise ValueError(
            f"{name}: the labels y contain None or NaN. Pass only labelled ones."
        )
    check_classification_targets(labels)
    return labels


def unmixed(y: Any) -> Any:
    """Keep NumPy from writing a NaN or a -1 among strings as a string."""
    if hasattr(y, "isna") and y.isna().any():  # a Series: NA, NaT and their kin
        return y.astype(object).where(~y.isna(), None)
    if isinstance(y, (list, tuple)) and len({isinstance(v, str) for v in y}) > 1:
        return np.array(y, dtype=object)
    return y


def plain_labels(y: np.ndarray) -> np.ndarray:
    """Give labels their natural type, once no None is among them."""
    return np.array(y.tolist()) if y.dtype.kind == "O" else y


def known_classes(
    y: np.ndarray, classes: ArrayLike | None, before: np.ndarray | None = None
) -> np.ndarray:
    """All labels of a task, sorted; with several per image, in the columns' order.

    Parameters
    ----------
    y : ndarray of shape (n,), or (n, n_labels) for several labels per image
        Labels at hand.
    classes : array-like or None
        All labels, if they are known beforehand.
    before : ndarray, optional
        Labels of earlier calls.

    Raises
    ------
    ValueError
        If `y` or `before` has a label that is not among `classes`.
    """
    if y.ndim == 2:
        return label_names(y, classes, before)
    seen = np.unique(y)
    if before is not None:
        seen = np.union1d(before, seen)
    if classes is None:
        return seen
    known = np.unique(np.asarray(classes))
    unknown = np.setdiff1d(seen, known)
    if len(unknown):
        raise ValueError(
            f"y has the labels {unknown.tolist()}, which are not among classes="
            f"{known.tolist()}. Correct them or add them to classes."
        )
    return known


def partial_labels(
    y: ArrayLike | None, classes: ArrayLike | None, estimator: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check labels of which some, none or all may be missing.

    Parameters
    ----------
    y : array-like of shape (n,), or (n, n_labels) for several labels per image
        See :func:`unlabelled_mask`; in the latter form rows may be missing.
    classes : array-like or None
        All labels of the task, if they are known beforehand.
    estimator : object
        Named in messages.

    Returns
    -------
    y : ndarray of the same shape
    missing : ndarray of bool, shape (n,)
    classes : ndarray
        All labels that are known of by now, sorted; columns in their order.

    Raises
    ------
    ValueError
        If there are none, or those that are there are not class labels of the task.
    """
    if y is None:
        check_labels(y, estimator)  # raises
    if is_indicator(y):
        matrix, missing = partial_indicator(y, type(estimator).__name__)
        return matrix, missing, label_names(matrix, classes, None)
    labels: np.ndarray = column_or_1d(unmixed(y), warn=True)
    missing = unlabelled_mask(labels, classes)
    if classes is None and labels.dtype.kind == "f" and np.isnan(labels).all():
        raise ValueError(
            "y is NaN throughout. If no image has a label yet, say by classes= "
            "which labels there will be, or mark the images with -1 or None."
        )
    known = labels[~missing]
    if len(known):
        known = check_labels(plain_labels(known), estimator)
    if classes is not None and not missing.any():
        known = known[:0]  # the oracle's labels are checked when they are revealed
    return labels, missing, known_classes(known, classes)


def check_indices(indices: ArrayLike, n: int) -> np.ndarray:
    """Check indices into n images.

    Raises
    ------
    ValueError
        If they are not distinct ints from 0 to n - 1.
    """
    chosen = np.asarray(indices)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or not len(chosen):
        raise ValueError(
            f"indices must be a list of int, got {chosen.dtype} of shape "
            f"{chosen.shape}."
        )
    wrong = chosen[(chosen < 0) | (chosen >= n)]
    if len(wrong) or len(np.unique(chosen)) < len(chosen):
        raise ValueError(
            f"indices must be distinct and from 0 to {n - 1}, got "
            f"{(wrong if len(wrong) else chosen).tolist()}."
        )
    return chosen


def with_labels(
    y: np.ndarray,
    indices: np.ndarray,
    labels: ArrayLike,
    *,
    declared: ArrayLike | None,
    before: np.ndarray,
    estimator: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Put labels that are given into those there are.

    Parameters
    ----------
    y : ndarray of shape (n,), or (n, n_labels) for several labels per image
        It is not changed.
    indices : ndarray of int, shape (m,)
    labels : array-like of shape (m,) or (m, n_labels)
    declared : array-like or None
        All labels of the task, if they are known beforehand.
    before : ndarray
        Labels of earlier calls.
    estimator : object
        Named in messages.

    Returns
    -------
    y : ndarray
    classes : ndarray
        All labels that are known of by now.

    Raises
    ------
    ValueError
        If labels are missing, too many, of another form, or not among those of the
        task.
    """
    if y.ndim == 2:
        rows = labels if is_indicator(labels) else np.atleast_2d(labels)
        given = check_indicator(rows, type(estimator).__name__)
    else:
        _refuse_missing(labels, declared, before)
        given = check_labels(labels, estimator)
    if len(given) != len(indices):
        raise ValueError(f"{len(indices)} indices, but {len(given)} labels.")
    if given.ndim != y.ndim:
        raise ValueError(
            f"Labels of shape {given.shape} in a task of one label per image: pass "
            "one label for each index."
        )
    classes = known_classes(given, declared, before if before.size else None)
    joint = y.astype(np.result_type(y, given), copy=True)
    joint[indices] = given
    return joint, classes


def _refuse_missing(
    y: ArrayLike, classes: ArrayLike | None, before: np.ndarray
) -> None:
    """Refuse labels that stand for none, see :func:`unlabelled_mask`."""
    given = np.asarray(unmixed(y))
    if given.ndim != 1:
        return  # it is no list of labels, which is found elsewhere
    if classes is None:
        both = np.array([*before.tolist(), *given.tolist()], dtype=object)
        missing = unlabelled_mask(both)[len(before) :]
    else:
        missing = unlabelled_mask(given, classes)
    if missing.any():
        raise ValueError(
            f"The label {given[missing].tolist()[0]!r} stands for none and is not "
            "among the classes. Teach only images that have a label."
        )


def unlabelled_mask(y: ArrayLike, classes: ArrayLike | None = None) -> np.ndarray:
    """Tell which entries of `y` have no label yet: -1, None or NaN.

    An integer -1 is a label where `classes` names it, and, without `classes`, where
    -1 and 1 are all there is: the usual coding of a binary task.

    Parameters
    ----------
    y : array-like of shape (n,)
    classes : array-like, optional
        All labels of the task.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    y = np.asarray(y)
    if y.dtype.kind == "f":
        mask = np.isnan(y)
    elif y.dtype.kind == "O":
        # NaN is the only value that differs from itself.
        mask = np.array([v is None or bool(v != v) for v in y], dtype=bool)
    else:
        mask = np.zeros(y.shape, dtype=bool)
    if y.dtype.kind in "ifO":
        minus_one = np.array([_is_minus_one(v) for v in y], dtype=bool)
        if classes is not None:
            is_label = any(_is_minus_one(c) for c in np.asarray(classes).tolist())
        else:
            others = {str(v) for v in y[~minus_one & ~mask].tolist()}
            is_label = bool(others) and others <= {"1", "1.0"}
        if not is_label:
            mask |= minus_one
    return mask


def _is_minus_one(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and value == -1
