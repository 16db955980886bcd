"""Consensus of several people's answers and a model's, by a model of annotators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ._checks import check_proba

_SHARES = (np.arange(200) + 0.5) / 200
_PRIOR = 4
"""People are mostly right: a density in proportion to the share to this power."""


@dataclass(frozen=True)
class Consensus:
    """What answers of several people and a model say together.

    Attributes
    ----------
    proba : ndarray of shape (n, n_classes)
        Probability of each class of an image, given all that was said of it.
    right : ndarray of shape (n_people,)
        How often each person is right: the mean of what is probable.
    low, high : ndarray of shape (n_people,)
        The 95 % interval.
    """

    proba: np.ndarray
    right: np.ndarray
    low: np.ndarray
    high: np.ndarray


def consensus(answers: ArrayLike, proba: ArrayLike) -> Consensus:
    """Find the probable class of images, and how often each person is right.

    Each person gives the true class with a share of their own, and else any other class
    with equal chance (Dawid and Skene's model [1]_ with one number per person); a
    model's probabilities are what is known of an image before anybody answered. So
    people can be judged who never answered about the same image. The shares and the
    classes are found by turns; a share's interval is that of its likelihood, summed
    over classes that the others' answers leave open.

    Parameters
    ----------
    answers : array-like of int, shape (n, n_people)
        The class's column in `proba`; -1 where a person did not answer.
    proba : array-like of shape (n, n_classes)
        Of a model that did not see the answers about an image, from
        :func:`out_of_fold_proba` or ``loo_proba_``. Rows of NaN: nothing is known.

    Returns
    -------
    Consensus

    References
    ----------
    .. [1] Dawid & Skene, Maximum Likelihood Estimation of Observer Error-Rates Using
       the EM Algorithm, Applied Statistics 1979.

    Examples
    --------
    >>> from skadma.evaluation import consensus
    >>> found = consensus([[0, 1], [1, 1], [0, -1]], [[.9, .1], [.4, .6], [.7, .3]])
    >>> found.proba.argmax(axis=1).tolist()
    [0, 1, 0]
    >>> bool(found.right[0] > found.right[1])
    True
    """
    table, given = check_proba(proba), np.asarray(answers)
    n, n_classes = table.shape
    if given.ndim != 2 or len(given) != n or given.dtype.kind not in "iu":
        raise ValueError(
            f"answers has the shape {given.shape} and the type {given.dtype}; give a "
            f"row of column numbers for each of the {n} images, -1 for no answer."
        )
    if given.size and not -1 <= given.min() <= given.max() < n_classes:
        raise ValueError(f"answers must be from -1 to {n_classes - 1}.")
    empty = np.isnan(table).any(axis=1, keepdims=True)
    prior = np.log(np.maximum(np.where(empty, 1 / n_classes, table), 1e-6))
    said = [np.flatnonzero(column >= 0) for column in given.T]
    right = np.full(given.shape[1], 0.8)
    weights = np.tile(_SHARES**_PRIOR, (len(right), 1))  # of each share, by person
    for _ in range(50):
        logs = _weigh(prior, given, said, right)
        before = right.copy()
        for j, rows in enumerate(said):
            others, own = logs[rows], given[rows, j]
            others[np.arange(len(rows)), own] -= _gain(before[j], n_classes)
            p = _normalized(others)[np.arange(len(rows)), own]
            odds = np.outer(_SHARES, p) + np.outer(1 - _SHARES, 1 - p) / (n_classes - 1)
            density = _PRIOR * np.log(_SHARES) + np.log(odds).sum(axis=1)
            weights[j] = np.exp(density - density.max())
        weights /= weights.sum(axis=1, keepdims=True)
        right = weights @ _SHARES
        if np.abs(right - before).max(initial=0) < 1e-4:
            break
    sums = weights.cumsum(axis=1)
    low, high = (_SHARES[(sums > q).argmax(axis=1)] for q in (0.025, 0.975))
    return Consensus(_normalized(_weigh(prior, given, said, right)), right, low, high)


def _gain(right: float, n_classes: int) -> float:
    """What an answer adds to the logarithm of its class's probability."""
    return float(np.log(right * (n_classes - 1) / (1 - right)))


def _weigh(
    prior: np.ndarray, given: np.ndarray, said: list[np.ndarray], right: np.ndarray
) -> np.ndarray:
    """Logarithms of the classes' probabilities, without a common summand."""
    logs = prior.copy()
    for j, rows in enumerate(said):
        logs[rows, given[rows, j]] += _gain(right[j], prior.shape[1])
    return logs


def _normalized(logs: np.ndarray) -> np.ndarray:
    proba = np.exp(logs - logs.max(axis=1, keepdims=True))
    return proba / proba.sum(axis=1, keepdims=True)
