"""Strategies that choose from the partitions of a pool, and what they choose by."""

# The fixtures that are imported are the arguments of the same name.
# ruff: noqa: F811

import itertools
import math

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from skadma._utils.lazy_rows import MappedRows
from skadma.features.store import FeatureStore
from skadma.features.store.hashing import key_hashes, partition
from skadma.strategies import CoreSet, UncertaintyHerding, _uncertainty_herding
from skadma.strategies._coreset import k_center_greedy
from skadma.strategies._uncertainty_herding import (
    Coverage,
    herd_over_partitions,
)

from .stored_pool import store  # noqa: F401


class Shuffled:
    """What choosing over partitions needs of a store, with rows in memory."""

    executor = None

    def __init__(self, order, partitions):
        self.hashes = key_hashes(f"image-{i}" for i in order)
        self.partitions = partitions


@pytest.fixture(scope="module")
def rows():
    X, _ = make_blobs(1500, 8, centers=20, cluster_std=1.5, random_state=0)
    weights = np.random.default_rng(0).random(1500) ** 3
    return X.astype(np.float16).astype(np.float32), weights


def herd(order, partitions, rows):
    X, weights = (array[order] for array in rows)
    pool = Shuffled(order, partitions)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_uncertainty_herding, "_N_REFERENCE_POINTS", 400)
        return herd_over_partitions(pool, X[:0], X, weights, 20, seed=0)[0]


def test_the_order_of_the_pool_does_not_matter(rows):
    expected = herd(np.arange(1500), 8, rows)
    assert len(set(expected.tolist())) == 20
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(1500)
        assert order[herd(order, 8, rows)].tolist() == expected.tolist()


@pytest.mark.parametrize("strategy", [UncertaintyHerding(), CoreSet()])
def test_the_order_of_the_shards_does_not_matter(store, strategy, tmp_path):
    _, clf, X = store
    strategy.set_params(random_state=0)
    keys = [f"image-{i}" for i in range(200)]
    found = []
    for seed, shard_rows in ((0, 48), (1, 16), (2, 200)):
        order = np.random.default_rng(seed).permutation(200)
        pool = FeatureStore.build(
            clf,
            X[order],
            tmp_path / str(seed),
            keys=[keys[i] for i in order],
            shard_rows=shard_rows,
            partitions=5,
        )
        found.append(order[strategy.query(clf, pool, 10)].tolist())
    assert found[0] == found[1] == found[2]
    assert len(set(found[0])) == 10


def literal_coverage(rows, weights, chosen, bandwidth_sq):
    return sum(
        w * max(math.exp(-((x - s) ** 2).sum() / bandwidth_sq) for s in chosen)
        for x, w in zip(rows, weights, strict=True)
    )


def test_herding_over_partitions_is_randgreedi(rows, monkeypatch):
    """Against all steps written out, on a small pool with all of it as references."""
    X, weights = rows[0][:60].astype(float), rows[1][:60]
    pool = Shuffled(np.arange(60), 4)
    bandwidth_sq = 30.0
    monkeypatch.setattr(
        "skadma.strategies._uncertainty_herding.share_distance", lambda *_: bandwidth_sq
    )
    got, gains = herd_over_partitions(
        pool, X[:0].astype(np.float32), X.astype(np.float32), weights, 5, seed=0
    )

    def greedy(candidates):
        chosen = []
        for _ in range(5):
            left = [i for i in candidates if i not in chosen]
            chosen.append(
                max(
                    left,
                    key=lambda i: literal_coverage(
                        X, weights, [*X[chosen], X[i]], bandwidth_sq
                    ),
                )
            )
        return chosen

    local = [greedy(list(rows)) for rows in partition(pool.hashes, 4, 2)]
    center = greedy(list(itertools.chain(*local)))
    best = max(
        [center, *local], key=lambda c: literal_coverage(X, weights, X[c], bandwidth_sq)
    )
    assert got.tolist() == [int(i) for i in best]
    assert gains.sum() == pytest.approx(
        literal_coverage(X, weights, X[best], bandwidth_sq), rel=1e-4
    )


def test_partitions_cover_nearly_as_much_as_the_whole(rows, monkeypatch):
    monkeypatch.setattr(
        "skadma.strategies._uncertainty_herding.share_distance", lambda *_: 30.0
    )
    X, weights = rows
    chosen = herd(np.arange(1500), 10, rows)
    cover = Coverage(X, weights, 30.0)
    _, gains = Coverage(X, weights, 30.0).greedy(X, 20)
    cover.add(X[chosen])
    assert cover.value > 0.93 * gains.sum()


def test_k_center_is_the_literal_one(rows):
    X = rows[0]
    for labeled in (X[:0], X[:7]):
        found = [
            k_center_greedy(some, labeled, 40, np.random.default_rng(3))
            for some in (X, MappedRows(X, 100))
        ]
        chosen, distances = [], []
        if not len(labeled):
            chosen.append(int(np.random.default_rng(3).integers(len(X))))
            distances.append(np.inf)
        while len(chosen) < 40:
            known = np.concatenate([labeled, X[chosen]])
            nearest = np.linalg.norm(X[:, None] - known, axis=2).min(axis=1)
            chosen.append(int(nearest.argmax()))
            distances.append(nearest.max())
        for got in found:
            assert got[0].tolist() == chosen
            np.testing.assert_allclose(got[1], distances, rtol=1e-3)


def test_coreset_over_partitions_is_gonzalez_twice(store):
    pool, clf, _ = store
    divided = pool.select(np.arange(200))
    divided.partitions = 4
    chosen, radius = CoreSet(random_state=0)(clf, divided, 12)
    X = pool.outputs(clf).features[:]

    def covered(chosen):
        return max(min(np.linalg.norm(x - X[i]) for i in chosen) for x in X)

    one = CoreSet(random_state=0).query(clf, pool, 12)
    assert covered(chosen) <= 4 * covered(one)  # the best is at most covered(one)
    assert len(set(chosen.tolist())) == 12
    assert (np.diff(radius[1:]) <= 1e-4).all()
