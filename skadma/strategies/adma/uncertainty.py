"""Uncertainty of a prediction, and the score that joins the criteria (Eq. 10-11)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr

UNCERTAINTIES = ("gini", "entropy", "margin", "least_confident")
"""Names that :func:`uncertainty` takes as `kind`."""


def uncertainty(proba: ArrayLike, kind: str = "gini") -> np.ndarray:
    r"""Compute how uncertain each prediction is (Eq. 10); more is more uncertain.

    The paper's Eq. 10 prints :math:`-\sum_c p_c (1 - p_c)`, which *falls* as the
    uncertainty rises, and calls it entropy: a slip. The criteria that can be meant
    are Gini's, without the minus, and the entropy.

    Parameters
    ----------
    proba : array-like of shape (n, C), in [0, 1]
        Class probabilities under the current model. Or of shape (n, L, C): of L
        labels, of which an image has any number, each absent or present (C = 2). The
        uncertainty is then the mean over the labels. For entropy that is the entropy
        of all labels together, if they are independent, over L; for "least_confident"
        the share of labels that are expected to be wrong.
    kind : {"gini", "entropy", "margin", "least_confident"}, default="gini"
        With the probabilities of a row in falling order, :math:`p_1 \ge p_2 \ge \dots`

        - "gini": :math:`\sum_c p_c (1 - p_c)`, in [0, 1 - 1/C];
        - "entropy": :math:`-\sum_c p_c \log p_c`, natural, 0 log 0 = 0, in [0, log C];
        - "margin": :math:`1 - (p_1 - p_2)`, in [0, 1]; 0 if C = 1;
        - "least_confident": :math:`1 - p_1`, in [0, 1 - 1/C].

    Returns
    -------
    ndarray of shape (n,), float64
        The uncertainties.

    Raises
    ------
    ValueError
        If `kind` is unknown, or `proba` is not a matrix with a column, or has a value
        outside [0, 1] (beyond rounding, 1e-6) or NaN.
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
    if not np.all((proba >= 0) & (proba <= 1 + 1e-6)):
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
        return np.zeros(len(proba))
    second, first = np.partition(proba, -2, axis=1)[:, -2:].T
    return 1 - (first - second)


def combined_score(
    distinctiveness: ArrayLike,
    uncertainty: ArrayLike,
    trade_off: float,
    iteration: float,
) -> np.ndarray:
    r"""Compute :math:`(1 - \lambda t) \, d + \lambda t \, u` for each image (Eq. 11).

    The weight moves from distinctiveness to uncertainty as the model learns.

    Parameters
    ----------
    distinctiveness : array-like of shape (n,)
        d, from Eq. 9.
    uncertainty : array-like of shape (n,)
        u, from Eq. 10.
    trade_off : float
        :math:`\lambda`, the weight that uncertainty gains per round. The paper gives
        no value.
    iteration : float
        t, the round, from 0. :math:`\lambda t` is clipped to [0, 1].

    Returns
    -------
    ndarray of shape (n,), float64
        The scores.

    Raises
    ------
    ValueError
        If the two arrays differ in shape.
    """
    d = np.asarray(distinctiveness, dtype=np.float64)
    u = np.asarray(uncertainty, dtype=np.float64)
    if d.shape != u.shape:
        raise ValueError(
            "distinctiveness and uncertainty have to be of one shape; "
            f"got {d.shape} and {u.shape}."
        )
    weight = min(max(trade_off * iteration, 0.0), 1.0)
    return (1 - weight) * d + weight * u
