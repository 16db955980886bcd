"""ADMA on networks against the literal formulas, for every option."""

import copy
import pickle
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skadma import ActiveLearner, SourceCenters
from skadma.features.adapter import cnn_adapter
from skadma.features.cache import MemoryCache
from skadma.strategies import ADMA

from . import reference
from .conftest import lite0, tiny_classifier

OPTIONS = [
    {"weights": weights, "features": features, "layer_a": layer_a}
    for weights, features, layer_a in product(
        ["predict", "distance"],
        ["current", "published", "initial"],
        [-4, (-4, -5), ("conv1", "conv2", "stem")],
    )
] + [{"uncertainty": kind} for kind in ("entropy", "margin", "least_confident")]


def name_of(options):
    return "-".join(str(v) for v in options.values())


def literal(clf, strategy, centers, X, iteration):
    """The reference on the features that the estimator itself gives away."""
    many = isinstance(strategy.layer_a, tuple)
    layers_a = strategy.layer_a if many else (strategy.layer_a,)
    layers = [*layers_a, strategy.layer_b]
    network = (
        clf if strategy.features == "current" else clone(clf)
    )  # a clone is pretrained
    of_images = clone(clf) if strategy.features == "initial" else clf
    of_centers: dict = {layer: [] for layer in layers}
    for batch in cnn_adapter(network).iter_outputs_prepared(centers.inputs, layers):
        for layer in layers:
            position = network.source_network().graph.position(layer)
            of_centers[layer].extend(batch.adapted[position].numpy())
    return reference.adma_parts(
        of_images.embed(X, layers),
        {layer: np.stack(rows) for layer, rows in of_centers.items()},
        clf.predict_proba(X),
        clf.source_proba(X),
        list(centers.classes),
        layers_a=layers_a,
        layer_b=strategy.layer_b,
        weights=strategy.weights,
        uncertainty_kind=strategy.uncertainty,
        trade_off=strategy.trade_off,
        iteration=iteration,
    )


def assert_parts_equal(parts, expected):
    for name in ("distinctiveness", "uncertainty", "total"):
        np.testing.assert_allclose(
            getattr(parts, name), expected[name], atol=1e-6, err_msg=name
        )


@pytest.fixture(scope="module")
def tiny(pictures):
    """A fitted small network and centres of 4 of its 5 classes."""
    X, y = pictures
    clf = tiny_classifier(max_epochs=5)
    source = np.random.default_rng(3).integers(0, 256, (20, 32, 32, 3), np.uint8)
    centers = SourceCenters.from_dataset(clf, source, np.arange(20) % 4 + 1)
    return clf.fit(X[:10], y[:10]), centers


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_small_network_against_the_reference(options, tiny, pictures):
    clf, centers = tiny
    X, _ = pictures
    strategy = ADMA(centers, trade_off=0.15, **options)
    parts = strategy.score(clf, X, iteration=3)
    assert_parts_equal(parts, literal(clf, strategy, centers, X, 3))
    assert len(np.unique(parts.total)) > 10


@pytest.fixture(scope="module")
def real(data_dir, elpv):
    """efficientnet_lite0 fitted to solar cells, centres of 25 ImageNet classes."""
    X, y = elpv
    clf = lite0(image_size=96, n_frozen_layers=-6)
    folders = sorted((data_dir / "source-imagenet-1k").iterdir())[::40]
    centers = SourceCenters.from_dataset(
        clf, [f / "0.jpg" for f in folders], [int(f.name[:4]) for f in folders]
    )
    return clf.fit(X[::5], y[::5]), centers


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
def test_real_network_against_the_reference(options, real, elpv):
    if not isinstance(options.get("layer_a", -4), int):
        options = {**options, "layer_a": (-4, -5)}
    clf, centers = real
    X = elpv[0][1:40:3]
    strategy = ADMA(centers, trade_off=0.1, **options)
    parts = strategy.score(clf, X, iteration=4)
    assert_parts_equal(parts, literal(clf, strategy, centers, X, 4))


def test_first_round_has_no_uncertainty(tiny, pictures):
    clf, centers = tiny
    X, _ = pictures
    unfitted = clone(clf)
    strategy = ADMA(centers)
    parts = strategy.score(unfitted, X)
    np.testing.assert_array_equal(parts.uncertainty, 1.0)
    np.testing.assert_array_equal(parts.total, parts.distinctiveness)
    initial = ADMA(centers, features="initial").score(clf, X)
    np.testing.assert_array_equal(parts.distinctiveness, initial.distinctiveness)


@pytest.mark.parametrize(
    ("n_rounds", "weights"),
    [(5, [0, 0.25, 0.5, 0.75, 1, 1]), (2, [0, 1, 1]), (1, [0, 1]), (None, [0, 0.1])],
)
def test_automatic_trade_off_spans_the_run(n_rounds, weights, tiny, pictures):
    clf, centers = tiny
    X, _ = pictures
    for t, weight in enumerate(weights):
        parts = ADMA(centers).score(clf, X, iteration=t, n_rounds=n_rounds)
        expected = (1 - weight) * parts.distinctiveness + weight * parts.uncertainty
        np.testing.assert_allclose(parts.total, expected, rtol=1e-12)


def test_learner_tells_how_long_the_run_is(tiny, pictures):
    clf, centers = tiny
    X, y = pictures
    asked = {}
    for trade_off in ("auto", 0.5, 0.0):
        learner = ActiveLearner(
            clone(clf), ADMA(centers, trade_off=trade_off), n_rounds=3, n_instances=4,
            random_state=0,
        ).fit(X, y)  # fmt: skip
        asked[trade_off] = np.concatenate(learner.queried_indices_).tolist()
    assert asked["auto"] == asked[0.5] != asked[0.0]


class _Watched(MemoryCache):
    """A cache that tells what was computed."""

    def __init__(self):
        super().__init__(10**8)
        self.computed = []

    def put(self, space, key, value):
        self.computed.append((space.rpartition("-")[2], key))
        super().put(space, key, value)


def test_published_features_compute_the_centers_once(tiny, pictures):
    """Algorithm 1, lines 8-11: once, by the pretrained network."""
    fitted, centers = tiny
    X, y = pictures
    cache = _Watched()
    clf = clone(fitted).set_params(memory=cache)
    strategy = ADMA(centers, features="published")
    strategy.query(clf, X, 3)
    of_centers = [key for space, key in cache.computed if "," in space]
    assert len(of_centers) == len(set(of_centers)) == len(centers)
    clf.fit(X[:10], y[:10])
    cache.computed.clear()
    total = strategy.score(clf, X, iteration=1).total
    assert not cache.computed
    without = copy.deepcopy(clf).set_params(memory=False)
    again = strategy.score(without, X, iteration=1).total
    np.testing.assert_array_equal(total, again)


def test_centers_are_kept_by_their_content(tiny, pictures):
    clf, centers = tiny
    others = replace(centers, inputs=255 - centers.inputs)
    copied = pickle.loads(pickle.dumps(centers))
    first, second, again = (
        ADMA(c).score(clf, pictures[0]) for c in (centers, others, copied)
    )
    assert not np.array_equal(first.distinctiveness, second.distinctiveness)
    np.testing.assert_array_equal(first.total, again.total)


def test_query_takes_the_top(tiny, pictures):
    clf, centers = tiny
    X, _ = pictures
    strategy = ADMA(centers, random_state=0)
    indices = strategy.query(clf, X, n_instances=5, iteration=2)
    total = strategy.score(clf, X, iteration=2).total
    np.testing.assert_array_equal(indices, np.argsort(-total)[:5])
    chosen, utilities = strategy(clf, X, n_instances=5, iteration=2)
    np.testing.assert_array_equal(chosen, indices)
    np.testing.assert_array_equal(utilities, total[indices])


def test_round_is_taken_from_the_estimator(tiny, pictures):
    clf, centers = tiny
    X, _ = pictures
    strategy = ADMA(centers, trade_off=0.1, random_state=0)
    # 10 labels: round 10 with batches of one, round 2 with batches of five.
    np.testing.assert_array_equal(
        strategy.query(clf, X, 5), strategy.query(clf, X, 5, iteration=2)
    )
    np.testing.assert_array_equal(
        strategy(clf, X)[1], strategy(clf, X, iteration=10)[1]
    )
    uncertain = strategy.score(clf, X, iteration=10)
    np.testing.assert_array_equal(uncertain.total, uncertain.uncertainty)
    far = strategy.score(clf, X, iteration=99)
    np.testing.assert_array_equal(far.total, uncertain.total)


def test_order_and_subset_of_the_pool(tiny, pictures):
    clf, centers = tiny
    X, _ = pictures
    strategy = ADMA(centers)
    total = strategy.score(clf, X, iteration=3).total
    order = np.random.default_rng(0).permutation(24)[:15]
    part = strategy.score(clf, X[order], iteration=3).total
    np.testing.assert_allclose(part, total[order], atol=1e-5)


def test_nothing_is_changed(tiny, pictures):
    clf, centers = tiny
    X, _ = pictures
    network = clf.net_.module_
    state = copy.deepcopy(network.state_dict())
    network.train()
    flags = [m.training for m in network.modules()]
    strategy = ADMA(centers)
    before = dict(vars(strategy))
    strategy.query(clf, X, 3)
    assert vars(strategy) == before
    assert [m.training for m in network.modules()] == flags
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in state.items())
    network.eval()


def test_pipeline_gives_the_same(tiny, pictures):
    clf, centers = tiny
    X, y = pictures
    pipeline = make_pipeline(FunctionTransformer(), clone(clf))
    strategy = ADMA(centers, random_state=0)
    for fitted in (False, True):
        if fitted:
            pipeline.fit(X[:10], y[:10])
        plain = clf if fitted else clone(clf)
        np.testing.assert_array_equal(
            strategy.query(pipeline, X, 4), strategy.query(plain, X, 4)
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer_a": -2}, "must lie before"),
        ({"layer_a": (-4, -4)}, "several different"),
        ({"layer_a": ()}, "several different"),
        ({"layer_a": "conv9"}, "no layer 'conv9'"),
        ({"weights": "uniform"}, "weights"),
        ({"uncertainty": "bald"}, "uncertainty"),
        ({"features": "both"}, "features"),
        ({"trade_off": -0.1}, "trade_off"),
        ({"centers": None}, "centers"),
    ],
)
def test_wrong_options(options, message, tiny, pictures):
    clf, centers = tiny
    with pytest.raises(ValueError, match=message):
        ADMA(centers).set_params(**options).query(clf, pictures[0])


def test_needs_a_cnn(tiny, pictures):
    with pytest.raises(TypeError, match="needs a CNNClassifier.*LogisticRegression"):
        ADMA(tiny[1]).query(LogisticRegression(), pictures[0])


@pytest.mark.parametrize("n", [0, -1, 25, 1.0, True, None])
def test_wrong_numbers_of_instances(n, tiny, pictures):
    with pytest.raises(ValueError, match="from 1 to the size of the pool, 24"):
        ADMA(tiny[1]).query(tiny[0], pictures[0], n)
