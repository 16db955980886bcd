"""
Your own network
================

Any function that returns a :class:`torch.nn.Module` can be the backbone. Here a small
CNN learns the digits 0 to 4, and is then adapted to the digits 5 to 9.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_digits
from torch import nn

from skadma import ActiveLearner, CNNClassifier
from skadma.strategies import UncertaintyHerding

digits = load_digits()
images = (digits.images * 255 / 16).astype(np.uint8)
source, target = digits.target < 5, digits.target >= 5


class SmallCNN(nn.Sequential):
    """Three convolutions and a linear layer, for images of 16 pixels."""

    def __init__(self, n_classes=5):
        super().__init__(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(64 * 4, n_classes),
        )  # fmt: skip


# %%
# The source task. :class:`~skadma.CNNClassifier` trains it from random weights, with no
# layer frozen.

small = {"image_size": 16, "random_state": 0}
m0 = CNNClassifier(
    SmallCNN, n_frozen_layers=0, lr=1e-3, max_epochs=15, **small
).fit(images[source], digits.target[source])  # fmt: skip
weights = m0.net_.module_.network.state_dict()

# %%
# The backbone has to be a function that returns a *new* network with these weights,
# since each fit starts from them. ``layers()`` lists what can be frozen.


def pretrained():
    """Make the network and load its weights."""
    network = SmallCNN()
    network.load_state_dict(weights)
    return network


clf = CNNClassifier(pretrained, n_frozen_layers=1, lr=1e-3, head_lr=1e-2, **small)
print(clf.layers())

# %%
# The same learner, from the pretrained weights and from random ones, as the mean of
# three seeds:

X, y = images[target], digits.target[target]
order = np.random.default_rng(0).permutation(len(X))
pool, test = order[:400], order[400:]
figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name, backbone in {"pretrained on 0 to 4": pretrained, "random": SmallCNN}.items():
    curves = []
    for seed in range(3):
        learner = ActiveLearner(
            clone(clf).set_params(backbone=backbone),
            UncertaintyHerding(),
            n_rounds=6,
            n_instances=5,
            random_state=seed,
        )
        rounds = learner.rounds(X[pool], y[pool])
        curves.append([learner.score(X[test], y[test]) for _ in rounds])
    ax.plot(range(5, 31, 5), np.mean(curves, axis=0), marker="o", label=name)
ax.set(xlabel="labels", ylabel="accuracy on the digits 5 to 9")
ax.grid(alpha=0.3)
_ = ax.legend(title="weights")
