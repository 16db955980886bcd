"""The last layer alone, fitted to its optimum, on one or on several layers."""

import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from torch import nn

from skadma import ActiveLearner, CNNClassifier, ProbeClassifier
from skadma.adafilter import AdaFilterClassifier
from skadma.networks.graph import NetworkGraph
from skadma.networks.heads import (
    ProbeHead,
    append_feature_blocks,
    get_head,
    multilayer_network,
    replace_head,
)
from skadma.networks.pretrained import load_pretrained
from skadma.strategies import UncertaintyHerding
from skadma.training.probe import fit_probe

from . import reference
from .conftest import lite0, tiny_classifier


def rows(n=30, d=50, n_classes=3):
    rng = np.random.default_rng(0)
    y = np.arange(n) % n_classes
    X = rng.normal(0, 2, (n, d)) + y[:, None]
    return X / np.linalg.norm(X, axis=1, keepdims=True), y


@pytest.mark.parametrize("weighted", [False, True])
def test_the_formula(weighted):
    X, y = rows(n=16, d=20)
    y[0] = 3  # the only row of its class
    weights = np.random.default_rng(1).uniform(0.2, 2, 16) if weighted else np.ones(16)
    coef, intercept, *_ = fit_probe(X, y, 4, weights if weighted else None)
    factors = None
    for x in X[:3]:
        scores, factors = reference.probe_scores(X, y, weights, x, factors)
        np.testing.assert_allclose(
            x @ coef.T + intercept, scores - scores.mean(), rtol=0.01, atol=0.01
        )


@pytest.mark.parametrize("weighted", [False, True])
def test_more_rows_than_columns(weighted):
    """The regression's left-out scores are those of refits, see `reference`."""
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(40, 4)), np.arange(40) % 3
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    weights = rng.random(40) + 0.5 if weighted else np.ones(40)
    weights /= weights.mean()
    coef, intercept, *_ = fit_probe(X, y, 3, weights)
    _, factors = reference.probe_scores(X, y, weights, X[0])
    for x in X[:5]:
        scores, _ = reference.probe_scores(X, y, weights, x, factors)
        np.testing.assert_allclose(
            x @ coef.T + intercept, scores - scores.mean(), rtol=0.01, atol=0.01
        )


def test_nothing_of_the_number_of_rows_squared():
    n, d = 3000, 16
    X = np.random.default_rng(0).normal(size=(n, d))
    tracemalloc.start()
    fit_probe(X / np.linalg.norm(X, axis=1, keepdims=True), np.arange(n) % 5, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * n  # bytes: an eighth of a matrix (n, n)


def test_rows_that_are_alone_in_their_classes():
    X, _ = rows(n=3)
    coef, intercept, *_ = fit_probe(X, np.arange(3), 3)
    scores, factors = reference.probe_scores(X, np.arange(3), np.ones(3), X[0])
    assert factors[0] == 1  # there is nothing to find it from
    np.testing.assert_allclose(
        X[0] @ coef.T + intercept, scores - scores.mean(), rtol=0.01
    )


def test_rows_of_no_weight_do_not_count():
    X, y = rows()
    weights = np.repeat([1.0, 0.0], 15)
    y[20:] = 3
    found, wanted = fit_probe(X, y, 4, weights), fit_probe(X[:15], y[:15], 4)
    np.testing.assert_allclose(found.coef, wanted.coef, atol=1e-6)
    np.testing.assert_allclose(found.intercept, wanted.intercept, atol=1e-6)
    np.testing.assert_allclose(found.left_out[:15], wanted.left_out, atol=1e-6)
    np.testing.assert_allclose(
        found.left_out[15:], X[15:] @ wanted.coef.T + wanted.intercept, atol=1e-6
    )


def test_classes_without_labels_come_last():
    X, y = rows()
    coef, intercept, *_ = fit_probe(X, y * 2, 6)
    proba = softmax(X @ coef.T + intercept, axis=1)
    assert (proba.argmax(1) == y * 2).all()
    assert (proba[:, 1::2] < 1e-4).all()
    alone, *_ = fit_probe(X, y, 3)
    np.testing.assert_allclose(coef[[0, 2, 4]], alone)


def test_one_class():
    X, _ = rows()
    coef, intercept, *_ = fit_probe(X, np.full(30, 1), 3)
    assert not coef.any() and intercept.argmax() == 1


def test_two_classes_and_two_labels_agree():
    X, y = rows(n_classes=2)
    coef, intercept, *_ = fit_probe(X, y, 2)
    both = fit_probe(X, np.stack([y == 1, y == 0], axis=1).astype(np.float32), 2)
    margin = X @ (coef[1] - coef[0]) + intercept[1] - intercept[0]
    np.testing.assert_allclose(X @ both[0].T + both[1], np.stack([margin, -margin], 1),
                               atol=0.01)  # fmt: skip


def test_same_rows():
    coef, intercept, *_ = fit_probe(np.ones((4, 3)), np.array([0, 1, 0, 1]), 2)
    np.testing.assert_allclose(np.ones(3) @ coef.T + intercept, 0, atol=1e-3)
    coef, intercept, *_ = fit_probe(np.zeros((4, 3)), np.array([0, 1, 1, 1]), 2)
    assert intercept[1] > intercept[0] and not coef.any()


def test_what_the_head_gets():
    head = ProbeHead([2, 3], 2)
    head.centre.copy_(torch.arange(5.0))
    x = torch.rand(4, 5)
    found = head.prepare(x)
    for i, j, share in ((0, 2, 2 / 3), (2, 5, 1 / 3)):
        part = x[:, i:j] - torch.arange(5.0)[i:j]
        wanted = part / part.norm(dim=1, keepdim=True) * share**0.5
        torch.testing.assert_close(found[:, i:j], wanted)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    network = nn.Sequential(head)
    replace_head(network, "0", 5)
    (more,) = network
    assert isinstance(more, ProbeHead)
    assert more.weight.shape == (5, 5) and torch.equal(more.centre, head.centre)


def test_what_the_classifier_says(pictures):
    X, y = pictures
    names = np.array(["a", "b", "c"])[y]
    clf = tiny_classifier(training="probe").fit(X, names)
    features = tiny_classifier().embed(X, -2)[-2]
    features -= features.mean(0)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    coef, intercept, *_ = fit_probe(features.astype(float), y, 3)
    np.testing.assert_allclose(
        clf.decision_function(X), features @ coef.T + intercept, atol=1e-2
    )
    assert clf.n_frozen_ == 5
    for name, old in clf.source_network_.module.state_dict().items():
        if not name.startswith("head"):
            assert torch.equal(clf.net_.module_.network.state_dict()[name], old)


def test_weights_are_repetitions(pictures):
    X, y = pictures
    weights = 1 + np.arange(24) % 2
    again = np.repeat(np.arange(24), weights)
    once = tiny_classifier(training="probe").fit(X, y, sample_weight=weights)
    often = tiny_classifier(training="probe").fit(X[again], y[again])
    # Weights have the mean 1: the penalty counts as for 24 images, not for 36.
    np.testing.assert_allclose(once.net_.module_.head.centre,
                               often.net_.module_.head.centre, atol=1e-5)  # fmt: skip
    np.testing.assert_allclose(once.predict_proba(X), often.predict_proba(X), atol=0.1)


def test_going_on_is_fitting_anew(pictures):
    X, y = pictures
    clf = tiny_classifier(training="probe", warm_start=True, classes=[0, 1, 2])
    clf.fit(X[:10], y[:10]).fit(X, y)
    anew = tiny_classifier(training="probe").fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(X), anew.predict_proba(X))
    with pytest.raises(ValueError, match="Call fit with all of them"):
        clf.partial_fit(X, y)


def test_nothing_leaks_from_one_to_another(pictures):
    X, y = pictures
    one, other = (
        CNNClassifier("resnet18", weights=None, image_size=32, training="probe")
        for _ in range(2)
    )
    one.fit(X, y)
    other.fit(X, y)
    assert one.source_network_ is other.source_network_
    proba, m0 = other.predict_proba(X), other.source_proba(X)
    scores = other.decision_function(X)
    network = one.net_.module_.train().requires_grad_(True)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            tensor.zero_()
    for clf in (other, one.set_params(random_state=1).fit(X, y)):
        np.testing.assert_array_equal(clf.predict_proba(X), proba)
        np.testing.assert_array_equal(clf.source_proba(X), m0)
    loaded = pickle.loads(pickle.dumps(other))
    np.testing.assert_array_equal(loaded.predict_proba(X), proba)
    # A probe is not fine-tuned further; fine-tuning changes its own network alone.
    other.set_params(training="fine-tune", n_frozen_layers=-1, warm_start=True)
    with pytest.raises(ValueError, match="training is now 'fine-tune'"):
        other.fit(X, y)
    np.testing.assert_array_equal(other.predict_proba(X), proba)
    other.set_params(warm_start=False).fit(X, y)
    assert not np.allclose(other.decision_function(X), scores)
    np.testing.assert_array_equal(loaded.predict_proba(X), proba)
    np.testing.assert_array_equal(other.source_proba(X), m0)


def test_several_labels(pictures):
    X, y = pictures
    labels = np.stack([y == 0, y > 0, y == 2], axis=1).astype(int)
    clf = tiny_classifier(training="probe").fit(X, labels)
    features = tiny_classifier().embed(X, -2)[-2]
    features -= features.mean(0)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    coef, intercept, *_ = fit_probe(features.astype(float), labels, 3)
    np.testing.assert_allclose(
        clf.predict_proba(X), expit(features @ coef.T + intercept), atol=1e-2
    )


def test_what_cannot_be(pictures):
    with pytest.raises(ValueError, match="training"):
        tiny_classifier(training="head").fit(*pictures)
    conv = CNNClassifier("squeezenet1_1", weights=None, training="probe", image_size=32)
    with pytest.raises(ValueError, match="needs a network that ends in a Linear"):
        conv.fit(*pictures)


def test_adafilter_fine_tunes():
    assert AdaFilterClassifier("resnet18").training == "fine-tune"


# --- several layers -------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["efficientnet_lite0", "resnet18", "convnext_tiny", "vgg11", "densenet121"]
)
def test_the_source_scores_stay(name):
    m0, layered = (load_pretrained(n, None, 64) for n in (name, f"layers/{name}"))
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(layered.module(x), m0.module(x))
    assert [la.name for la in layered.graph.layers] == [
        la.name for la in m0.graph.layers
    ]
    assert layered.output_shapes[:-2] == m0.output_shapes[:-2]


def test_what_the_last_layer_gets():
    m0, layered = (
        load_pretrained(n, None, 64) for n in ("resnet18", "layers/resnet18")
    )
    x, module = torch.rand(2, 3, 64, 64), m0.module
    # 18 layers: what layers 8, 10, 12 and 14 hand on is what the next ones get.
    got = {}
    names = [m0.graph.layers[i + 1].name for i in (8, 10, 12, 14)]
    hooks = [
        module.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: got.update({name: args[0].clone()})
        )
        for name in (*names, "fc")
    ]
    with torch.no_grad():
        module(x)
        graph = layered.graph
        (features,) = graph.extract(layered.module, [graph.layers[-2].output])(x)
    for hook in hooks:
        hook.remove()
    length = got["fc"].norm(dim=1, keepdim=True)
    parts = [got["fc"]]
    for name in names:
        flat = got[name].flatten(2)
        both = torch.cat([flat.mean(2), flat.var(2, unbiased=False).sqrt()], dim=1)
        parts.append(both / both.norm(dim=1, keepdim=True) * length / 2**0.5)
    torch.testing.assert_close(features, torch.cat(parts, dim=1))


def test_a_map_of_one_place_and_of_zeros():
    last = torch.ones(1, 2)
    found = append_feature_blocks(
        last,
        [
            (torch.full((1, 3, 1, 1), 2.0), [2, 3], 0, False),
            (torch.zeros(1, 4), [], 0, False),
        ],
    )
    assert found.shape == (1, 2 + 6 + 4) and torch.isfinite(found).all()
    assert not found[0, 5:].any()


def test_mean_and_spread():
    rng = torch.Generator().manual_seed(0)
    last, x = torch.ones(16, 2), torch.randn(16, 40, 5, 3, generator=rng) * 9 + 20
    x[:, 7] = 3.0  # no spread: its slope is 0
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_(True)
    found, exact = (
        append_feature_blocks(last, [(x, [2, 3], 0, False)]),
        x.detach().double().numpy(),
    )
    both = np.concatenate([exact.mean((2, 3)), exact.std((2, 3))], axis=1)
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    np.testing.assert_allclose(found[:, 2:].detach().numpy(), both, rtol=1e-5)
    assert not found[:, 2 + 40 + 7].any()
    slope = torch.autograd.grad(found[:, 50].sum(), x)[0]
    y = x.detach().requires_grad_(True)
    theirs = torch.cat([y.mean((2, 3)), y.std((2, 3), correction=0)], dim=1)
    theirs = nn.functional.normalize(theirs)[:, 48].sum()
    torch.testing.assert_close(slope, torch.autograd.grad(theirs, y)[0])


@pytest.mark.parametrize("name", ["layers/squeezenet1_1", "layers/nothing"])
def test_networks_that_cannot(name):
    with pytest.raises(ValueError, match="Take 'squeezenet1_1' as it is|Unknown back"):
        load_pretrained(name, None, 64)


def test_too_few_layers():
    class Two(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Flatten(), nn.Linear(12, 4), nn.Linear(4, 2))

    source = load_pretrained(Two, None, 2)
    assert isinstance(get_head(source.module, "2"), nn.Linear)
    assert isinstance(source.graph, NetworkGraph)
    with pytest.raises(ValueError, match="behind two other layers"):
        multilayer_network("Two", source.module, source.graph)


JOINED = "layers/resnet18+shufflenet_v2_x0_5"


def test_joined_networks(pictures):
    X, y = pictures
    names = ["efficientnet_lite0", "efficientnet_lite1"]
    backbone = "layers/" + "+".join(names)
    clf = CNNClassifier(backbone, image_size=32, training="probe").fit(X, y)
    images, rows, scores = torch.rand(2, 3, 32, 32), [], []
    for name in (backbone, *(f"layers/{name}" for name in names)):
        m0 = load_pretrained(name, "DEFAULT", 32)
        with torch.no_grad():
            scores.append(m0.module(images))
            rows += m0.graph.extract(m0.module, [m0.graph.layers[-2].output])(images)
    joined, one, other = rows
    first = other[:, :1280] / 2**0.5
    torch.testing.assert_close(
        joined, torch.hstack([one, first, first, other[:, 1280:]])
    )
    torch.testing.assert_close(scores[0], (scores[1] + scores[2]) / 2)
    # Both networks have the same share in what the probe compares.
    head = clf.net_.module_.head
    share = head.prepare(joined)[:, : one.shape[1]].square().sum(1)
    torch.testing.assert_close(share, torch.full((2,), 0.5))
    table = clf.embed(X, -2)[-2]
    theirs = ProbeClassifier(block_widths=head.block_widths).fit(table, y)
    found = clf.predict_proba(X)
    np.testing.assert_allclose(found, theirs.predict_proba(table), atol=1e-3)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"backbone": "layers/resnet18+nothing"}, "Unknown backbone 'nothing'"),
        ({"backbone": "resnet18+resnet18"}, "Unknown backbone 'resnet18.resnet18'"),
        ({"weights": "weights.pth"}, "of one network"),
        ({"n_frozen_layers": 3}, "joins networks"),
        ({"backbone": "layers/resnet18+efficientnet_lite0"}, "pixels of mean"),
    ],
)
def test_networks_that_cannot_be_joined(params, message):
    clf = CNNClassifier(
        **{"backbone": JOINED, "weights": None, "image_size": 32, **params}
    )
    with pytest.raises(ValueError, match=message):
        clf.fit(np.zeros((4, 32, 32, 3), np.uint8), [0, 0, 1, 1])


@pytest.mark.parametrize("backbone", ["layers/resnet18", JOINED])
def test_saved_and_loaded(backbone, pictures, tmp_path):
    X, y = pictures
    clf = CNNClassifier(backbone, weights=None, image_size=32, training="probe")
    proba = clf.fit(X, y).predict_proba(X)
    clf.save(tmp_path / "model")
    loaded = CNNClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(X), proba)
    np.testing.assert_allclose(loaded.fit(X, y).predict_proba(X), proba, atol=1e-5)


def test_exported(pictures, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from skadma.persistence.card import CardFacts
    from skadma.persistence.export import export_model

    X, y = pictures
    clf = CNNClassifier(JOINED, weights=None, image_size=32, training="probe")
    # It is compared with the classifier before it is kept.
    facts = CardFacts("a model", {"a": 8, "b": 8, "c": 8})
    export_model(clf.fit(X, y), tmp_path / "model", facts, onnx=True)
    assert list((tmp_path / "model").glob("*.onnx"))
    card = (tmp_path / "model" / "README.md").read_text("utf-8")
    assert "layers frozen; the last one is fitted in closed form" in card


def test_fewer_labels_for_solar_cells(elpv):
    X, y = elpv
    learner = ActiveLearner(
        lite0(training="probe", random_state=0).set_params(
            backbone="layers/efficientnet_lite0"
        ),
        UncertaintyHerding(), n_instances=10, n_rounds=4, random_state=0,
    )  # fmt: skip
    learner.fit(X, y)
    rest = ~learner.labeled_
    assert learner.score(X[rest], y[rest]) > 0.65
