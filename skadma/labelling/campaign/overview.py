"""A campaign's whole pool at once: guesses, similar images, and a map of it."""

from __future__ import annotations

import numpy as np

from .campaign import Campaign
from .state import read_state


def guess_all(campaign: Campaign) -> tuple[int, int, dict[str, tuple[str, float]]]:
    """Tell as of which event classes are named, and `Campaign.guesses` of all."""
    campaign.refresh_if_there()
    state = read_state(campaign._event_log)
    return state.as_of, *campaign.guesses(state.available())


def rank_similar(campaign: Campaign, sha256: str) -> list[str]:
    """List the contents most similar to one, itself first."""
    names, rows = _features(campaign)
    if sha256 not in names:
        return []
    order = np.argsort(-(rows @ rows[names.index(sha256)]), kind="stable")
    return [names[i] for i in order[:1000]]


def map_pool(campaign: Campaign) -> dict[str, list[int]]:
    """Return the place of each content, in thousandths of the map's side."""
    names, rows = _features(campaign)
    places = np.rint(1000 * place_on_map(rows)).astype(int).tolist()
    return dict(zip(names, places, strict=True))


def _features(campaign: Campaign) -> tuple[list[str], np.ndarray]:
    """Contents in no audit, and the pretrained network's features of length 1."""
    campaign.refresh_if_there()
    state = read_state(campaign._event_log)
    images = state.available()
    rows = campaign._trainer.source_features([*images.values()], state)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return list(images), rows / np.maximum(length, 1e-12)


def place_on_map(rows: np.ndarray, n_placed: int = 2000) -> np.ndarray:
    """Place `n_placed` rows in a square by t-SNE, others amid the most similar."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.neighbors import KNeighborsRegressor

    n = len(rows)
    if n < 5:
        return np.column_stack([np.linspace(0, 1, n), np.full(n, 0.5)])
    drawn = np.random.default_rng(0).permutation(n)[:n_placed]
    pca = PCA(min(50, len(drawn), rows.shape[1]), random_state=0).fit(rows[drawn])
    rows = pca.transform(rows)
    tsne = TSNE(perplexity=min(30.0, (len(drawn) - 1) / 3), init="pca", random_state=0)
    nearest = KNeighborsRegressor(1 if n == len(drawn) else 5)
    places = nearest.fit(rows[drawn], tsne.fit_transform(rows[drawn])).predict(rows)
    low, high = places.min(axis=0), places.max(axis=0)
    return np.asarray((places - low) / np.maximum(high - low, 1e-12))
