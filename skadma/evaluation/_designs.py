"""What the draws of an audit tell of the whole population: weights and variances."""

from __future__ import annotations

import numpy as np

from ._audit import Audit

_PSEUDO = 0.5
"""Mistakes added to those seen, in variances only: none seen is not none."""


def lure_weights(probabilities: np.ndarray, n_population: int) -> np.ndarray:
    """Weights v_m of draws one after the other, without replacement.

    Parameters
    ----------
    probabilities : ndarray of shape (n,)
        Of each draw, among what was left.
    n_population : int

    Returns
    -------
    ndarray of shape (n,)
        Their mean times a value is unbiased for the population's mean [1]_.

    References
    ----------
    .. [1] Farquhar, Gal & Rainforth, On Statistical Bias In Active Learning: How and
       When To Fix It, ICLR 2021: the levelled unbiased risk estimator R_LURE.
    """
    N, M = n_population, len(probabilities)
    m = np.arange(1, M + 1)
    if M == N:
        return np.ones(M)
    return 1 + (N - M) / (N - m) * (1 / ((N - m + 1) * probabilities) - 1)


def lure_variance(
    values: np.ndarray, probabilities: np.ndarray, n_population: int
) -> float:
    """Variance of the estimate with :func:`lure_weights`, from its draws.

    The estimate is the mean of c_m a_m. a_m is what draw m and those before it say,
    unbiased whatever came before, so that the a_m minus their expectation are
    martingale differences and their variances add up.

    Parameters
    ----------
    values, probabilities : ndarray of shape (n,)
    n_population : int

    Returns
    -------
    float
    """
    N, M = n_population, len(values)
    if M in (1, N):
        return 0.0
    m = np.arange(1, M + 1)
    before = np.cumsum(values) - values
    a = values / (N * probabilities) + before / N
    c = N * (N - M) / ((N - m) * (N - m + 1))
    squares = c**2 * (a - (c * a).mean()) ** 2
    return float(squares.sum() / (M * (M - 1)))


def population_weights(audit: Audit) -> np.ndarray:
    """Say how much of the population each drawn image stands for.

    Parameters
    ----------
    audit : Audit

    Returns
    -------
    ndarray of shape (n,)
        Their sum is 1; with "importance", in expectation.
    """
    if audit.method == "importance":
        weights = lure_weights(audit.probabilities, audit.n_population)
        return weights / len(audit)
    shares = audit.stratum_sizes / audit.n_population
    return shares / _counts(audit.strata)


def share_of_mistakes(
    audit: Audit, wrong: np.ndarray, answered: np.ndarray, finite: bool
) -> tuple[float, float]:
    """Estimate the share of mistakes in the population, and the estimate's variance.

    Parameters
    ----------
    audit : Audit
    wrong, answered : ndarray of bool, shape (n,)
        Images without an answer stand for those like them: the estimate is about the
        others.
    finite : bool
        The population is all that the estimate is about, not a sample of more.

    Returns
    -------
    share, variance : float
        The variance is a little more than what was seen gives, which is 0 where no
        mistake was seen.
    """
    if audit.method == "importance":
        weights = population_weights(audit)
        values = wrong.astype(float)
        share = float(weights @ values)
        if not answered.all():
            total = float(weights @ answered)
            share = float(weights @ (values * answered)) / total
            values = (values - share) * answered / total
        n = int(answered.sum())
        variance = lure_variance(values, audit.probabilities, audit.n_population)
        if len(audit) < audit.n_population:
            variance += _PSEUDO * float((weights[answered] ** 2).sum()) / n
        share = min(max(share, 0.0), 1.0)
        # Answers that are still to come are as a second draw among the first.
        rate = smoothed(share, n)
        variance += rate * (1 - rate) * (1 / n - 1 / len(audit))
    else:
        share, variance = _stratified(audit, wrong, answered)
        n = int(answered.sum())
    if not finite:
        rate = smoothed(share, n)
        variance += rate * (1 - rate) / audit.n_population
    return share, variance


def smoothed(share: float, n: int) -> float:
    """Laplace's estimate: as with one mistake more, and one that was none."""
    return (share * n + 1) / (n + 2)


def _stratified(
    audit: Audit, wrong: np.ndarray, answered: np.ndarray
) -> tuple[float, float]:
    _, first, members = np.unique(audit.strata, return_index=True, return_inverse=True)
    drawn = np.bincount(members)
    counts = np.bincount(members, answered)
    mistakes = np.bincount(members, wrong & answered)
    sizes = audit.stratum_sizes[first]
    # A stratum is worth what can be answered of it.
    shares = sizes * counts / drawn
    shares /= shares.sum()
    known = counts > 0
    shares, counts = shares[known], counts[known]
    mistakes, sizes = mistakes[known], sizes[known]
    share = float(shares @ (mistakes / counts))
    rate = smoothed(share, int(counts.sum()))
    # In each stratum one label more, half of it as in all strata and half at 1/2; in
    # fewer than five more than one, as all of them must not say less than `rate`.
    extra = max(1, 5 / len(counts))
    rates = (mistakes + extra * (rate + 0.5) / 2) / (counts + extra)
    if len(counts) == 1:
        rates = np.array([rate])
    left = 1 - counts / sizes
    spread = shares**2 * left * rates * (1 - rates) / counts
    # No truth makes it more than with as many labels everywhere as where fewest are.
    most = rate * (1 - rate) / (counts / shares).min()
    return share, min(float(spread.sum()), most)


def _counts(strata: np.ndarray) -> np.ndarray:
    """How many were drawn from the stratum of each."""
    _, members, counts = np.unique(strata, return_inverse=True, return_counts=True)
    return counts[members]
