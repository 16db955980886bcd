"""Labels: one per image, or rows of zeros and ones; checks, and what is unlabelled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets


def check_labels(y: ArrayLike | None, estimator: Any) -> np.ndarray:
    """Check the labels of a classification task, (n,) or (n, n_labels).

    Raises ValueError if there are none, some are missing, or they are not class labels.
    The class of `estimator` is named in messages.
    """
    name = type(estimator).__name__
    if y is None:
        raise ValueError(
            f"{name} requires y to be passed, but the target y is None: pass one label "
            "per image."
        )
    if is_multilabel_form(y):
        return _check_indicator(y, name)
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


def partial_labels(
    y: ArrayLike | None, classes: ArrayLike | None, estimator: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check labels of which some, none or all may be missing.

    Parameters
    ----------
    y : array-like of shape (n,) or (n, n_labels)
        See :func:`unlabelled_mask`; of several labels per image, whole rows are
        missing.
    classes : array-like or None
        All labels of the task, if they are given.
    estimator : object
        Its class is named in messages.

    Returns
    -------
    y : ndarray of the same shape
    missing : ndarray of bool, shape (n,)
    classes : ndarray
        All labels known so far, sorted; of several per image, in the columns' order.
    """
    if y is None:
        check_labels(y, estimator)  # raises
    if is_multilabel_form(y):
        matrix, missing = _partial_indicator(y, type(estimator).__name__)
        return matrix, missing, known_classes(matrix, classes)
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


def with_labels(
    y: np.ndarray,
    indices: np.ndarray,
    labels: ArrayLike,
    *,
    declared: ArrayLike | None,
    before: np.ndarray,
    estimator: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a copy of `y` with the labels of some images, and all classes known then.

    `declared` are all labels of the task if they are given, `before` those known so
    far. Raises ValueError if labels are missing, too many, of another form, or not
    among those of the task.
    """
    if y.ndim == 2:
        rows = labels if is_multilabel_form(labels) else np.atleast_2d(labels)
        given = _check_indicator(rows, type(estimator).__name__)
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


def known_classes(
    y: np.ndarray, classes: ArrayLike | None, before: np.ndarray | None = None
) -> np.ndarray:
    """Return all labels of a task: `classes`, else those of `y` and `before`.

    They are sorted; of several per image, in the order of the columns, numbered from 0
    where they have no names. Raises ValueError if `y` or `before` disagrees with
    `classes`.
    """
    if y.ndim == 2:
        names = before if classes is None else np.asarray(classes)
        for known in (names, before):
            if known is not None and len(known) != y.shape[1]:
                raise ValueError(
                    f"y has {y.shape[1]} columns, but there are {len(known)} labels: "
                    f"{known.tolist()}. A column for each of them is needed."
                )
        return np.arange(y.shape[1]) if names is None else names
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


def check_indices(indices: ArrayLike, n: int) -> np.ndarray:
    """Raise ValueError unless `indices` are distinct ints from 0 to n - 1."""
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


def encode(y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return positions in `classes` (n,), or float32 rows of zeros and ones."""
    return y.astype(np.float32) if y.ndim == 2 else np.searchsorted(classes, y)


def refuse_other_form(multilabel: bool, before: bool) -> None:
    """Raise ValueError if one training has one label per image and the next several."""
    if multilabel != before:
        forms = ("one label per image", "several labels per image")
        raise ValueError(
            f"y has {forms[multilabel]}, but the network that is to go on training was "
            f"fitted with {forms[before]}. Fit it anew with warm_start=False."
        )


def unlabelled_mask(y: ArrayLike, classes: ArrayLike | None = None) -> np.ndarray:
    """Find the entries of `y` (n,) that have no label yet: -1, None or NaN.

    An integer -1 is a label where `classes` names it, and, without `classes`, where
    -1 and 1 are all there is: the usual coding of a binary task.
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


def _refuse_missing(
    y: ArrayLike, classes: ArrayLike | None, before: np.ndarray
) -> None:
    """Raise ValueError if some labels stand for none, see :func:`unlabelled_mask`."""
    given = np.asarray(unmixed(y))
    if given.ndim != 1:
        return  # not a list of labels; check_labels raises
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


def unmixed(y: Any) -> Any:
    """Keep NumPy from turning a NaN or a -1 among strings into a string."""
    if hasattr(y, "isna") and y.isna().any():  # a Series: NA, NaT and their kin
        return y.astype(object).where(~y.isna(), None)
    if isinstance(y, (list, tuple)) and len({isinstance(v, str) for v in y}) > 1:
        return np.array(y, dtype=object)
    return y


def plain_labels(y: np.ndarray) -> np.ndarray:
    """Give labels without None their natural type instead of object."""
    return np.array(y.tolist()) if y.dtype.kind == "O" else y


def is_multilabel_form(y: Any) -> bool:
    """Tell whether `y` has several columns: scikit-learn's multi-label form."""
    if sparse.issparse(y):
        return True
    try:
        shape = np.asarray(y).shape
    except ValueError:  # rows of several lengths
        return False
    return len(shape) == 2 and shape[1] > 1


def _check_indicator(y: Any, name: str) -> np.ndarray:
    """Check labels (n, n_labels) for zeros and ones; `name` is the estimator's."""
    y, missing = _partial_indicator(y, name)
    if missing.any():
        raise ValueError(
            f"{name}: rows of y are -1, None or NaN, the first is row "
            f"{missing.argmax()}. Pass only labelled images."
        )
    return y


def _partial_indicator(y: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Check labels (n, n_labels) of which rows may be -1, None or NaN throughout.

    Returns ints, with -1 in the rows that are missing, and a mask of these rows.
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
