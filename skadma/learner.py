"""ActiveLearner: rounds of query, label, adapt around any classifier."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from numbers import Integral
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.validation import (
    _check_method_params,
    _num_samples,
    check_is_fitted,
    validate_data,
)
from tqdm.auto import tqdm

from .classifier import CNNClassifier
from .groups import Groups
from .image_forms import is_table
from .images import take
from .labels import (
    check_indices,
    known_classes,
    partial_labels,
    plain_labels,
    with_labels,
)
from .pools import FeatureStore
from .pools.automatic import can_be_stored, fits_memory, temporary_folder
from .pools.building import numbered_keys
from .routing import fit_params
from .stopping import StoppingRule
from .strategies import QueryStrategy
from .strategies.base import TooFewCandidatesError
from .wrapper import Wrapper, last_step, seed_unseeded


class ActiveLearner(Wrapper):
    """Adapt a classifier with the labels that a strategy asks for.

    With every label in `y`, ``fit`` simulates: `y` is the oracle, of which only the
    queried entries are read for training. With unlabelled entries in `y`, ``fit``
    trains on the labelled ones (if any) and then waits: ``query`` names the next
    images, ``teach`` takes their labels and adapts.

    Parameters
    ----------
    estimator : object
        A classifier, for example :class:`~skadma.CNNClassifier`, or a Pipeline that
        ends in one. It is cloned.
    strategy : QueryStrategy
        It is cloned.
    n_rounds : int or None, default=10
        Rounds of the simulation; fewer if the pool is used up before. None: until then,
        or until `stopping`.
    n_instances : int, default=10
        Labels in a round; with groups, groups in a round.
    warm_start : bool, default=True
        Fine-tune the network of the last round with all labelled images, as the
        paper's Algorithm 1 does; else start from the pretrained one in each round.
        Classifiers other than CNNClassifier are always fitted anew.
    stopping : StoppingRule, optional
        Ends the simulation early, see :mod:`skadma.stopping`.
    classes : array-like, optional
        All labels of the task. Without it they are those of `estimator` if it has
        its own `classes`, else those that occur in `y`: which classes there are is
        part of the task, not a label of an image. In use by hand, classes that first
        come up in ``teach`` are added.
    store : "auto", str, Path or None, default="auto"
        Where features of the pool's images are kept on the disk (see
        :class:`skadma.pools.FeatureStore`), for a CNNClassifier and a strategy that
        chooses by features. "auto": in a temporary folder, if they would take more
        than half the memory that is available, three times over. A folder: there, in
        any case. None: in memory. The same images are chosen.
    verbose : bool, default=False
        Show a progress bar over rounds.
    random_state : int, RandomState instance or None, default=None
        Seeds every `random_state` inside `estimator` and `strategy` that is None.

    Attributes
    ----------
    estimator_ : object
        The adapted classifier.
    strategy_ : QueryStrategy
    classes_ : ndarray of shape (n_classes,)
    multilabel_ : bool
        Whether an image has any number of labels instead of one.
    queried_indices_ : list of ndarray of int
        Indices into X of each round, most useful first.
    history_ : list of dict
        A row per round: ``round``, ``n_labels`` (labels used so far), ``indices``,
        ``scores`` (the strategy's, of the queried), ``query_seconds`` and
        ``adapt_seconds``. ``pandas.DataFrame(learner.history_)`` makes a table.
    labeled_ : ndarray of bool, shape (n,)
        Which entries of X have a label by now.
    reserved_ : ndarray of bool, shape (n,)
        Which ones `stopping` has set apart: their labels are for measuring alone.
    X_ : images
        What ``fit`` was given, the pool included.
    y_ : ndarray of shape (n,) or (n, n_labels)
        The labels; meaningful where `labeled_`.
    n_features_in_ : int
        Only where `X` is 2-D.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skadma import ActiveLearner
    >>> from skadma.strategies import MarginSampling
    >>> X, y = load_digits(return_X_y=True)
    >>> learner = ActiveLearner(
    ...     LogisticRegression(max_iter=1000), MarginSampling(), n_rounds=5,
    ...     random_state=0)
    >>> int(learner.fit(X / 16, y).labeled_.sum())
    50
    """

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

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict"])],
        "strategy": [QueryStrategy],
        "n_rounds": [None, Interval(Integral, 1, None, closed="left")],
        "n_instances": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "stopping": [None, StoppingRule],
        "store": [None, str, Path],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any,
        strategy: QueryStrategy,
        *,
        n_rounds: int | None = 10,
        n_instances: int = 10,
        warm_start: bool = True,
        stopping: StoppingRule | None = None,
        classes: ArrayLike | None = None,
        store: str | Path | None = "auto",
        verbose: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.strategy = strategy
        self.n_rounds = n_rounds
        self.n_instances = n_instances
        self.warm_start = warm_start
        self.stopping = stopping
        self.classes = classes
        self.store = store
        self.verbose = verbose
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        **params: Any,
    ) -> ActiveLearner:
        """Simulate all rounds, or take the initial labels for use by hand.

        Parameters
        ----------
        X : images or array-like of shape (n, ...)
        y : array-like of shape (n,) or (n, n_labels)
            Every label (simulation), or -1 (None, NaN) where there is none yet.
            With the classes -1 and 1 and no other, -1 is a class, unless `classes`
            says otherwise. With several labels per image, rows of zeros and ones, or
            of -1 throughout where there are no labels yet.
        sample_weight : array-like of shape (n,), optional
            How much each image counts once it has a label.
        groups : array-like of shape (n,), optional
            Images of a group (a patient, a burst of photographs) are queried and get
            their labels together, so that none is trained on while another waits. The
            learner then counts groups where it otherwise counts images.
        **params
            Passed on to the classifier's ``fit``, as scikit-learn's metadata routing
            has it; arrays of n entries are cut to the images with labels.

        Returns
        -------
        self
        """
        for _ in self.rounds(X, y, sample_weight, groups, **params):
            pass
        return self

    def rounds(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        **params: Any,
    ) -> Iterator[dict[str, Any]]:
        """Do what ``fit`` does, and stop after each round for the caller to look.

        Parameters
        ----------
        X, y, sample_weight, groups, **params
            See :meth:`fit`.

        Yields
        ------
        dict
            The round's row of ``history_``. The learner can predict by then, with
            classifiers that cannot be fitted to one class from the second class on.
        """
        self._validate_params()
        missing = self._start(X, y, sample_weight, groups, params)
        if missing.any():
            self.labeled_ = ~missing
            if self.labeled_.any():
                self._adapt(wait_for_classes=True)
            return
        if self.stopping is not None:
            self.stopping.start()
            self.reserved_[self.stopping.reserve(len(self.labeled_))] = True
        rounds = count() if self.n_rounds is None else range(self.n_rounds)
        for round_ in tqdm(rounds, disable=not self.verbose):
            n_left = self._groups.count(self._candidates())
            if n_left == 0:
                break
            try:
                indices = self.query(min(self.n_instances, n_left))
            except TooFewCandidatesError as error:
                if error.n_available == 0:
                    break
                indices = self.query(error.n_available)
            left = len(self._candidates()) - len(indices)
            at_end = round_ + 1 == self.n_rounds or not left
            self._learn(indices, wait_for_classes=not at_end)
            yield self.history_[-1]
            stopping = self.stopping if self._can_predict() else None
            if stopping is not None and stopping.should_stop(self):
                break

    def resume(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        *,
        iteration: float = 0,
        **params: Any,
    ) -> ActiveLearner:
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

    def adapt(self) -> ActiveLearner:
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

    def teach(self, indices: ArrayLike, labels: ArrayLike) -> ActiveLearner:
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
        self._store = self._open_store()
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
        return FeatureStore.begin(
            self.estimator_,
            self.X_,
            folder,
            layer=self.strategy_.layer,  # type: ignore[attr-defined]
            dtype="float32",
            keys=numbered_keys(self.estimator_.image_dataset(self.X_)),
            verbose=bool(self.verbose),
        )

    def _known_images(self) -> Any:
        """The images, with what is kept of them."""
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
        copes = "classes" in last_step(self.estimator_).get_params(deep=False)
        if wait_for_classes and not copes and len(np.unique(y)) < 2:
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

    def _can_predict(self) -> bool:
        try:
            check_is_fitted(last_step(self.estimator_))
        except NotFittedError:
            return False
        return True

    def _check_started(self) -> None:
        check_is_fitted(self, "X_")
