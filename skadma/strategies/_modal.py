"""modAL's query functions as strategies of this package."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .._utils.candidates import check_enough
from ..features.estimators import unwrap
from ..images.selection import n_images
from ._committee import member_proba
from .base import QueryStrategy, Request, global_seed


def from_modal(function: Callable[..., Any], **kwargs: Any) -> ModALStrategy:
    """Make a strategy of one of modAL's query functions.

    Parameters
    ----------
    function : callable
        ``function(learner, X_pool, n_instances=..., **kwargs)``, returning indices and
        metrics, or indices: all of ``modAL.uncertainty``, ``modAL.batch`` and
        ``modAL.disagreement`` (the estimator has to be an ensemble), or one of your
        own.
    **kwargs
        Given to each call.

    Returns
    -------
    ModALStrategy
    """
    return ModALStrategy(function, kwargs)


class ModALStrategy(QueryStrategy):
    """A query function of modAL; see :func:`from_modal`.

    Parameters
    ----------
    function, kwargs
        As there.
    random_state : int, RandomState instance or None, default=None
        Seeds NumPy's and torch's global generators, which modAL draws from.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        kwargs: dict[str, Any] | None = None,
        *,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(random_state=random_state)
        self.function = function
        self.kwargs = kwargs

    def _choose(self, request: Request) -> tuple[np.ndarray, np.ndarray]:
        estimator, X, _ = unwrap(request.estimator, request.X_pool)
        with global_seed(self._seed()):
            answer = self.function(
                _Learner(estimator, request),
                X,
                n_instances=request.n_instances,
                **(self.kwargs or {}),
            )
        indices, metrics = answer if isinstance(answer, tuple) else (answer, None)
        indices = np.asarray(indices).ravel()
        check_enough(len(np.unique(indices)), request.n_instances, len(X))
        if metrics is None:
            return indices, np.full(len(indices), np.nan)
        return indices, np.asarray(metrics, dtype=np.float64).ravel()


class _Learner:
    """A learner or committee as modAL's functions use it."""

    on_transformed = False

    def __init__(self, estimator: Any, request: Request) -> None:
        self.estimator = estimator
        known = request.X_labeled is not None and n_images(request.X_labeled)
        self.X_training = request.X_labeled if known else None
        self.y_training = request.y_labeled if known else None

    def __len__(self) -> int:
        return len(self.estimator.estimators_)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.estimator.estimators_)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.estimator, name)

    def vote_proba(self, X: Any) -> np.ndarray:
        """Probabilities by the members, (n, n_members, n_classes)."""
        return member_proba(self.estimator, X).transpose(1, 0, 2)

    def vote(self, X: Any) -> np.ndarray:
        """Labels by the members, (n, n_members)."""
        return self.estimator.classes_[self.vote_proba(X).argmax(axis=2)]
