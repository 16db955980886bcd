"""ActiveLearner: rounds of query, label, adapt around any classifier."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import HasMethods, Interval
from sklearn.utils.validation import check_is_fitted
from tqdm.auto import tqdm

from ._utils.callbacks import report_rounds, with_callbacks
from ._utils.candidates import TooFewCandidatesError
from ._utils.wrapper import last_step
from .by_hand import ByHand
from .stopping import StoppingRule
from .strategies import QueryStrategy


class ActiveLearner(ByHand):
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
        FeatureStore), for a CNNClassifier and a strategy that
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

    @with_callbacks
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
        report_rounds(self, self.rounds(X, y, sample_weight, groups, **params), X, y)
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

    def _can_predict(self) -> bool:
        try:
            check_is_fitted(last_step(self.estimator_))
        except NotFittedError:
            return False
        return True
