"""CEAL: labels of uncertain images, pseudo-labels of confident ones."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval

from ..features.estimators import target_proba
from ._uncertainty import EntropySampling, row_uncertainty


class CEAL(EntropySampling):
    r"""Cost-Effective Active Learning [1]_.

    Queries images of high entropy (Eq. 5). :class:`~skadma.ActiveLearner` also trains
    on images of high confidence, with the predicted label as pseudo-label: those whose
    entropy lies below a threshold,

    .. math:: -\sum_k p_k \log p_k < \delta, \qquad \delta = \delta_0 - d_r \, t

    in round t (Eq. 6-7, 10). Pseudo-labels last for one round, and these images can be
    queried later. Elsewhere (modAL, ``query`` by hand) CEAL is entropy sampling;
    :meth:`pseudo_labels` returns the pseudo-labels.

    Parameters
    ----------
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

    cost: ClassVar[str] = "1 pass, and 1 more for pseudo-labels"
    multilabel: ClassVar[bool] = False

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "threshold": [Interval(Real, 0, None, closed="left")],
        "decay": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        threshold: float = 0.05,
        decay: float = 0.0033,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(random_state=random_state)
        self.threshold = threshold
        self.decay = decay

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
