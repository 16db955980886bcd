"""What all query strategies share."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from .._utils.candidates import check_enough, check_n_instances
from ..features.adapter import get_adapter
from ..features.estimators import innermost, is_multilabel, labels_fitted_with, unwrap
from ..images.dataset import n_images, take


@dataclass(frozen=True)
class Scores:
    """How useful a strategy finds each image of a pool.

    Attributes
    ----------
    total : ndarray of shape (n,), float64
        The higher the more useful; NaN for images that cannot be decoded.
    """

    total: np.ndarray


class Request:
    """What is asked of a strategy.

    Parameters
    ----------
    estimator, X_pool, n_instances, iteration, X_labeled, y_labeled, n_rounds
        See :meth:`QueryStrategy.query`.
    """

    def __init__(
        self,
        estimator: Any,
        X_pool: Any,
        n_instances: int,
        *,
        iteration: float | None = None,
        X_labeled: Any = None,
        y_labeled: ArrayLike | None = None,
        n_rounds: int | None = None,
    ) -> None:
        if iteration is None:
            iteration = labels_fitted_with(estimator) / n_instances
        if X_labeled is None and hasattr(estimator, "X_training"):
            X_labeled, y_labeled = estimator.X_training, estimator.y_training
        self.estimator = estimator
        self.X_pool = X_pool
        self.n_instances = n_instances
        self.iteration = iteration
        self.X_labeled = X_labeled
        self.y_labeled = y_labeled
        self.n_rounds = n_rounds


class QueryStrategy(BaseEstimator, ABC):
    """Base of the strategies: subclasses choose images from a pool.

    Parameters
    ----------
    random_state : int, RandomState instance or None, default=None
        Breaks ties, and seeds whatever else a strategy draws.
    """

    needs: ClassVar[str]
    cost: ClassVar[str]
    memory: ClassVar[str]
    # For docs/strategies.md: what a strategy looks at, the passes over the pool with
    # the operations beside them, and the numbers held at once.
    multilabel: ClassVar[bool] = False
    # Whether images may have any number of labels.

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
            fitted with / `n_instances`, which is the round where batches are equal.
        X_labeled : images or array-like, optional
            What has a label already, for the strategies that choose away from it.
            ActiveLearner gives it, and modAL's learner has it.
        y_labeled : array-like, optional
            Its labels.
        n_rounds : int, optional
            How many rounds the run has, where that is known, for the strategies that
            go over from one criterion to another. ActiveLearner gives it.

        Returns
        -------
        ndarray of int, shape (n_instances,)
            Distinct indices into `X_pool`, most useful first.

        Raises
        ------
        ValueError
            If the pool has fewer usable images than are asked for.
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
        """Choose images and return ``(indices, utilities)``: modAL's form.

        Parameters
        ----------
        estimator, X_pool, n_instances
            See :meth:`query`.
        **kwargs
            `iteration`, `X_labeled`, `y_labeled`, `n_rounds`: see :meth:`query`.

        Returns
        -------
        indices : ndarray of int, shape (n_instances,)
        utilities : ndarray of float, shape (n_instances,)
        """
        check_n_instances(n_instances, n_images(X_pool))
        if is_multilabel(estimator):
            self.check_multilabel()
        return self._choose(Request(estimator, X_pool, n_instances, **kwargs))

    def check_multilabel(self) -> None:
        """Refuse a task of several labels per image, if the strategy cannot do it.

        Raises
        ------
        ValueError
        """
        if not self.multilabel:
            others = sorted(
                cls.__name__
                for cls in _subclasses(QueryStrategy)  # type: ignore[type-abstract]
                if cls.multilabel and not cls.__name__.startswith("_")
            )
            raise ValueError(
                f"{type(self).__name__} is for tasks of one label per image, but y "
                f"has several columns. Take one of {', '.join(others)}."
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
        estimator : object
            A classifier, fitted or (round 0) not; a Pipeline that ends in one, or
            modAL's learner around one.
        X_pool : images or array-like
            What the classifier takes.
        iteration : float, default=0
            The round t, from 0.

        Returns
        -------
        Scores
        """

    def _choose(self, request: Request) -> tuple[np.ndarray, np.ndarray]:
        chosen, total = self.choose_and_score(request)
        return chosen, total[chosen]

    def choose_and_score(self, request: Request) -> tuple[np.ndarray, np.ndarray]:
        """Choose images, and return with them the scores of all.

        Parameters
        ----------
        request : Request

        Returns
        -------
        chosen : ndarray of int, shape (n_instances,)
        total : ndarray of float, shape (n,)
        """
        total = self._scores(request).total
        check_finite(np.isfinite(total), request.estimator, request.X_pool)
        ties = np.random.default_rng([self._seed(), 1]).permutation(len(total))
        order = np.lexsort((ties, -total))
        order = order[~np.isnan(total[order])]
        check_enough(len(order), request.n_instances, len(total))
        return self._take(request, order), total

    def _scores(self, request: Request) -> Scores:
        return self.score(
            request.estimator, request.X_pool, iteration=request.iteration
        )

    def _take(self, request: Request, order: np.ndarray) -> np.ndarray:
        """Take images from those that have a score, best first."""
        return first_readable(request, order)


def first_readable(request: Request, order: np.ndarray) -> np.ndarray:
    """Take the first images of an order, without those that cannot be decoded.

    A score that looked at no image knows nothing of that; decoding those that are
    about to be chosen is cheaper than decoding all.

    Raises
    ------
    TooFewCandidatesError
        If fewer than are asked for can be decoded.
    """
    n = request.n_instances
    view = get_adapter(innermost(request.estimator))
    if view is None or not view.skips_unreadable:
        return order[:n]
    _, X = unwrap(request.estimator, request.X_pool)
    chosen = order[:0]
    for begin in range(0, len(order), n):
        some = order[begin : begin + n]
        chosen = np.concatenate([chosen, some[view.readable(take(X, some))]])
        if len(chosen) >= n:
            return chosen[:n]
    check_enough(len(chosen), n, len(order))
    return chosen


def _subclasses(cls: type[QueryStrategy]) -> Iterator[type[QueryStrategy]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed NumPy's and torch's global generators for a while, for others' code."""
    state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002


def check_finite(finite: np.ndarray, estimator: Any, X: Any) -> None:
    """Refuse NaN and infinity where they mean anything but an unreadable image.

    Parameters
    ----------
    finite : ndarray of bool, shape (n,)
        Of which images the scores (or features) are finite.
    estimator : object
    X : images or array-like of shape (n, ...)

    Raises
    ------
    ValueError
        The message names the images.
    """
    wrong = np.flatnonzero(~finite)
    if not len(wrong):
        return
    inner, X_inner = unwrap(estimator, X)
    view = get_adapter(inner)
    params = inner.get_params() if hasattr(inner, "get_params") else {}
    if view is not None:
        wrong = wrong[view.readable(take(X_inner, wrong))]
    elif any(v == "skip" for k, v in params.items() if k.endswith("on_bad_image")):
        return  # a committee, of which members may leave images out
    if len(wrong):
        some = take(X, wrong[:3])
        named = [
            repr(str(item)) if isinstance(item, (str, os.PathLike)) else f"X[{i}]"
            for i, item in zip(wrong[:3], some, strict=False)
        ]
        raise ValueError(
            f"The scores of {len(wrong)} image(s) are NaN or infinite, the first: "
            f"{', '.join(named)}. The network's weights or the image's values are at "
            "fault; a lower learning rate may help."
        )
