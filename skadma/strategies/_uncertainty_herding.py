"""UncertaintyHerding: cover the uncertain images of the pool."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from .._utils.lazy_rows import AnyRows, iter_blocks, joined, row_by_row
from ._coverage import Coverage, share_distance
from ._partitioned_herding import herd_over_partitions, n_reference_points
from ._pool_features import PoolFeatures
from ._probcover import unit
from ._uncertainty import row_uncertainty
from .adma import UNCERTAINTIES
from .base import BatchStrategy

_N_REFERENCE_POINTS = 5000
"""Images on which the coverage is estimated."""


class UncertaintyHerding(BatchStrategy):
    r"""Choose the images that together cover most of the uncertainty [1]_.

    An image covers another one by their similarity k in (0, 1]. The images S that are
    labelled or chosen cover

    .. math:: U(S) = \sum_{x} u(x) \, \max_{s \in S} k(x, s), \qquad
              k(x, s) = \exp(-\|x - s\|^2 / \sigma^2)

    of the pool's uncertainties u. Each next image is the one that adds most to U (the
    paper's Algorithm 1), which comes to at least 1 - 1/e of the best batch. Before the
    first fit all images are equally uncertain, and the densest regions of the pool are
    covered first (MaxHerding [2]_). docs/label_efficiency.md has measurements.

    sigma^2 is the mean squared distance from an image to its m-th nearest neighbour,
    m = n / (labels + b), which is an equal share of the pool for each label. So sigma
    falls as labels are added, and the choice moves from dense regions to single
    uncertain images. (The paper takes the smallest distance between two labelled
    images, which depends on a single pair, and scales the probabilities by a
    temperature fitted to a subset of the labels.) Features are centred and normalised
    to length 1. In pools of more than 5,000 images U is estimated on 5,000 reference
    points, drawn in proportion to their uncertainties.

    Parameters
    ----------
    uncertainty : {"margin", "least_confident", "entropy", "gini"}, default="margin"
        See `skadma.strategies.adma.uncertainty`.
    normalize : bool, default=True
        Whether to compare features by direction, which suits a network's. False
        suits tables of few columns.
    layer : int or str, default=-2
        The layer of a CNNClassifier whose outputs are the features; rows of other
        classifiers are taken as they are.
    features : {"current", "initial"}, default="initial"
        Of which network: the one being adapted, or the pretrained one.
    error : float, optional
        Bound on the error of every batch's estimated coverage, as a share of the sum
        of uncertainties, with probability 0.99. Sets the number of reference points,
        and with it the cost. If None, 5,000 reference points.
    random_state : int, RandomState instance or None, default=None
        Draws the reference points, where a pool is large.

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
        self, pool: PoolFeatures, n_instances: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        every = joined(pool.labeled, pool.features)
        center = Centering(mean_of_rows(every).astype(every.dtype), self.normalize)
        labeled = center(pool.labeled.astype(every.dtype))
        features = row_by_row(center, pool.features)
        weights = np.ones(len(features))
        if pool.proba is not None:
            uncertain = row_uncertainty(pool.proba, self.uncertainty)
            if (most := uncertain.max()) > 0:
                # The small weight matters once all uncertain images are covered.
                weights = uncertain + 1e-6 * most
        n_references = _N_REFERENCE_POINTS
        if self.error is not None:
            n_references = n_reference_points(len(features), n_instances, self.error)
        if pool.store is not None and pool.store.partitions > 1:
            seed = int(rng.integers(2**31))
            return herd_over_partitions(
                pool.store, labeled, features, weights, n_instances, n_references, seed
            )
        every = joined(labeled, features)
        bandwidth_sq = share_distance(every, len(labeled) + n_instances, rng)
        reference_points = _reference_points(features, weights, n_references, rng)
        cover = Coverage(*reference_points, bandwidth_sq)
        cover.add(labeled)
        return cover.greedy(features, n_instances)


def mean_of_rows(rows: AnyRows) -> np.ndarray:
    """Mean of rows, float64, in which sums of half precision are exact."""
    total = np.zeros(1)
    for _, block in iter_blocks(rows):
        total = total + block.sum(axis=0, dtype=np.float64)
    return total / len(rows)


@dataclass(frozen=True)
class Centering:
    """Subtracts a mean (d,) from rows and, with `normalize`, scales them to length 1.

    A class, as functions that tasks on other processes get have to be picklable.
    """

    mean: np.ndarray
    normalize: bool

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        rows = (rows - self.mean).astype(np.float32)
        return unit(rows) if self.normalize else rows


def _reference_points(
    features: AnyRows, weights: np.ndarray, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw at most n rows in proportion to their weights; return them and weights."""
    if len(features) <= n:
        return features[:], weights
    total = weights.sum()
    drawn = rng.choice(len(features), n, p=weights / total)
    return features[drawn], np.full(n, total / n)
