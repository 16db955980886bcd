"""BADGE over parts of a pool: k-means||."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._utils.lazy_rows import LazyRows, selected
from ..features.store import FeatureStore
from ..features.store.hashing import uniform
from ._distances import squared_distances, squared_norms
from ._parts import for_parts, parts_of

_ROUNDS = 5
"""Passes over the pool."""
_PER_ROUND = 2
"""Candidates of a round, for each image that is to be chosen."""


def outer_norms(a: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Squared lengths of the outer products of rows of `a` and `h`, shape (n,)."""
    return squared_norms(a) * squared_norms(h)


def draw_by_parts(
    store: FeatureStore,
    a: np.ndarray | LazyRows,
    h: np.ndarray | LazyRows,
    n: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw by k-means|| [1]_ over the outer products of rows of `a` and `h`.

    Begins with the largest one. In each of five passes about 2 n candidates are taken,
    each image by itself with a probability in proportion to its squared distance to
    the candidates so far; then n of all of them are drawn by k-means++, each weighted
    by the number of images it is nearest to.

    Parameters
    ----------
    store : FeatureStore
        The pool.
    a, h : ndarray or LazyRows of shape (m, C) and (m, d)
    n : int
    seed : int

    Returns
    -------
    chosen : ndarray of int, shape (n,)
    weights : ndarray of shape (n,)
        Squared distance of each to those before it.

    References
    ----------
    .. [1] Bahmani, Moseley, Vattani, Kumar & Vassilvitskii, Scalable K-Means++, VLDB
       2012, Algorithm 2.
    """
    parts = parts_of(store, seed)
    order = np.concatenate(parts)
    rows = [(selected(a, part), selected(h, part)) for part in parts]
    hashes = store.hashes[order]
    norms = np.concatenate(for_parts(store, _norms, rows, {}))
    candidates = np.array([int(norms.argmax())])
    nearest = np.full(len(order), np.inf)
    owner = np.zeros(len(order), dtype=np.intp)
    new = candidates
    for round_ in range(_ROUNDS + 1):
        factors = {"a": selected(a, order[new])[:], "h": selected(h, order[new])[:]}
        found = for_parts(store, _closest, rows, factors)
        distance, which = (np.concatenate(x) for x in zip(*found, strict=True))
        closer = distance < nearest
        owner[closer] = which[closer] + len(candidates) - len(new)
        nearest = np.minimum(nearest, distance)
        nearest[candidates] = 0
        if round_ == _ROUNDS or not (total := nearest.sum()) > 0:
            break
        chance = _PER_ROUND * n * nearest / total
        new = np.flatnonzero(uniform(hashes, seed + 1 + round_) < chance)
        if not len(new):
            break
        candidates = np.concatenate([candidates, new])
    candidates, owner = _enough(candidates, owner, norms, n)
    weights = np.bincount(owner, minlength=len(candidates)).astype(float)
    some = order[candidates]
    chosen, found_weights = weighted_draw(
        selected(a, some)[:], selected(h, some)[:], weights, n, seed
    )
    return some[chosen], found_weights


def _enough(
    candidates: np.ndarray, owner: np.ndarray, norms: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Add the largest of the others where fewer candidates than `n` differ."""
    if len(candidates) >= n:
        return candidates, owner
    others = np.setdiff1d(np.argsort(-norms, kind="stable")[: 2 * n], candidates)
    others = others[np.argsort(-norms[others], kind="stable")]
    return np.concatenate([candidates, others[: n - len(candidates)]]), owner


def weighted_draw(
    a: np.ndarray, h: np.ndarray, weights: np.ndarray, n: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """k-means++ over outer products that stand for many; the first is the first.

    Parameters
    ----------
    a, h : ndarray of shape (m, C) and (m, d)
    weights : ndarray of shape (m,)
        For how many each stands.
    n : int
        At most m.
    seed : int

    Returns
    -------
    chosen : ndarray of int, shape (n,)
    distances : ndarray of shape (n,)
        Squared, to the nearest before; the first one's squared length.
    """
    rng = np.random.default_rng(seed)
    norms = outer_norms(a, h)
    nearest = np.full(len(a), np.inf)
    free = np.ones(len(a), dtype=bool)
    chosen = np.empty(n, dtype=np.intp)
    distances = np.empty(n)
    for k in range(n):
        i = 0
        if k:
            chance = np.where(free, nearest * weights, 0)
            if not chance.sum() > 0:  # only copies are left
                chance = free.astype(float)
            i = int(rng.choice(len(a), p=chance / chance.sum()))
        chosen[k], distances[k] = i, nearest[i] if k else norms[0]
        free[i] = False
        squared = squared_distances((a @ a[i]) * (h @ h[i]), norms[i], norms)
        nearest = np.maximum(np.minimum(nearest, squared), 0)
    return chosen, distances


def _norms(rows: Any, shared: dict[str, np.ndarray], settings: None) -> np.ndarray:
    found = [outer_norms(a, h) for a, h in _together(rows)]
    return np.concatenate(found)


def _closest(
    rows: Any, shared: dict[str, np.ndarray], settings: None
) -> tuple[np.ndarray, np.ndarray]:
    """Squared distance to the nearest candidate, and which it is."""
    of_a, of_h = shared["a"], shared["h"]
    norms = outer_norms(of_a, of_h)
    distance, which = [], []
    for a, h in _together(rows):
        inner = (a @ of_a.T) * (h @ of_h.T)
        squared = squared_distances(inner, outer_norms(a, h)[:, None], norms)
        which.append(squared.argmin(axis=1))
        distance.append(np.maximum(squared.min(axis=1), 0))
    return np.concatenate(distance), np.concatenate(which)


def _together(rows: Any) -> Any:
    a, h = rows
    block = h.block if isinstance(h, LazyRows) else len(h)
    for start in range(0, len(h), block):
        yield a[start : start + block], h[start : start + block]
