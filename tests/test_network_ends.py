"""Which networks are classifiers, which give features, and which are refused."""

import re

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from skadma import CNNClassifier
from skadma.images.dataset import ImageDataset
from skadma.networks.adapted import Normalize

from .conftest import TinyCNN


def resnet(*more):
    return nn.Sequential(torchvision.models.resnet18(weights=None), *more)


def without_last_layer(name, layer):
    network = torchvision.models.get_model(name, weights=None)
    parent, _, child = layer.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    return network


class Functional(nn.Module):
    """Applies `end` to a convolution's pooled output, or to its scores."""

    def __init__(self, end):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, 5)
        self.end = end

    def forward(self, x):
        return self.end(self.fc(self.conv(x).mean((2, 3))))


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Distilled(nn.Module):
    """Two classifiers, whose scores are averaged."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.one, self.two = nn.Linear(8, 5), nn.Linear(8, 5)

    def forward(self, x):
        x = self.conv(x).mean((2, 3))
        return (self.one(x) + self.two(x)) / 2


class Weighted(nn.Module):
    """A classifier of a class that skadma does not know."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.weight = nn.Parameter(torch.rand(5, 8))

    def forward(self, x):
        return nn.functional.linear(self.conv(x).mean((2, 3)), self.weight)


def features(*more):
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(nn.Conv2d(3, 8, 1), *more, *pooled)


FEATURES = {
    **{
        f"timm {name}": (
            lambda name=name: timm.create_model(name, num_classes=0),
            width,
        )
        for name, width in {
            "resnet18": 512,
            "mobilenetv3_small_050": 1024,
            "efficientnet_lite0": 1280,
            "vit_tiny_patch16_224": 192,
            "convnext_atto": 320,
            "densenet121": 1024,
            "regnety_002": 368,
            "mixer_s32_224": 512,
        }.items()
    },
    "relu": (lambda: resnet(nn.ReLU()), 1000),
    "norm": (lambda: resnet(nn.BatchNorm1d(1000)), 1000),
    "norm without weights": (
        lambda: resnet(nn.LayerNorm(1000, elementwise_affine=False)),
        1000,
    ),
    "parametrised": (lambda: resnet(nn.PReLU()), 1000),
    "own norm": (lambda: resnet(Apply(nn.functional.normalize)), 1000),
    "fc": (lambda: without_last_layer("resnet18", "fc"), 512),
    "alexnet": (lambda: without_last_layer("alexnet", "classifier.6"), 4096),
    "mobilenet": (lambda: without_last_layer("mobilenet_v3_small", "classifier"), 576),
    "squeezenet": (lambda: without_last_layer("squeezenet1_1", "classifier"), 4608),
    "features": (lambda: features(nn.ReLU()), 8),
    "features, norm": (lambda: features(nn.BatchNorm2d(8)), 8),
    "unknown classifier": (Weighted, 5),
    "children but the last": (
        lambda: nn.Sequential(*[*torchvision.models.resnet18().children()][:-1]),
        512,
    ),
    "a norm at the end": (lambda: Functional(nn.functional.normalize), 5),
}


@pytest.mark.parametrize("name", FEATURES)
def test_a_network_that_gives_features_gets_a_last_layer(name, pictures):
    build, width = FEATURES[name]
    X, y = pictures[0][:6], pictures[1][:6]
    size = 224 if "224" in name else 64
    clf = CNNClassifier(build, image_size=size, training="probe", random_state=0)
    rows = clf.layers()
    assert [row.output_shape for row in rows[-2:]] == [(width,), (0,)]
    clf.fit(X, y)
    source = clf.source_network_
    assert source.n_classes == 0
    assert len(rows) == len(source.graph.layers)
    dataset = ImageDataset(X, source.preprocessing)
    images = torch.stack([dataset[i] for i in range(len(X))])
    network = source.module._network
    assert not network.training
    with torch.no_grad():
        expected = network(Normalize(source.preprocessing)(images)).flatten(1).numpy()
    np.testing.assert_allclose(
        clf.embed(X, -2)[-2], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
    )
    assert clf.predict_proba(X).shape == (6, len(set(y)))


REFUSED = {
    "softmax": (lambda: resnet(nn.Softmax(1)), r"'1' \(Softmax\)"),
    "log softmax": (lambda: resnet(nn.LogSoftmax(1)), "LogSoftmax"),
    "sigmoid": (lambda: resnet(nn.Sigmoid()), "Sigmoid"),
    "dropout, then softmax": (lambda: resnet(nn.Dropout(), nn.Softmax(1)), "Softmax"),
    "softmax inside": (
        lambda: resnet(nn.Sequential(nn.Identity(), nn.Softmax(1))),
        "Softmax",
    ),
    "own module": (
        lambda: resnet(Apply(lambda x: x.softmax(1))),
        "Apply.*whose sum is 1",
    ),
    "own logs": (
        lambda: resnet(Apply(lambda x: x.log_softmax(1))),
        "Apply.*whose sum is 1",
    ),
    "torch.softmax": (lambda: Functional(lambda x: torch.softmax(x, 1)), "softmax"),
    "method": (lambda: Functional(lambda x: x.sigmoid()), "sigmoid"),
    "log_softmax": (
        lambda: Functional(lambda x: nn.functional.log_softmax(x, 1)),
        "log_softmax",
    ),
    "maps": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3)), "shape"),
    "two heads": (Distilled, "add.*adds the scores of 2 layers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_classifier_is_refused(name, pictures):
    build, found = REFUSED[name]
    clf = CNNClassifier(build, image_size=64, max_epochs=1)
    with pytest.raises(ValueError, match=f"not return class scores.*{found}.*classifi"):
        clf.fit(*pictures)
    assert not hasattr(clf, "net_")


def test_it_can_be_said_whether_there_are_source_classes(pictures):
    X, y = pictures
    settings = {"image_size": 64, "training": "probe"}
    for name in ("softmax", "two heads"):
        clf = CNNClassifier(REFUSED[name][0], source_classes=False, **settings)
        assert clf.fit(X, y).source_network_.n_classes == 0
    projection = CNNClassifier(TinyCNN, source_classes=False, **settings).fit(X, y)
    plain = CNNClassifier(TinyCNN, **settings).fit(X, y)
    assert plain.source_network_.n_classes == 5
    assert len(projection.layers()) == len(plain.layers()) + 1
    scores = CNNClassifier(TinyCNN, **settings).embed(X, -1)[-1]
    np.testing.assert_allclose(projection.embed(X, -2)[-2], scores, rtol=1e-4)
    for name in ("fc", "relu"):
        build = FEATURES[name][0]
        with pytest.raises(ValueError, match="source_classes=True"):
            CNNClassifier(build, source_classes=True, **settings).fit(X, y)
    with pytest.raises(ValueError, match="shape"):
        CNNClassifier(REFUSED["maps"][0], source_classes=False, **settings).fit(X, y)
    with pytest.raises(ValueError, match="source_classes"):
        CNNClassifier(TinyCNN, source_classes="no").fit(X, y)


ACCEPTED = {
    "no flatten but squeeze": lambda: Functional(lambda x: x[:, :, None].squeeze(2)),
    "temperature": lambda: Functional(lambda x: x / 0.07),
    "own temperature": lambda: resnet(Apply(lambda x: 3 * x)),
    "identity": lambda: resnet(nn.Identity(), nn.Sequential(nn.Dropout())),
    "convolution": features,
    "view": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 1), Apply(lambda x: x.mean((2, 3)).view(x.size(0), -1))
    ),
    "squeezenet": lambda: nn.Sequential(
        nn.Identity(), torchvision.models.squeezenet1_1(weights=None)
    ),
    "wrapped": lambda: nn.Sequential(TinyCNN()),
}


def test_a_layer_alone_is_no_network(pictures):
    with pytest.raises(ValueError, match="no Conv2d or Linear layer"):
        CNNClassifier(lambda: nn.Conv2d(3, 8, 3), image_size=32).fit(*pictures)


@pytest.mark.parametrize(
    ("name", "least"),
    [("alexnet", 63), ("inception_v3", 75), ("timm/vit_tiny_patch16_224", 16)],
)
def test_too_small_images_are_reported_with_a_size_that_works(name, least):
    clf = CNNClassifier(name, weights=None, image_size=9)
    with pytest.raises(ValueError, match=r"image_size=9 .*image_size that works") as e:
        clf.layers()
    found = int(re.search(r"works is (\d+)", str(e.value))[1])
    assert found == least
    assert clf.set_params(image_size=found).layers()
    with pytest.raises(ValueError, match="image_size"):
        clf.set_params(image_size=found - 1).layers()


def test_a_network_of_rows_of_another_width():
    X, y = np.zeros((6, 5), np.float32), [0, 1] * 3
    build = lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))  # noqa: E731
    with pytest.raises(ValueError, match="fails on a row of 5 numbers"):
        CNNClassifier(build).fit(X, y)


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_classifier_is_accepted(name, pictures):
    X, y = pictures
    clf = CNNClassifier(ACCEPTED[name], image_size=32, max_epochs=1, random_state=0)
    proba = clf.fit(X[:6], y[:6]).predict_proba(X)
    np.testing.assert_allclose(proba.sum(1), 1, rtol=1e-5)
