"""Temperature scaling and calibration error of probabilities."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from ._checks import check_proba, known_rows

_LEAST = 1e-12
"""Replaces probabilities of 0, whose logarithm is infinite."""
_RANGE = (math.log(0.05), math.log(20))
_SPREAD = 0.35
"""Standard deviation of the prior of log temperatures, the best with 60 to 400 labels
on four data sets."""


def fit_temperature(
    proba: ArrayLike, y: ArrayLike, *, classes: ArrayLike | None = None
) -> float:
    """Find the temperature that makes probabilities fit labels best [1]_.

    Its logarithm has a normal prior with mean 0, so few labels move it little from 1.

    Parameters
    ----------
    proba : array-like of shape (n, n_classes)
        Of images whose labels the model has not seen: from :func:`out_of_fold_proba`,
        or on an audit. On its own training images a model is right nearly always, and
        the temperature would make it surer still. Rows of NaN are left out.
    y : array-like of shape (n,)
    classes : array-like, optional
        The classes of the columns; those in `y`, sorted, if None.

    Returns
    -------
    float
        From 0.05 to 20; above 1 where the model is too sure.

    References
    ----------
    .. [1] Guo, Pleiss, Sun & Weinberger, On Calibration of Modern Neural Networks,
       ICML 2017, Section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from skadma.evaluation import apply_temperature, fit_temperature
    >>> proba = np.tile([0.99, 0.01], (1000, 1))  # sure, but wrong in 1 of 5
    >>> y = [0] * 800 + [1] * 200
    >>> apply_temperature(proba, fit_temperature(proba, y))[0].round(2).tolist()
    [0.81, 0.19]
    """
    _, table, given, _ = known_rows(proba, y, classes)
    logits = np.log(np.maximum(table, _LEAST))
    rows = np.arange(len(given))

    # Not scikit-learn's temperature scaling: it has no prior, which few labels need,
    # and comes with 1.8 only.
    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / math.exp(log_temperature), axis=1)
        prior = (log_temperature / _SPREAD) ** 2 / 2
        return prior - float(scaled[rows, given].sum())

    return math.exp(minimize_scalar(loss, bounds=_RANGE, method="bounded").x)


def apply_temperature(proba: ArrayLike, temperature: float) -> np.ndarray:
    """Divide log probabilities by a temperature: above 1 makes them less sure.

    The order of the classes, and so every prediction, stays.

    Parameters
    ----------
    proba : array-like of shape (n, n_classes)
    temperature : float
        Above 0.

    Returns
    -------
    ndarray of shape (n, n_classes)
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}; it must be above 0.")
    logits = np.log(np.maximum(check_proba(proba), _LEAST))
    return softmax(logits / temperature, axis=1)


def expected_calibration_error(
    proba: ArrayLike,
    y: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    n_bins: int = 10,
) -> float:
    """Average the gap between confidence and accuracy over bins of confidence [1]_.

    Few images make it larger than it is: with n of them and b bins, a perfect model
    has about sqrt(b / n) / 3.

    Parameters
    ----------
    proba : array-like of shape (n, n_classes)
        Of images whose labels the model has not seen. Rows of NaN are left out.
    y : array-like of shape (n,)
    classes : array-like, optional
        The classes of the columns; those in `y`, sorted, if None.
    n_bins : int, default=10
        With equally many images each.

    Returns
    -------
    float
        From 0 to 1.

    References
    ----------
    .. [1] Naeini, Cooper & Hauskrecht, Obtaining Well Calibrated Probabilities Using
       Bayesian Binning, AAAI 2015.
    """
    if n_bins < 1:
        raise ValueError(f"n_bins={n_bins}; it must be at least 1.")
    _, table, given, _ = known_rows(proba, y, classes)
    confidence, right = table.max(axis=1), table.argmax(axis=1) == given
    bins = np.empty(len(confidence), dtype=int)
    bins[np.argsort(confidence, kind="stable")] = (
        np.arange(len(confidence)) * n_bins // len(confidence)
    )
    bins = np.unique(bins, return_inverse=True)[1]
    counts = np.bincount(bins)
    accuracy, mean = (np.bincount(bins, x) / counts for x in (right, confidence))
    return float(np.average(np.abs(accuracy - mean), weights=counts))
