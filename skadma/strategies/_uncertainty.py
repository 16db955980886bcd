"""Uncertainty sampling, with any classifier that has probabilities."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr

from .._utils.lazy_rows import AnyRows, per_row
from ..features.estimators import target_proba
from ..images.selection import n_images
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


UNCERTAINTIES = ("gini", "entropy", "margin", "least_confident")
"""Names that :func:`uncertainty` takes as `kind`."""


def uncertainty(proba: ArrayLike, kind: str = "gini") -> np.ndarray:
    r"""Compute how uncertain each prediction is (Eq. 10); more is more uncertain.

    Eq. 10 prints :math:`-\sum_c p_c (1 - p_c)`, which *falls* as the uncertainty rises,
    and calls it entropy; what can be meant is Gini's, without the minus, or the
    entropy.

    Parameters
    ----------
    proba : array-like of shape (n, C) or (n, L, C), in [0, 1]
        Class probabilities; with L labels per image the result is the mean over them.
    kind : {"gini", "entropy", "margin", "least_confident"}, default="gini"
        With the probabilities of a row in falling order, :math:`p_1 \ge p_2 \ge \dots`

        - "gini": :math:`\sum_c p_c (1 - p_c)`, in [0, 1 - 1/C];
        - "entropy": :math:`-\sum_c p_c \log p_c`, natural, 0 log 0 = 0, in [0, log C];
        - "margin": :math:`1 - (p_1 - p_2)`, in [0, 1]; 0 if C = 1;
        - "least_confident": :math:`1 - p_1`, in [0, 1 - 1/C].

    Returns
    -------
    ndarray of shape (n,), float64
        NaN where probabilities are.
    """
    if kind not in UNCERTAINTIES:
        raise ValueError(f"kind has to be one of {UNCERTAINTIES}; got {kind!r}.")
    proba = np.asarray(proba, dtype=np.float64)
    if proba.ndim == 3 and proba.shape[1]:
        each = uncertainty(proba.reshape(-1, proba.shape[2]), kind)
        return each.reshape(proba.shape[:2]).mean(axis=1)
    if proba.ndim != 2 or proba.shape[1] == 0:
        raise ValueError(
            f"proba has to have shape (n, C) with C >= 1; got {proba.shape}."
        )
    if np.any((proba < 0) | (proba > 1 + 1e-6)):
        raise ValueError(
            "proba has to be probabilities in [0, 1]; "
            f"got values from {proba.min()} to {proba.max()}."
        )
    if kind == "gini":
        return (proba * (1 - proba)).sum(axis=1)
    if kind == "entropy":
        return entr(proba).sum(axis=1)
    if kind == "least_confident":
        return 1 - proba.max(axis=1)
    if proba.shape[1] == 1:
        return 0 * proba[:, 0]
    second, first = np.partition(proba, -2, axis=1)[:, -2:].T
    return 1 - (first - second)
