"""Rank labels by how likely they are wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ._checks import known_rows


@dataclass(frozen=True)
class Suspects:
    """Labelled images in the order in which to check their labels.

    Attributes
    ----------
    indices : ndarray of int, shape (m,)
        Most suspicious first. All images that have out-of-fold probabilities.
    scores : ndarray of shape (m,)
        In [0, 1]: 1 minus the probability of the given label.
    suggested : ndarray of shape (m,)
        The class with the highest probability.
    likely : ndarray of bool, shape (m,)
        Whether confident learning takes the label for wrong.
    """

    indices: np.ndarray
    scores: np.ndarray
    suggested: np.ndarray
    likely: np.ndarray


def suspects(
    y: ArrayLike, proba: ArrayLike, *, classes: ArrayLike | None = None
) -> Suspects:
    """Rank labels by how improbable a model that did not see them finds them.

    The ranking is self-confidence: the probability of the given label. Confident
    learning [1]_ decides which of them are likely wrong: another class has at least the
    probability that it has on average among the images with that label.

    Parameters
    ----------
    y : array-like of shape (n,)
        The labels as they were given.
    proba : array-like of shape (n, n_classes)
        From :func:`out_of_fold_proba`: a model's scores on its own training images
        hide mistakes. Rows of NaN are left out.
    classes : array-like, optional
        The classes of the columns; those in `y`, sorted, if None.

    Returns
    -------
    Suspects

    Raises
    ------
    ValueError
        If `proba` has no probabilities or does not fit `y` and `classes`.

    References
    ----------
    .. [1] Northcutt, Jiang & Chuang, Confident Learning: Estimating Uncertainty in
       Dataset Labels, JAIR 2021.

    Examples
    --------
    >>> from skadma.evaluation import suspects
    >>> proba = [[.9, .1], [.8, .2], [.3, .7], [.9, .1]]
    >>> found = suspects(["crack", "crack", "ok", "ok"], proba)
    >>> found.indices.tolist(), found.suggested.tolist()
    ([3, 2, 1, 0], ['crack', 'ok', 'crack', 'crack'])
    >>> found.likely.tolist()
    [True, False, False, False]
    """
    judged, table, given, names = known_rows(proba, y, classes)
    own = table[np.arange(len(given)), given]
    order = np.argsort(own, kind="stable")
    likely = _confidently_another(table, given)
    return Suspects(
        judged[order], 1 - own[order], names[table.argmax(axis=1)][order], likely[order]
    )


def _confidently_another(proba: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Find entries off the diagonal of the confident joint, Eq. 1 and 2."""
    thresholds = np.full(proba.shape[1], np.inf)
    for k in np.unique(given):
        thresholds[k] = proba[given == k, k].mean()
    confident = np.where(proba >= thresholds, proba, -np.inf)
    best = confident.argmax(axis=1)
    return np.isfinite(confident.max(axis=1)) & (best != given)
