"""Networks with gates, for the tests of AdaFilter."""

import torch

from skadma import AdaFilterClassifier
from skadma.features.adapter import cnn_adapter

from .conftest import TinyCNN

SIZES = {"alexnet": 64, "vgg16": 32}


class ShortcutFirst(TinyCNN):
    """Runs the projection before the convolutions that it goes past."""

    def forward(self, x):
        x = self.act(self.norm(self.stem(x)))
        shortcut = self.shortcut(x)
        out = self.act(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out)) + shortcut
        x = self.pool(self.act(out)).flatten(1)
        return self.head(self.act(self.penultimate(self.act(self.hidden(x)))))


def tiny(backbone=TinyCNN, cls=AdaFilterClassifier, **params):
    defaults = {
        "image_size": 32,
        "n_frozen_layers": 1,
        "lr": 1e-2,
        "head_lr": 1e-2,
        "max_epochs": 2,
        "random_state": 0,
    }
    return cls(backbone, **{**defaults, **params})


def set_gates(clf, is_open):
    """Shut or open all gates for good: the sigmoid's slope is 0 there."""
    with torch.no_grad():
        for output in clf.net_.module_.branch.gates.outputs:
            output.weight.zero_()
            output.bias.fill_(100 if is_open else -100)


def scores(clf, X):
    return cnn_adapter(clf).collect(X, layers=[-1])[0][len(clf.layers()) - 1]
