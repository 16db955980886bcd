"""Draw the images whose labels an estimate of a model's accuracy needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from ._checks import check_proba

METHODS = ("random", "stratified")

_STRATA = 5
_PER_STRATUM = 4
_FLOOR = 0.02
"""The least chance of a mistake that any image is taken to have."""


@dataclass(frozen=True)
class Audit:
    """Images drawn to be labelled, and the strata that they were drawn from.

    Attributes
    ----------
    indices : ndarray of int, shape (n,)
        Rows of the population, in the order in which they were drawn.
    method : {"random", "stratified"}
    n_population : int
    strata : ndarray of int, shape (n,)
        The stratum of each image; 0 throughout without strata.
    stratum_sizes : ndarray of int, shape (n,)
        How many images of the population are in it.
    """

    indices: np.ndarray
    method: str
    n_population: int
    strata: np.ndarray
    stratum_sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)


def audit_sample(
    proba: ArrayLike,
    n: int,
    *,
    method: str = "stratified",
    random_state: int | np.random.RandomState | None = None,
) -> Audit:
    """Draw the images whose labels estimate how good a model is.

    Labels that a query strategy chose are no fair sample: it prefers images that are
    hard for the model. These are drawn with known probabilities, by which
    :func:`estimate` weights them.

    - ``"random"``: each image with the same chance.
    - ``"stratified"``: the images are sorted by the model's confidence and cut into up
      to five strata, narrower where mistakes are likely; each gets labels by its size
      and, half of them, by how uncertain its accuracy is (Neyman's allocation).

    Parameters
    ----------
    proba : array-like of shape (n_population, n_classes)
        The model's probabilities for all images that the estimate is to be about.
        "random" only counts them.
    n : int
        How many labels; from 1 to n_population.
    method : {"random", "stratified"}, default="stratified"
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    Audit

    Raises
    ------
    ValueError
        If there are not that many images, or the method is none of these.

    Examples
    --------
    >>> import numpy as np
    >>> from skadma.evaluation import audit_sample
    >>> right = np.linspace(0.5, 1, 1000)
    >>> audit = audit_sample(np.c_[right, 1 - right], 50, random_state=0)
    >>> len(audit), bool((audit.indices < 500).mean() > 0.5)  # uncertain more often
    (50, True)
    """
    table = check_proba(proba)
    n_population = len(table)
    if method not in METHODS:
        raise ValueError(f"method={method!r}; it is one of {', '.join(METHODS)}.")
    if not 1 <= n <= n_population:
        raise ValueError(
            f"n={n} labels, but it must be from 1 to {n_population}, the number of "
            "images that the estimate is about."
        )
    if method != "random" and np.isnan(table).any():
        raise ValueError(
            f"{np.isnan(table).any(axis=1).sum()} images have no probabilities; only "
            "method='random' can draw without."
        )
    rng = check_random_state(random_state)
    if method == "random":
        strata, counts = np.zeros(n_population, dtype=int), np.array([n])
    else:
        uncertainty = 1 - table.max(axis=1)
        strata = _by_confidence(uncertainty, n, rng)
        counts = _allocation(uncertainty, strata, n)
    drawn = [
        rng.choice(np.flatnonzero(strata == stratum), count, replace=False)
        for stratum, count in enumerate(counts)
    ]
    # In any order, so that a file that was filled in half is still a fair sample.
    indices = np.concatenate(drawn)[rng.permutation(n)]
    sizes = np.bincount(strata)[strata[indices]]
    return Audit(indices, method, n_population, strata[indices], sizes)


def _by_confidence(
    uncertainty: np.ndarray, n: int, rng: np.random.RandomState
) -> np.ndarray:
    """Cut into strata of equal cumulated spread of the loss (Dalenius and Hodges)."""
    n_strata = max(1, min(_STRATA, n // _PER_STRATUM))
    order = np.lexsort((rng.permutation(len(uncertainty)), -uncertainty))
    mass = np.cumsum(_spread(uncertainty[order]))
    strata = np.empty(len(uncertainty), dtype=int)
    strata[order] = np.minimum((mass / mass[-1] * n_strata).astype(int), n_strata - 1)
    return np.unique(strata, return_inverse=True)[1]


def _spread(uncertainty: np.ndarray) -> np.ndarray:
    """Return the loss's standard deviation if the model's confidence were right."""
    p = np.maximum(uncertainty, _FLOOR)
    return np.sqrt(p * (1 - p))


def _allocation(uncertainty: np.ndarray, strata: np.ndarray, n: int) -> np.ndarray:
    """Deal labels to strata: half by size, half by size times spread; at least two."""
    sizes = np.bincount(strata)
    spread = np.bincount(strata, _spread(uncertainty))
    wanted = n * (sizes / sizes.sum() + spread / spread.sum()) / 2
    counts = np.minimum(np.minimum(2, sizes), n)
    while counts.sum() < n:  # one more where it is missed most
        open_ = counts < sizes
        counts[np.argmax(np.where(open_, wanted - counts, -np.inf))] += 1
    return counts
