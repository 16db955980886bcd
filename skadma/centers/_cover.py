"""Some source classes in place of all."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize

from ..networks import PretrainedNetwork, get_head


def covering_classes(
    source: PretrainedNetwork, n_centers: int, among: np.ndarray
) -> np.ndarray:
    """Choose source classes that stand for all of them, see `SourceCenters.subset`."""
    if not 2 <= n_centers <= len(among):
        raise ValueError(
            f"n_centers={n_centers} of {len(among)} source classes: it must be from 2 "
            "to their number."
        )
    if n_centers == len(among):
        return among
    head = get_head(source.module, source.graph.layers[-1].name)
    vectors = normalize(head.weight.detach().cpu().flatten(1).double().numpy()[among])
    clusters = KMeans(n_centers, n_init=1, random_state=0).fit(vectors)
    distances = clusters.transform(vectors)
    distances[clusters.labels_[:, None] != np.arange(n_centers)] = np.inf
    return np.sort(among[distances.argmin(axis=0)])
