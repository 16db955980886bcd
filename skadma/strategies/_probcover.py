"""ProbCover: cover the densest regions of the pool with balls."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from scipy import sparse
from sklearn.utils._param_validation import Interval

from .._utils.lazy_rows import AnyRows, per_row, row_by_row
from ._pool_features import PoolFeatures
from ._typiclust import cluster
from .base import BatchStrategy

EXAMINED = 2000
"""Rows on which a radius or bandwidth is estimated."""

_PURITY = 0.95
"""Share of the balls of which all lies in one cluster."""

_BAND = 4096
"""Rows compared with as many others at once."""


class ProbCover(BatchStrategy):
    r"""Choose the images whose balls cover most of what is not covered yet [1]_.

    Features are normalised to length 1. An image covers all that lie within `delta` of
    it; what labelled images cover is removed, and each next image is the one that
    covers most of the rest (Algorithm 1). Where everything is covered, images are drawn
    from those without a label.

    Parameters
    ----------
    delta : float, optional
        The balls' radius. If None, the largest of a grid where 95% of the balls are
        pure: all of a ball lies in one of as many clusters as there are classes (ten
        before the first fit), as in the paper's Sec. 4.2.
    layer, features, random_state
        See :class:`CoreSet`.

    References
    ----------
    .. [1] Yehuda, Dekel, Hacohen & Weinshall, Active Learning Through a Covering Lens,
       NeurIPS 2022.
    """

    needs: ClassVar[str] = "features, of the labelled too"
    cost: ClassVar[str] = "1 pass; n^2 d"
    memory: ClassVar[str] = "n d + pairs within delta"
    multilabel: ClassVar[bool] = True

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BatchStrategy._parameter_constraints,
        "delta": [None, Interval(Real, 0, 1e18, closed="right")],
    }

    def __init__(
        self,
        *,
        delta: float | None = None,
        layer: int | str = -2,
        features: str = "initial",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(layer=layer, features=features, random_state=random_state)
        self.delta = delta

    def _select(
        self, pool: PoolFeatures, n_instances: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        features, labeled = row_by_row(unit, pool.features), unit(pool.labeled)
        delta = self.delta
        if delta is None:
            n_classes = 10 if pool.proba is None else pool.proba.shape[1]
            delta = pure_radius(features, n_classes, rng)
        covers = _covers(features, delta)
        covered = per_row(features, lambda rows: _near(rows, labeled, delta))
        return _greedy_cover(covers, covered, n_instances, rng)


def unit(rows: np.ndarray) -> np.ndarray:
    """Bring rows to length 1; rows of zeros stay."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def _near(rows: np.ndarray, others: np.ndarray, delta: float) -> np.ndarray:
    """Which rows of length 1 have one of the others within delta, shape (n,)."""
    near = np.zeros(len(rows), dtype=bool)
    for start in range(0, len(others), 256):
        inner = others[start : start + 256] @ rows.T
        near |= (2 - 2 * inner <= delta**2).any(axis=0)
    return near


def _covers(features: AnyRows, delta: float) -> sparse.csr_matrix:
    """Which rows of length 1 are within delta of which."""
    starts = range(0, len(features), _BAND)
    bands = []
    for a in starts:
        rows = features[a : a + _BAND]
        band = [
            sparse.csr_matrix(2 - 2 * (rows @ features[b : b + _BAND].T) <= delta**2)
            for b in starts
        ]
        bands.append(sparse.hstack(band, format="csr"))
    covers = sparse.vstack(bands, format="csr").astype(np.float64)
    covers.setdiag(1)
    covers.sort_indices()
    return covers


def _greedy_cover(
    covers: sparse.csr_matrix, covered: np.ndarray, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Choose the row that covers most of what is left, n times."""
    by_column = covers.tocsc()
    gains = covers @ (~covered).astype(np.float64)
    free = np.ones(len(covered), dtype=bool)
    chosen = np.empty(n, dtype=np.intp)
    utilities = np.empty(n)
    for k in range(n):
        best = np.where(free, gains, -1).max()
        candidates = free & (gains == best) if best > 0 else free
        i = int(rng.choice(np.flatnonzero(candidates)))
        chosen[k], utilities[k] = i, max(best, 0)
        free[i] = False
        ball = covers.indices[covers.indptr[i] : covers.indptr[i + 1]]
        new = ball[~covered[ball]]
        covered[new] = True
        gains -= np.asarray(by_column[:, new].sum(axis=1)).ravel()
    return chosen, utilities


def drawn(rows: AnyRows, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `n` rows; of no more, return all."""
    return rows[rng.choice(len(rows), n, replace=False)] if len(rows) > n else rows[:]


def pure_radius(features: AnyRows, n_classes: int, rng: np.random.Generator) -> float:
    """Find the largest radius at which 95% of balls lie in one cluster.

    The rows have length 1 and are put into `n_classes` clusters; of more than 2,000
    as many are drawn.
    """
    some = drawn(features, EXAMINED, rng)
    clusters = cluster(some, n_classes, rng)
    squared = np.maximum(2 - 2 * some @ some.T, 0)
    # A ball is pure up to the nearest row of another cluster.
    other = np.where(clusters[:, None] != clusters, squared, np.inf).min(axis=1)
    if np.isinf(other).any():
        return 2.0  # a single cluster: all lies within one ball
    radius = float(np.sqrt(np.quantile(other, 1 - _PURITY)))
    grid = np.linspace(0.05, 1.0, 20)
    fitting = grid[grid <= radius]
    return float(fitting[-1] if len(fitting) else max(radius, 1e-3))
