"""CEAL: ask for the uncertain, believe the certain."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from ..features.estimators import target_proba
from ._uncertainty import known_uncertainty, uncertainty_scores
from .base import Scores, ScoringStrategy


class CEAL(ScoringStrategy):
    r"""Cost-Effective Active Learning [1]_.

    Asks for the labels of uncertain images, and :class:`~skadma.ActiveLearner` trains
    on the images of high confidence too, with the predicted label for a label: those
    whose entropy lies below a threshold,

    .. math:: -\sum_k p_k \log p_k < \delta, \qquad \delta = \delta_0 - d_r \, t

    in round t (Eq. 6-7, 10). The predicted labels are forgotten after the round, and
    these images can be asked for later. Elsewhere (modAL, ``query`` by hand) it is
    uncertainty sampling; :meth:`pseudo_labels` gives the rest.

    Parameters
    ----------
    criterion : {"entropy", "margin", "least_confident"}, default="entropy"
        The uncertainty that is asked for (Eq. 3-5).
    threshold : float, default=0.05
        delta_0, in nats.
    decay : float, default=0.0033
        d_r: the confident share would grow as the network learns.
    random_state : int, RandomState instance or None, default=None
        Breaks ties.

    References
    ----------
    .. [1] Wang, Zhang, Li, Zhang & Lin, Cost-Effective Active Learning for Deep Image
       Classification, IEEE TCSVT 2017.
    """

    needs: ClassVar[str] = "probabilities"
    cost: ClassVar[str] = "1 pass, and 1 more for pseudo-labels"
    memory: ClassVar[str] = "n C"

    _parameter_constraints = {
        "criterion": [StrOptions({"entropy", "margin", "least_confident"})],
        "threshold": [Interval(Real, 0, None, closed="left")],
        "decay": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        criterion: str = "entropy",
        threshold: float = 0.05,
        decay: float = 0.0033,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(random_state=random_state)
        self.criterion = criterion
        self.threshold = threshold
        self.decay = decay

    def score(self, estimator: Any, X_pool: Any, *, iteration: float = 0) -> Scores:
        """Score by uncertainty; see :meth:`ScoringStrategy.score`."""
        self._validate_params()
        return uncertainty_scores(estimator, X_pool, self.criterion)

    def pseudo_labels(
        self, estimator: Any, X_pool: Any, *, iteration: float = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict labels where the present model is confident.

        Parameters
        ----------
        estimator, X_pool
            See :meth:`query`.
        iteration : float, default=0
            The round t.

        Returns
        -------
        indices : ndarray of int, shape (m,)
        labels : ndarray of shape (m,)
            Nothing before the first fit.
        """
        self._validate_params()
        proba = target_proba(estimator, X_pool)
        delta = self.threshold - self.decay * iteration
        # Of a single class that is known so far, every image is sure to be.
        if proba is None or proba.shape[1] < 2 or delta <= 0:
            return np.empty(0, dtype=np.intp), np.empty(0)
        sure = np.flatnonzero(known_uncertainty(proba, "entropy") < delta)
        return sure, np.asarray(estimator.classes_)[proba[sure].argmax(axis=1)]
