"""Rounds by hand: ask which images to label, teach their labels, adapt."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    _check_method_params,
    _num_samples,
    check_is_fitted,
    validate_data,
)

from ._utils.routing import fit_params
from ._utils.wrapper import Wrapper, last_step, seed_unseeded
from .classifier import CNNClassifier
from .features.cnn_adapter import CNNAdapter
from .features.store import (
    FeatureStore,
    can_be_stored,
    fits_memory,
    numbered_keys,
    temporary_folder,
)
from .images.dataset import take
from .images.forms import is_table
from .strategies import QueryStrategy
from .targets.groups import Groups
from .targets.labels import (
    check_indices,
    known_classes,
    partial_labels,
    plain_labels,
    with_labels,
)

_Self = TypeVar("_Self", bound="ByHand")


class ByHand(Wrapper):
    """The part of :class:`~skadma.ActiveLearner` that waits for somebody's labels."""

    strategy: QueryStrategy
    n_rounds: int | None
    n_instances: int
    warm_start: bool
    classes: ArrayLike | None
    store: str | Path | None
    verbose: bool
    random_state: int | np.random.RandomState | None
    estimator_: Any
    strategy_: QueryStrategy
    classes_: np.ndarray
    labeled_: np.ndarray
    reserved_: np.ndarray
    X_: Any
    y_: np.ndarray
    queried_indices_: list[np.ndarray]
    history_: list[dict[str, Any]]
    _last_query: dict[str, Any]
    _first_iteration: float
    _groups: Groups
    _fit_params: dict[str, Any]
    _store: FeatureStore | None
    _is_store_open: bool

    def resume(
        self: _Self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        *,
        iteration: float = 0,
        **params: Any,
    ) -> _Self:
        """Take up use by hand where it was left, without training.

        Give ``estimator_`` the state it had, or train it anew with :meth:`adapt`.

        Parameters
        ----------
        X : images or array-like of shape (n, ...)
        y : array-like of shape (n,) or (n, n_labels)
            The labels so far; -1 (None, NaN) where there is none yet.
        sample_weight, groups
            See :meth:`fit`.
        iteration : float, default=0
            The round t of the next query.
        **params
            See :meth:`fit`.

        Returns
        -------
        self
        """
        self._validate_params()
        self.labeled_ = ~self._start(X, y, sample_weight, groups, params)
        self._first_iteration = iteration
        return self

    def adapt(self: _Self) -> _Self:
        """Train the classifier with all labels so far; ``teach`` does it by itself.

        Returns
        -------
        self
        """
        self._check_started()
        self._adapt(wait_for_classes=True)
        return self

    def query(self, n_instances: int | None = None) -> np.ndarray:
        """Choose the images to label next.

        Changes nothing: asked again, it gives the same answer until ``teach``.

        Parameters
        ----------
        n_instances : int, optional
            How many; the parameter `n_instances` if None. With groups, how many groups.

        Returns
        -------
        ndarray of int
            Distinct indices into the X of ``fit``, most useful first; groups are
            whole and stay together.
        """
        return self.query_with_scores(n_instances)[0]

    def query_with_scores(
        self, n_instances: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Choose as :meth:`query` does, and give the strategy's scores as well.

        Parameters
        ----------
        n_instances : int, optional
            See :meth:`query`.

        Returns
        -------
        indices : ndarray of int
        scores : ndarray of float
            With groups, that of the image for which a group was chosen.
        """
        self._check_started()
        pool = self._candidates()
        n = self.n_instances if n_instances is None else n_instances
        begin = perf_counter()
        labelled = np.flatnonzero(self.labeled_)
        X = self._known_images()

        def ask(n: int) -> tuple[np.ndarray, np.ndarray]:
            return self.strategy_(
                self.estimator_,
                take(X, pool),
                n,
                iteration=self._iteration(),
                X_labeled=take(X, labelled),
                y_labeled=plain_labels(self.y_[labelled]),
                n_rounds=self.n_rounds,
            )

        indices, scores = self._groups.choose(pool, n, ask)
        self._last_query = {
            "indices": indices,
            "scores": scores,
            "query_seconds": perf_counter() - begin,
        }
        return indices, scores

    def teach(self: _Self, indices: ArrayLike, labels: ArrayLike) -> _Self:
        """Take labels and adapt the classifier with all labels so far.

        Parameters
        ----------
        indices : array-like of int, shape (m,)
            Into the X of ``fit``; those of ``query`` or any others. A label given
            before is corrected.
        labels : array-like of shape (m,) or (m, n_labels)

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If an index is out of range or twice there, a label is missing or not among
            `classes`, or a group is split. Nothing is changed then.
        """
        self._check_started()
        chosen = check_indices(indices, len(self.labeled_))
        y, classes = with_labels(
            self.y_,
            chosen,
            labels,
            declared=self._declared_classes(),
            before=self.classes_,
            estimator=self,
        )
        labeled = self.labeled_.copy()
        labeled[chosen] = True
        self._groups.refuse_split(labeled, chosen)
        self.y_, self.classes_ = y, classes
        self._set_classes()
        self._learn(chosen, wait_for_classes=True)
        return self

    def _start(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        groups: ArrayLike | None,
        params: dict[str, Any],
    ) -> np.ndarray:
        """Check inputs, make the clones; return which entries of y are missing."""
        if hasattr(X, "__array__") and not hasattr(X, "ndim"):
            X = np.asarray(X)
        if is_table(X):
            # A DataFrame stays one: steps of a Pipeline may ask for its columns.
            X = validate_data(
                self,
                X,
                accept_sparse="csr",
                dtype=None,
                # and of an array on the disk, a check would read all.
                skip_check_array=hasattr(X, "columns") or isinstance(X, np.memmap),
            )
        labels, missing, classes = partial_labels(y, self._declared_classes(), self)
        if labels.ndim == 2:
            self.strategy.check_multilabel()
        n = len(labels)
        if _num_samples(X) != n:
            raise ValueError(f"X has {_num_samples(X)} images, y {n} entries.")
        found = Groups(groups, n)
        if missing.any():
            found.refuse_split(~missing, np.flatnonzero(~missing))
        passed_on = fit_params(self, labels, sample_weight, groups, params)
        self.X_, self.y_ = X, labels
        self.classes_ = classes
        self.multilabel_ = labels.ndim == 2
        self._groups, self._fit_params = found, passed_on
        self.labeled_ = np.zeros(n, dtype=bool)
        self.reserved_ = np.zeros(n, dtype=bool)
        self.queried_indices_ = []
        self.history_ = []
        self._last_query = {}
        self._first_iteration = 0
        self.estimator_ = clone(self.estimator)
        self.strategy_ = clone(self.strategy)
        if self.random_state is not None:
            rng = check_random_state(self.random_state)
            for inner in (self.estimator_, self.strategy_):
                seed_unseeded(inner, rng)
        self._set_classes()
        cnn = last_step(self.estimator_)
        if isinstance(cnn, CNNClassifier):
            cnn.set_params(warm_start=self.warm_start)
        # "auto" depends on how many features M0 has, which need not be built for that.
        self._is_store_open = self.store != "auto"
        self._store = self._open_store() if self._is_store_open else None
        return missing

    def _open_store(self) -> FeatureStore | None:
        """Make a place on the disk for the pool's features, where it is wanted."""
        own = self.estimator_, self.X_, self.strategy_
        if self.store is None or not can_be_stored(*own):
            return None
        folder = self.store
        if folder == "auto":
            if fits_memory(*own):
                return None
            folder = temporary_folder(self)
        return FeatureStore.build(
            self.estimator_,
            self.X_,
            folder,
            layer=self.strategy_.layer,  # type: ignore[attr-defined]
            dtype="float32",
            keys=numbered_keys(CNNAdapter(self.estimator_).image_dataset(self.X_)),
            compute=False,
            verbose=bool(self.verbose),
        )

    def _known_images(self) -> Any:
        """The images, with what is kept of them."""
        if not self._is_store_open:
            self._store, self._is_store_open = self._open_store(), True
        if self._store is not None and self._store.exists:
            return self._store
        return self.X_

    def _set_classes(self) -> None:
        """Tell the classifier all classes, which its labels may miss for a while."""
        inner = last_step(self.estimator_)
        if "classes" in inner.get_params(deep=False) and self.classes_.size:
            inner.set_params(classes=self.classes_)

    def _declared_classes(self) -> ArrayLike | None:
        if self.classes is not None:
            return self.classes
        return getattr(last_step(self.estimator), "classes", None)

    def _learn(self, indices: np.ndarray, *, wait_for_classes: bool) -> None:
        """Add revealed labels, adapt, and write the round down."""
        known_classes(self.y_[indices], self._declared_classes())
        self.labeled_[indices] = True
        begin = perf_counter()
        self._adapt(wait_for_classes)
        seconds = perf_counter() - begin
        asked = self._last_query
        known = "indices" in asked and np.array_equal(asked["indices"], indices)
        self.queried_indices_.append(indices)
        self.history_.append(
            {
                "round": len(self.history_),
                "n_labels": int(self.labeled_.sum()),
                "indices": indices,
                "scores": asked["scores"] if known else np.full(len(indices), np.nan),
                "query_seconds": asked["query_seconds"] if known else 0.0,
                "adapt_seconds": seconds,
            }
        )

    def _adapt(self, wait_for_classes: bool = False) -> None:
        labelled = np.flatnonzero(self.labeled_)
        y = plain_labels(self.y_[labelled])
        pool = self._candidates()
        if hasattr(self.strategy_, "pseudo_labels") and len(pool):
            sure, believed = self.strategy_.pseudo_labels(
                self.estimator_,
                take(self._known_images(), pool),
                iteration=self._iteration(),
            )
            if len(sure):
                labelled = np.concatenate([labelled, pool[sure]])
                y = np.concatenate([y, believed])
        accepts_classes = "classes" in last_step(self.estimator_).get_params(deep=False)
        if wait_for_classes and not accepts_classes and len(np.unique(y)) < 2:
            return  # most classifiers cannot be fitted to a single class
        if not isinstance(last_step(self.estimator_), CNNClassifier):
            self.estimator_ = clone(self.estimator_)  # some go on by themselves
        params = _check_method_params(self.X_, self._fit_params, indices=labelled)
        self.estimator_.fit(take(self.X_, labelled), y, **params)

    def _candidates(self) -> np.ndarray:
        # What is set apart is not told by images that belong to it, either.
        return np.flatnonzero(~(self.labeled_ | self._groups.whole(self.reserved_)))

    def _iteration(self) -> float:
        return self._first_iteration + len(self.history_)

    def _check_started(self) -> None:
        check_is_fitted(self, "X_")
