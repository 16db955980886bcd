"""Uncertainty sampling, with any classifier that has probabilities."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np

from .._utils.lazy_rows import AnyRows, per_row
from ..features.estimators import target_proba
from ..images.dataset import n_images
from .adma import uncertainty
from .base import Scores, ScoringStrategy


class _UncertaintySampling(ScoringStrategy):
    """Score by an uncertainty of the predicted probabilities."""

    needs: ClassVar[str] = "probabilities"
    cost: ClassVar[str] = "1 pass"
    memory: ClassVar[str] = "n C"
    multilabel: ClassVar[bool] = True
    _kind: ClassVar[str]

    def score(self, estimator: Any, X_pool: Any, *, iteration: float = 0) -> Scores:
        """Score by uncertainty; see :meth:`ScoringStrategy.score`.

        Before the first fit every image is equally uncertain, and ties are broken at
        random.
        """
        self._validate_params()
        proba = target_proba(estimator, X_pool)
        if proba is None:
            return Scores(np.ones(n_images(X_pool)))
        return Scores(row_uncertainty(proba, self._kind))


class LeastConfident(_UncertaintySampling):
    """Choose where the most probable class is least probable: 1 - max p [1]_.

    Parameters
    ----------
    random_state : int, RandomState instance or None, default=None
        Breaks ties.

    References
    ----------
    .. [1] Lewis & Gale, A Sequential Algorithm for Training Text Classifiers,
       SIGIR 1994.
    """

    _kind = "least_confident"


class MarginSampling(_UncertaintySampling):
    """Choose where the two most probable classes are closest: 1 - (p1 - p2) [1]_.

    Parameters
    ----------
    random_state : int, RandomState instance or None, default=None
        Breaks ties.

    References
    ----------
    .. [1] Scheffer, Decomain & Wrobel, Active Hidden Markov Models for Information
       Extraction, IDA 2001.
    """

    _kind = "margin"


class EntropySampling(_UncertaintySampling):
    """Choose where the entropy -sum p log p is highest [1]_.

    Parameters
    ----------
    random_state : int, RandomState instance or None, default=None
        Breaks ties.

    References
    ----------
    .. [1] Settles, Active Learning Literature Survey, 2009, Sec. 3.1.
    """

    _kind = "entropy"


def row_uncertainty(proba: AnyRows, kind: str) -> np.ndarray:
    """Uncertainty per row; NaN where the probabilities are NaN (unreadable images)."""
    return per_row(proba, partial(uncertainty, kind=kind))
