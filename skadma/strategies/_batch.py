"""Base of the strategies that choose a batch as a whole, by features."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import StrOptions

from ._pool_features import Pool, extract_pool_features
from .base import QueryStrategy, Request


class BatchStrategy(QueryStrategy):
    """Base of the strategies that choose a batch as a whole, by features.

    Parameters
    ----------
    layer : int or str, default=-2
        The layer of a CNNClassifier whose outputs are the features; -2 is the
        penultimate feature vector. Rows of other classifiers are taken as they are.
    features : {"current", "initial"}, default="current"
        Of which network: the one being adapted, or M0.
    random_state : int, RandomState instance or None, default=None
    """

    _parameter_constraints: ClassVar[dict] = {
        "features": [StrOptions({"current", "initial"})],
        "random_state": ["random_state"],
    }
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
            request,
            self.layer,
            self.features == "initial",
            use_labeled=self._use_labeled,
            use_proba=self._use_proba,
        )
        key = [self._seed(), 2, len(pool.indices), len(pool.labeled)]
        chosen, utilities = self._select(
            pool, request.n_instances, np.random.default_rng(key), request.iteration
        )
        return pool.indices[chosen], np.asarray(utilities, dtype=np.float64)

    @abstractmethod
    def _select(
        self, pool: Pool, n_instances: int, rng: np.random.Generator, iteration: float
    ) -> tuple[np.ndarray, Any]:
        """Return positions in the pool and their utilities."""
