"""
What a batch looks like beside a random one
===========================================

Twenty digits chosen by :class:`~skadma.strategies.UncertaintyHerding`, the twenty that
margin sampling chooses, and twenty at random.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.preprocessing import normalize

from skadma import CNNClassifier
from skadma.strategies import MarginSampling, RandomSampling, UncertaintyHerding

digits = load_digits()
images = (digits.images * 255 / 16).astype(np.uint8)
order = np.random.default_rng(0).permutation(len(images))
labelled, pool = order[:20], order[20:620]

# %%
# The network has learnt from 20 digits.

clf = CNNClassifier(
    "efficientnet_lite0",
    image_size=64,
    n_frozen_layers=-5,
    max_epochs=10,
    random_state=0,
).fit(images[labelled], digits.target[labelled])

# %%
# Margin sampling takes the images about which the network is most in doubt, look-alikes
# included. :class:`~skadma.strategies.UncertaintyHerding` takes images that together
# cover the doubt, so it needs to know which images have a label already.

batches = {}
for strategy in (UncertaintyHerding(), MarginSampling(), RandomSampling()):
    strategy.set_params(random_state=0)
    chosen = strategy.query(
        clf,
        images[pool],
        20,
        X_labeled=images[labelled],
        y_labeled=digits.target[labelled],
    )
    batches[type(strategy).__name__] = pool[chosen]

# %%
# How far is an image of the pool from the nearest image with a label, in the features
# of the pretrained network? The shorter, the better the labels cover the pool.

features = normalize(clone(clf).embed(images, -2)[-2])
figure, axes = plt.subplots(3, 1, figsize=(10, 4.6), layout="constrained")
for ax, (name, chosen) in zip(axes, batches.items(), strict=True):
    known = np.concatenate([labelled, chosen])
    _, distance = pairwise_distances_argmin_min(features[pool], features[known])
    chosen = chosen[np.argsort(digits.target[chosen], kind="stable")]
    ax.imshow(np.hstack(images[chosen]), cmap="gray_r")
    title = f"{name}: mean distance to the nearest label {distance.mean():.3f}"
    ax.set(title=title, xticks=[], yticks=[])
