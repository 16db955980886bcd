"""A pool as the strategies see it that choose whole batches by features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import sparse

from .._utils.candidates import check_enough
from .._utils.lazy_rows import LazyRows, as_working, per_row, selected
from ..features.adapter import get_adapter
from ..features.estimators import per_label, target_proba, unwrap_both
from ..features.store import FeatureStore
from ..images.dataset import n_images
from .base import Request, check_finite


@dataclass(frozen=True)
class Pool:
    """The usable images of a pool, by their features.

    Attributes
    ----------
    indices : ndarray of int, shape (n,)
        Where they are in X_pool; those that cannot be decoded are missing.
    features : ndarray or LazyRows of shape (n, d)
        A layer's outputs, or the rows themselves where the classifier takes rows. Of
        a feature store, or of a memory-mapped array, of more than a block they stay
        on the disk.
    proba : ndarray or LazyRows of shape (n, n_classes), or (n, n_labels, 2), or None
        Class probabilities, the latter with several labels per image; None before the
        first fit.
    labeled : ndarray of shape (m, d)
        The features of what has a label; m may be 0.
    labeled_indices : ndarray of int, shape (m,)
        Where those are in X_labeled.
    predict_features : callable or None
        Maps changed features (n, d) to probabilities; None before the first fit.
    store : FeatureStore or None
        The images, where they are of one.
    """

    indices: np.ndarray
    features: np.ndarray | LazyRows
    proba: np.ndarray | LazyRows | None
    labeled: np.ndarray
    labeled_indices: np.ndarray
    predict_features: Callable[[np.ndarray], np.ndarray] | None
    store: FeatureStore | None = None


def extract_pool_features(
    request: Request,
    layer: int | str,
    initial: bool,
    *,
    use_labeled: bool = True,
    use_proba: bool = True,
) -> Pool:
    """Pass over a pool once, for features and probabilities.

    Parameters
    ----------
    request : Request
    layer : int or str
        Of a CNNClassifier; other classifiers' rows are taken as they are.
    initial : bool
        Take the features from M0 instead of the present network.
    use_labeled : bool
        Whether the labelled images' features are wanted.
    use_proba : bool
        Whether probabilities are.

    Raises
    ------
    TooFewCandidatesError
        If fewer images are usable than are asked for.
    """
    X_labeled = request.X_labeled
    if X_labeled is not None and not (use_labeled and n_images(X_labeled)):
        X_labeled = None
    estimator, X, X_labeled = unwrap_both(request.estimator, request.X_pool, X_labeled)
    features, proba = _outputs(estimator, X, layer, initial, use_proba)
    finite = _finite(X, features, proba)
    check_finite(finite, request.estimator, request.X_pool)
    usable = np.flatnonzero(finite)
    check_enough(len(usable), request.n_instances, len(features))
    labeled, rows = features[:0], np.empty(0, dtype=np.intp)
    if X_labeled is not None:
        labeled = np.asarray(_outputs(estimator, X_labeled, layer, initial, False)[0])
        rows = np.flatnonzero(np.isfinite(labeled).all(axis=1))
        labeled = labeled[rows]
    if len(usable) < len(features):
        features = selected(features, usable)
        proba = None if proba is None else selected(proba, usable)
    return Pool(
        usable,
        features,
        proba,
        labeled,
        rows,
        None if proba is None else _head(estimator, layer),
        X.select(usable) if isinstance(X, FeatureStore) else None,
    )


def _finite(
    X: Any, features: np.ndarray | LazyRows, proba: np.ndarray | LazyRows | None
) -> np.ndarray:
    """Which rows have numbers throughout, shape (n,)."""
    if isinstance(X, FeatureStore):
        return X.readable  # the others were checked as they were scanned
    finite = per_row(features, lambda rows: np.isfinite(rows).all(axis=1))
    if proba is not None:
        axes = tuple(range(1, proba.ndim))
        finite &= per_row(proba, lambda rows: np.isfinite(rows).all(axis=axes))
    return finite


def _outputs(
    estimator: Any, X: Any, layer: int | str, initial: bool, use_proba: bool
) -> tuple[np.ndarray | LazyRows, np.ndarray | LazyRows | None]:
    if isinstance(X, FeatureStore):
        stored = X.outputs(estimator, layer, initial=initial, proba=use_proba)
        if len(X) > X.block_rows:
            return stored.features, stored.proba
        proba = None if stored.proba is None else stored.proba[:]
        return stored.features[:], proba
    if isinstance(X, LazyRows):
        return X.map(as_working), target_proba(estimator, X) if use_proba else None
    view = get_adapter(estimator)
    if view is None:
        features = X.toarray() if sparse.issparse(X) else np.asarray(X)
        features = as_working(features)
        if features.ndim != 2:
            raise TypeError(
                f"{type(estimator).__name__} has no layers to take features from, and "
                f"X of shape {features.shape} is no table. Take a CNNClassifier, or a "
                "classifier of rows."
            )
        return features, target_proba(estimator, X) if use_proba else None
    position, head = view.position(layer), view.n_layers - 1
    from_source = initial or not view.fitted
    use_proba = use_proba and view.fitted
    adapted = ([] if from_source else [position]) + ([head] if use_proba else [])
    of_source_wanted = [position] if from_source else []
    of_adapted, of_source = view.collect(X, adapted, of_source_wanted)
    found = of_source if from_source else of_adapted
    if not use_proba:
        return found[position], None
    proba = view.proba_of(of_adapted[head])
    return found[position], per_label(proba) if view.multilabel else proba


def _head(estimator: Any, layer: int | str) -> Callable[[np.ndarray], np.ndarray]:
    view = get_adapter(estimator)
    if view is None:
        return estimator.predict_proba
    return partial(view.predict_features, layer=layer)
