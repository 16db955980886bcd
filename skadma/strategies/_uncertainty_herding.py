"""UncertaintyHerding: cover the uncertain images of the pool."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, ClassVar

import numpy as np
from sklearn.utils.extmath import row_norms

from .._utils.lazy_rows import AnyRows, iter_blocks, joined, row_by_row, selected
from ..features.store import FeatureStore
from ..features.store.hashing import priority_sample, smallest
from ._greedy import choose_from_partitions, lazy_greedy
from ._pool_features import PoolFeatures
from ._probcover import EXAMINED, drawn, unit
from ._uncertainty import row_uncertainty
from .base import BatchStrategy

_N_REFERENCE_POINTS = 5000
"""Images on which the coverage is estimated."""
_CHUNK = 1024
"""Rows compared with the reference points at once."""
_KEPT_CHUNK = 64
"""Rows at once where their distances are kept: these stay in the processor's cache."""
_AHEAD = 8
"""Gains recomputed at first: reading the reference points dominates the time."""


class UncertaintyHerding(BatchStrategy):
    r"""Choose the images that together cover most of the uncertainty [1]_.

    An image covers another one by their similarity k in (0, 1]. The images S that are
    labelled or chosen cover

    .. math:: U(S) = \sum_{x} u(x) \, \max_{s \in S} k(x, s), \qquad
              k(x, s) = \exp(-\|x - s\|^2 / \sigma^2)

    of the pool's uncertainties u, by the margin. Each next image is the one that adds
    most to U (the paper's Algorithm 1), which comes to at least 1 - 1/e of the best
    batch. Before the first fit all images are equally uncertain, and the densest
    regions of the pool are covered first (MaxHerding [2]_). docs/label_efficiency.md
    has measurements.

    sigma^2 is the mean squared distance from an image to its m-th nearest neighbour,
    m = n / (labels + b), so it falls as labels are added. (The paper takes the smallest
    distance between two labelled images, and scales the probabilities by a fitted
    temperature.) Features are centred and normalised to length 1. In pools of more than
    5,000 images U is estimated on 5,000 reference points, drawn in proportion to their
    uncertainties.

    Parameters
    ----------
    normalize : bool, default=True
        Whether to compare features by direction, which suits a network's. False
        suits tables of few columns.
    layer, features
        See :class:`CoreSet`.
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

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BatchStrategy._parameter_constraints,
        "normalize": ["boolean"],
    }

    def __init__(
        self,
        *,
        normalize: bool = True,
        layer: int | str = -2,
        features: str = "initial",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(layer=layer, features=features, random_state=random_state)
        self.normalize = normalize

    def _select(
        self, pool: PoolFeatures, n_instances: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        every = joined(pool.labeled, pool.features)
        mean = mean_of_rows(every).astype(every.dtype)
        center = partial(centered, mean=mean, normalize=self.normalize)
        labeled = center(pool.labeled.astype(every.dtype))
        features = row_by_row(center, pool.features)
        weights = _weights(pool.proba, len(features))
        if pool.store is not None and pool.store.partitions > 1:
            seed = int(rng.integers(2**31))
            return herd_over_partitions(
                pool.store, labeled, features, weights, n_instances, seed
            )
        every = joined(labeled, features)
        bandwidth_sq = share_distance(every, len(labeled) + n_instances, rng)
        points, weights = _reference_points(features, weights, rng)
        cover = Coverage(points[:], weights, bandwidth_sq)
        cover.add(labeled)
        return cover.greedy(features, n_instances)


def herding_distances(rows: np.ndarray) -> np.ndarray:
    """Squared distances (n, n) between all rows of a table, centred and normalised."""
    rows = centered(rows, mean_of_rows(rows).astype(rows.dtype), True)
    return _squared_distances(rows, rows, row_norms(rows, squared=True))


def herd_by_distances(
    squared: np.ndarray,
    labeled: np.ndarray,
    pool: np.ndarray,
    proba: np.ndarray | None,
    n: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose as UncertaintyHerding does, by the distances of `herding_distances`.

    `labeled` and `pool` are numbers of rows; returns positions in `pool`, and gains.
    """
    rng = np.random.default_rng([seed, 2, len(pool), len(labeled)])
    some = drawn(np.concatenate([labeled, pool]), EXAMINED, rng)
    bandwidth_sq = _share(squared[np.ix_(some, some)], len(labeled) + n, 1.0)
    points, weights = _reference_points(pool, _weights(proba, len(pool)), rng)
    cover = Coverage(points[:], weights, bandwidth_sq, squared)
    cover.add(labeled)
    return cover.greedy(pool, n)


def _weights(proba: AnyRows | None, n: int) -> np.ndarray:
    """How much it matters that each of `n` images is covered."""
    if proba is None:
        return np.ones(n)
    uncertain = row_uncertainty(proba, "margin")
    most = uncertain.max()
    # The small weight matters once all uncertain images are covered.
    return uncertain + 1e-6 * most if most > 0 else np.ones(n)


def _reference_points(
    rows: AnyRows, weights: np.ndarray, rng: np.random.Generator
) -> tuple[AnyRows, np.ndarray]:
    """Rows to estimate the coverage on, drawn in proportion to the weights if many."""
    if len(rows) <= _N_REFERENCE_POINTS:
        return rows, weights
    total = weights.sum()
    some = rng.choice(len(rows), _N_REFERENCE_POINTS, p=weights / total)
    return rows[some], np.full(len(some), total / len(some))


def mean_of_rows(rows: AnyRows) -> np.ndarray:
    """Mean of rows, float64, in which sums of half precision are exact."""
    total = np.zeros(1)
    for _, block in iter_blocks(rows):
        total = total + block.sum(axis=0, dtype=np.float64)
    return total / len(rows)


def centered(rows: np.ndarray, mean: np.ndarray, normalize: bool) -> np.ndarray:
    """Subtract a mean (d,) from rows and, with `normalize`, scale them to length 1."""
    rows = (rows - mean).astype(np.float32)
    return unit(rows) if normalize else rows


# --- coverage -----------------------------------------------------------------------


class Coverage:
    """Coverage of weighted reference points (m, d) by the rows added so far.

    A row at squared distance r from a reference point covers exp(-r / bandwidth_sq) of
    it. With squared distances that are `kept`, rows and reference points are numbers.
    """

    def __init__(
        self,
        reference_points: np.ndarray,
        weights: np.ndarray,
        bandwidth_sq: float,
        kept: np.ndarray | None = None,
    ) -> None:
        self.reference_points = reference_points
        self.weights = weights.astype(np.float32)
        self.bandwidth_sq = bandwidth_sq
        self.covered = np.zeros(len(reference_points), dtype=np.float32)
        self._kept = kept
        self._chunk = _CHUNK if kept is None else _KEPT_CHUNK
        if kept is None:
            self._norms = row_norms(reference_points, squared=True)

    def add(self, rows: np.ndarray) -> None:
        """Update the coverage with more rows."""
        for start in range(0, len(rows), self._chunk):
            similarity = self.similarity(rows[start : start + self._chunk])
            self.covered = np.maximum(self.covered, similarity.max(axis=0))

    @property
    def value(self) -> float:
        """Weighted sum of the coverage."""
        return float(self.weights.astype(np.float64) @ self.covered)

    def gains(self, rows: AnyRows) -> np.ndarray:
        """How much each row would add to `value`, shape (n,), float64."""
        found = np.empty(len(rows))
        for start in range(0, len(rows), self._chunk):
            more = self.similarity(rows[start : start + self._chunk])
            more -= self.covered
            np.maximum(more, 0, out=more)
            found[start : start + self._chunk] = more @ self.weights
        return found

    def greedy(self, rows: AnyRows, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Add the row of the greatest gain, n times; return rows and gains."""
        return lazy_greedy(
            self.gains(rows),
            n,
            lambda ahead, _: self.gains(rows[ahead]),
            lambda i: self.add(rows[i : i + 1]),
            n_ahead=_AHEAD,
            least=0,
        )

    def similarity(self, rows: np.ndarray) -> np.ndarray:
        """How much rows cover each reference point, shape (b, m), float32."""
        points = self.reference_points
        if self._kept is None:
            squared = _squared_distances(rows, points, self._norms)
        else:
            squared = self._kept[rows].take(points, axis=1)
        squared /= -self.bandwidth_sq
        return np.exp(squared, out=squared)


def _squared_distances(
    rows: np.ndarray, points: np.ndarray, norms: np.ndarray
) -> np.ndarray:
    """Squared distances (b, m) from rows to points of these squared norms."""
    # In place, as a query spends most of its time here.
    squared: np.ndarray = rows @ points.T
    squared *= -2
    squared += row_norms(rows, squared=True)[:, None]
    squared += norms
    return np.maximum(squared, 0, out=squared)


def share_distance(rows: AnyRows, n_shares: int, rng: np.random.Generator) -> float:
    """Mean squared distance from a row to the last of the n / n_shares nearest to it.

    Estimated on at most 2,000 rows, which are drawn; greater than 0.
    """
    some = drawn(rows, EXAMINED, rng)
    norms = row_norms(some, squared=True)
    squared = _squared_distances(some, some, norms)
    return _share(squared, n_shares, float(norms.mean()))


def _share(squared: np.ndarray, n_shares: int, mean_norm: float) -> float:
    """See :func:`share_distance`, by the rows' squared distances and mean norm."""
    n = len(squared)
    k = min(max(n // n_shares, 1), n - 1)  # 0 is the row itself
    found = float(np.partition(squared, k, axis=1)[:, k].mean())
    # Below that is rounding: copies of an image would not cover each other.
    return max(found, 1e-5 * mean_norm, float(np.finfo(np.float32).tiny))


# --- partitions of a feature store: RandGreeDi --------------------------------------


def herd_over_partitions(
    store: FeatureStore,
    labeled: np.ndarray,
    features: AnyRows,
    uncertain: np.ndarray,
    n: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Choose n rows greedily from each partition, then n from the union of these.

    The result is the last choice, or the best partition's if that covers more: in
    expectation at least (1 - 1/e) / 2 of the best batch's coverage. Returns the rows
    and their gains. Barbosa, Ene, Nguyen & Ward, The Power of Randomization:
    Distributed Submodular Maximization on Massive Datasets, ICML 2015.
    """
    hashes = store.hashes
    drawn, counts = priority_sample(uncertain, hashes, _N_REFERENCE_POINTS, seed)
    some = features[smallest(hashes, min(EXAMINED, len(hashes)), seed + 1)]
    # The bandwidth is an equal share of the rows, so that a sample has the pool's.
    bandwidth_sq = share_distance(some, len(labeled) + n, np.random.default_rng(seed))
    cover = Coverage(features[drawn], counts, bandwidth_sq)
    cover.add(labeled)
    partitions, found, union = choose_from_partitions(
        partial(_herd_partition, cover=cover, n=n), features, store, seed + 2
    )
    chosen, gains = cover.greedy(selected(features, union), n)
    best = max(range(len(partitions)), key=lambda i: found[i][2])
    best_chosen, best_gains, best_value = found[best]
    if len(best_chosen) == n and best_value > cover.value:
        return partitions[best][best_chosen], best_gains
    return union[chosen], gains


def _herd_partition(
    rows: AnyRows, cover: Coverage, n: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Choose from a partition; return rows, gains and the coverage reached."""
    cover = copy.copy(cover)  # the coverage is not shared: `add` makes a new array
    chosen, gains = cover.greedy(rows, min(n, len(rows)))
    return chosen, gains, cover.value
