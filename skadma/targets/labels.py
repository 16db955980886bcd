"""Labels: one per image, or rows of zeros and ones; checks, and what is unlabelled."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets

_WRITTEN_GAPS = {
    *("", "-1", "-1.0", "nan", "NaN", "NaT", "None"),
    *("null", "NULL", "NA", "N/A", "n/a", "<NA>"),
}
"""What other programs write where there is no label, with spaces around it or not."""


def as_labels(y: Any) -> Any:
    """Return labels of any form as an array; a sparse matrix stays one.

    A table of one column becomes that column. Gaps of pandas (NA, NaT), polars and
    pyarrow, and masked entries, become None, or NaN in an array of floats.
    """
    if sparse.issparse(y):
        return y
    # pyarrow's tables have column_names; pandas' and polars' have columns.
    columns = getattr(y, "column_names", getattr(y, "columns", None))
    if columns is not None and len(columns) == 1:
        y = y[columns[0]]
    if isinstance(y, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(y)
        y = y.data
        if mask.any():
            y = y.astype(object)
            y[mask] = None
    try:
        array = np.asarray(y)
    except ValueError:  # rows of several lengths
        return y
    if isinstance(y, (list, tuple)):
        # NumPy would turn a NaN or a -1 among strings into a string.
        if len({isinstance(v, str) for v in y}) > 1:
            array = np.array(y, dtype=object)
    elif array.ndim == 1 and array.dtype.kind == "f" and np.isnan(array).any():
        # NumPy turns integers with gaps into floats. pandas' arrays have tolist alone.
        names = ("to_pylist", "to_list", "tolist")
        as_list = next((getattr(y, name) for name in names if hasattr(y, name)), None)
        if as_list is not None and not isinstance(y, np.ndarray):
            array = np.array(as_list(), dtype=object)
    elif array.dtype.kind == "T":
        array = array.astype(object)
    if array.dtype.kind != "O":
        return array
    missing = _each(_is_none, array)
    if missing.any():
        array = array.copy()
        array[missing] = None
    return array


def _each(test: Any, array: np.ndarray) -> np.ndarray:
    return np.array([test(v) for v in array.ravel()], dtype=bool).reshape(array.shape)


def _is_none(value: Any) -> bool:
    if value is None:
        return True
    try:
        return bool(value != value)  # NaN and NaT
    except TypeError:  # pandas.NA
        return True
    except ValueError:  # an array
        return False


def check_labels(
    y: ArrayLike | None, estimator: Any, classes: ArrayLike | None = None
) -> np.ndarray:
    """Check the labels of a classification task, (n,) or (n, n_labels).

    ValueError if there are none, some are missing, or they are not class labels. The
    class of `estimator` is named in messages; `classes` are all labels of the task, if
    they are given.
    """
    name = type(estimator).__name__
    if y is None:
        raise ValueError(
            f"{name} requires y to be passed, but the target y is None: pass one label "
            "per image."
        )
    y = as_labels(y)
    if is_multilabel_form(y):
        return _check_indicator(y, name)
    labels: np.ndarray = column_or_1d(y, warn=True)
    is_infinite = labels.dtype.kind == "f" and np.isinf(labels).any()
    if is_infinite or unlabelled_mask(labels, [-1]).any():
        raise ValueError(
            f"{name}: the labels y contain None, NaN or infinity. Pass only labelled "
            "images."
        )
    _refuse_written_gaps(labels, classes)
    if labels.dtype.kind == "O" and not any(isinstance(v, str) for v in labels):
        labels = plain_labels(labels)
    # Three of each: scikit-learn takes many classes of few labels for a regression.
    check_classification_targets(np.repeat(labels, 3))
    return labels


def partial_labels(
    y: ArrayLike | None, classes: ArrayLike | None, estimator: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check labels of which some, none or all may be missing.

    Returns the labels, (n,) or (n, n_labels), a mask (n,) of what is missing (see
    :func:`unlabelled_mask`; of several labels per image, whole rows), and all labels
    known so far, sorted or, of several per image, in the columns' order.
    """
    if y is None:
        check_labels(y, estimator)  # raises
    y = as_labels(y)
    if is_multilabel_form(y):
        matrix, missing = _partial_indicator(y, type(estimator).__name__)
        return matrix, missing, known_classes(matrix, classes)
    labels: np.ndarray = column_or_1d(y, warn=True)
    _refuse_written_gaps(labels, classes)
    missing = unlabelled_mask(labels, classes)
    if classes is None and labels.dtype.kind == "f" and np.isnan(labels).all():
        raise ValueError(
            "y is NaN throughout. If no image has a label yet, say by classes= "
            "which labels there will be, or mark the images with -1 or None."
        )
    known = labels[~missing]
    if len(known):
        if classes is None and missing.any():
            _refuse_ambiguous(labels, known)
        known = check_labels(plain_labels(known), estimator, classes)
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
    array: Any = as_labels(labels)
    if y.ndim == 2:
        rows = array if is_multilabel_form(array) else np.atleast_2d(array)
        given = _check_indicator(rows, type(estimator).__name__)
    else:
        # Of a table, check_labels raises.
        is_list = isinstance(array, np.ndarray) and array.ndim == 1
        if is_list and (missing := unlabelled_mask(array, declared)).any():
            raise ValueError(
                f"The label {array[missing].tolist()[0]!r} stands for none and is not "
                "among the classes. Teach only images that have a label, or name all "
                "classes by classes= if it is one of them."
            )
        given = check_labels(array, estimator, declared)
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
        _refuse_same_text(seen)
        return seen
    known = np.unique(np.asarray(classes))
    _refuse_same_text(np.union1d(seen, known))
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

    A -1 is a label where `classes` names it, and nowhere else.
    """
    array: np.ndarray = as_labels(y)
    if array.dtype.kind not in "ifO":
        return np.zeros(array.shape, dtype=bool)
    mask = np.isnan(array) if array.dtype.kind == "f" else _each(_is_none, array)
    if classes is None or not _each(_is_minus_one, np.asarray(classes)).any():
        mask |= _each(_is_minus_one, array)
    return mask


def _is_minus_one(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and value == -1


def _refuse_ambiguous(y: np.ndarray, known: np.ndarray) -> None:
    """Raise ValueError if -1 and 1 are all there is, and -1 might be a class."""
    numbers = all(isinstance(v, (int, float, np.number)) for v in known.tolist())
    if numbers and (known == 1).all() and _each(_is_minus_one, y).any():
        raise ValueError(
            "y consists of 1 and -1, and -1 stands for images without a label. If it "
            "is a class, give classes=[-1, 1]. If it stands for no label, give "
            "classes without -1, such as classes=[0, 1], or None or NaN in its place."
        )


def _refuse_written_gaps(y: np.ndarray, classes: ArrayLike | None) -> None:
    """Raise ValueError if strings such as "nan" are labels that `classes` lacks."""
    if y.dtype.kind not in "UO":
        return
    names = () if classes is None else np.asarray(classes, dtype=object).tolist()
    written = {v for v in y.tolist() if isinstance(v, str)} - {*names}
    found = {v for v in written if v.strip() in _WRITTEN_GAPS}
    if found:
        raise ValueError(
            f"y has the labels {sorted(found)}, which look like missing ones. If they "
            "are classes, name all classes by classes=. Where an image has no label, "
            "ActiveLearner.fit takes None or NaN; leave it out elsewhere."
        )


def _refuse_same_text(labels: np.ndarray) -> None:
    """Raise ValueError if labels differ in the Unicode form of their accents only."""
    first: dict[str, str] = {}
    for label in labels.tolist():
        if isinstance(label, str):
            same = first.setdefault(unicodedata.normalize("NFC", label), label)
            if same != label:
                raise ValueError(
                    f"The labels {ascii(same)} and {ascii(label)} are the same text in "
                    "two Unicode forms. Bring y and classes to one of them, for "
                    "example by unicodedata.normalize('NFC', label)."
                )


def plain_labels(y: np.ndarray) -> np.ndarray:
    """Give labels without None their natural type instead of object."""
    return np.array(y.tolist()) if y.dtype.kind == "O" else y


def is_multilabel_form(y: Any) -> bool:
    """Tell whether what `as_labels` returns has a column for each of several labels."""
    if sparse.issparse(y):
        return True
    return isinstance(y, np.ndarray) and y.ndim == 2 and y.shape[1] > 1


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
    """Return labels (n, n_labels) as ints, and a mask of rows that are missing.

    These are -1, None or NaN throughout, and become -1.
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
