"""UncertaintyCover: one typical and uncertain image from each uncertain cluster."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

import numpy as np
from scipy.stats import rankdata
from sklearn.utils._param_validation import Interval, StrOptions

from ._pool_features import PoolFeatures
from ._typiclust import TypiClust, in_turn, typicality_of
from ._uncertainty import row_uncertainty
from .adma import UNCERTAINTIES


class UncertaintyCover(TypiClust):
    r"""Choose typical and uncertain images of the most uncertain clusters.

    Labelled and unlabelled images are put into as many clusters as there will be labels
    (at most `max_clusters`). Of the clusters with the fewest labels, the one whose
    images have the largest sum of uncertainties is next. It gives the image with the
    largest

    .. math:: (1 - w) \, r_\text{typicality}(x) + w \, r_\text{uncertainty}(x),

    with ranks r within the cluster, in (0, 1), and typicality as in `TypiClust`.
    Before the first fit all images are equally uncertain, and this is TypiClust.
    docs/label_efficiency.md has measurements.

    Parameters
    ----------
    weight : float, default=0.6
        w, in [0, 1].
    uncertainty : {"margin", "least_confident", "entropy", "gini"}, default="margin"
        See `skadma.strategies.adma.uncertainty`.
    n_neighbors, max_clusters : int
        See `TypiClust`.
    layer, features, random_state
        See :class:`CoreSet`.
    """

    needs: ClassVar[str] = "features, of the labelled too; probabilities"
    _use_proba = True

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **TypiClust._parameter_constraints,
        "weight": [Interval(Real, 0, 1, closed="both")],
        "uncertainty": [StrOptions(set(UNCERTAINTIES))],
    }

    def __init__(
        self,
        *,
        weight: float = 0.6,
        uncertainty: str = "margin",
        n_neighbors: int = 20,
        max_clusters: int = 500,
        layer: int | str = -2,
        features: str = "initial",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(
            n_neighbors=n_neighbors,
            max_clusters=max_clusters,
            layer=layer,
            features=features,
            random_state=random_state,
        )
        self.weight = weight
        self.uncertainty = uncertainty

    def _select(
        self, pool: PoolFeatures, n_instances: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        n_labeled = len(pool.labeled)
        every, clusters = self._clusters(pool, n_instances, rng)
        uncertain = np.ones(len(pool.features))
        if pool.proba is not None:
            uncertain = row_uncertainty(pool.proba, self.uncertainty)
        score = np.empty(len(pool.features))
        of_pool = clusters[n_labeled:]
        for label in np.unique(of_pool):
            among = np.flatnonzero(clusters == label)
            typical = typicality_of(every, among, self.n_neighbors)
            members = np.flatnonzero(of_pool == label)
            score[members] = (1 - self.weight) * _ranks(typical[among >= n_labeled])
            score[members] += self.weight * _ranks(uncertain[members])
        return in_turn(
            of_pool,
            score,
            np.bincount(clusters[:n_labeled], minlength=clusters.max() + 1),
            n_instances,
            mass=uncertain,
        )


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks in (0, 1); equal values share a rank."""
    return (rankdata(values) - 0.5) / len(values)
