"""Base classes of the query strategies.

A strategy derives from `ScoringStrategy` if it scores each image by itself, from
`BatchStrategy` if it chooses a batch as a whole by features, from `QueryStrategy`
otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import StrOptions

from .._utils.candidates import check_enough, check_n_instances
from ..features.estimators import (
    check_finite,
    get_adapter,
    innermost,
    is_multilabel,
    labels_fitted_with,
    unwrap,
)
from ..images.selection import n_images, take
from ._pool_features import PoolFeatures, extract_pool_features


@dataclass(frozen=True)
class Scores:
    """How useful a strategy finds each image of a pool.

    Attributes
    ----------
    total : ndarray of shape (n,), float64
        The higher the more useful; NaN for images that cannot be decoded.
    """

    total: np.ndarray


@dataclass
class Request:
    """Arguments of one query, see :meth:`QueryStrategy.query`, with defaults filled in.

    Without `X_labeled`, that of modAL's learner is taken, where the estimator is one.
    """

    estimator: Any
    X_pool: Any
    n_instances: int
    iteration: Any = None
    X_labeled: Any = None
    y_labeled: ArrayLike | None = None
    n_rounds: int | None = None

    def __post_init__(self) -> None:
        if self.iteration is None:
            self.iteration = labels_fitted_with(self.estimator) / self.n_instances
        if self.X_labeled is None and hasattr(self.estimator, "X_training"):
            self.X_labeled = self.estimator.X_training
            self.y_labeled = self.estimator.y_training


class QueryStrategy(BaseEstimator, ABC):
    """Base of the strategies: subclasses choose images from a pool.

    Parameters
    ----------
    random_state : int, RandomState instance or None, default=None
        Breaks ties, and seeds whatever else a strategy draws.
    """

    # Columns of docs/strategies.md: the inputs of a strategy, its passes over the pool
    # with the operations beside them, and the numbers held at once.
    needs: ClassVar[str]
    cost: ClassVar[str]
    memory: ClassVar[str]
    # Whether images may have any number of labels.
    multilabel: ClassVar[bool] = False

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "random_state": ["random_state"]
    }

    def __init__(
        self, *, random_state: int | np.random.RandomState | None = None
    ) -> None:
        self.random_state = random_state

    def query(
        self,
        estimator: Any,
        X_pool: Any,
        n_instances: int = 1,
        *,
        iteration: float | None = None,
        X_labeled: Any = None,
        y_labeled: ArrayLike | None = None,
        n_rounds: int | None = None,
    ) -> np.ndarray:
        """Choose the images to label next.

        Parameters
        ----------
        estimator : object
            A classifier, fitted or (round 0) not; a Pipeline that ends in one, or
            modAL's learner around one.
        X_pool : images or array-like
            What the classifier takes.
        n_instances : int, default=1
            How many to choose.
        iteration : float, optional
            The round t, from 0. If None: the number of labels that the estimator was
            fitted with / `n_instances`.
        X_labeled, y_labeled : images or array-like, optional
            The labelled images and their labels, for the strategies that choose away
            from them. ActiveLearner gives them, and modAL's learner has them.
        n_rounds : int, optional
            Length of the run, for the strategies whose criterion changes from round to
            round. ActiveLearner gives it.

        Returns
        -------
        ndarray of int, shape (n_instances,)
            Distinct indices into `X_pool`, most useful first.

        Raises
        ------
        ValueError
            If the pool has fewer usable images than are asked for. (ActiveLearner and
            campaigns ask for no more than are left.)
        """
        return self(
            estimator,
            X_pool,
            n_instances,
            iteration=iteration,
            X_labeled=X_labeled,
            y_labeled=y_labeled,
            n_rounds=n_rounds,
        )[0]

    def __call__(
        self, estimator: Any, X_pool: Any, n_instances: int = 1, **kwargs: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Choose as :meth:`query` does; return indices and utilities, as modAL does."""
        check_n_instances(n_instances, n_images(X_pool))
        if is_multilabel(estimator):
            self.check_multilabel()
        return self._choose(Request(estimator, X_pool, n_instances, **kwargs))

    def check_multilabel(self) -> None:
        """Raise ValueError if the strategy does not take several labels per image."""
        if not self.multilabel:
            raise ValueError(
                f"{type(self).__name__} is for tasks of one label per image, but y "
                "has several columns. Take UncertaintyHerding, MarginSampling, "
                "EntropySampling, LeastConfident, CoreSet, ProbCover, TypiClust, ADMA "
                "or RandomSampling."
            )

    @abstractmethod
    def _choose(self, request: Request) -> tuple[np.ndarray, np.ndarray]:
        """Return distinct indices, most useful first, and their utilities."""

    def _seed(self) -> int:
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31))


class ScoringStrategy(QueryStrategy):
    """Base of the strategies that score each image by itself and take the best.

    Parameters
    ----------
    random_state : int, RandomState instance or None, default=None
        Breaks ties, and seeds whatever else a strategy draws.
    """

    @abstractmethod
    def score(self, estimator: Any, X_pool: Any, *, iteration: float = 0) -> Scores:
        """Score each image of a pool.

        Parameters
        ----------
        estimator, X_pool
            See :meth:`query`.
        iteration : float, default=0
            The round t, from 0.

        Returns
        -------
        Scores
        """

    def _choose(self, request: Request) -> tuple[np.ndarray, np.ndarray]:
        estimator, X_pool = request.estimator, request.X_pool
        total = self.score(estimator, X_pool, iteration=request.iteration).total
        chosen = self._take_best(request, total)
        return chosen, total[chosen]

    def _take_best(self, request: Request, total: np.ndarray) -> np.ndarray:
        """Return the images with the best scores that can be decoded, best first.

        Ties are in random order. A score that reads no image, such as RandomSampling's,
        is not NaN for those that cannot be decoded; the chosen ones are tried.
        """
        check_finite(np.isfinite(total), request.estimator, request.X_pool)
        n = request.n_instances
        ties = np.random.default_rng([self._seed(), 1]).permutation(len(total))
        order = np.lexsort((ties, -total))
        order = order[~np.isnan(total[order])]
        check_enough(len(order), n, len(total))
        adapter = get_adapter(innermost(request.estimator))
        if adapter is None or not adapter.skips_unreadable:
            return order[:n]
        _, X, _ = unwrap(request.estimator, request.X_pool)
        chosen = order[:0]
        for begin in range(0, len(order), n):
            some = order[begin : begin + n]
            chosen = np.concatenate([chosen, some[adapter.readable(take(X, some))]])
            if len(chosen) >= n:
                break
        check_enough(len(chosen), n, len(order))
        return chosen[:n]


class BatchStrategy(QueryStrategy):
    """Base of the strategies that choose a batch as a whole, by features.

    Subclasses document `layer` and `features`, see `CoreSet`.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "layer": [Integral, str],
        "features": [StrOptions({"current", "initial"})],
        **QueryStrategy._parameter_constraints,
    }
    # Whether `_select` uses the labelled images' features, and probabilities.
    _use_labeled: ClassVar[bool] = True
    _use_proba: ClassVar[bool] = True

    def __init__(
        self,
        *,
        layer: int | str = -2,
        features: str = "current",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(random_state=random_state)
        self.layer = layer
        self.features = features

    def _choose(self, request: Request) -> tuple[np.ndarray, np.ndarray]:
        self._validate_params()
        pool = extract_pool_features(
            request.estimator,
            request.X_pool,
            request.X_labeled if self._use_labeled else None,
            self.layer,
            initial=self.features == "initial",
            use_proba=self._use_proba,
        )
        check_enough(len(pool.indices), request.n_instances, n_images(request.X_pool))
        key = [self._seed(), 2, len(pool.indices), len(pool.labeled)]
        chosen, utilities = self._select(
            pool, request.n_instances, np.random.default_rng(key)
        )
        return pool.indices[chosen], np.asarray(utilities, dtype=np.float64)

    @abstractmethod
    def _select(
        self, pool: PoolFeatures, n_instances: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, Any]:
        """Return positions in the pool, most useful first, and their utilities."""


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed NumPy's and torch's global generators, for code of other packages."""
    from ..networks.torch_state import NETWORK_LOCK, seeded_torch

    state = np.random.get_state()  # noqa: NPY002
    with seeded_torch(seed), NETWORK_LOCK:
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
