"""What strategies and evaluation ask of a classifier, bare or inside a wrapper.

Wrappers are a Pipeline that ends in the classifier, and modAL's learner around it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline

from .._utils.lazy_rows import AnyRows, LazyRows, row_by_row
from ..images.dataset import StoredImages, n_images, rows_of_file, take
from .adapter import NetworkAdapter, get_adapter, need_adapter
from .store import FeatureStore


def innermost(estimator: Any) -> Any:
    """Find the classifier inside wrappers."""
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


def unwrap(estimator: Any, X: Any, X_labeled: Any = None) -> tuple[Any, Any, Any]:
    """Find the classifier inside wrappers, and transform images as the steps before do.

    Steps that are not fitted yet (round 0) are fitted to `X` as copies.
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
                X_new = row_by_row(step.transform, X)
            except (NotFittedError, AttributeError):  # old PCAs raise the latter
                step = clone(step).fit(X)
                X_new = row_by_row(step.transform, X)
            if X_labeled is not None:
                X_labeled = step.transform(X_labeled)
            X = X_new
        estimator = inside
    return estimator, X, X_labeled


def find_adapter(estimator: Any, X: Any) -> tuple[NetworkAdapter, Any]:
    """Return the adapter of an estimator inside wrappers, and transformed images."""
    inner, X, _ = unwrap(estimator, X)
    return need_adapter(inner), X


def labels_fitted_with(estimator: Any) -> int:
    """Number of labels an estimator was fitted with, 0 if unfitted or unknown."""
    if hasattr(estimator, "X_training"):
        seen = estimator.X_training
        return 0 if seen is None else n_images(seen)
    return getattr(innermost(estimator), "n_labels_", 0)


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


def target_proba(estimator: Any, X: Any) -> AnyRows | None:
    """Class probabilities, or None where the classifier is not fitted yet.

    Shape (n, n_classes); with several labels per image (n, n_labels, 2). Those of a
    feature store or of LazyRows are computed when they are read.
    """
    estimator, X, _ = unwrap(estimator, X)
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(
            f"{estimator!r} has no predict_proba, which this strategy needs. Take a "
            "classifier with probabilities, or RandomSampling."
        )
    try:
        if isinstance(X, FeatureStore):
            return X.proba(estimator)
        if isinstance(X, LazyRows):
            return row_by_row(partial(_target_proba, estimator), X)
        return _target_proba(estimator, X)
    except NotFittedError:
        return None


def _target_proba(estimator: Any, X: Any) -> np.ndarray:
    proba = estimator.predict_proba(X)
    if isinstance(proba, list):  # an array per label
        present = np.zeros((len(proba[0]), len(proba)))
        for k, (rows, values) in enumerate(zip(proba, estimator.classes_, strict=True)):
            for column in np.flatnonzero(np.asarray(values) == 1):
                present[:, k] = rows[:, column]
        proba = present
    return per_label(proba) if is_multilabel(estimator) else proba


def proba_of_scores(adapter: NetworkAdapter, scores: torch.Tensor) -> np.ndarray:
    """Class probabilities of a network's scores, in the shapes of `target_proba`."""
    scores = scores.double()
    if adapter.multilabel:
        return per_label(torch.sigmoid(scores).cpu().numpy())
    return torch.softmax(scores, dim=1).cpu().numpy()


def per_label(proba: np.ndarray) -> np.ndarray:
    """Make pairs (absent, present) of labels' probabilities: (n, L) to (n, L, 2)."""
    return np.stack([1 - proba, proba], axis=2)


def in_blocks(X: Any) -> Iterator[tuple[int, Any]]:
    """Yield blocks of a pool on the disk with their starts; any other pool whole."""
    X = rows_of_file(X)
    if not isinstance(X, (FeatureStore, LazyRows)):
        yield 0, X
        return
    block = X.block_rows if isinstance(X, FeatureStore) else X.block
    for start in range(0, len(X), block):
        yield start, take(X, np.arange(start, min(start + block, len(X))))


def check_finite(finite: np.ndarray, estimator: Any, X: Any) -> None:
    """Raise if the scores or features of readable images are not finite.

    `finite` is a bool for each image of `X`. Images that cannot be decoded may be NaN.
    """
    wrong = np.flatnonzero(~finite)
    if not len(wrong):
        return
    inner, X_inner, _ = unwrap(estimator, X)
    adapter = get_adapter(inner)
    params = inner.get_params() if hasattr(inner, "get_params") else {}
    if adapter is not None:
        wrong = wrong[adapter.readable(take(X_inner, wrong))]
    elif any(v == "skip" for k, v in params.items() if k.endswith("on_bad_image")):
        return  # a committee whose members may skip unreadable images
    if len(wrong):
        some = take(X, wrong[:3])
        named = [
            repr(str(item)) if isinstance(item, (str, os.PathLike)) else f"X[{i}]"
            for i, item in zip(wrong[:3], some, strict=False)
        ]
        raise ValueError(
            f"The scores of {len(wrong)} image(s) are NaN or infinite, the first: "
            f"{', '.join(named)}. Training has diverged, or the image's values are not "
            "finite: fit with a lower learning rate (lr, head_lr), or check the image."
        )
