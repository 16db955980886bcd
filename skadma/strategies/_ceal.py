"""CEAL: labels of uncertain images, pseudo-labels of confident ones."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from ..features.estimators import target_proba
from ..images.dataset import n_images
from ._uncertainty import row_uncertainty
from .base import Scores, ScoringStrategy


class CEAL(ScoringStrategy):
    r"""Cost-Effective Active Learning [1]_.

    Queries uncertain images. :class:`~skadma.ActiveLearner` also trains on images of
    high confidence, with the predicted label as pseudo-label: those whose entropy lies
    below a threshold,

    .. math:: -\sum_k p_k \log p_k < \delta, \qquad \delta = \delta_0 - d_r \, t

    in round t (Eq. 6-7, 10). Pseudo-labels last for one round, and these images can be
    queried later. Elsewhere (modAL, ``query`` by hand) CEAL is uncertainty sampling;
    :meth:`pseudo_labels` returns the pseudo-labels.

    Parameters
    ----------
    criterion : {"entropy", "margin", "least_confident"}, default="entropy"
        The uncertainty to query by (Eq. 3-5).
    threshold : float, default=0.05
        delta_0, in nats.
    decay : float, default=0.0033
        d_r: lowers the threshold, as the number of confident images grows with
        training.
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

    _parameter_constraints: ClassVar[dict[str, Any]] = {
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
        proba = target_proba(estimator, X_pool)
        if proba is None:
            return Scores(np.ones(n_images(X_pool)))
        return Scores(row_uncertainty(proba, self.criterion))

    def pseudo_labels(
        self, estimator: Any, X_pool: Any, *, iteration: float = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Predict labels where the present model is confident.

        Parameters
        ----------
        estimator, X_pool, iteration
            See :meth:`score`.

        Returns
        -------
        indices : ndarray of int, shape (m,)
        labels : ndarray of shape (m,)
            Empty before the first fit, and where one class is known.
        """
        self._validate_params()
        proba = target_proba(estimator, X_pool)
        delta = self.threshold - self.decay * iteration
        # With one class so far, the entropy of every image is 0.
        if proba is None or proba.shape[1] < 2 or delta <= 0:
            return np.empty(0, dtype=np.intp), np.empty(0)
        confident = np.flatnonzero(row_uncertainty(proba, "entropy") < delta)
        labels = np.asarray(estimator.classes_)[proba[confident].argmax(axis=1)]
        return confident, labels
