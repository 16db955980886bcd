"""Random sampling, the baseline of every comparison."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..features.estimators import labels_fitted_with
from ..images.selection import n_images
from .base import Scores, ScoringStrategy


class RandomSampling(ScoringStrategy):
    """Choose images at random.

    Parameters
    ----------
    random_state : int, RandomState instance or None, default=None
        With an int the draw depends on it, on the number of labels and on the pool's
        size.

    Examples
    --------
    >>> import numpy as np
    >>> from skadma.strategies import RandomSampling
    >>> len(RandomSampling(random_state=0).query(None, np.zeros((9, 2)), 3))
    3
    """

    needs: ClassVar[str] = "nothing"
    cost: ClassVar[str] = "none"
    memory: ClassVar[str] = "n"
    multilabel: ClassVar[bool] = True

    def score(self, estimator: Any, X_pool: Any, *, iteration: float = 0) -> Scores:
        """Draw a score for each image; see :meth:`ScoringStrategy.score`."""
        # The pool shrinks from round to round: its size keeps draws independent.
        n = n_images(X_pool)
        key = [self._seed(), 0, n, labels_fitted_with(estimator)]
        return Scores(np.random.default_rng(key).random(n))
