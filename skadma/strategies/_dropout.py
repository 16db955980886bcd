"""Strategies that apply dropout to the last layer's inputs: BALD and DropQuery."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval

from .._utils.lazy_rows import BLOCK_ROWS, iter_blocks, per_row
from ._pool_features import PoolFeatures
from ._uncertainty import uncertainty
from .base import BatchStrategy


class BALD(BatchStrategy):
    r"""Choose where dropout's predictions disagree most [1]_ [2]_.

    The mutual information between the label and the model,

    .. math:: I(y; \omega \mid x) = H\Big[\frac1T \sum_t p_t\Big]
              - \frac1T \sum_t H[p_t],

    with p_t predicted after dropping a share of the last layer's inputs at random. The
    dropout is before the last layer, whether the network has one there or not, so T
    predictions cost T products with one matrix. Before the first fit images are
    drawn at random.

    Parameters
    ----------
    n_samples : int, default=20
        T.
    dropout : float, default=0.5
        Share of features dropped.
    random_state : int, RandomState instance or None, default=None

    References
    ----------
    .. [1] Houlsby, Huszar, Ghahramani & Lengyel, Bayesian Active Learning for
       Classification and Preference Learning, 2011, arXiv 1112.5745, Eq. 2.
    .. [2] Gal, Islam & Ghahramani, Deep Bayesian Active Learning with Image Data,
       ICML 2017.
    """

    needs: ClassVar[str] = "features, probabilities from them"
    cost: ClassVar[str] = "1 pass; n_samples n d C"
    memory: ClassVar[str] = "n (C + d)"

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BatchStrategy._parameter_constraints,
        "n_samples": [Interval(Integral, 2, 10**4, closed="both")],
        "dropout": [Interval(Real, 0, 1, closed="neither")],
    }
    _use_labeled = False

    def __init__(
        self,
        *,
        n_samples: int = 20,
        dropout: float = 0.5,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(random_state=random_state)
        self.n_samples = n_samples
        self.dropout = dropout

    def _select(
        self, pool: PoolFeatures, n_instances: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        n = len(pool.features)
        if pool.predict_features is None:
            return rng.permutation(n)[:n_instances], np.ones(n_instances)
        mean = np.zeros(pool.proba.shape)  # type: ignore[union-attr]
        entropy = np.zeros(n)
        for _ in range(self.n_samples):
            for rows, proba in _dropped(pool, self.dropout, rng):
                mean[rows] += proba / self.n_samples
                entropy[rows] += uncertainty(proba, "entropy") / self.n_samples
        score = np.maximum(uncertainty(mean, "entropy") - entropy, 0)
        order = np.lexsort((rng.permutation(n), -score))[:n_instances]
        return order, score[order]


class DropQuery(BatchStrategy):
    """Choose among images whose label changes when features are dropped [1]_.

    Candidates are the images for which more than half of `n_samples` predictions from
    features with a share dropped differ from the prediction. k-means puts them into as
    many clusters as images are to be chosen, and the image nearest to each centre is
    chosen. Where there are fewer candidates than that, the images with most changes are
    added. Before the first fit all images are candidates. At most 16,384 candidates are
    clustered, those with most changes, ties drawn.

    Parameters
    ----------
    n_samples : int, default=3
    dropout : float, default=0.75
        Share of features dropped.
    random_state : int, RandomState instance or None, default=None

    References
    ----------
    .. [1] Gupte, Aklilu, Nirschl & Yeung-Levy, Revisiting Active Learning in the Era
       of Vision Foundation Models, TMLR 2024.
    """

    needs: ClassVar[str] = "features, probabilities from them"
    cost: ClassVar[str] = "1 pass; n_samples n d C and k-means of the candidates"
    memory: ClassVar[str] = "n (C + d)"

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **BatchStrategy._parameter_constraints,
        "n_samples": [Interval(Integral, 1, 10**4, closed="both")],
        "dropout": [Interval(Real, 0, 1, closed="neither")],
    }
    _use_labeled = False

    def __init__(
        self,
        *,
        n_samples: int = 3,
        dropout: float = 0.75,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(random_state=random_state)
        self.n_samples = n_samples
        self.dropout = dropout

    def _select(
        self, pool: PoolFeatures, n_instances: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        n = len(pool.features)
        changes = np.ones(n)
        if pool.predict_features is not None and pool.proba is not None:
            label = per_row(pool.proba, lambda proba: proba.argmax(axis=1))
            changes = np.zeros(n)
            for _ in range(self.n_samples):
                for rows, proba in _dropped(pool, self.dropout, rng):
                    other = proba.argmax(axis=1) != label[rows]
                    changes[rows] += other / self.n_samples
        order = np.lexsort((rng.permutation(n), -changes))
        candidates = order[: max(n_instances, int((changes > 0.5).sum()))]
        candidates = candidates[: max(n_instances, BLOCK_ROWS)]
        chosen = candidates[
            nearest_to_centers(pool.features[candidates], n_instances, rng)
        ]
        return chosen, changes[chosen]


def _dropped(
    pool: PoolFeatures, share: float, rng: np.random.Generator
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield blocks of the pool with their probabilities after dropping features."""
    assert pool.predict_features is not None
    for start, rows in iter_blocks(pool.features):
        dropped = drop(rows, share, rng)
        yield slice(start, start + len(rows)), pool.predict_features(dropped)


def drop(features: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Set a random share of the numbers to 0 and scale the others up."""
    kept = rng.random(features.shape, dtype=np.float32) >= share
    return features * kept / features.dtype.type(1 - share)


def nearest_to_centers(
    features: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Choose n different rows, each near the centre of a k-means cluster."""
    if n == len(features):
        return np.arange(n)
    model = KMeans(n, n_init=1, random_state=int(rng.integers(2**31)))
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        squared = model.fit_transform(features)
    chosen: list[int] = []
    for center in range(n):
        squared[chosen] = np.inf
        chosen.append(int(squared[:, center].argmin()))
    return np.array(chosen)
