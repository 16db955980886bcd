"""The activation cache: same results, less work, and nothing broken by a kill."""

import contextlib
import copy
import hashlib
import multiprocessing
import os
import pickle
import shutil
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import skadma.features.cache
from skadma import ActiveLearner, CNNClassifier, SourceCenters
from skadma.features.adapter import cnn_adapter
from skadma.features.cache import DiskCache, MemoryCache, open_cache, process_cache
from skadma.images.dataset import ImageDataset, Preprocessing
from skadma.images.decoding import UnreadableImageError
from skadma.strategies import ADMA, UncertaintyHerding

from .conftest import lite0, tiny_classifier


@pytest.fixture(params=["memory", "disk"])
def cache(request, tmp_path):
    return MemoryCache(1000) if request.param == "memory" else DiskCache(tmp_path, 1000)


def test_get_put_clear(cache):
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert cache.get("s", "k") is None
    cache.put("s", "k", value)
    np.testing.assert_array_equal(cache.get("s", "k"), value)
    assert cache.get("s", "other") is None
    assert cache.get("other", "k") is None
    cache.clear()
    assert cache.get("s", "k") is None
    assert cache.nbytes == 0


def test_limits(cache):
    for i in range(10):
        cache.put("s", f"{i}" * 4, np.zeros(50, np.float32))
    assert 0 < cache.nbytes <= 1000
    assert cache.get("s", "0000") is not None
    assert cache.get("s", "9999") is None


def test_a_space_out_of_use_makes_room(monkeypatch):
    monkeypatch.setattr(skadma.features.cache, "_IDLE", 5)
    cache = MemoryCache(1000)
    for space in "ab":
        for i in range(2):
            cache.put(space, str(i), np.zeros(50, np.float32))
    large = np.zeros(100, np.float32)
    cache.put("c", "0", large)
    assert cache.nbytes == 800  # both were in use a moment ago: no room
    for _ in range(6):
        cache.get("b", "0")
    cache.put("c", "0", large)
    assert cache.get("a", "0") is None
    assert cache.get("b", "0") is not None
    assert cache.get("c", "0") is not None
    assert cache.nbytes == 800


def test_a_pool_that_does_not_fit_keeps_what_fits(elpv):
    """The scores that are kept beside the outputs do not drive them out."""
    memory = MemoryCache(300_000)
    clf = lite0(memory=memory)
    first = clf.source_proba(elpv[0][:40])
    n_entries = sum(map(len, memory._entries.values()))
    assert 0.8 * memory.limit < memory.nbytes <= memory.limit
    np.testing.assert_array_equal(clf.source_proba(elpv[0][:40]), first)
    assert sum(map(len, memory._entries.values())) == n_entries


def test_a_cache_with_a_limit_of_its_own(tmp_path, elpv):
    for memory in (MemoryCache(10**7), DiskCache(tmp_path, 10**7)):
        clf = clone(lite0(memory=memory))
        clf.embed(elpv[0][:8], -2)
        assert memory.nbytes > 0
        assert pickle.loads(pickle.dumps(clf)).memory.limit == 10**7


def test_disk_survives_damage_and_another_process(tmp_path):
    cache = DiskCache(tmp_path)
    value = np.arange(100, dtype=np.float32)
    cache.put("s", "key", value)
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:150])  # as after a kill without renaming
    assert cache.get("s", "key") is None
    cache.put("s", "key", value)
    np.testing.assert_array_equal(DiskCache(tmp_path).get("s", "key"), value)
    assert not list(tmp_path.rglob("*.part"))
    with path.open("wb") as file:
        np.save(file, np.array([object()]), allow_pickle=True)
    assert cache.get("s", "key") is None  # pickles are never loaded
    other = tmp_path / "mine.txt"
    other.write_text("keep")
    cache.clear()
    assert list(tmp_path.iterdir()) == [other]


def test_one_changed_bit_is_told_and_never_used(tmp_path, caplog):
    cache = DiskCache(tmp_path)
    value = np.random.default_rng(0).random((2, 5)).astype(np.float32)
    cache.put("s", "key", value)
    cache.put("s", "kex", 2 * value)
    path, other = cache._path("s", "key"), cache._path("s", "kex")
    good = path.read_bytes()
    for i in range(len(good)):
        bad = bytearray(good)
        bad[i] ^= 1 << i % 8
        path.write_bytes(bad)
        assert cache.get("s", "key") is None, i
    assert len(caplog.records) == len(good)
    assert caplog.records[0].levelname == "WARNING"
    assert f"{path} was changed or damaged" in caplog.text
    path.write_bytes(other.read_bytes())  # whole, but another one
    assert cache.get("s", "key") is None
    cache.put("s", "key", value)
    caplog.clear()
    np.testing.assert_array_equal(cache.get("s", "key"), value)
    assert not caplog.records
    path.unlink()
    assert cache.get("s", "key") is None  # and nothing is said of what is not there
    assert not caplog.records


def test_a_damaged_cache_changes_no_prediction_and_no_choice(
    tmp_path, pictures, caplog
):
    X, y = pictures
    clf = tiny_classifier(memory=tmp_path).fit(X[:12], y[:12])
    proba = clf.predict_proba(X)
    strategy = UncertaintyHerding(random_state=0)
    chosen = strategy.query(clf, X, 5)
    files = sorted(tmp_path.rglob("*.safetensors"))
    good = [path.read_bytes() for path in files]
    rng = np.random.default_rng(0)
    for path, content in zip(files, good, strict=True):
        bad = bytearray(content)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        path.write_bytes(bad)
    np.testing.assert_array_equal(clf.predict_proba(X), proba)
    assert strategy.query(clf, X, 5).tolist() == chosen.tolist()
    assert {record.message.split(" was changed")[0] for record in caplog.records} == {
        str(path) for path in files
    }
    assert [path.read_bytes() for path in files] == good


def _write_many(folder):
    cache = DiskCache(folder)
    for i in range(60):
        cache.put("s", f"{i:04}", np.full(500, i, np.float32))
        found = cache.get("s", f"{i:04}")
        assert found is not None
        assert (found == i).all()


def test_a_disk_that_takes_no_more_is_no_error(tmp_path, caplog, pictures):
    cache = DiskCache(tmp_path)
    cache.folder.write_text("where the folder should be")
    cache.put("space", "key", np.ones(3, np.float32))
    assert cache.get("space", "key") is None
    cache.put("space", "other", np.ones(3, np.float32))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "No more is kept" in caplog.text
    X, y = pictures
    clf = tiny_classifier(memory=cache, n_frozen_layers=2, max_epochs=1).fit(X, y)
    assert np.isfinite(clf.predict_proba(X)).all()


def test_two_processes_share_a_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_many, args=(tmp_path,)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len(list(tmp_path.rglob("*.safetensors"))) == 60
    assert not list(tmp_path.rglob("*.part"))


def test_what_memory_means(tmp_path):
    assert open_cache(None) is process_cache
    assert open_cache(False) is None
    assert open_cache(str(tmp_path)).folder.parent == tmp_path
    assert open_cache(joblib.Memory(tmp_path, verbose=0)).folder.parent == tmp_path
    assert open_cache(joblib.Memory(None)) is None
    with pytest.raises(ValueError, match="memory=3 must be None"):
        open_cache(3)


@pytest.mark.parametrize(
    "backbone",
    ["resnet18", "regnet_y_400mf", "mobilenet_v3_small", "vgg11_bn", "convnext_tiny"],
)
def test_an_image_gives_the_same_bits_in_any_batch(backbone, elpv):
    """Or what is kept would depend on when it was computed."""
    X = elpv[0][:40]
    clf = CNNClassifier(backbone, weights=None, image_size=64, memory=False)
    whole = clf.source_proba(X)
    for indices in (np.arange(40)[::-1], np.arange(13) * 3, np.arange(9), [7] * 8):
        np.testing.assert_array_equal(clf.source_proba(X[indices]), whole[indices])


class Counter:
    """Counts the images that a network's first layer sees."""

    def __init__(self, clf, layer="conv_stem"):
        self.images = 0
        module = clf.source_network().module.get_submodule(layer)
        self.handle = module.register_forward_hook(self)

    def __call__(self, module, inputs, output):
        self.images += len(output)


@pytest.mark.parametrize("kind", ["process", "disk"])
def test_images_go_through_the_frozen_part_once(kind, tmp_path, elpv):
    X, y = elpv[0][:30], elpv[1][:30]
    process_cache.clear()
    memory = None if kind == "process" else tmp_path
    clf = lite0(n_frozen_layers=45, memory=memory)
    clf.set_params(memory=False)
    centers = SourceCenters.from_dataset(clf, X[:4], [3, 1, 4, 5])
    clf.set_params(memory=memory)
    learner = ActiveLearner(
        clf, ADMA(centers), n_rounds=3, n_instances=4, random_state=0
    )
    counter = Counter(clf)
    learner.fit(X, y)
    assert counter.images == 32 + 16  # multiples of sixteen: the pool and the centres
    again = clone(learner).fit(X[::-1], y[::-1])  # another order
    again.predict_proba(X[5:9])
    assert counter.images == 32 + 16
    counter.handle.remove()
    without = clone(learner).set_params(estimator__memory=False).fit(X, y)
    for mine, theirs in zip(
        learner.queried_indices_, without.queried_indices_, strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(learner.predict_proba(X), without.predict_proba(X))


@pytest.mark.parametrize("features", ["current", "initial"])
def test_what_m0_says_is_computed_once(features, elpv):
    X, y = elpv[0][:24], elpv[1][:24]
    clf = lite0(n_frozen_layers=45, memory=MemoryCache())
    centers = SourceCenters.from_dataset(clf, X[:4], [3, 1, 4, 5])
    strategy = ADMA(centers, features=features)
    before = strategy.score(clf, X)
    last_layer = Counter(clf, "classifier")
    clf.fit(X[:8], y[:8])
    after = strategy.score(clf, X)
    assert last_layer.images == 0
    if features == "initial":
        np.testing.assert_array_equal(after.distinctiveness, before.distinctiveness)
        changed = ADMA(centers, features=features, weights="distance").score(clf, X)
        assert not np.array_equal(changed.distinctiveness, before.distinctiveness)
    uncached = strategy.score(clf.set_params(memory=False), X)
    np.testing.assert_array_equal(after.total, uncached.total)


@pytest.mark.parametrize("strategy", [UncertaintyHerding, ADMA])
def test_a_round_passes_through_the_present_tail_only(strategy, elpv):
    """M0's vectors of the pool and all of the centres are kept from the first look."""
    X, y = elpv[0][:24], elpv[1][:24]
    clf = lite0(n_frozen_layers=45, memory=MemoryCache())
    strategy = strategy(random_state=0)
    if isinstance(strategy, ADMA):
        centers = SourceCenters.from_dataset(clf, X[:4], [3, 1, 4, 5])
        strategy.set_params(centers=centers)
    counter = Counter(clf, "conv_head")
    first = strategy.query(clf, X, 5)
    assert counter.images > 0
    counter.images = 0
    np.testing.assert_array_equal(strategy.query(clf, X, 5), first)
    clf.fit(X[:8], y[:8])
    again = strategy.query(clf, X, 5)
    assert counter.images == 0
    counter.handle.remove()
    uncached = strategy.query(
        clone(clf).set_params(memory=False).fit(X[:8], y[:8]), X, 5
    )
    np.testing.assert_array_equal(again, uncached)


def test_what_is_not_the_same_is_not_taken(elpv, tmp_path):
    """Another image, size, network or cut finds nothing of the first one's."""
    X = elpv[0][:6]
    changed = X.copy()
    changed[2, 0, 0] ^= 1
    for params, images in [
        ({}, X),
        ({}, changed),
        ({"image_size": 80}, X),
        ({"n_frozen_layers": 20}, X),
        ({"backbone": "efficientnet_lite1"}, X),
    ]:
        found = lite0(memory=tmp_path).set_params(**params).embed(images, -2)[-2]
        plain = lite0(memory=False).set_params(**params).embed(images, -2)[-2]
        np.testing.assert_array_equal(found, plain)


def test_a_changed_file_is_read_again(tmp_path, pictures):
    path = tmp_path / "image.png"
    Image.fromarray(pictures[0][0]).save(path)
    clf = tiny_classifier()
    first = clf.source_proba([path])
    Image.fromarray(pictures[0][1][::-1]).save(path)
    os.utime(path, ns=(1, 1))
    second = clf.source_proba([path])
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(
        second, clf.set_params(memory=False).source_proba([path])
    )


def test_a_file_is_named_by_where_it_is(tmp_path, pictures, monkeypatch):
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    Image.fromarray(pictures[0][0]).save(folder / "image.png")
    shutil.copy2(folder / "image.png", folder / "copy.png")
    monkeypatch.chdir(folder)
    ways = ["image.png", folder / "image.png", f"{folder}/../b/./image.png"]
    with contextlib.suppress(OSError):  # on Windows links need a right
        (tmp_path / "link.png").symlink_to(folder / "image.png")
        (tmp_path / "link").symlink_to(tmp_path / "a", target_is_directory=True)
        ways += [tmp_path / "link.png", tmp_path / "link" / "b" / "image.png"]
    keys = [ImageDataset([way], Preprocessing(32, 32)).keyed(0)[0] for way in ways]
    state, real = (folder / "image.png").stat(), os.path.realpath("image.png")
    described = f"{real}|{state.st_size}|{state.st_mtime_ns}".encode()
    assert set(keys) == {hashlib.sha256(described).hexdigest()[:32]}
    other = ImageDataset(["copy.png"], Preprocessing(32, 32)).keyed(0)[0]
    assert other not in keys
    for missing in ("gone.png", ""):
        with pytest.raises(UnreadableImageError):
            ImageDataset([missing], Preprocessing(32, 32)).keyed(0)


class Shaking(torch.utils.data.Dataset):
    """Another picture each time, as with random crops."""

    def __init__(self, X):
        self.X = X
        self.rng = np.random.default_rng(0)
        self.given = []

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        self.given.append(np.roll(self.X[i], self.rng.integers(99), axis=0))
        return self.given[-1]


def test_what_is_named_is_what_is_kept(pictures):
    process_cache.clear()
    X = Shaking(pictures[0][:5])
    clf = tiny_classifier()
    found = clf.embed(X, -2)[-2]
    assert len(X.given) == 10  # once to find the range of values
    np.testing.assert_array_equal(clf.embed(X.given[5:], -2)[-2], found)
    clf.set_params(memory=False)
    np.testing.assert_array_equal(clf.embed(X.given[5:], -2)[-2], found)


def test_training_the_tail_is_training_the_network(pictures, monkeypatch):
    """Against skorch training the whole network on the images themselves."""
    X, y = pictures
    clf = tiny_classifier(max_epochs=5, lr=1e-3).fit(X, y)
    whole = tiny_classifier(max_epochs=5, lr=1e-3)
    monkeypatch.setattr(
        "skadma.classifier.training_inputs",
        lambda source, dataset, *_: (np.arange(len(dataset)), dataset, None),
    )
    whole.fit(X, y)
    np.testing.assert_allclose(clf.predict_proba(X), whole.predict_proba(X), atol=1e-4)
    for name, tensor in clf.net_.module_.state_dict().items():
        theirs = whole.net_.module_.state_dict()[name]
        assert torch.allclose(tensor, theirs, atol=1e-3), name


def test_grid_in_two_processes(tmp_path, elpv):
    X, y = elpv[0][:24], elpv[1][:24]
    centers = SourceCenters.from_dataset(lite0(), X[:4], [3, 1, 4, 5])
    search = GridSearchCV(
        ActiveLearner(
            lite0(memory=tmp_path), ADMA(centers), n_rounds=2, n_instances=4,
            random_state=0,
        ),
        {"strategy__trade_off": [0.1, 1.0]},
        cv=2,
        n_jobs=2,
    ).fit(X, y)  # fmt: skip
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert list(Path(tmp_path).rglob("*.safetensors"))


def test_an_image_is_not_mistaken_for_a_prepared_one(pictures):
    """The same numbers, once to be resized and once as the network gets them."""
    memory = MemoryCache()
    clf = CNNClassifier("squeezenet1_1", weights=None, image_size=48, memory=memory)
    prepared = np.random.default_rng(0).integers(0, 256, (8, 3, 48, 48), np.uint8)
    head = len(clf.layers()) - 1
    first = [
        b.source[head]
        for b in cnn_adapter(clf).iter_outputs_prepared(prepared, [], [head])
    ]
    as_images = clf.source_proba(prepared)
    np.testing.assert_array_equal(
        as_images, clf.set_params(memory=False).source_proba(prepared)
    )
    again = [
        b.source[head]
        for b in cnn_adapter(clf).iter_outputs_prepared(prepared, [], [head])
    ]
    assert torch.equal(torch.cat(first), torch.cat(again))


def test_a_limit_of_a_folder(tmp_path):
    """It holds for all objects together, clones and links included."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    one = DiskCache(tmp_path / "real", 100_000)
    caches = [one, DiskCache(tmp_path / "link", 100_000), copy.deepcopy(one)]
    caches.append(pickle.loads(pickle.dumps(one)))
    for i in range(20):
        for k, cache in enumerate(caches):
            cache.put("space", f"{i:02}{k}", np.zeros(2500, np.float32))
    files = list(tmp_path.rglob("*.safetensors"))
    assert 80_000 < sum(path.stat().st_size for path in files) <= 100_000
    assert len({cache.nbytes for cache in caches}) == 1


def test_clear_after_an_error(tmp_path, monkeypatch):
    """What could not be written is no reason never to write again."""
    cache, other = DiskCache(tmp_path, 10_000), DiskCache(tmp_path, 10_000)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(skadma.features.cache, "write_atomically", full)
        cache.put("space", "key", np.ones(3, np.float32))
    cache.put("space", "key", np.ones(3, np.float32))
    assert cache.get("space", "key") is None
    assert cache.limit == 10_000
    other.clear()
    cache.put("space", "key", np.ones(3, np.float32))
    assert cache.get("space", "key").tolist() == [1, 1, 1]


def test_half_precision_does_not_depend_on_what_is_cached(tmp_path, elpv):
    """Rows are rounded when they are computed, and found to be the same later."""
    clf, X = tiny_classifier(memory=False), elpv[0][:12]
    exact = clf.embed(X, [-2])[-2]
    clf.set_params(memory=DiskCache(tmp_path, half=True))
    first = clf.embed(X, [-2])[-2]
    (file, *_) = tmp_path.rglob("*.safetensors")
    assert file.stat().st_size < 2 * exact.shape[1] + 256
    copied = clone(clf).set_params(memory=pickle.loads(pickle.dumps(clf.memory)))
    np.testing.assert_array_equal(copied.embed(X, [-2])[-2], first)
    np.testing.assert_array_equal(first, exact.astype(np.float16).astype(np.float32))
    assert (first != exact).any()
    clf.memory.put("space", "bytes", np.arange(3, dtype=np.uint8))
    assert clf.memory.get("space", "bytes").dtype == np.uint8
