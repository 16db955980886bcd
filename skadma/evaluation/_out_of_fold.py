"""Probabilities for labelled images from models that did not see their labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples

from .._utils.processes import progress_bar
from ..features.estimators import innermost
from ..images.selection import take
from ..targets.labels import check_labels, known_classes


def out_of_fold_proba(
    estimator: Any,
    X: Any,
    y: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    n_folds: int = 5,
    random_state: int | np.random.RandomState | None = 0,
    verbose: bool = False,
) -> np.ndarray:
    """Predict each labelled image with a model that was trained without its label.

    A model is overconfident on its own training images, those with a wrong label
    included. Here the labels are dealt to folds, class by class, and each fold is
    predicted by a copy that was fitted to the others.

    The only image of a class stays in all trainings, and its row is NaN: a model that
    has not seen it cannot predict its class.

    Parameters
    ----------
    estimator : object
        A classifier with ``predict_proba``, or a Pipeline that ends in one. It is
        cloned.
    X : images or array-like of shape (n, ...)
        Labelled ones only.
    y : array-like of shape (n,)
    classes : array-like, optional
        All labels of the task; those in `y` if None.
    n_folds : int, default=5
        At least 2. No more than the largest class has labels are made.
    random_state : int, RandomState instance or None, default=0
        Deals the labels to the folds.
    verbose : bool, default=False
        Show a progress bar over the trainings.

    Returns
    -------
    ndarray of shape (n, n_classes)
        Columns in the order of the sorted classes. 0 in the column of a class that a
        classifier without the parameter ``classes`` was not shown.

    Raises
    ------
    ValueError
        If labels are missing or too few, or `n_folds` is below 2.
    """
    labels = check_labels(y, estimator, classes)
    every = known_classes(labels, classes)
    if _num_samples(X) != len(labels):
        raise ValueError(f"X has {_num_samples(X)} images, y {len(labels)} labels.")
    if n_folds < 2:
        raise ValueError(f"n_folds={n_folds}; at least 2 are needed.")
    seen, members, counts = np.unique(labels, return_inverse=True, return_counts=True)
    judged = np.flatnonzero(counts[members] >= 2)
    if (counts >= 2).sum() < 2:
        raise ValueError(
            "Out-of-fold probabilities need two classes with at least two labels each, "
            f"got {dict(zip(seen.tolist(), counts.tolist(), strict=True))}. Label some "
            "more images."
        )
    proba = np.full((len(labels), len(every)), np.nan)
    fold = np.full(len(labels), -1)  # the only image of a class is in no fold
    fold[judged] = _folds(
        members[judged],
        min(n_folds, int(counts.max())),
        check_random_state(random_state),
    )
    folds = range(fold.max() + 1)
    for k in progress_bar(
        folds, desc="out of fold", unit=" trainings", disable=not verbose
    ):
        held, shown = np.flatnonzero(fold == k), np.flatnonzero(fold != k)
        model = clone(estimator)
        if "classes" in innermost(model).get_params(deep=False):
            innermost(model).set_params(classes=every)
        model.fit(take(X, shown), labels[shown])
        proba[held] = 0
        columns = np.searchsorted(every, model.classes_)
        found = model.predict_proba(take(X, held))
        proba[np.ix_(held, columns)] = found
    return proba


def _folds(members: np.ndarray, n_folds: int, rng: np.random.RandomState) -> np.ndarray:
    """Deal the labels to folds, the numbers of a class differing by at most one."""
    order = rng.permutation(len(members))
    order = order[np.argsort(members[order], kind="stable")]
    fold = np.empty(len(members), dtype=int)
    fold[order] = np.arange(len(members)) % n_folds
    return fold
