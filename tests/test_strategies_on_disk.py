"""Strategies choose the same from the disk, by blocks and by parts, as in memory."""

import gc
import itertools
import math
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
from skadma.blocks import BLOCK_ROWS, MappedRows
from skadma.images import take
from skadma.pools import FeatureStore
from skadma.pools.automatic import available_memory, fits_memory
from skadma.pools.hashing import key_hashes
from skadma.strategies import (
    BADGE,
    BALD,
    CEAL,
    ClusterMargin,
    CoreSet,
    DropQuery,
    EntropySampling,
    GradientClusters,
    LeastConfident,
    MarginSampling,
    ProbCover,
    QueryByCommittee,
    RandomSampling,
    TypiClust,
    UncertaintyCover,
    UncertaintyHerding,
)
from skadma.strategies._badge_parts import draw_by_parts, weighted_draw
from skadma.strategies._coreset import k_center_greedy, lazy_k_center
from skadma.strategies._coverage import Coverage
from skadma.strategies._herding_parts import herd_by_parts, witnesses_for

from .conftest import TinyCNN, tiny_classifier

EVERY = [
    BADGE(random_state=0),
    BALD(n_samples=3, random_state=0),
    CEAL(random_state=0),
    ClusterMargin(random_state=0),
    CoreSet(random_state=0),
    DropQuery(random_state=0),
    EntropySampling(random_state=0),
    GradientClusters(random_state=0),
    LeastConfident(random_state=0),
    MarginSampling(random_state=0),
    ProbCover(delta=0.02, random_state=0),
    RandomSampling(random_state=0),
    TypiClust(random_state=0),
    UncertaintyCover(random_state=0),
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


def test_large_parts_of_a_mapped_array_stay_on_the_disk(table):
    path, _ = table
    mapped = np.load(path, mmap_mode="r")
    few, many = take(mapped, np.arange(9)), take(mapped, np.arange(5, len(mapped)))
    assert isinstance(few, np.ndarray)
    assert not isinstance(many, np.ndarray)
    np.testing.assert_array_equal(np.asarray(many), mapped[5:])


# --- feature stores -------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of 200 pictures in shards of 48, and a fitted classifier."""
    rng = np.random.default_rng(0)
    y = rng.integers(4, size=200)
    X = rng.integers(0, 120, (200, 32, 32, 3))
    X[np.arange(200), :, :, y % 3] += (60 + 20 * y)[:, None, None]
    X = X.astype(np.uint8)
    clf = tiny_classifier(memory=False).fit(X[:24], y[:24])
    folder = tmp_path_factory.mktemp("store")
    return FeatureStore.build(clf, X, folder, shard_rows=48), clf, X


@pytest.mark.parametrize("strategy", EVERY, ids=name)
def test_a_store_of_one_block_is_as_in_memory(store, strategy, monkeypatch):
    """Same rows as of an array with the same half-precision features."""
    pool, clf, _ = store
    whole = pool.select(np.arange(24, 200))
    labeled = pool.select(np.arange(24))
    one = strategy.query(clf, whole, 8, X_labeled=labeled)
    whole.block_rows = 50
    if isinstance(strategy, (TypiClust, GradientClusters)):  # k-means in mini-batches
        monkeypatch.setattr("skadma.strategies._typiclust.BLOCK_ROWS", 50)
        whole.block_rows = 10_000
        one = strategy.query(clf, whole, 8, X_labeled=labeled)
        whole.block_rows = 50
    assert one.tolist() == strategy.query(clf, whole, 8, X_labeled=labeled).tolist()


@pytest.mark.parametrize("strategy", BY_FEATURES, ids=name)
def test_whole_precision_gives_the_images_answer(store, strategy, tmp_path):
    _, clf, X = store
    exact = FeatureStore.build(clf, X, tmp_path, shard_rows=64, dtype="float32")
    chosen = strategy.query(clf, exact, 8, X_labeled=X[:24])
    assert chosen.tolist() == strategy.query(clf, X, 8, X_labeled=X[:24]).tolist()


def test_a_changed_network_is_looked_at_again(store, tmp_path):
    _, clf, X = store
    pool = FeatureStore.build(clf, X, tmp_path, shard_rows=64, dtype="float32")
    other = tiny_classifier(memory=False).fit(X[:40], np.arange(40) % 4)
    for strategy in (MarginSampling(random_state=0), CoreSet(random_state=0)):
        for model in (clf, other, clf):
            assert (
                strategy.query(model, pool, 8).tolist()
                == strategy.query(model, X, 8).tolist()
            )


def test_only_a_trained_last_layer_needs_no_scan(store, tmp_path, monkeypatch):
    _, _, X = store
    clf = tiny_classifier(n_frozen_layers=-1).fit(X[:24], np.arange(24) % 4)
    pool = FeatureStore.build(tiny_classifier(), X, tmp_path, dtype="float32")

    def fail(*args):
        raise AssertionError("scanned")

    monkeypatch.setattr("skadma.pools.outputs.scan_shard", fail)
    outputs = pool.outputs(clf)
    np.testing.assert_allclose(outputs.proba[:], clf.predict_proba(X), rtol=1e-4)
    np.testing.assert_allclose(outputs.features[:], clf.embed(X, -2)[-2], rtol=1e-5)


def test_pipelines_do_not_take_stores(store):
    pool, clf, _ = store
    with pytest.raises(TypeError, match="classifier without steps before it"):
        MarginSampling().query(make_pipeline(StandardScaler(), clf), pool, 3)


# --- parts ----------------------------------------------------------------------------


class Shuffled:
    """A store's part of the work: keys' hashes and parts, over rows in memory."""

    executor = None

    def __init__(self, order, partitions):
        self.hashes = key_hashes(f"image-{i}" for i in order)
        self.partitions = partitions


@pytest.fixture(scope="module")
def rows():
    X, _ = make_blobs(1500, 8, centers=20, cluster_std=1.5, random_state=0)
    weights = np.random.default_rng(0).random(1500) ** 3
    proba = np.random.default_rng(1).dirichlet(np.ones(3), 1500)
    return X.astype(np.float16).astype(np.float32), weights, proba


def by_parts(kind, order, partitions, rows):
    X, weights, proba = (array[order] for array in rows)
    pool = Shuffled(order, partitions)
    if kind == "herding":
        return herd_by_parts(pool, X[:0], X, weights, 20, 400, seed=0)
    return draw_by_parts(pool, proba, X, 20, seed=0)


@pytest.mark.parametrize("kind", ["herding", "badge"])
def test_the_order_of_the_pool_does_not_matter(rows, kind):
    expected = by_parts(kind, np.arange(1500), 8, rows)[0]
    assert len(set(expected.tolist())) == 20
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(1500)
        assert order[by_parts(kind, order, 8, rows)[0]].tolist() == expected.tolist()


@pytest.mark.parametrize("strategy", [UncertaintyHerding(), CoreSet(), BADGE()])
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


def literal_coverage(rows, weights, chosen, width):
    return sum(
        w * max(math.exp(-((x - s) ** 2).sum() / width) for s in chosen)
        for x, w in zip(rows, weights, strict=True)
    )


def test_herding_by_parts_is_randgreedi(rows, monkeypatch):
    """Against all steps written out, on a small pool with all of it as witnesses."""
    X, weights = rows[0][:60].astype(float), rows[1][:60]
    pool = Shuffled(np.arange(60), 4)
    width = 30.0
    monkeypatch.setattr(
        "skadma.strategies._herding_parts.share_distance", lambda *_: width
    )
    got, gains = herd_by_parts(
        pool, X[:0].astype(np.float32), X.astype(np.float32), weights, 5, 60, seed=0
    )

    def greedy(candidates):
        chosen = []
        for _ in range(5):
            left = [i for i in candidates if i not in chosen]
            chosen.append(
                max(
                    left,
                    key=lambda i: literal_coverage(
                        X, weights, [*X[chosen], X[i]], width
                    ),
                )
            )
        return chosen

    from skadma.pools.hashing import partition

    parts = [p for p in partition(pool.hashes, 4, 2) if len(p)]
    local = [greedy(list(part)) for part in parts]
    center = greedy(list(itertools.chain(*local)))
    best = max(
        [center, *local], key=lambda c: literal_coverage(X, weights, X[c], width)
    )
    assert got.tolist() == [int(i) for i in best]
    assert gains.sum() == pytest.approx(
        literal_coverage(X, weights, X[best], width), rel=1e-4
    )


def test_parts_cover_nearly_as_much_as_the_whole(rows, monkeypatch):
    monkeypatch.setattr(
        "skadma.strategies._herding_parts.share_distance", lambda *_: 30.0
    )
    X, weights, _ = rows
    chosen, _ = by_parts("herding", np.arange(1500), 10, rows)
    cover = Coverage(X, weights, 30.0)
    _, gains = Coverage(X, weights, 30.0).greedy(X, 20)
    cover.add(X[chosen])
    assert cover.value > 0.93 * gains.sum()


def test_number_of_witnesses_is_the_bound_and_holds():
    assert witnesses_for(10**6, 100, 0.10) == math.ceil(
        (100 * math.log(1e6) + math.log(200)) / 0.02
    )
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 2))
    u = rng.random(40)
    alike = np.exp(-((X[:, None] - X) ** 2).sum(axis=2))
    pairs = np.array(list(itertools.combinations(range(40), 2)))
    covered = np.maximum(alike[:, pairs[:, 0]], alike[:, pairs[:, 1]])
    truth = u @ covered / u.sum()
    m = witnesses_for(40, 2, 0.15)
    worst = [
        np.abs(covered[rng.choice(40, m, p=u / u.sum())].mean(axis=0) - truth).max()
        for _ in range(200)
    ]
    assert np.mean(np.array(worst) > 0.15) <= 0.01


def test_the_error_decides_on_how_much_coverage_is_measured(store, monkeypatch):
    pool, clf, _ = store
    sizes = []
    real = Coverage.__init__

    def noted(self, witnesses, weights, width):
        sizes.append(len(witnesses))
        real(self, witnesses, weights, width)

    monkeypatch.setattr(Coverage, "__init__", noted)
    UncertaintyHerding(error=0.3, random_state=0).query(clf, pool, 2)
    UncertaintyHerding(random_state=0).query(clf, pool, 2)
    assert sizes == [witnesses_for(200, 2, 0.3), 200]


def test_lazy_k_center_is_the_eager_one(rows):
    X = rows[0]
    for labeled in (X[:0], X[:7]):
        lazy = lazy_k_center(MappedRows(X, 100), labeled, 40, np.random.default_rng(3))
        eager = k_center_greedy(X, labeled, 40, np.random.default_rng(3))
        assert lazy[0].tolist() == eager[0].tolist()
        np.testing.assert_allclose(lazy[1], eager[1], rtol=1e-3)


def test_coreset_by_parts_is_gonzalez_twice(store):
    pool, clf, _ = store
    parts = pool.select(np.arange(200))
    parts.partitions = 4
    chosen, radius = CoreSet(random_state=0)(clf, parts, 12)
    X = pool.outputs(clf).features[:]

    def covered(chosen):
        return max(min(np.linalg.norm(x - X[i]) for i in chosen) for x in X)

    one = CoreSet(random_state=0).query(clf, pool, 12)
    assert covered(chosen) <= 4 * covered(one)  # the best is at most covered(one)
    assert len(set(chosen.tolist())) == 12
    assert (np.diff(radius[1:]) <= 1e-4).all()


def test_weighted_draw_is_kmeans_plus_plus():
    rng = np.random.default_rng(0)
    a, h = rng.normal(size=(30, 2)), rng.normal(size=(30, 3))
    weights = rng.integers(1, 9, 30).astype(float)
    g = np.array([np.outer(x, z).ravel() for x, z in zip(a, h, strict=True)])
    mine = np.random.default_rng(5)
    expected = [0]
    while len(expected) < 8:
        d = np.array([min(((x - g[j]) ** 2).sum() for j in expected) for x in g])
        chance = d * weights
        chance[expected] = 0
        expected.append(int(mine.choice(30, p=chance / chance.sum())))
    assert weighted_draw(a, h, weights, 8, 5)[0].tolist() == expected


def test_kmeans_parallel_spreads_as_kmeans_plus_plus(rows):
    """The cost that seeds leave is about that of k-means++ (Bahmani et al., Sec. 5)."""
    X, _, proba = rows
    a = proba.copy()
    a[np.arange(len(a)), a.argmax(axis=1)] -= 1
    g = np.einsum("ic,id->icd", a, X).reshape(len(a), -1)

    def cost(chosen):
        return min_distance(g, g[chosen]).sum()

    from skadma.strategies._badge import _draw

    plus = [cost(_draw(a, X, 20, np.random.default_rng(s))[0]) for s in range(5)]
    pool = Shuffled(np.arange(len(X)), 6)
    parallel = [cost(draw_by_parts(pool, a, X, 20, s)[0]) for s in range(5)]
    assert np.mean(parallel) < 1.1 * np.mean(plus)


def min_distance(rows, centers):
    return ((rows[:, None] - centers) ** 2).sum(axis=2).min(axis=1)


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
    real = FeatureStore.begin.__func__

    def noted(cls, *args, **kwargs):
        began.append(args[2])
        return real(cls, *args, **kwargs)

    monkeypatch.setattr(FeatureStore, "begin", classmethod(noted))
    if where == "auto":
        monkeypatch.setattr("skadma.pools.automatic.available_memory", lambda: 24_000)
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

    def run(folder, **options):
        asked = []
        Campaign.create(
            tmp_path / folder,
            tmp_path / "pool",
            ["a", "b"],
            tiny_classifier(max_epochs=1),
            UncertaintyHerding(),
            n_instances=5,
        ).close()
        with Campaign(tmp_path / folder, backbone=TinyCNN, **options) as campaign:
            for _ in range(2):
                some = [image.path for image in campaign.query()]
                asked.append(some)
                campaign.teach({path: "ab"[i % 2] for i, path in enumerate(some)})
        return asked

    inside = run("inside")
    assert not (tmp_path / "inside" / "features").exists()
    assert run("elsewhere", features=tmp_path / "large disk") == inside
    assert (tmp_path / "large disk" / "store.json").exists()
    monkeypatch.setattr("skadma.pools.automatic.available_memory", lambda: 1000)
    assert run("stored") == inside
    assert (tmp_path / "stored" / "features" / "store.json").exists()
    # What is new, renamed or gone
    Image.fromarray(np.full((32, 32, 3), 7, np.uint8)).save(tmp_path / "pool/new.png")
    (tmp_path / "pool/39.png").rename(tmp_path / "pool/renamed.png")
    (tmp_path / "pool/38.png").unlink()
    found = []
    for name, features in (("stored", "auto"), ("inside", None)):
        own = {"backbone": TinyCNN, "features": features}
        with Campaign(tmp_path / name, **own) as campaign:
            found.append([image.path for image in campaign.query()])
    assert found[0] == found[1]
    assert not (tmp_path / "inside" / "features").exists()
