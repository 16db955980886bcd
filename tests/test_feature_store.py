"""Feature stores: built, killed, resumed, appended to and verified."""

# The fixtures that are imported are the arguments of the same name.
# ruff: noqa: F811

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from skadma import ActiveLearner, CNNClassifier, SourceCenters
from skadma.features.store import FeatureStore, StoreError
from skadma.features.store.hashing import (
    key_hashes,
    partition,
    priority_sample,
    uniform,
)
from skadma.features.store.shards import shard_file
from skadma.strategies import ADMA, AIFT, CoreSet, MarginSampling, UncertaintyHerding

from .conftest import TinyCNN, tiny_classifier
from .photographs import files_of, fitted, photographs  # noqa: F401

# --- build, resume, append, verify ---------------------------------------------------


def test_keeps_what_the_network_says(photographs, fitted, tmp_path):
    paths, _ = photographs
    store = FeatureStore.build(fitted, paths, tmp_path / "s", shard_rows=32)
    assert store.outputs(fitted, initial=True).features.shape == (90, 10)
    assert store.keys == paths
    assert store.readable.all()
    m0 = tiny_classifier().embed(paths, -2)[-2]
    initial = store.outputs(fitted, initial=True)
    np.testing.assert_array_equal(
        initial.features[:], m0.astype(np.float16).astype(np.float32)
    )
    np.testing.assert_allclose(initial.proba[:], fitted.predict_proba(paths), atol=1e-6)
    current = store.outputs(fitted).features
    np.testing.assert_array_equal(
        current[:], fitted.embed(paths, -2)[-2].astype(np.float16).astype(np.float32)
    )
    some = FeatureStore.build(fitted, paths[:9], tmp_path / "t", compute=False)
    with pytest.raises(StoreError, match=r"FeatureStore.compute\(estimator\)"):
        some.readable  # noqa: B018
    some.compute(fitted)
    assert some.readable.all()
    for sha, path in zip(store.sha256, paths, strict=True):
        assert sha.tobytes() == hashlib.sha256(Path(path).read_bytes()).digest()


def test_arrays_are_kept_by_their_owner(pictures, tmp_path):
    X, _ = pictures
    clf = tiny_classifier()
    FeatureStore.build(clf, X, tmp_path, shard_rows=8)
    store = FeatureStore.open(tmp_path)
    assert store.keys[5].startswith("000000005-")
    with pytest.raises(StoreError, match="images="):
        store.images  # noqa: B018
    np.testing.assert_array_equal(
        FeatureStore.open(tmp_path, images=X).select([3, 1]).images, X[[3, 1]]
    )
    with pytest.raises(StoreError, match="is of 24 images"):
        FeatureStore.open(tmp_path, images=X[:3])
    with pytest.raises(StoreError, match="Only files can be added"):
        store.append(clf, X)


def test_verify_finds_and_mends(photographs, fitted, tmp_path):
    paths, _ = photographs
    store = FeatureStore.build(fitted, paths, tmp_path, shard_rows=32)
    before = files_of(tmp_path)
    assert store.verify(fitted) == []
    damaged = shard_file(tmp_path, "source-004", 1)
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    short = shard_file(tmp_path, "content", 2)
    short.write_bytes(short.read_bytes()[:-10])
    for found in (store.verify(), store.verify(fitted)):
        assert [f.split()[0] for f in found] == [
            "source-004/000001.safetensors",
            "content/000002.safetensors",
        ]
    store.verify(repair=True)
    FeatureStore.build(fitted, paths, tmp_path, shard_rows=32)
    assert store.verify() == []
    assert files_of(tmp_path) == before


def flip(path, number=-1):
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[number] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("begin", [False, True], ids=["last byte", "header"])
@pytest.mark.parametrize("select", [False, True])
def test_a_changed_bit_is_told_and_computed_anew(
    photographs, fitted, tmp_path, caplog, begin, select
):
    paths, _ = photographs
    FeatureStore.build(fitted, paths, tmp_path, shard_rows=16)
    strategy = UncertaintyHerding(random_state=0)

    def query(store):
        store = store.select(np.arange(20, 70)) if select else store
        return strategy.query(fitted, store, 6).tolist()

    expected = query(FeatureStore.open(tmp_path))
    before = files_of(tmp_path)
    assert not caplog.records
    for column in sorted({path.parent for path in tmp_path.rglob("*.safetensors")}):
        for number in (1, 2):
            flip(column / f"{number:06d}.safetensors", 20 if begin else -1)
    store = FeatureStore.open(tmp_path)
    with pytest.raises(StoreError, match=r"000001.safetensors' .*compute\(estimator\)"):
        store.readable  # noqa: B018
    assert query(store) == expected
    said = caplog.text
    for name in ("content", "source-004"):
        for number in (1, 2):
            assert f"{name}/{number:06d}.safetensors" in said
    assert "it is computed anew" in said
    store.compute(fitted)
    assert store.verify() == []
    assert files_of(tmp_path) == before


def test_damage_during_use_is_seen_before_the_next_query(
    photographs, fitted, tmp_path, caplog
):
    paths, _ = photographs
    store = FeatureStore.build(fitted, paths, tmp_path, shard_rows=16)
    chosen = CoreSet(random_state=0).query(fitted, store, 6)
    for path in tmp_path.rglob("000003.safetensors"):
        flip(path)
    assert CoreSet(random_state=0).query(fitted, store, 6).tolist() == chosen.tolist()
    assert caplog.text.count("it is computed anew") >= 2


def test_a_changed_name_or_manifest_is_told(photographs, fitted, tmp_path):
    paths, _ = photographs
    store = FeatureStore.build(fitted, paths, tmp_path, shard_rows=16)
    names = tmp_path / "images" / "000001.json"
    good = names.read_text()
    names.write_text(good.replace("020.png", "021.png"))
    assert [line.split()[0] for line in store.verify()] == [repr(str(names))]
    for use in (
        lambda: FeatureStore.open(tmp_path).keys,
        lambda: FeatureStore.build(fitted, paths, tmp_path, shard_rows=16),
    ):
        with pytest.raises(StoreError, match=r"000001.json.*changed or damaged"):
            use()
    names.write_text(good)
    manifest = tmp_path / "store.json"
    manifest.write_text(manifest.read_text().replace('"layer": 4', '"layer": 3'))
    with pytest.raises(StoreError, match=r"store.json.*changed or damaged"):
        FeatureStore.open(tmp_path)


def test_verify_sees_changed_images(pictures, tmp_path):
    X, _ = pictures
    clf = tiny_classifier()
    paths = []
    for i, pixels in enumerate(X):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(pixels).save(paths[-1])
    store = FeatureStore.build(clf, paths, tmp_path / "s", shard_rows=8)
    Image.fromarray(255 - X[9]).save(paths[9])
    assert store.verify() == []
    assert store.verify(clf) == [f"{paths[9]!r} has changed since it was computed"]
    store.verify(clf, repair=True)
    store.compute(clf)
    assert store.verify(clf) == []
    np.testing.assert_allclose(
        store.outputs(clf).features[:], clf.embed(paths, -2)[-2], atol=1e-2
    )


def test_unreadable_images_are_left_out(photographs, tmp_path):
    paths, y = photographs
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    X = [*paths[:30], str(broken), *paths[30:60]]
    clf = tiny_classifier(on_bad_image="skip")
    with pytest.warns(UserWarning, match="1 unreadable"):
        store = FeatureStore.build(clf, X, tmp_path / "s", shard_rows=16)
    assert np.flatnonzero(~store.readable).tolist() == [30]
    chosen = UncertaintyHerding().query(clf, store, 60)
    assert 30 not in chosen
    with pytest.raises(ValueError, match="only 60 of the 61"):
        UncertaintyHerding().query(clf, store, 61)
    with pytest.raises(ValueError, match="cannot be read"):
        FeatureStore.build(tiny_classifier(), X, tmp_path / "t", shard_rows=16)


def test_a_mended_file_is_tried_again(photographs, tmp_path):
    paths, _ = photographs
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    X = [*paths[:19], str(broken), *paths[20:40]]
    clf = tiny_classifier(on_bad_image="skip")
    with pytest.warns(UserWarning, match="1 unreadable"):
        store = FeatureStore.build(clf, X, tmp_path / "s", shard_rows=16)
    before = files_of(tmp_path / "s")
    assert np.isnan(store.outputs(clf).features[[19]]).all()
    store.compute(clf)  # the file is as it was
    assert files_of(tmp_path / "s") == before
    broken.write_bytes(Path(paths[19]).read_bytes())
    features = store.outputs(clf).features
    assert store.readable.all()
    assert not store.verify(clf)
    np.testing.assert_allclose(features[:], clf.embed(X, -2)[-2], atol=1e-2)
    after = files_of(tmp_path / "s")
    changed = {name for name in before if before[name] != after[name]}
    assert {Path(name).stem for name in changed} == {"000001"}


def test_keys_are_paths_without_links(photographs, tmp_path):
    paths, _ = photographs
    (tmp_path / "folder").symlink_to(Path(paths[0]).parent)
    (tmp_path / "file.png").symlink_to(paths[9])
    linked = [str(tmp_path / "folder" / Path(path).name) for path in paths[:9]]
    linked.append(str(tmp_path / "file.png"))
    clf = tiny_classifier()
    store = FeatureStore.build(clf, linked, tmp_path / "s")
    assert store.keys == paths[:10]
    assert store.images == linked
    assert len(FeatureStore.build(clf, paths[:10], tmp_path / "s")) == 10
    assert len(store.append(clf, paths[8:12])) == 12
    with pytest.raises(ValueError, match="is there twice"):
        FeatureStore.build(clf, [paths[0], linked[0]], tmp_path / "t")


def test_keys_of_paths_with_dots_and_of_linked_folders(
    photographs, tmp_path, monkeypatch
):
    paths, _ = photographs
    folder = Path(paths[0]).parent
    (tmp_path / "home").symlink_to(folder.parent)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "into").symlink_to(tmp_path / "deep" / "er")
    monkeypatch.chdir(folder)
    names = [Path(path).name for path in paths[:12]]
    forms = {
        "as it is": [str(folder / name) for name in names],
        "relative": names,
        "dots": [f"../{folder.name}/./{name}" for name in names],
        "linked": [tmp_path / "home" / folder.name / name for name in names],
        # Behind a link, .. is the folder above the link's target.
        "dots behind a link": [
            f"{tmp_path}/into/../../home/{folder.name}/{name}" for name in names
        ],
    }
    clf = tiny_classifier()
    for form in forms.values():
        store = FeatureStore.build(clf, form, tmp_path / "s")
        assert store.keys == forms["as it is"]
        assert len(store.append(clf, form)) == 12
        assert FeatureStore.open(tmp_path / "s").verify(clf) == []
    for form in forms.values():
        with pytest.raises(ValueError, match="is there twice"):
            FeatureStore.build(clf, [paths[0], form[0]], tmp_path / "t")


def test_indexing_gives_keys(photographs, tmp_path):
    paths, _ = photographs
    store = FeatureStore.build(
        tiny_classifier(), paths[:9], tmp_path / "s", compute=False
    )
    assert [store[0], store[np.int64(-1)]] == [paths[0], paths[8]]
    assert store.select([-1, 1]).keys == [paths[8], paths[1]]
    assert store.select(np.arange(9) % 4 == 3).keys == [paths[3], paths[7]]
    assert store.select([]).keys == []
    with pytest.raises(IndexError, match="image 9 of 9"):
        store[9]
    for key in (slice(5), [1, 2], "a"):
        with pytest.raises(TypeError, match=r"store\.select\(indices\)"):
            store[key]


class Loud(TinyCNN):
    """Its features exceed half precision."""

    def __init__(self):
        super().__init__()
        self.penultimate.weight.data *= 1e8


def test_numbers_too_large_for_half_precision(pictures, tmp_path):
    clf = CNNClassifier(Loud, image_size=32, n_frozen_layers=1, random_state=0)
    with pytest.raises(ValueError, match="dtype='float32'"):
        FeatureStore.build(clf, pictures[0], tmp_path / "s")
    FeatureStore.build(clf, pictures[0], tmp_path / "t", dtype="float32")


def test_refuses_what_does_not_belong(photographs, fitted, tmp_path):
    paths, _ = photographs
    FeatureStore.build(fitted, paths[:20], tmp_path / "s", shard_rows=16)
    for X, message in (
        (paths[:21], "of 20 images, X of 21"),
        (paths[1:21], "other images than X from number 0 on"),
    ):
        with pytest.raises(StoreError, match=message):
            FeatureStore.build(fitted, X, tmp_path / "s", shard_rows=16)
    with pytest.raises(StoreError, match="another dtype"):
        FeatureStore.build(fitted, paths[:20], tmp_path / "s", dtype="float32")
    with pytest.raises(StoreError, match="There is no feature store"):
        FeatureStore.open(tmp_path / "none")
    with pytest.raises(ValueError, match="is there twice"):
        FeatureStore.build(fitted, paths[:3] * 2, tmp_path / "t")
    with pytest.raises(TypeError, match="needs a CNNClassifier"):
        FeatureStore.build(LogisticRegression(), paths, tmp_path / "t")
    other = tiny_classifier(image_size=48)
    with pytest.raises(StoreError, match="another network"):
        MarginSampling().query(
            other.fit(paths[:6], [0, 1] * 3), FeatureStore.open(tmp_path / "s"), 2
        )
    (tmp_path / "s" / "store.json").write_text("{}")
    with pytest.raises(StoreError, match="no feature store of this version"):
        FeatureStore.open(tmp_path / "s")


# --- hashes ---------------------------------------------------------------------------


def test_draws_depend_on_keys_alone():
    keys = [f"image-{i}" for i in range(500)]
    weights = np.random.default_rng(0).random(500) + 0.1
    hashes = key_hashes(keys)
    assert hashes[7] == int.from_bytes(
        hashlib.blake2b(b"image-7", digest_size=8).digest(), "little"
    )
    order = np.random.default_rng(1).permutation(500)
    chosen, counts = priority_sample(weights, hashes, 50, seed=3)
    again, counts_again = priority_sample(weights[order], hashes[order], 50, seed=3)
    assert order[again].tolist() == chosen.tolist()
    np.testing.assert_array_equal(counts, counts_again)
    parts = partition(hashes, 7, seed=5)
    assert sorted(np.concatenate(parts)) == list(range(500))
    for part, other in zip(parts, partition(hashes[order], 7, seed=5), strict=True):
        assert part.tolist() == order[other].tolist()
    assert min(map(len, parts)) > 40


def test_priority_sample_is_literal_and_keeps_sums_on_average():
    rng = np.random.default_rng(0)
    hashes = key_hashes(map(str, range(200)))
    weights, values = rng.exponential(size=200), rng.random(200)
    chosen, counts = priority_sample(weights, hashes, 20, seed=0)
    priority = [w / r for w, r in zip(weights, uniform(hashes, 0), strict=True)]
    literal = sorted(range(200), key=lambda i: -priority[i])
    assert chosen.tolist() == literal[:20]
    tau = priority[literal[20]]
    assert counts.tolist() == [max(weights[i], tau) for i in literal[:20]]
    sums = []
    for seed in range(3000):
        chosen, counts = priority_sample(weights, hashes, 20, seed)
        sums.append((counts * values[chosen]).sum())
    error = np.std(sums) / np.sqrt(len(sums))
    assert abs(np.mean(sums) - (weights * values).sum()) < 4 * error
    every, counts = priority_sample(weights, hashes, 500, 0)
    np.testing.assert_array_equal(counts, weights[every])


# --- strategies that read images again ---------------------------------------------


@pytest.mark.parametrize("features", ["published", "current", "initial"])
def test_adma_streams_its_distances(photographs, fitted, tmp_path, features):
    paths, y = photographs
    centers = SourceCenters.from_dataset(tiny_classifier(), paths[:30], y[:30] % 2)
    store = FeatureStore.build(fitted, paths, tmp_path, shard_rows=32, block_rows=32)
    strategy = ADMA(centers, features=features, random_state=0)
    mine = strategy.score(fitted, store, iteration=1)
    theirs = strategy.score(fitted, paths, iteration=1)
    np.testing.assert_allclose(mine.total, theirs.total, atol=2e-6)
    assert (
        strategy.query(fitted, store, 9).tolist()
        == strategy.query(fitted, paths, 9).tolist()
    )


def test_aift_cuts_the_same_patches(photographs, fitted, tmp_path):
    paths, _ = photographs
    store = FeatureStore.build(fitted, paths, tmp_path, shard_rows=32, block_rows=32)
    strategy = AIFT(n_patches=4, random_state=0)
    np.testing.assert_allclose(
        strategy.score(fitted, store).total,
        strategy.score(fitted, paths).total,
        rtol=1e-5,
    )


# --- images of more than 8 bits -------------------------------------------------------


def wide_files(X, folder, top=4095):
    """Grey files of 16 bits that do not state their largest possible value."""
    folder.mkdir()
    paths = []
    for i, image in enumerate(X[..., 0]):
        paths.append(str(folder / f"{i:02d}.png"))
        values = np.rint(image / 255 * top).astype(np.uint16)
        Image.fromarray(values).save(paths[-1])
    return paths


def brightened(pictures):
    """Grey pictures of which each takes the values 0 to 255, and their labels."""
    X, y = pictures
    X = np.repeat(X[..., :1], 3, axis=3)
    X[:, 0, 0], X[:, 0, 1] = 0, 255
    return X, y


def test_12_bits_in_16_are_like_8_in_a_store(tmp_path, pictures):
    X, y = brightened(pictures)
    paths = wide_files(X, tmp_path / "wide")
    clf = tiny_classifier(max_epochs=1)
    with pytest.warns(UserWarning, match=r"value_range=\(0, 4095\)") as caught:
        store = FeatureStore.build(
            clf, paths, tmp_path / "s", shard_rows=8, dtype="float32"
        )
    assert len(caught) == 1
    assert store.value_range == (0, 4095)
    eight = FeatureStore.build(clf, X, tmp_path / "e", shard_rows=8, dtype="float32")
    expected = eight.outputs(clf).features[:]
    assert np.ptp(expected) > 0
    store = FeatureStore.open(tmp_path / "s")  # and now without a warning
    assert store.value_range == (0, 4095)
    np.testing.assert_array_equal(store.outputs(clf).features[:], expected)
    strategy = UncertaintyHerding(random_state=0)
    chosen = strategy.query(clf, eight, 6, X_labeled=X[:4])
    for labeled in (store.select(range(4)), paths[:4]):
        mine = strategy.query(clf, store, 6, X_labeled=labeled)
        assert mine.tolist() == chosen.tolist()
    fitted = tiny_classifier(max_epochs=1).fit(store.select(range(12)), y[:12])
    eight_fitted = tiny_classifier(max_epochs=1).fit(X[:12], y[:12])
    proba = eight_fitted.predict_proba(X)
    np.testing.assert_allclose(fitted.predict_proba(paths), proba, atol=1e-6)
    np.testing.assert_allclose(store.outputs(fitted).proba[:], proba, atol=1e-6)
    assert store.verify(fitted) == []
    given = tiny_classifier(value_range=(0, 4095))
    same = FeatureStore.build(given, paths, tmp_path / "s", dtype="float32")
    np.testing.assert_array_equal(same.outputs(given).features[:], expected)


def test_a_store_follows_the_range_of_a_fitted_classifier(tmp_path, pictures):
    """Which may be another one than that of the whole pool."""
    X, y = brightened(pictures)
    paths = wide_files(X[:16], tmp_path / "dark", 1023)
    paths += wide_files(X[16:], tmp_path / "bright", 4095)
    clf = tiny_classifier(max_epochs=1, memory=False)
    with pytest.warns(UserWarning, match=r"value_range=\(0, 4095\)"):
        store = FeatureStore.build(
            clf, paths, tmp_path / "s", shard_rows=8, dtype="float32"
        )
    before = store.outputs(clf).features[:]
    with pytest.warns(UserWarning, match=r"value_range=\(0, 1023\)"):
        fitted = tiny_classifier(max_epochs=1, memory=False).fit(paths[:12], y[:12])
    for _ in range(2):
        outputs = store.outputs(fitted, initial=True)
        np.testing.assert_allclose(
            outputs.proba[:], fitted.predict_proba(paths), atol=1e-6
        )
        assert not np.allclose(outputs.features[:16], before[:16])
        np.testing.assert_array_equal(store.outputs(clf).features[:], before)
        store = FeatureStore.open(tmp_path / "s")
    assert store.verify(fitted) == []


def test_appended_images_may_widen_the_range(tmp_path, pictures):
    X, _ = brightened(pictures)
    dark = wide_files(X[:16], tmp_path / "dark", 1023)
    bright = wide_files(X[16:], tmp_path / "bright", 4095)
    clf = tiny_classifier(memory=False)
    with pytest.warns(UserWarning, match=r"value_range=\(0, 1023\)"):
        store = FeatureStore.build(clf, dark, tmp_path / "s", dtype="float32")
    with pytest.warns(UserWarning, match=r"value_range=\(0, 4095\)"):
        longer = store.append(clf, bright)
    assert FeatureStore.open(tmp_path / "s").value_range == (0, 4095)
    with pytest.warns(UserWarning, match=r"value_range=\(0, 4095\)"):
        expected = clf.embed([*dark, *bright], -2)[-2]
    np.testing.assert_array_equal(longer.outputs(clf).features[:], expected)


def test_a_learner_with_a_store_reads_12_bits_as_without(tmp_path, pictures):
    X, y = brightened(pictures)
    paths = wide_files(X, tmp_path / "wide")
    found = []
    for store in (None, tmp_path / "s"):
        learner = ActiveLearner(
            tiny_classifier(max_epochs=1),
            UncertaintyHerding(),
            n_rounds=3,
            n_instances=4,
            random_state=0,
            store=store,
        )
        with pytest.warns(UserWarning, match=r"value_range=\(0, 4095\)"):
            learner.fit(paths, y)
        found.append([list(map(int, some)) for some in learner.queried_indices_])
    assert found[0] == found[1]


def test_source_centers_of_12_bits_are_those_of_8(tmp_path, pictures):
    X, y = brightened(pictures)
    paths = wide_files(X, tmp_path / "wide")
    expected = SourceCenters.from_dataset(tiny_classifier(), X, y)
    with pytest.warns(UserWarning, match=r"value_range=\(0, 4095\)"):
        found = SourceCenters.from_dataset(tiny_classifier(), paths, y)
    np.testing.assert_array_equal(found.inputs, expected.inputs)
