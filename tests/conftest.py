"""Shared fixtures: real data where it is, tiny networks."""

import inspect
import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch: two times two threads crawl
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression
from torch import nn

from skadma import ActiveLearner, CNNClassifier, SourceCenters, strategies
from skadma.networks.pretrained import load_pretrained

from .label_site import chromium, pages, serve  # noqa: F401


@pytest.fixture(scope="session")
def data_dir():
    folder = os.environ.get("SKADMA_DATA")
    if not folder:
        pytest.skip("needs real photographs: set SKADMA_DATA to their folder")
    return Path(folder)


@pytest.fixture(scope="session")
def elpv():
    """120 photographs of solar cells, half of them defective."""
    from skadma.bench.datasets import load_elpv

    X, y = load_elpv()
    rng = np.random.default_rng(0)
    chosen = np.concatenate(
        [
            rng.choice(np.flatnonzero(y == label), 60, replace=False)
            for label in sorted(set(y))
        ]
    )
    chosen.sort()
    return X[chosen], y[chosen]


@pytest.fixture(scope="session")
def pictures():
    """24 random pictures of three classes that differ in brightness and colour."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 8)
    X = rng.integers(0, 90, (24, 32, 32, 3))
    X[np.arange(24), :, :, y] += 120
    order = rng.permutation(24)
    return X[order].astype(np.uint8), y[order]


class TinyCNN(nn.Module):
    """A residual CNN with batch norm, a projection and squeeze-excite: 6 layers."""

    def __init__(self, n_classes=5):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(8, 12, 3, 2, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(12)
        self.conv2 = nn.Conv2d(12, 12, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(12)
        self.shortcut = nn.Conv2d(8, 12, 1, 2)
        self.squeeze = nn.Conv2d(12, 4, 1)
        self.excite = nn.Conv2d(4, 12, 1)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.hidden = nn.Linear(48, 16)
        self.drop = nn.Dropout(0.2)
        self.penultimate = nn.Linear(16, 10)
        self.head = nn.Linear(10, n_classes)

    def forward(self, x):
        x = self.act(self.norm(self.stem(x)))
        out = self.act(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        gate = self.excite(self.act(self.squeeze(out.mean((2, 3), keepdim=True))))
        out = out * torch.sigmoid(gate)
        out += self.shortcut(x)
        x = self.pool(self.act(out)).flatten(1)
        x = self.drop(self.act(self.hidden(x)))
        return self.head(self.act(self.penultimate(x)))


def tiny_classifier(**params):
    """The estimator of most tests: TinyCNN, 32 px, deterministic."""
    defaults = {
        "image_size": 32,
        "n_frozen_layers": 1,
        "lr": 1e-2,
        "head_lr": 1e-2,
        "max_epochs": 2,
        "random_state": 0,
    }
    return CNNClassifier(TinyCNN, **{**defaults, **params})


def lite0(**params):
    """The real network with its ImageNet weights, on small images."""
    defaults = {"image_size": 64, "max_epochs": 1, "random_state": 0}
    return CNNClassifier("efficientnet_lite0", **{**defaults, **params})


def source(name, image_size=None):
    """A network by its name, with random weights."""
    return load_pretrained(name, None, image_size)


@pytest.fixture
def blobs():
    return make_blobs(
        300, 6, centers=8, cluster_std=0.3, center_box=(-20, 20), random_state=0
    )


class Unfitted(LogisticRegression):
    """Stays without probabilities."""


@pytest.fixture(scope="module")
def centers(pictures):
    X, y = pictures
    return SourceCenters.from_dataset(tiny_classifier(), X, np.arange(24) % 5)


def kinds_of_strategies():
    """The strategies of the package, by their classes."""
    return [
        kind
        for kind in (getattr(strategies, name) for name in strategies.__all__)
        if inspect.isclass(kind)
        and issubclass(kind, strategies.QueryStrategy)
        and not inspect.isabstract(kind)
    ]


def learner_for(strategy, **params):
    defaults = {"n_rounds": 3, "n_instances": 4, "random_state": 0}
    return ActiveLearner(tiny_classifier(), strategy, **{**defaults, **params})
