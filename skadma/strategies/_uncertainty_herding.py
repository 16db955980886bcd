"""UncertaintyHerding: cover what is uncertain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from numbers import Real
from typing import ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from .._utils.lazy_rows import JoinedRows, LazyRows
from ._batch import BatchStrategy
from ._coverage import Coverage, share_distance
from ._partitioned_herding import herd_over_partitions, n_reference_points
from ._pool_features import Pool
from ._probcover import unit
from ._uncertainty import known_uncertainty
from .adma.uncertainty import UNCERTAINTIES

_WITNESSES = 5000
"""Images on which the coverage is measured."""


class UncertaintyHerding(BatchStrategy):
    r"""Choose the images that together cover most of the uncertainty [1]_.

    An image covers another one by their similarity k in (0, 1]. The images S that are
    labelled or chosen cover

    .. math:: U(S) = \sum_{x} u(x) \, \max_{s \in S} k(x, s), \qquad
              k(x, s) = \exp(-\|x - s\|^2 / \sigma^2)

    of the pool's uncertainties u. Each next image is the one that adds most to U (the
    paper's Algorithm 1), which comes to at least 1 - 1/e of the best batch. Before the
    first fit all images are equally uncertain, and the densest parts of the pool are
    covered first (MaxHerding [2]_). docs/label_efficiency.md has measurements.

    sigma^2 is the mean squared distance from an image to its m-th nearest neighbour,
    m = n / (labels + b), which is an equal share of the pool for each label. So sigma
    falls as labels are added, and the choice moves from dense regions to single
    uncertain images. (The paper takes the smallest distance between two labelled
    images, which depends on a single pair, and scales the probabilities by a
    temperature found on a part of the labels.) Features are centred and normalised to
    length 1. In pools of more than 5,000 images U is estimated on 5,000 of them, drawn
    in proportion to their uncertainties.

    In pools of more than 26,000 images a temporary file of 10,000 bytes an image spares
    most of the time (docs/scale.md). It lies in the folder that the variable TMPDIR
    names, and in /var/tmp or the system's temporary folder without one.

    Parameters
    ----------
    uncertainty : {"margin", "least_confident", "entropy", "gini"}, default="margin"
        See `skadma.strategies.adma.uncertainty`.
    normalize : bool, default=True
        Whether to compare features by direction, which suits a network's. False: as
        they are, which suits tables of few columns.
    layer : int or str, default=-2
        The layer of a CNNClassifier whose outputs are the features; rows of other
        classifiers are taken as they are.
    features : {"current", "initial"}, default="initial"
        Of which network: the one being adapted, or M0.
    error : float, optional
        By how much, as a share of all doubt, any batch's measured coverage may be off
        (but in 1 of 100 cases): decides on how many images it is measured, and so what
        it costs. If None on 5,000.
    random_state : int, RandomState instance or None, default=None
        Draws images to measure on, where a pool is large.

    References
    ----------
    .. [1] Bae, Oliveira & Sutherland, Uncertainty Herding: One Active Learning Method
       for All Label Budgets, ICLR 2025.
    .. [2] Bae, Noh & Sutherland, Generalized Coverage for More Robust Low-Budget
       Active Learning, ECCV 2024.
    """

    needs: ClassVar[str] = "features, of the labelled too; probabilities"
    cost: ClassVar[str] = "1 pass; n min(n, 5000) d"
    memory: ClassVar[str] = "n d"
    multilabel: ClassVar[bool] = True

    _parameter_constraints: ClassVar[dict] = {
        **BatchStrategy._parameter_constraints,
        "uncertainty": [StrOptions(set(UNCERTAINTIES))],
        "normalize": ["boolean"],
        "error": [None, Interval(Real, 0, 1, closed="neither")],
    }

    def __init__(
        self,
        *,
        uncertainty: str = "margin",
        normalize: bool = True,
        layer: int | str = -2,
        features: str = "initial",
        error: float | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(layer=layer, features=features, random_state=random_state)
        self.uncertainty = uncertainty
        self.normalize = normalize
        self.error = error

    def _select(
        self, pool: Pool, n_instances: int, rng: np.random.Generator, iteration: float
    ) -> tuple[np.ndarray, np.ndarray]:
        every, labeled, features = _centered(pool, self.normalize)
        uncertain = np.ones(len(features))
        if pool.proba is not None:
            doubt = known_uncertainty(pool.proba, self.uncertainty)
            if (most := doubt.max()) > 0:
                # Where all doubt is covered, the rest of the pool is left to cover.
                uncertain = doubt + 1e-6 * most
        n_witnesses = _WITNESSES
        if self.error is not None:
            n_witnesses = n_reference_points(len(features), n_instances, self.error)
        if pool.store is not None and pool.store.partitions > 1:
            seed = int(rng.integers(2**31))
            return herd_over_partitions(
                pool.store, labeled, features, uncertain, n_instances, n_witnesses, seed
            )
        width = share_distance(every, len(labeled) + n_instances, rng)
        reference_points = _witnesses(features, uncertain, n_witnesses, rng)
        cover = Coverage(*reference_points, width)
        cover.add(labeled)
        return cover.greedy(features, n_instances)


def _centered(
    pool: Pool, normalize: bool
) -> tuple[np.ndarray | LazyRows, np.ndarray, np.ndarray | LazyRows]:
    """All rows without their mean, and of these the labelled ones and the others."""
    n = len(pool.labeled)
    if not isinstance(pool.features, LazyRows):
        rows = np.concatenate([pool.labeled, pool.features])
        rows = Centered(_mean([rows]).astype(rows.dtype), normalize)(rows)
        return rows, rows[:n], rows[n:]
    mean = _mean(chain([pool.labeled], (rows for _, rows in pool.features.blocks())))
    center = Centered(mean.astype(pool.features.dtype), normalize)
    labeled = center(pool.labeled.astype(pool.features.dtype))
    features = pool.features.map(center)
    return JoinedRows(labeled, features), labeled, features


def _mean(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Mean of the rows of all parts, float64; sums of half precision are exact."""
    total, n = np.zeros(1), 0
    for rows in parts:
        total = total + rows.sum(axis=0, dtype=np.float64)
        n += len(rows)
    return total / n


@dataclass(frozen=True)
class Centered:
    """Takes a mean off rows and, to compare directions, brings them to length 1.

    Attributes
    ----------
    mean : ndarray of shape (d,)
    normalize : bool
    """

    mean: np.ndarray
    normalize: bool

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        rows = (rows - self.mean).astype(np.float32)
        return unit(rows) if self.normalize else rows


def _witnesses(
    features: np.ndarray | LazyRows,
    uncertain: np.ndarray,
    n: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    if len(features) <= n:
        return features[:], uncertain
    total = uncertain.sum()
    drawn = rng.choice(len(features), n, p=uncertain / total)
    return features[drawn], np.full(n, total / n)
