"""Strategies choose the same from the disk, by blocks, as in memory."""

# The fixtures that are imported are the arguments of the same name.
# ruff: noqa: F811

import gc
import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import make_blobs
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skadma import ActiveLearner, Campaign
from skadma._utils.lazy_rows import BLOCK_ROWS, MappedRows
from skadma.features.store import FeatureStore
from skadma.features.store.automatic import available_memory, fits_memory
from skadma.images.selection import take
from skadma.strategies import (
    BADGE,
    BALD,
    CEAL,
    ClusterMargin,
    CoreSet,
    DropQuery,
    EntropySampling,
    LeastConfident,
    MarginSampling,
    ProbCover,
    QueryByCommittee,
    RandomSampling,
    TypiClust,
    UncertaintyHerding,
)

from .conftest import TinyCNN, tiny_classifier
from .stored_pool import store  # noqa: F401

EVERY = [
    BADGE(random_state=0),
    BALD(n_samples=3, random_state=0),
    CEAL(random_state=0),
    ClusterMargin(random_state=0),
    CoreSet(random_state=0),
    DropQuery(random_state=0),
    EntropySampling(random_state=0),
    LeastConfident(random_state=0),
    MarginSampling(random_state=0),
    ProbCover(delta=0.02, random_state=0),
    RandomSampling(random_state=0),
    TypiClust(random_state=0),
    UncertaintyHerding(random_state=0),
]
BY_FEATURES = [s for s in EVERY if hasattr(s, "layer")]


def name(strategy):
    return type(strategy).__name__


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A float16 table of more than a block, in a file, and its labels."""
    X, y = make_blobs(BLOCK_ROWS + 1500, 8, centers=12, cluster_std=2.0, random_state=0)
    path = tmp_path_factory.mktemp("table") / "X.npy"
    np.save(path, X.astype(np.float16))
    return path, y


@pytest.mark.parametrize("strategy", EVERY, ids=name)
@pytest.mark.parametrize("fitted", [True, False])
def test_a_mapped_array_is_read_by_blocks(table, strategy, fitted, monkeypatch):
    path, y = table
    mapped, inside = np.load(path, mmap_mode="r"), np.load(path)
    clf = LogisticRegression(C=0.001)
    if fitted:
        clf.fit(inside[:60], y[:60] % 4)
    expected = strategy.query(clf, inside, 12, X_labeled=inside[:60])
    largest = []
    read = MappedRows._read

    def noted(self, rows):
        found = read(self, rows)
        largest.append(len(found))
        return found

    monkeypatch.setattr(MappedRows, "_read", noted)
    got = strategy.query(clf, mapped, 12, X_labeled=inside[:60])
    assert got.tolist() == expected.tolist()
    assert max(largest, default=0) <= BLOCK_ROWS


def test_a_committee_and_a_pipeline_read_by_blocks(table):
    path, y = table
    mapped, inside = np.load(path, mmap_mode="r"), np.load(path)
    forest = RandomForestClassifier(5, random_state=0).fit(inside[:60], y[:60] % 4)
    strategy = QueryByCommittee(random_state=0)
    assert (
        strategy.query(forest, mapped, 9).tolist()
        == strategy.query(forest, inside, 9).tolist()
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01))
    model.fit(inside[:60].astype(float), y[:60] % 4)
    for strategy in (UncertaintyHerding(random_state=0), MarginSampling()):
        assert (
            strategy.query(model, mapped, 9).tolist()
            == strategy.query(model, inside, 9).tolist()
        )


def test_large_selections_of_a_mapped_array_stay_on_the_disk(table):
    path, _ = table
    mapped = np.load(path, mmap_mode="r")
    few, many = take(mapped, np.arange(9)), take(mapped, np.arange(5, len(mapped)))
    assert isinstance(few, np.ndarray)
    assert not isinstance(many, np.ndarray)
    np.testing.assert_array_equal(np.asarray(many), mapped[5:])


# --- feature stores -------------------------------------------------------------------


@pytest.mark.parametrize("strategy", EVERY, ids=name)
def test_a_store_of_one_block_is_as_in_memory(store, strategy):
    """Same rows as of an array with the same half-precision features."""
    pool, clf, _ = store
    whole = pool.select(np.arange(24, 200))
    labeled = pool.select(np.arange(24))
    one = strategy.query(clf, whole, 8, X_labeled=labeled)
    whole.block_rows = 50
    assert one.tolist() == strategy.query(clf, whole, 8, X_labeled=labeled).tolist()


@pytest.mark.parametrize("strategy", BY_FEATURES, ids=name)
def test_whole_precision_gives_the_images_answer(store, strategy, tmp_path):
    _, clf, X = store
    exact = FeatureStore.build(clf, X, tmp_path, shard_rows=64, dtype="float32")
    chosen = strategy.query(clf, exact, 8, X_labeled=X[:24])
    assert chosen.tolist() == strategy.query(clf, X, 8, X_labeled=X[:24]).tolist()


def test_a_changed_networks_outputs_are_computed_again(store, tmp_path):
    _, clf, X = store
    pool = FeatureStore.build(clf, X, tmp_path, shard_rows=64, dtype="float32")
    other = tiny_classifier(memory=False).fit(X[:40], np.arange(40) % 4)
    for strategy in (MarginSampling(random_state=0), CoreSet(random_state=0)):
        for model in (clf, other, clf):
            assert (
                strategy.query(model, pool, 8).tolist()
                == strategy.query(model, X, 8).tolist()
            )


@pytest.mark.parametrize("options", [{"n_frozen_layers": -1}, {"training": "probe"}])
@pytest.mark.parametrize("multilabel", [False, True])
def test_only_a_trained_last_layer_needs_no_pass(
    store, options, multilabel, tmp_path, monkeypatch
):
    _, _, X = store
    y = np.arange(24) % 4
    clf = tiny_classifier(**options).fit(X[:24], np.eye(4)[y] if multilabel else y)
    pool = FeatureStore.build(tiny_classifier(), X, tmp_path, dtype="float32")

    def fail(*args):
        raise AssertionError("computed")

    monkeypatch.setattr("skadma.features.store.feature_store.compute_shard", fail)
    outputs = pool.outputs(clf)
    proba = outputs.proba[:]
    if multilabel:
        np.testing.assert_allclose(proba.sum(axis=2), 1)
        proba = proba[:, :, 1]
    np.testing.assert_allclose(proba, clf.predict_proba(X), rtol=1e-4)
    np.testing.assert_allclose(outputs.features[:], clf.embed(X, -2)[-2], rtol=1e-5)


def test_pipelines_do_not_take_stores(store):
    pool, clf, _ = store
    with pytest.raises(TypeError, match="classifier without steps before it"):
        MarginSampling().query(make_pipeline(StandardScaler(), clf), pool, 3)


# --- learners and campaigns -----------------------------------------------------------


@pytest.mark.parametrize("where", ["auto", "folder", "store"])
@pytest.mark.parametrize(
    "strategy", [UncertaintyHerding(), CoreSet(), TypiClust()], ids=name
)
def test_a_learner_chooses_the_same(store, strategy, where, tmp_path, monkeypatch):
    _, clf, X = store
    y = np.arange(200) % 4

    def learner(**options):
        model = tiny_classifier(memory=False, max_epochs=1)
        return ActiveLearner(
            model, strategy, n_rounds=3, n_instances=6, random_state=0, **options
        )

    expected = learner(store=None).fit(X, y)
    began = []
    real = FeatureStore.build.__func__

    def noted(cls, *args, **kwargs):
        began.append(args[2])
        return real(cls, *args, **kwargs)

    monkeypatch.setattr(FeatureStore, "build", classmethod(noted))
    if where == "auto":
        monkeypatch.setattr(
            "skadma.features.store.automatic.available_memory", lambda: 24_000
        )
        got = learner().fit(X, y)
    elif where == "folder":
        got = learner(store=tmp_path).fit(X, y)
    else:
        given = FeatureStore.build(clf, X, tmp_path, dtype="float32")
        began.clear()
        got = learner().fit(given, y)
    assert len(began) == (where != "store")
    for mine, theirs in zip(
        got.queried_indices_, expected.queried_indices_, strict=True
    ):
        assert mine.tolist() == theirs.tolist()
    assert got.predict(X).tolist() == expected.predict(X).tolist()
    if where == "auto":
        folder = began[0]
        assert folder.exists()
        again = pickle.loads(pickle.dumps(got))
        del got
        gc.collect()
        assert not folder.exists()
        assert again.query().tolist() == expected.query().tolist()


def test_a_learner_holds_what_fits(store):
    _, clf, X = store
    assert fits_memory(clf, X, UncertaintyHerding())
    assert 2**27 < available_memory() < 2**45


def test_a_campaign_chooses_the_same(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    (tmp_path / "pool").mkdir()
    for i in range(40):
        pixels = rng.integers(0, 120, (32, 32, 3)) + 40 * (i % 3)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"pool/{i:02d}.png")

    def run(folder):
        asked = []
        Campaign.create(
            tmp_path / folder,
            tmp_path / "pool",
            ["a", "b"],
            tiny_classifier(max_epochs=1),
            UncertaintyHerding(),
            n_instances=5,
        ).close()
        with Campaign(tmp_path / folder, backbone=TinyCNN) as campaign:
            for _ in range(2):
                some = [image.path for image in campaign.query()]
                asked.append(some)
                campaign.teach({path: "ab"[i % 2] for i, path in enumerate(some)})
        return asked

    inside = run("inside")
    assert not (tmp_path / "inside" / "features").exists()
    with monkeypatch.context() as little:
        little.setattr("skadma.features.store.automatic.available_memory", lambda: 1000)
        assert run("stored") == inside
    assert (tmp_path / "stored" / "features" / "store.json").exists()
    # What is new, renamed or gone
    Image.fromarray(np.full((32, 32, 3), 7, np.uint8)).save(tmp_path / "pool/new.png")
    (tmp_path / "pool/39.png").rename(tmp_path / "pool/renamed.png")
    (tmp_path / "pool/38.png").unlink()
    found = []
    for name in ("stored", "inside"):
        with Campaign(tmp_path / name, backbone=TinyCNN) as campaign:
            found.append([image.path for image in campaign.query()])
    assert found[0] == found[1]
    assert not (tmp_path / "inside" / "features").exists()
