"""scikit-activeml's strategies as ours, and ours as theirs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone

from .._utils.candidates import check_enough
from ..images.selection import n_images
from ._pool_features import PoolFeatures, extract_pool_features
from .base import QueryStrategy, Request, global_seed


def from_skactiveml(strategy: Any, **kwargs: Any) -> SkactivemlStrategy:
    """Make a strategy of one of scikit-activeml's.

    As X it gets the outputs of a CNNClassifier's layer -2 (rows of other classifiers as
    they are). If its ``query`` takes a classifier, these are the adapted network's, and
    it gets one that maps them to the present model's probabilities and that is never
    trained; else they are the pretrained network's.

    Parameters
    ----------
    strategy : skactiveml.base.SingleAnnotatorPoolQueryStrategy
        With its default `missing_label`, NaN.
    **kwargs
        More arguments of its ``query``, for example `ensemble`.

    Returns
    -------
    SkactivemlStrategy
    """
    return SkactivemlStrategy(strategy, kwargs)


def to_skactiveml(strategy: QueryStrategy, **kwargs: Any) -> Any:
    """Make a strategy of scikit-activeml of one of ours.

    Parameters
    ----------
    strategy : QueryStrategy
    **kwargs
        `missing_label` and `random_state`, as theirs have them.

    Returns
    -------
    skactiveml.base.SingleAnnotatorPoolQueryStrategy
        Its ``query`` takes `X`, `y`, `clf` (a SkactivemlClassifier, for CNNs
        ``SklearnClassifier(CNNClassifier(...), classes=...)``), `fit_clf`,
        `candidates`, `batch_size` and `return_utilities`.
    """
    from ._to_skactiveml import SkadmaQueryStrategy

    return SkadmaQueryStrategy(strategy, **kwargs)


class SkactivemlStrategy(QueryStrategy):
    """A strategy of scikit-activeml; see :func:`from_skactiveml`.

    Parameters
    ----------
    strategy, kwargs
        As there.
    random_state : int, RandomState instance or None, default=None
        Seeds the strategy if it has no seed of its own.
    """

    def __init__(
        self,
        strategy: Any,
        kwargs: dict[str, Any] | None = None,
        *,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(random_state=random_state)
        self.strategy = strategy
        self.kwargs = kwargs

    def _choose(self, request: Request) -> tuple[np.ndarray, np.ndarray]:
        theirs = clone(self.strategy)
        arguments = dict(self.kwargs or {})
        takes = inspect.signature(theirs.query).parameters
        asked = {"clf", "estimator"} & set(takes) - set(arguments)
        # The adapted network's last layer needs the adapted network's features.
        pool = extract_pool_features(
            request.estimator,
            request.X_pool,
            request.X_labeled,
            layer=-2,
            initial=not asked,
        )
        check_enough(len(pool.indices), request.n_instances, n_images(request.X_pool))
        if theirs.random_state is None:
            theirs.set_params(random_state=self._seed())
        X = np.concatenate([pool.labeled, pool.features])
        classes, y = _encode(request, pool)
        for name in asked:
            arguments[name] = _their_classifier(pool, classes, X, y)
        for name in {"fit_clf", "fit_estimator"} & set(takes):
            arguments.setdefault(name, False)
        # Some seed their k-means from NumPy's global generator.
        with global_seed(self._seed()):
            indices, utilities = theirs.query(
                X, y, batch_size=request.n_instances, return_utilities=True, **arguments
            )
        chosen = np.asarray(indices) - len(pool.labeled)
        best = np.asarray(utilities)[np.arange(len(indices)), indices]
        return pool.indices[chosen], best


def _encode(request: Request, pool: PoolFeatures) -> tuple[np.ndarray, np.ndarray]:
    """Classes, and their numbers for the labelled as floats, NaN for the pool."""
    labels = np.asarray([] if request.y_labeled is None else request.y_labeled)
    labels = labels[pool.labeled_indices] if len(labels) else labels
    known = getattr(request.estimator, "classes_", None)
    classes = np.unique(labels) if known is None else np.asarray(known)
    if not len(classes):
        classes = np.arange(2)
    y = np.full(len(pool.labeled) + len(pool.features), np.nan)
    y[: len(labels)] = np.searchsorted(classes, labels)
    return classes, y


def _their_classifier(
    pool: PoolFeatures, classes: np.ndarray, X: np.ndarray, y: np.ndarray
) -> Any:
    from skactiveml.classifier import SklearnClassifier

    numbers = np.arange(len(classes) if pool.proba is None else pool.proba.shape[1])
    model = _OfFeatures(pool.predict_features, numbers)
    # This fits nothing, but their strategies require a fitted classifier.
    return SklearnClassifier(model, classes=numbers).fit(X, y)


class _OfFeatures(ClassifierMixin, BaseEstimator):
    """The present model as a classifier of features."""

    def __init__(
        self, function: Callable[[np.ndarray], np.ndarray] | None, numbers: np.ndarray
    ) -> None:
        self.function = function
        self.numbers = numbers

    def fit(self, X: np.ndarray, y: np.ndarray) -> _OfFeatures:
        self.classes_ = self.numbers
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        if self.function is None:
            return np.full((len(X), len(self.numbers)), 1 / len(self.numbers))
        return self.function(np.asarray(X, dtype=np.float32))

    def predict(self, X: np.ndarray) -> np.ndarray:
        return self.numbers[self.predict_proba(X).argmax(axis=1)]
