"""Features and probabilities of a pool, as strategies get them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import sparse

from .._utils.lazy_rows import (
    AnyRows,
    LazyRows,
    as_working,
    per_row,
    row_by_row,
    selected,
)
from ..features.estimators import (
    NetworkAdapter,
    check_finite,
    get_adapter,
    per_label,
    target_proba,
    unwrap,
)
from ..images.selection import is_stored, n_images


@dataclass(frozen=True)
class PoolFeatures:
    """Features and probabilities of the usable images of a pool.

    Rows are LazyRows where the pool is a feature store or a memory-mapped array of more
    than a block.
    """

    indices: np.ndarray  # (n,): positions in X_pool of images that can be decoded
    features: AnyRows  # (n, d): a layer's outputs, or the classifier's own rows
    proba: AnyRows | None  # (n, C) or (n, L, 2); None before the first fit
    labeled: np.ndarray  # (m, d): features of the labelled images
    labeled_indices: np.ndarray  # (m,): positions of those in X_labeled
    # Maps changed features (n, d) to probabilities; None before the first fit.
    predict_features: Callable[[np.ndarray], np.ndarray] | None
    store: Any = None  # the usable images, where the pool is a store


def extract_pool_features(
    estimator: Any,
    X_pool: Any,
    X_labeled: Any,
    layer: int | str,
    *,
    initial: bool,
    use_proba: bool = True,
) -> PoolFeatures:
    """Pass over a pool once, for features and probabilities.

    `layer` is one of a CNNClassifier; other classifiers' rows are taken as they are.
    With `initial` the features are those of the pretrained network. `X_labeled` may
    be None.
    """
    if X_labeled is not None and not n_images(X_labeled):
        X_labeled = None
    inner, X, X_labeled = unwrap(estimator, X_pool, X_labeled)
    adapter = get_adapter(inner)
    if adapter is not None:
        adapter = adapter.with_range_of(X)
    features, proba = _outputs(inner, adapter, X, layer, initial, use_proba)
    finite = _finite(X, features, proba)
    check_finite(finite, estimator, X_pool)
    usable = np.flatnonzero(finite)
    labeled, rows = features[:0], np.empty(0, dtype=np.intp)
    if X_labeled is not None:
        found, _ = _outputs(inner, adapter, X_labeled, layer, initial, False)
        labeled = np.asarray(found)
        rows = np.flatnonzero(np.isfinite(labeled).all(axis=1))
        labeled = labeled[rows]
    if len(usable) < len(features):
        features = selected(features, usable)
        proba = None if proba is None else selected(proba, usable)
    predict_features = None
    if proba is not None:
        predict_features = (
            inner.predict_proba
            if adapter is None
            else partial(adapter.predict_features, layer=layer)
        )
    store = X.select(usable) if is_stored(X) else None
    return PoolFeatures(usable, features, proba, labeled, rows, predict_features, store)


def _finite(X: Any, features: AnyRows, proba: AnyRows | None) -> np.ndarray:
    """Which rows have finite numbers throughout, shape (n,)."""
    if is_stored(X):
        return X.readable  # the store checked the others when it extracted them
    finite = per_row(features, lambda rows: np.isfinite(rows).all(axis=1))
    if proba is not None:
        axes = tuple(range(1, proba.ndim))
        finite &= per_row(proba, lambda rows: np.isfinite(rows).all(axis=axes))
    return finite


def _outputs(
    estimator: Any,
    adapter: NetworkAdapter | None,
    X: Any,
    layer: int | str,
    initial: bool,
    use_proba: bool,
) -> tuple[AnyRows, AnyRows | None]:
    """Return features and, unless unwanted or not fitted, probabilities."""
    if is_stored(X):
        stored = X.outputs(estimator, layer, initial=initial, proba=use_proba)
        if len(X) > X.block_rows:
            return stored.features, stored.proba
        proba = None if stored.proba is None else stored.proba[:]
        return stored.features[:], proba
    if isinstance(X, LazyRows):
        features = row_by_row(as_working, X)
        return features, target_proba(estimator, X) if use_proba else None
    if adapter is None:
        features = X.toarray() if sparse.issparse(X) else np.asarray(X)
        features = as_working(features)
        if features.ndim != 2:
            raise TypeError(
                f"{type(estimator).__name__} has no layers to take features from, and "
                f"X of shape {features.shape} is no table. Take a CNNClassifier, or a "
                "classifier of rows."
            )
        return features, target_proba(estimator, X) if use_proba else None
    position, head = adapter.position(layer), adapter.n_layers - 1
    from_source = initial or not adapter.fitted
    use_proba = use_proba and adapter.fitted
    adapted_layers = ([] if from_source else [position]) + ([head] if use_proba else [])
    source_layers = [position] if from_source else []
    adapted, source = adapter.collect(X, adapted_layers, source_layers)
    layer_outputs = (source if from_source else adapted)[position]
    if not use_proba:
        return layer_outputs, None
    proba = adapter.proba_of(adapted[head])
    return layer_outputs, per_label(proba) if adapter.multilabel else proba
