"""Layers, freezing and cuts, on every kind of architecture."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from skadma import CNNClassifier
from skadma.networks import available_backbones
from skadma.networks.adapted import AdaptedNetwork
from skadma.networks.graph import NetworkGraph, fold_batch_norms

from .conftest import TinyCNN, lite0, source, tiny_classifier

# Depths as the literature counts them, where a name says so: squeezenet has 18
# layers one after the other, efficientnet_b0 1 + 2 + 15 * 3 + 2, convnext_tiny
# 4 + 18 * 3 + 1, mobilenet_v3_small 1 + 2 + 10 * 3 + 3.
DEPTHS = {
    "alexnet": 8,
    "vgg16": 16,
    "resnet18": 18,
    "resnet50": 50,
    "mobilenet_v3_small": 36,
    "efficientnet_b0": 50,
    "convnext_tiny": 59,
    "densenet121": 121,
    "squeezenet1_1": 18,
    "googlenet": 22,
    "shufflenet_v2_x0_5": 51,
    "regnet_y_400mf": 50,
}


@pytest.mark.parametrize("name", DEPTHS)
def test_depth_head_and_subgraphs(name):
    pretrained = source(name, 75 if name == "googlenet" else 64)
    layers = pretrained.graph.layers
    assert len(layers) == DEPTHS[name]
    side = pretrained.preprocessing.image_size
    x = torch.rand(2, 3, side, side)
    network = AdaptedNetwork(
        pretrained, 3, n_frozen=len(layers) // 2, update_batch_norm=False
    )
    network.eval()
    with torch.no_grad():
        scores = network(x)
        assert scores.shape == (2, 3)
        # The network cut in two at the freeze boundary is the same network.
        cut = pretrained.graph.cut_before(network.n_frozen - 1)
        (middle,) = pretrained.graph.extract(pretrained.module, [cut])(x)
        kept = middle.clone()
        scores_from_cut = pretrained.graph.extract(
            network.network, [layers[-1].output], cut
        )
        (again,) = scores_from_cut(middle)
        assert torch.equal(again, scores)
        assert torch.equal(middle, kept)


@pytest.mark.parametrize("name", DEPTHS)
def test_fit_and_predict(name, pictures):
    X, y = pictures
    size = 75 if name == "googlenet" else 64
    clf = CNNClassifier(
        name, weights=None, image_size=size, max_epochs=1, random_state=0
    )
    proba = clf.fit(X[:4], y[:4]).predict_proba(X[:4])
    assert proba.shape == (4, len(clf.classes_))
    np.testing.assert_allclose(proba.sum(1), 1)
    assert len(clf.layers()) == DEPTHS[name]


@pytest.mark.parametrize(
    ("name", "layer", "d"),
    [
        ("alexnet", -2, 4096),
        ("alexnet", -4, 9216),
        ("vgg16", -4, 25088),
        ("resnet18", -2, 512),
        ("resnet18", -4, 25088),
    ],
)
def test_widths_by_hand(name, layer, d):
    clf = CNNClassifier(name, weights=None)
    X = np.zeros((1, 224, 224, 3), np.uint8)
    assert clf.embed(X, layers=[layer])[layer].shape == (1, d)


def test_widths_of_the_real_network():
    X = np.zeros((1, 224, 224), np.uint8)
    clf = CNNClassifier("efficientnet_lite0")
    assert clf.embed(X, layers=-2)[-2].shape == (1, 1280)


@pytest.mark.parametrize(
    ("name", "hooked", "layer"),
    [
        # What classifier.6 and classifier.1 of AlexNet receive.
        ("alexnet", "classifier.6", -2),
        ("alexnet", "classifier.1", -4),
        ("resnet18", "fc", -2),
        ("resnet18", "layer4.1.conv1", -4),
        ("resnet18", "layer4.1.conv2", -3),
        ("densenet121", "classifier", -2),
        ("mobilenet_v3_small", "classifier.3", -2),
    ],
)
def test_output_is_what_the_next_layer_receives(name, hooked, layer):
    """Against hooks, which see inputs without any graph."""
    clf = CNNClassifier(name, weights=None, image_size=64, random_state=0)
    X = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    pretrained = clf.source_network()
    seen = []
    handle = pretrained.module.get_submodule(hooked).register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].flatten(1).clone())
    )
    found = clf.embed(X, layers=[layer, -1])[layer]
    handle.remove()
    # The last call: before it one image passes, for the outputs' shapes.
    np.testing.assert_array_equal(found, seen[-1][:3].numpy())


def test_main_path_of_a_small_network():
    graph = NetworkGraph(TinyCNN(), torch.zeros(1, 3, 32, 32))
    names = [layer.name for layer in graph.layers]
    assert names == ["stem", "conv1", "conv2", "hidden", "penultimate", "head"]
    # conv1's output lies inside the residual block, so the cut is before it.
    assert graph.cut_before(1) is graph.layers[0].output
    assert graph.cut_before(-1) is graph.input
    # The output of conv2 includes the gate and the shortcut.
    assert {"squeeze", "excite", "shortcut"} <= graph.modules_of_first(3)
    assert not {"squeeze", "shortcut"} & graph.modules_of_first(2)


def test_addresses():
    graph = source("resnet18").graph
    assert graph.position(-1) == 17
    assert graph.position("fc") == 17
    assert graph.position("layer4.0") == graph.position("layer4.0.conv2") == 14
    with pytest.raises(ValueError, match=r"Did you mean.*layer4\.1\.conv2"):
        graph.position("layer4.1.conv3")
    with pytest.raises(ValueError, match="18 weighted layers, -18 to 17"):
        graph.position(18)
    with pytest.raises(ValueError, match="int position or by name"):
        graph.position(1.5)


@pytest.mark.parametrize(
    ("name", "n"), [("alexnet", 2), ("vgg16", 7), ("resnet18", 8), ("resnet50", 22)]
)
def test_paper_freezes(name, n):
    table = CNNClassifier(name, weights=None).layers()
    assert [row.frozen for row in table] == [i < n for i in range(len(table))]


def test_layer_table_prints():
    lines = str(CNNClassifier("alexnet", weights=None).layers()).splitlines()
    assert lines[1].split() == [
        "0", "-8", "features.0", "64", "x", "27", "x", "27", "frozen",
    ]  # fmt: skip
    assert lines[-1].split() == ["7", "-1", "classifier.6", "1000"]


@pytest.mark.parametrize("batch_norm", ["fixed", "update"])
def test_frozen_part_stays_to_the_bit(batch_norm, pictures):
    clf = CNNClassifier(
        "resnet18",
        weights=None,
        image_size=32,
        batch_norm=batch_norm,
        lr=0.1,
        max_epochs=2,
        random_state=0,
    )
    clf.fit(*pictures)
    before = clf.source_network_.module.state_dict()
    after = clf.net_.module_.network.state_dict()
    changed = {k for k in before if not torch.equal(before[k].float(), after[k].float())
               if not k.startswith("fc")}  # fmt: skip
    # Layer 8 is layer2.1.conv1; its norm belongs to it.
    frozen = ("conv1", "bn1", "layer1", "layer2.0", "layer2.1.conv1", "layer2.1.bn1")
    assert not {k for k in changed if k.startswith(frozen)}
    assert {"layer2.1.conv2.weight", "layer4.1.bn2.weight"} <= changed
    statistics = {k for k in changed if "running" in k}
    assert bool(statistics) == (batch_norm == "update")


def test_learning_rates(pictures):
    X, y = pictures
    clf = tiny_classifier(lr=0.0, head_lr=0.1, net_params={
        "optimizer__weight_decay": 0.0}).fit(X, y)  # fmt: skip
    before = clf.source_network_.module.state_dict()
    after = clf.net_.module_.network.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before if "head" not in k)
    head = clf.net_.module_.network.head.weight
    fresh = tiny_classifier(max_epochs=0).fit(X, y).net_.module_.network.head.weight
    assert not torch.equal(head, fresh)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("resnet19", "Did you mean.*resnet18"),
        (TinyCNN(), "is an instance of TinyCNN"),
        (18, "name or a callable"),
        (dict, "returned dict"),
        ("timm/no_such_network", "timm cannot build"),
    ],
)
def test_unknown_backbones(backbone, message):
    with pytest.raises(ValueError, match=message):
        CNNClassifier(backbone, weights=None).layers()


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, 4)

    def forward(self, x):
        return self.fc(x.flatten(1) if x.sum() > 0 else -x.flatten(1))


class BranchingOnShape(nn.Module):
    """Has dropout that is called as a function, too."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.hidden = nn.Linear(4, 8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = self.norm(self.conv(x))
        x = nn.functional.adaptive_avg_pool2d(x, 1) if x.shape[-1] > 1 else x
        x = self.hidden(x.flatten(1))
        return self.fc(nn.functional.dropout(x, 0.5, self.training))


def test_branches_on_shapes_are_followed(pictures):
    X, y = pictures
    clf = CNNClassifier(
        BranchingOnShape, image_size=16, n_frozen_layers=1, random_state=0
    )
    clf.set_params(max_epochs=1).fit(X, y)
    assert [row.name for row in clf.layers()] == ["conv", "hidden", "fc"]
    before = clf.source_network_.module.state_dict()
    after = clf.net_.module_.network.state_dict()
    assert all(
        torch.equal(before[k], after[k]) for k in before if k.startswith(("c", "n"))
    )
    np.testing.assert_array_equal(clf.predict_proba(X), clf.predict_proba(X))
    # Dropout is active in training: nothing is learnt at lr 0, so the loss would
    # otherwise be that of the predictions.
    clf.set_params(lr=0, head_lr=0, batch_size=24).fit(X, y)
    predicted = -np.log(clf.predict_proba(X)[np.arange(24), y]).mean()
    assert abs(clf.net_.history[-1]["train_loss"] - predicted) > 1e-4


def test_tracing_follows_branches_on_another_device():
    """The example is moved to the network, here to a device without data."""
    network = BranchingOnShape().to("meta")
    graph = NetworkGraph(network, torch.zeros(1, 3, 16, 16))
    assert [layer.name for layer in graph.layers] == ["conv", "hidden", "fc"]


def test_the_shared_network_stays_on_its_device():
    shared = source("resnet18", 32)
    meta, cpu = torch.device("meta"), torch.device("cpu")
    ends, x = [layer.output for layer in shared.graph.layers], torch.rand(1, 3, 32, 32)
    expected = shared.inference_subgraph(ends, None, cpu)(x)
    for output in shared.inference_subgraph(ends, None, meta)(x.to(meta)):
        assert output.device == meta
    assert all(tensor.device == cpu for tensor in shared.module.state_dict().values())
    for found, wanted in zip(
        shared.inference_subgraph(ends, None, cpu)(x), expected, strict=True
    ):
        assert torch.equal(found, wanted)


def test_untraceable_network():
    """It is one layer; tests/test_networks_of_today.py has what it can do."""
    assert [row.name for row in CNNClassifier(Branching, image_size=8).layers()] == [
        "network",
        "new_last_layer",
    ]
    with pytest.raises(ValueError, match=r"cannot be traced.*torch\.fx\.wrap"):
        CNNClassifier(Branching, image_size=8, source_classes=True).layers()


@pytest.mark.parametrize("n", [-7, 6, 60])
def test_frozen_out_of_range(n, pictures):
    with pytest.raises(ValueError, match="has 6 weighted layers"):
        tiny_classifier(n_frozen_layers=n).fit(*pictures)


@pytest.mark.parametrize("name", ["resnet10t", "vgg11", "mobilenetv3_small_050"])
def test_timm_networks(name, pictures):
    """vgg11 compares shapes in its forward."""
    clf = CNNClassifier(f"timm/{name}", weights=None, image_size=32, max_epochs=1)
    X, y = pictures
    assert clf.fit(X[:6], y[:6]).predict(X).shape == (24,)


def test_every_torchvision_cnn_is_listed():
    names = available_backbones()
    assert {*DEPTHS, "efficientnet_lite0", "inception_v3"} <= set(names)


def test_inference_leaves_the_network_as_it_was(pictures):
    X, y = pictures
    clf = lite0(n_frozen_layers=-2).fit(X[:6], y[:6])
    network = clf.net_.module_
    network.train()
    flags = [m.training for m in network.modules()]
    state = copy.deepcopy(network.state_dict())
    clf.predict_proba(X)
    clf.embed(X)
    assert [m.training for m in network.modules()] == flags
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in state.items())


@pytest.mark.parametrize(
    ("name", "n_left"),
    [
        ("resnet18", 0),
        ("mobilenet_v3_small", 0),
        ("densenet121", 62),  # norms in front of convolutions stay
        ("timm/tf_efficientnet_lite0", 0),
        ("timm/resnetv2_50", 17),
    ],
)
def test_folded_batch_norms_change_nothing_but_rounding(name, n_left):
    torch.manual_seed(0)
    pretrained = copy.deepcopy(source(name, 64))
    for module in pretrained.module.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
    before = {k: v.clone() for k, v in pretrained.module.state_dict().items()}
    ends = [layer.output for layer in pretrained.graph.layers]
    x = torch.randn(2, 3, 64, 64)
    plain = pretrained.graph.extract(pretrained.module, ends)
    folded = fold_batch_norms(pretrained.graph.extract(pretrained.module, ends))
    with torch.inference_mode():
        for mine, expected in zip(folded(x), plain(x), strict=True):
            atol = 1e-4 * float(expected.abs().max())
            torch.testing.assert_close(mine, expected, atol=atol, rtol=0)
    norms = [m for m in folded.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == n_left
    after = pretrained.module.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
