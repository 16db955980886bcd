"""What a strategy is given for a classifier, and what it can be asked."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline

from .._utils.lazy_rows import LazyRows
from ..images.dataset import StoredImages, n_images, rows_of_file, take
from .adapter import NetworkAdapter, get_adapter
from .store import FeatureStore


def unwrap(estimator: Any, X: Any) -> tuple[Any, Any]:
    """Find the classifier inside wrappers, and what `X` becomes on the way to it.

    Parameters
    ----------
    estimator : object
        A classifier, a Pipeline or modAL's learner.
    X : images or array-like

    Returns
    -------
    estimator : object
        The classifier.
    X : object
        As the classifier gets it. Steps before it that are not fitted yet (round 0)
        are fitted to `X` as copies.
    """
    return unwrap_both(estimator, X, None)[:2]


def unwrap_both(estimator: Any, X: Any, X_labeled: Any) -> tuple[Any, Any, Any]:
    """Find the classifier, and what a pool and the labelled become on the way to it.

    Parameters
    ----------
    estimator : object
        A classifier, a Pipeline or modAL's learner.
    X : images or array-like
        Steps that are not fitted yet are fitted to it as copies.
    X_labeled : images, array-like or None

    Returns
    -------
    estimator, X, X_labeled
    """
    X = rows_of_file(X)
    while (inside := _inside(estimator)) is not estimator:
        for _, step in estimator.steps[:-1] if isinstance(estimator, Pipeline) else ():
            if step is None or step == "passthrough":
                continue
            if isinstance(X, StoredImages):
                raise TypeError(
                    f"A feature store is of images as the network gets them, but "
                    f"{step!r} would change them before. Give the images, or the "
                    "classifier without steps before it."
                )
            try:
                X_new = _through(step, X)
            except (NotFittedError, AttributeError):  # old PCAs raise the latter
                step = clone(step).fit(X)
                X_new = _through(step, X)
            if X_labeled is not None:
                X_labeled = step.transform(X_labeled)
            X = X_new
        estimator = inside
    return estimator, X, X_labeled


def _through(step: Any, X: Any) -> Any:
    return X.map(step.transform) if isinstance(X, LazyRows) else step.transform(X)


def innermost(estimator: Any) -> Any:
    """Find the classifier inside wrappers, see :func:`unwrap`, and touch no images."""
    while (inside := _inside(estimator)) is not estimator:
        estimator = inside
    return estimator


def _inside(estimator: Any) -> Any:
    """Open one wrapper; the estimator itself where it is none."""
    if isinstance(estimator, Pipeline):
        return estimator.steps[-1][1]
    if hasattr(estimator, "X_training") and hasattr(estimator, "estimator"):
        return estimator.estimator  # modAL's learners
    return estimator


def find_cnn(estimator: Any, X: Any, user: str) -> tuple[NetworkAdapter, Any]:
    """Unwrap an estimator down to the network that a strategy looks into.

    Raises
    ------
    TypeError
        If there is none.
    """
    inner, X = unwrap(estimator, X)
    view = get_adapter(inner)
    if view is None:
        raise TypeError(
            f"{user} looks into a network, so it needs a CNNClassifier (also at the "
            f"end of a Pipeline or inside modAL's learner); got {inner!r}. "
            "MarginSampling, EntropySampling and LeastConfident take any classifier."
        )
    return view, X


def labels_fitted_with(estimator: Any) -> int:
    """How many labels an estimator was fitted with, 0 if unfitted or unknown."""
    if hasattr(estimator, "X_training"):
        seen = estimator.X_training
        return 0 if seen is None else n_images(seen)
    if isinstance(estimator, Pipeline):
        estimator = estimator.steps[-1][1]
    return getattr(estimator, "n_labels_", 0)


def is_multilabel(estimator: Any) -> bool:
    """Tell whether a classifier was fitted with several labels per image."""
    inner = innermost(estimator)
    classes = getattr(inner, "classes_", None)
    return (
        bool(getattr(inner, "multilabel_", False))  # CNNClassifier, OneVsRestClassifier
        # Forests, neighbours, MultiOutputClassifier: each output's classes.
        or (isinstance(classes, list) and all(np.ndim(c) == 1 for c in classes))
        # MLPClassifier
        or (
            getattr(inner, "out_activation_", None) == "logistic"
            and inner.n_outputs_ > 1
        )
    )


def per_label(proba: np.ndarray) -> np.ndarray:
    """Make pairs (absent, present) of the probabilities of labels.

    Parameters
    ----------
    proba : ndarray of shape (n, n_labels)

    Returns
    -------
    ndarray of shape (n, n_labels, 2)
        As :func:`skadma.strategies.adma.uncertainty` takes it.
    """
    return np.stack([1 - proba, proba], axis=2)


def proba_of_scores(view: NetworkAdapter, scores: torch.Tensor) -> np.ndarray:
    """Class probabilities of a network's scores, as :func:`target_proba` gives them."""
    scores = scores.double()
    if view.multilabel:
        return per_label(torch.sigmoid(scores).cpu().numpy())
    return torch.softmax(scores, dim=1).cpu().numpy()


def _present(proba: list[np.ndarray], classes: list[np.ndarray]) -> np.ndarray:
    """A column per label of scikit-learn's list of arrays, one per label."""
    found = np.zeros((len(proba[0]), len(proba)))
    for k, (rows, values) in enumerate(zip(proba, classes, strict=True)):
        for column in np.flatnonzero(np.asarray(values) == 1):
            found[:, k] = rows[:, column]
    return found


def target_proba(estimator: Any, X: Any) -> np.ndarray | LazyRows | None:
    """Class probabilities, or None where the classifier is not fitted yet.

    Shape (n, n_classes); with several labels per image (n, n_labels, 2). Of a feature
    store or of rows on the disk they are not computed before they are read.
    """
    estimator, X = unwrap(estimator, X)
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(
            f"{estimator!r} has no predict_proba, which this strategy needs. Take a "
            "classifier with probabilities, or RandomSampling."
        )
    try:
        if isinstance(X, FeatureStore):
            return X.proba(estimator)
        if isinstance(X, LazyRows):
            return X.map(partial(_proba, estimator))
        return _proba(estimator, X)
    except NotFittedError:
        return None


def _proba(estimator: Any, X: Any) -> np.ndarray:
    proba = estimator.predict_proba(X)
    if isinstance(proba, list):
        proba = _present(proba, estimator.classes_)
    return per_label(proba) if is_multilabel(estimator) else proba


def in_blocks(X: Any) -> Iterator[tuple[int, Any]]:
    """Divide a pool on the disk into blocks; any other pool is one.

    Parameters
    ----------
    X : images or array-like

    Yields
    ------
    start : int
    part : images or array-like
    """
    X = rows_of_file(X)
    if not isinstance(X, (FeatureStore, LazyRows)):
        yield 0, X
        return
    block = X.block_rows if isinstance(X, FeatureStore) else X.block
    for start in range(0, len(X), block):
        yield start, take(X, np.arange(start, min(start + block, len(X))))
