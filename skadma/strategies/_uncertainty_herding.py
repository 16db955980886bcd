"""UncertaintyHerding: cover what is uncertain."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from sklearn.utils._param_validation import StrOptions

from ..adma.uncertainty import UNCERTAINTIES, uncertainty
from ._batch import BatchStrategy
from ._pool import Pool
from ._probcover import unit

_WITNESSES = 5000
"""Images on which the coverage is measured."""
_CHUNK = 1024
"""Rows compared with the witnesses at once."""
_AHEAD = 32
"""Gains brought up to date at once: reading the witnesses takes the time."""


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

    Parameters
    ----------
    uncertainty : {"margin", "least_confident", "entropy", "gini"}, default="margin"
        See `skadma.adma.uncertainty`.
    normalize : bool, default=True
        Whether to compare features by direction, which suits a network's. False: as
        they are, which suits tables of few columns.
    layer : int or str, default=-2
        The layer of a CNNClassifier whose outputs are the features; rows of other
        classifiers are taken as they are.
    features : {"current", "initial"}, default="initial"
        Of which network: the one being adapted, or M0.
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
    }

    def __init__(
        self,
        *,
        uncertainty: str = "margin",
        normalize: bool = True,
        layer: int | str = -2,
        features: str = "initial",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(layer=layer, features=features, random_state=random_state)
        self.uncertainty = uncertainty
        self.normalize = normalize

    def _select(
        self, pool: Pool, n_instances: int, rng: np.random.Generator, iteration: float
    ) -> tuple[np.ndarray, np.ndarray]:
        n_labeled = len(pool.labeled)
        every = _centered(np.concatenate([pool.labeled, pool.features]), self.normalize)
        labeled, features = every[:n_labeled], every[n_labeled:]
        uncertain = np.ones(len(features))
        if pool.proba is not None:
            doubt = uncertainty(pool.proba, self.uncertainty)
            if (most := doubt.max()) > 0:
                # Where all doubt is covered, the rest of the pool is left to cover.
                uncertain = doubt + 1e-6 * most
        width = share_distance(every, n_labeled + n_instances, rng)
        cover = Coverage(*_witnesses(features, uncertain, rng), width)
        cover.add(labeled)
        return cover.greedy(features, n_instances)


class Coverage:
    """How much of some weighted rows is covered, and what others would add.

    Parameters
    ----------
    witnesses : ndarray of shape (m, d), float32
        The rows to cover.
    weights : ndarray of shape (m,)
        What each counts.
    width : float
        sigma^2, the squared distance at which a row covers 1/e.
    """

    def __init__(
        self, witnesses: np.ndarray, weights: np.ndarray, width: float
    ) -> None:
        self.witnesses = witnesses
        self.weights = weights.astype(np.float32)
        self.width = width
        self.covered = np.zeros(len(witnesses), dtype=np.float32)
        self._norms = np.einsum("ij,ij->i", witnesses, witnesses)

    def add(self, rows: np.ndarray) -> None:
        """Let rows cover what they can."""
        for start in range(0, len(rows), _CHUNK):
            alike = self._alike(rows[start : start + _CHUNK])
            self.covered = np.maximum(self.covered, alike.max(axis=0))

    def gains(self, rows: np.ndarray) -> np.ndarray:
        """What each row would add to the coverage, shape (n,), float64."""
        found = np.empty(len(rows))
        for start in range(0, len(rows), _CHUNK):
            more = self._alike(rows[start : start + _CHUNK])
            more -= self.covered
            np.maximum(more, 0, out=more)
            found[start : start + _CHUNK] = more @ self.weights
        return found

    def greedy(self, rows: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Add the row that adds most, n times.

        Parameters
        ----------
        rows : ndarray of shape (l, d)
        n : int
            At most l.

        Returns
        -------
        chosen : ndarray of int, shape (n,)
        gains : ndarray of shape (n,)
        """
        gains = self.gains(rows)
        up_to_date = np.ones(len(rows), dtype=bool)
        chosen = np.empty(n, dtype=np.intp)
        added = np.empty(n)
        for k in range(n):
            # A gain only falls as others are added, so that an old one is a bound.
            while not up_to_date[i := int(gains.argmax())]:
                n_ahead = min(_AHEAD, len(rows) - k)
                ahead = np.argpartition(-gains, n_ahead - 1)[:n_ahead]
                gains[ahead] = self.gains(rows[ahead])
                up_to_date[ahead] = True
            chosen[k], added[k] = i, gains[i]
            self.add(rows[i : i + 1])
            up_to_date[:] = False
            gains[i] = -np.inf
        return chosen, added

    def _alike(self, rows: np.ndarray) -> np.ndarray:
        norms = np.einsum("ij,ij->i", rows, rows)
        squared = rows @ self.witnesses.T
        squared *= -2
        squared += norms[:, None]
        squared += self._norms
        np.maximum(squared, 0, out=squared)
        squared /= -self.width
        return np.exp(squared, out=squared)


def share_distance(
    rows: np.ndarray, n_shares: int, rng: np.random.Generator, n_examined: int = 2000
) -> float:
    """Mean squared distance from a row to the last of the n / n_shares nearest to it.

    Parameters
    ----------
    rows : ndarray of shape (n, d)
    n_shares : int
    rng : Generator
    n_examined : int
        Rows that are looked at, drawn.

    Returns
    -------
    float
        Greater than 0.
    """
    some = rows
    if len(rows) > n_examined:
        some = rows[rng.choice(len(rows), n_examined, replace=False)]
    norms = np.einsum("ij,ij->i", some, some)
    squared = norms + norms[:, None] - 2 * (some @ some.T)
    k = min(max(len(some) // n_shares, 1), len(some) - 1)  # 0 is the row itself
    found = float(np.partition(squared, k, axis=1)[:, k].mean())
    # Below that is rounding: copies of an image would not cover each other.
    return max(found, 1e-5 * float(norms.mean()), float(np.finfo(np.float32).tiny))


def _centered(rows: np.ndarray, normalize: bool) -> np.ndarray:
    mean = rows.mean(axis=0, dtype=np.float64).astype(rows.dtype)
    rows = (rows - mean).astype(np.float32)
    return unit(rows) if normalize else rows


def _witnesses(
    features: np.ndarray, uncertain: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    if len(features) <= _WITNESSES:
        return features, uncertain
    total = uncertain.sum()
    drawn = rng.choice(len(features), _WITNESSES, p=uncertain / total)
    return features[drawn], np.full(_WITNESSES, total / _WITNESSES)
