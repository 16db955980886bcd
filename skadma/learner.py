"""ActiveLearner: rounds of query, label, adapt around any classifier."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from numbers import Integral
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
from sklearn.pipeline import Pipeline
from sklearn.utils import (
    Tags,
    check_consistent_length,
    check_random_state,
    check_scalar,
    get_tags,
)
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.metadata_routing import (
    UNUSED,
    MetadataRouter,
    MethodMapping,
    _routing_enabled,
    process_routing,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import (
    _check_method_params,
    _estimator_has,
    _is_fitted,
    check_is_fitted,
    has_fit_parameter,
    validate_data,
)

from ._utils.callbacks import CALLBACKS_AVAILABLE, CallbackSupportMixin, with_callbacks
from ._utils.candidates import TooFewCandidatesError
from ._utils.processes import progress_bar
from .classifier import CNNClassifier
from .features.adapter import get_adapter
from .features.estimators import innermost
from .features.store import (
    FeatureStore,
    can_be_stored,
    fits_memory,
    numbered_keys,
    temporary_folder,
)
from .images.dataset import is_table, n_images, take
from .stopping import StoppingRule
from .strategies import QueryStrategy
from .targets.groups import Groups
from .targets.labels import (
    check_indices,
    known_classes,
    partial_labels,
    plain_labels,
    with_labels,
)


class ActiveLearner(
    CallbackSupportMixin, ClassifierMixin, MetaEstimatorMixin, BaseEstimator
):
    """Adapt a classifier in rounds: query images, take their labels, train.

    With every label in `y`, ``fit`` simulates all rounds: `y` is the oracle, of which
    only the queried entries are used for training. With unlabelled entries in `y`,
    ``fit`` trains on the labelled ones (if any); then ``query`` chooses the next
    images, and ``teach`` takes their labels and trains.

    Parameters
    ----------
    estimator : object
        A classifier, for example :class:`~skadma.CNNClassifier`, or a Pipeline that
        ends in one. It is cloned.
    strategy : QueryStrategy
        It is cloned.
    n_rounds : int or None, default=10
        Rounds of the simulation; fewer if the pool is used up before. None: until the
        pool is used up, or until `stopping`.
    n_instances : int, default=10
        Labels in a round; with groups, groups in a round.
    warm_start : bool, default=True
        Go on training the network of the last round with all labelled images, as the
        paper's Algorithm 1 does; else start from the pretrained one in each round.
        Classifiers other than CNNClassifier are always fitted anew.
    stopping : StoppingRule, optional
        Ends the simulation early, see :mod:`skadma.stopping`.
    classes : array-like, optional
        All labels of the task. None: the parameter `classes` of `estimator` if it has
        one, else the labels in `y`, those of images in the pool too. Without a
        simulation, classes that first come up in ``teach`` are added.
    store : "auto", str, Path or None, default="auto"
        Where to keep features of the pool (see FeatureStore), for a CNNClassifier and
        a strategy that chooses by features; the choice is the same. A folder: there.
        None: in memory. "auto": in a temporary folder if three copies of the features
        would take more than half of the available memory, else in memory.
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
        A row per round: ``round``, ``n_labels`` (so far), ``indices``, ``scores`` (the
        strategy's, of these images), ``query_seconds`` and ``adapt_seconds``.
        ``pandas.DataFrame(learner.history_)`` makes a table.
    labeled_ : ndarray of bool, shape (n,)
        Which entries of X have a label by now.
    reserved_ : ndarray of bool, shape (n,)
        Which entries `stopping` has set apart: their labels are used to measure only.
    X_ : images
        The X of ``fit``.
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

    _parameter_constraints: dict[str, Any] = {
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

    # A classifier inside may ask for weights; the groups are the learner's own.
    __metadata_request__fit = {"sample_weight": UNUSED, "groups": True}  # noqa: RUF012

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

    @with_callbacks
    def fit(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        **params: Any,
    ) -> ActiveLearner:
        """Simulate all rounds, or train with the initial labels.

        Parameters
        ----------
        X : images or array-like of shape (n, ...)
        y : array-like of shape (n,) or (n, n_labels)
            Every label (simulation), or -1 (None, NaN) where there is none yet.
            A -1 is a class only where `classes` names it; 1 and -1 alone are refused
            without `classes`, and so are strings such as ``"nan"`` or ``""``. With
            several labels per image: rows of zeros and ones, or of -1 throughout where
            there are no labels yet.
        sample_weight : array-like of shape (n,), optional
            How much each image counts once it has a label.
        groups : array-like of shape (n,), optional
            Images of a group (a patient, a burst of photographs) are queried and
            labelled together, so that none is trained on while another is in the pool.
            `n_instances` then counts groups instead of images.
        **params
            Passed to the classifier's ``fit``, by scikit-learn's metadata routing if
            that is enabled; arrays of n entries are cut to the images with labels.

        Returns
        -------
        self
        """
        self._validate_params()
        rounds = self.rounds(X, y, sample_weight, groups, **params)
        if not CALLBACKS_AVAILABLE:
            for _ in rounds:
                pass
            return self
        # Callbacks that score, such as scikit-learn's ScoringMonitor, do so on X and y.
        data = {"estimator": self, "X": X, "y": y}
        whole = self._init_callback_context(max_subtasks=self.n_rounds)
        whole.call_on_fit_task_begin(**data)
        for number in count(1):
            one = whole.subcontext(task_name="round")
            one.call_on_fit_task_begin(**data)
            ended = next(rounds, None) is None
            state = None  # what makes a copy able to predict
            if not ended and self._can_predict():
                names = [n for n in vars(self) if n.endswith("_") and n[0] != "_"]
                state = {name: getattr(self, name) for name in names}
            stop = one.call_on_fit_task_end(**data, reconstruction_attributes=state)
            if ended or stop or number == self.n_rounds:
                break
        whole.call_on_fit_task_end(**data)
        return self

    def rounds(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        **params: Any,
    ) -> Iterator[dict[str, Any]]:
        """Do what ``fit`` does, and pause after each round.

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
        with _undone_on_failure(self):
            missing = self._start(X, y, sample_weight, groups, params)
            if missing.any():
                self.labeled_ = ~missing
                if self.labeled_.any():
                    self._adapt(wait_for_classes=True)
                return
        if self.stopping is not None:
            self.reserved_[self.stopping.start(len(self.labeled_))] = True
        rounds = count() if self.n_rounds is None else range(self.n_rounds)
        for round_ in progress_bar(rounds) if self.verbose else rounds:
            try:
                indices, _ = self.query_with_scores()
            except TooFewCandidatesError:  # none is left that can be decoded
                break
            left = len(self._candidates()) - len(indices)
            at_end = round_ + 1 == self.n_rounds or not left
            self._learn(indices, wait_for_classes=not at_end)
            rule = self.stopping if self._can_predict() else None
            stop = rule is not None and rule.should_stop(self)
            yield self.history_[-1]
            if stop:
                break

    def _start(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None,
        groups: ArrayLike | None,
        params: dict[str, Any],
    ) -> np.ndarray:
        """Check inputs and make the clones; return which entries of y are missing."""
        if hasattr(X, "__array__") and not hasattr(X, "ndim"):
            X = np.asarray(X)
        if is_table(X):
            # A DataFrame stays one: steps of a Pipeline may ask for its columns. Of a
            # memory-mapped array, a check would read everything.
            skip = hasattr(X, "columns") or isinstance(X, np.memmap)
            X = validate_data(
                self, X, accept_sparse="csr", dtype=None, skip_check_array=skip
            )
        labels, missing, classes = partial_labels(y, self._declared_classes(), self)
        if labels.ndim == 2:
            self.strategy.check_multilabel()
        n = len(labels)
        if n_images(X) != n:
            raise ValueError(f"X has {n_images(X)} images, y {n} entries.")
        self._groups = Groups(groups, n)
        if missing.any():
            self._groups.refuse_split(~missing, np.flatnonzero(~missing))
        self._fit_params = self._route(labels, sample_weight, groups, params)
        self.X_: Any = X
        self.y_: np.ndarray = labels
        self.classes_: np.ndarray = classes
        self.multilabel_ = labels.ndim == 2
        self.labeled_ = np.zeros(n, dtype=bool)
        self.reserved_: np.ndarray = np.zeros(n, dtype=bool)
        self.queried_indices_: list[np.ndarray] = []
        self.history_: list[dict[str, Any]] = []
        self._last_query: dict[str, Any] = {}
        self._first_iteration: float = 0
        self.estimator_: Any = clone(self.estimator)
        self.strategy_: QueryStrategy = clone(self.strategy)
        rng = check_random_state(self.random_state)
        if self.random_state is not None:
            _seed_unseeded(self.estimator_, rng)
        _seed_unseeded(self.strategy_, rng, fix=True)  # `query` repeats its answer
        self._set_classes()
        cnn = innermost(self.estimator_)
        if isinstance(cnn, CNNClassifier):
            cnn.set_params(warm_start=self.warm_start)
        self.__dict__.pop("_store", None)
        if self.store != "auto":  # which needs the pretrained network: at a query
            self._store = self._open_store()
        return missing

    def _route(
        self,
        y: np.ndarray,
        sample_weight: ArrayLike | None,
        groups: ArrayLike | None,
        params: dict[str, Any],
    ) -> dict[str, Any]:
        """Return the parameters of the classifier's fit, for all images."""
        if sample_weight is not None:
            check_consistent_length(sample_weight, y)
        if _routing_enabled():
            given = {"sample_weight": sample_weight, "groups": groups}
            given = {name: value for name, value in given.items() if value is not None}
            return dict(process_routing(self, "fit", **given, **params).estimator.fit)
        if sample_weight is None:
            return params
        inner, prefix = self.estimator, ""
        while isinstance(inner, Pipeline):
            name, inner = inner.steps[-1]
            prefix += f"{name}__"
        if not has_fit_parameter(inner, "sample_weight"):
            raise ValueError(
                f"{type(inner).__name__} takes no sample_weight in fit. Give none, or "
                "take a classifier that does."
            )
        return {f"{prefix}sample_weight": sample_weight, **params}

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
        """Take the labels so far without training.

        Give ``estimator_`` the state it had, or train it anew with :meth:`adapt`.

        Parameters
        ----------
        X, y, sample_weight, groups
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
        with _undone_on_failure(self):
            self.labeled_ = ~self._start(X, y, sample_weight, groups, params)
        self._first_iteration = iteration
        return self

    def query(self, n_instances: int | None = None) -> np.ndarray:
        """Choose the images to label next.

        Changes nothing: called again, it gives the same answer until ``teach``.

        Parameters
        ----------
        n_instances : int, optional
            How many; if None, the parameter `n_instances`. With groups, how many
            groups. If fewer are left, all of them are chosen.

        Returns
        -------
        ndarray of int
            Distinct indices into the X of ``fit``, most useful first; groups are
            whole and stay together.

        Raises
        ------
        ValueError
            If none is left.
        """
        return self.query_with_scores(n_instances)[0]

    def query_with_scores(
        self, n_instances: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Choose as :meth:`query` does, and return the strategy's scores as well.

        Parameters
        ----------
        n_instances : int, optional
            See :meth:`query`.

        Returns
        -------
        indices : ndarray of int
        scores : ndarray of float
            With groups, the score of the image for which a group was chosen.
        """
        check_is_fitted(self, "X_")
        pool, labelled = self._candidates(), np.flatnonzero(self.labeled_)
        n = self.n_instances if n_instances is None else n_instances
        check_scalar(n, "n_instances", Integral, min_val=1)
        if not len(pool):
            raise TooFewCandidatesError("No unlabelled image is left in the pool.", 0)
        n = min(n, self._groups.count(pool))
        begin = perf_counter()
        images = self._images_or_store()
        X_pool, X_labeled = take(images, pool), take(images, labelled)
        y_labeled = plain_labels(self.y_[labelled])
        # Of groups, a strategy is asked for as many images as groups are wanted and,
        # while they are of fewer groups, for twice as many again.
        n_asked, n_most = n, len(pool)
        while True:
            try:
                chosen, scores = self.strategy_(
                    self.estimator_,
                    X_pool,
                    n_asked,
                    iteration=self._iteration(),
                    X_labeled=X_labeled,
                    y_labeled=y_labeled,
                    n_rounds=self.n_rounds,
                )
            except TooFewCandidatesError as error:  # images that cannot be decoded
                if not error.n_available:
                    raise
                n_asked = n_most = error.n_available
                continue
            first = self._groups.first_of_each(pool[chosen])[:n]
            if len(first) == n or n_asked == n_most:
                break
            n_asked = min(2 * n_asked, n_most)
        indices, sizes = self._groups.members(pool[chosen[first]], pool)
        scores = np.repeat(scores[first], sizes)
        self._last_query = {
            "indices": indices,
            "scores": scores,
            "query_seconds": perf_counter() - begin,
        }
        return indices, scores

    def teach(self, indices: ArrayLike, labels: ArrayLike) -> ActiveLearner:
        """Take labels, and train the classifier with all labels so far.

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
            If an index is out of range or repeated, a label is missing or not among
            `classes`, a group is split, or training fails.

        Notes
        -----
        An error of any kind changes nothing, and ``teach`` may be called again.
        """
        check_is_fitted(self, "X_")
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
        with _undone_on_failure(self):
            self.y_, self.classes_ = y, classes
            self._set_classes()
            self._learn(chosen, wait_for_classes=True)
        return self

    def adapt(self) -> ActiveLearner:
        """Train the classifier with all labels so far, as ``teach`` does.

        Returns
        -------
        self
        """
        check_is_fitted(self, "X_")
        with _undone_on_failure(self):
            self._adapt(wait_for_classes=True)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predict labels with the adapted classifier."""
        check_is_fitted(self)
        return self.estimator_.predict(X)

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict class probabilities with the adapted classifier."""
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    @available_if(_estimator_has("decision_function"))
    def decision_function(self, X: Any) -> np.ndarray:
        """Compute the adapted classifier's decision function."""
        check_is_fitted(self)
        return self.estimator_.decision_function(X)

    def get_metadata_routing(self) -> MetadataRouter:
        """Tell scikit-learn what is passed on to whom."""
        mapping = MethodMapping().add(caller="fit", callee="fit")
        router = MetadataRouter(owner=self).add_self_request(self)
        return router.add(estimator=self.estimator, method_mapping=mapping)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.input_tags = inner.input_tags
        tags.classifier_tags = inner.classifier_tags
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimator_")

    def _can_predict(self) -> bool:
        return _is_fitted(innermost(self.estimator_))

    def _open_store(self) -> FeatureStore | None:
        """Open a store on the disk for the pool's features, if `store` asks for it."""
        given = self.estimator_, self.X_, self.strategy_
        if self.store is None or not can_be_stored(*given):
            return None
        if self.store == "auto" and fits_memory(*given):
            return None
        folder = temporary_folder(self) if self.store == "auto" else self.store
        adapter: Any = get_adapter(self.estimator_)
        return FeatureStore.build(
            self.estimator_,
            self.X_,
            folder,
            layer=self.strategy_.layer,
            dtype="float32",
            keys=numbered_keys(adapter.image_dataset(self.X_)),
            compute=False,
            verbose=bool(self.verbose),
        )

    def _images_or_store(self) -> Any:
        """Return X, or the store that holds its features once they are computed."""
        if not hasattr(self, "_store"):
            self._store = self._open_store()
        if self._store is not None and self._store.exists:
            return self._store
        return self.X_

    def _declared_classes(self) -> ArrayLike | None:
        if self.classes is not None:
            return self.classes
        return getattr(innermost(self.estimator), "classes", None)

    def _set_classes(self) -> None:
        """Give the classifier all classes, of which its labels may lack some so far."""
        if self._accepts_classes() and self.classes_.size:
            innermost(self.estimator_).set_params(classes=self.classes_)

    def _accepts_classes(self) -> bool:
        return "classes" in innermost(self.estimator_).get_params(deep=False)

    def _candidates(self) -> np.ndarray:
        # A group with a reserved image is left out as a whole.
        return np.flatnonzero(~(self.labeled_ | self._groups.whole(self.reserved_)))

    def _iteration(self) -> float:
        return self._first_iteration + len(self.history_)

    def _learn(self, indices: np.ndarray, *, wait_for_classes: bool) -> None:
        """Add labels, train, and add a row to ``history_``."""
        known_classes(self.y_[indices], self._declared_classes())
        labeled = self.labeled_.copy()
        labeled[indices] = True
        self.labeled_ = labeled
        begin = perf_counter()
        self._adapt(wait_for_classes)
        seconds = perf_counter() - begin
        query = self._last_query
        if not np.array_equal(query.get("indices", []), indices):  # chosen by the user
            query = {"scores": np.full(len(indices), np.nan), "query_seconds": 0.0}
        self.queried_indices_.append(indices)
        self.history_.append(
            {
                "round": len(self.history_),
                "n_labels": int(self.labeled_.sum()),
                "indices": indices,
                **query,
                "adapt_seconds": seconds,
            }
        )

    def _adapt(self, wait_for_classes: bool) -> None:
        """Fit the classifier to all labels, and to pseudo-labels if there are any.

        With `wait_for_classes`, most classifiers are not fitted to a single class.
        """
        labelled = np.flatnonzero(self.labeled_)
        y = plain_labels(self.y_[labelled])
        pool = self._candidates()
        if hasattr(self.strategy_, "pseudo_labels") and len(pool):
            sure, believed = self.strategy_.pseudo_labels(
                self.estimator_,
                take(self._images_or_store(), pool),
                iteration=self._iteration(),
            )
            if len(sure):
                labelled = np.concatenate([labelled, pool[sure]])
                y = np.concatenate([y, believed])
        if wait_for_classes and not self._accepts_classes() and len(np.unique(y)) < 2:
            return
        params = _check_method_params(self.X_, self._fit_params, indices=labelled)
        X = take(self.X_, labelled)
        if isinstance(innermost(self.estimator_), CNNClassifier):
            # A copy, as a Pipeline's fit replaces its steps.
            self.estimator_ = copy.copy(self.estimator_).fit(X, y, **params)
            return
        model = clone(self.estimator_)  # some have a warm_start of theirs
        with warnings.catch_warnings():
            # scikit-learn's guess from many classes of few labels.
            warnings.filterwarnings("ignore", "The number of unique classes is greater")
            self.estimator_ = model.fit(X, y, **params)


def _seed_unseeded(
    estimator: Any, rng: np.random.RandomState, *, fix: bool = False
) -> None:
    """Draw a seed for every `random_state` that is None, nested ones too.

    With `fix`, generators draw an int to take their place.
    """
    seeds = {}
    for name, state in sorted(estimator.get_params(deep=True).items()):
        unseeded = state is None or (fix and not isinstance(state, Integral))
        if name.split("__")[-1] == "random_state" and unseeded:
            generator = rng if state is None else state
            seeds[name] = int(generator.randint(np.iinfo(np.int32).max))
    estimator.set_params(**seeds)


@contextmanager
def _undone_on_failure(learner: ActiveLearner) -> Iterator[None]:
    """Give a learner back what it had, if the block fails.

    Attributes must be replaced, not changed in place, except for lists, parameters of
    the classifier and states of generators.
    """
    fitted = [learner.estimator_] if hasattr(learner, "estimator_") else []
    owners = [learner, *map(innermost, fitted)]
    attributes = [vars(one).copy() for one in owners]
    for name, value in attributes[0].items():
        if isinstance(value, list):
            attributes[0][name] = value.copy()
    generators = [
        (value, value.get_state())
        for one in (learner, *fitted)
        for value in one.get_params(deep=True).values()
        if isinstance(value, np.random.RandomState)
    ]
    try:
        yield
    except BaseException:
        for generator, state in generators:
            generator.set_state(state)
        for one, before in zip(owners, attributes, strict=True):
            one.__dict__.clear()
            one.__dict__.update(before)
        raise
