"""What an adapted network says is kept for an equal network: same bits, less work."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skadma import SourceCenters
from skadma.features import extractor as scan
from skadma.features.cache import DiskCache, LRUCache, MemoryCache
from skadma.features.extractor import FeatureExtractor
from skadma.strategies import ADMA, UncertaintyHerding

from .conftest import tiny_classifier


@pytest.fixture
def centers():
    source = np.random.default_rng(3).integers(0, 256, (20, 32, 32, 3), np.uint8)
    return SourceCenters.from_dataset(tiny_classifier(), source, np.arange(20) % 4 + 1)


@pytest.fixture
def passes(monkeypatch):
    """Lets small pools be kept, and lists the images that go through a tail."""
    monkeypatch.setattr(scan, "_MIN_NAMED", 1)
    seen = []
    run = FeatureExtractor._compute

    def watched(self, items, x, *args, **kwargs):
        seen.append(len(x))
        return run(self, items, x, *args, **kwargs)

    monkeypatch.setattr(FeatureExtractor, "_compute", watched)
    return seen


def without_cache(strategy, clf, X):
    return strategy.score(copy.deepcopy(clf).set_params(memory=False), X, iteration=2)


@pytest.mark.parametrize("kind", ["memory", "disk"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"features": "current"},
        {"features": "initial"},
        {"layer_a": (-4, -3)},
        {"weights": "distance"},
    ],
    ids=str,
)
def test_equal_networks_share(options, kind, passes, centers, pictures, tmp_path):
    X, y = pictures
    memory = MemoryCache() if kind == "memory" else DiskCache(tmp_path)
    clf = tiny_classifier(memory=memory)
    ADMA(centers, **options).score(clf, X)
    clf.fit(X[:10], y[:10])
    other = clone(clf).fit(X[:10], y[:10])
    found = ADMA(centers, **options).score(clf, X, iteration=2)
    files = list(Path(tmp_path).rglob("*.safetensors"))
    passes.clear()
    again = ADMA(centers, trade_off=0.4, uncertainty="entropy", **options)
    shared = again.score(other, X, iteration=2)
    assert not passes
    np.testing.assert_array_equal(shared.distinctiveness, found.distinctiveness)
    assert list(Path(tmp_path).rglob("*.safetensors")) == files
    plain = without_cache(again, other, X)
    for name in ("distinctiveness", "uncertainty", "total"):
        np.testing.assert_array_equal(getattr(shared, name), getattr(plain, name))


def test_features_and_scores_are_shared_too(passes, pictures):
    X, y = pictures
    clf = tiny_classifier(memory=MemoryCache()).fit(X[:10], y[:10])
    chosen = UncertaintyHerding(random_state=0).query(clf, X, 5)
    proba = clf.predict_proba(X)
    other = clone(clf).fit(X[:10], y[:10])
    passes.clear()
    np.testing.assert_array_equal(other.predict_proba(X), proba)
    features = other.embed(X, -2)[-2]
    n_passes = len(passes)
    features[:] = 0  # what is kept is not what is handed out
    np.testing.assert_array_equal(clf.embed(X, -2)[-2], without(clf).embed(X, -2)[-2])
    again = UncertaintyHerding(random_state=1).query(other, X, 5)
    assert n_passes == 1 and passes[1:] == [len(X)]  # `without` a cache
    np.testing.assert_array_equal(again, chosen)
    other.embed(X, -4)  # maps are not kept
    assert len(passes) == 3


def without(clf):
    return copy.deepcopy(clf).set_params(memory=False)


def test_what_is_not_the_same_is_not_taken(passes, centers, pictures):
    X, y = pictures
    clf = tiny_classifier(memory=MemoryCache()).fit(X[:10], y[:10])
    strategy = ADMA(centers)
    strategy.score(clf, X)
    one_bit = X.copy()
    one_bit[7, 0, 0, 0] ^= 1
    for some in (X[::-1], X[:-1], one_bit):
        np.testing.assert_array_equal(
            strategy.score(clf, some, iteration=2).total,
            without_cache(strategy, clf, some).total,
        )
    for others in (
        ADMA(centers, layer_a=-3),
        ADMA(centers, features="current"),
        ADMA(centers, features="published"),
        ADMA(SourceCenters.from_dataset(clf, X[:8], np.arange(8) % 4)),
    ):
        np.testing.assert_array_equal(
            others.score(clf, X, iteration=2).total, without_cache(others, clf, X).total
        )
    network = clf.net_.module_
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        passes.clear()
        before = strategy.score(clf, X, iteration=2).total
        assert not passes
        if tensor.is_floating_point() and name.split(".")[1] == network.head_name:
            with torch.no_grad():
                tensor.flatten()[0] += 0.5
            after = strategy.score(clf, X, iteration=2).total
            assert passes and not np.array_equal(after, before), name
            np.testing.assert_array_equal(
                after, without_cache(strategy, clf, X).total, name
            )


def test_few_images_name_no_network(centers, pictures, monkeypatch):
    X, y = pictures
    memory = MemoryCache()
    clf = tiny_classifier(memory=memory).fit(X[:10], y[:10])
    ADMA(centers).score(clf, X)
    assert len(memory.recent) == 0
    many = np.random.default_rng(0).integers(0, 256, (1100, 32, 32, 3), np.uint8)
    scores = ADMA(centers).score(clf, many)
    assert len(memory.recent) == 9
    assert memory.recent.nbytes == 1100 * (3 * 4 + 8)  # three scores, distinctiveness
    np.testing.assert_array_equal(
        scores.total, ADMA(centers).score(without(clf), many).total
    )


def test_the_last_used_stay():
    recent = LRUCache(100)
    for name in "abc":
        recent.put(name, name.upper(), 30)
    assert recent.get("a") == "A"
    recent.put("d", "D", 40)
    assert [recent.get(name) for name in "abcd"] == ["A", None, "C", "D"]
    assert recent.nbytes == 100
    recent.put("d", "again", 10)
    assert (recent.get("d"), recent.nbytes) == ("again", 70)
    recent.put("large", "alone", 1000)
    assert len(recent) == 1 and recent.nbytes == 1000
    recent.put("small", "after it", 1)
    assert len(recent) == 1 and recent.nbytes == 1


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_clones_share_it_and_pickles_do_not(kind, tmp_path):
    cache = MemoryCache(1600) if kind == "memory" else DiskCache(tmp_path, 1600)
    cache.recent.put("name", "value", 5)
    assert clone(tiny_classifier(memory=cache)).memory.recent is cache.recent
    other = pickle.loads(pickle.dumps(cache)).recent
    assert (len(other), other.limit) == (0, 100)
    cache.clear()
    assert len(cache.recent) == cache.recent.nbytes == 0
