"""
What a batch looks like beside a random one
===========================================

Twenty digits chosen by :class:`~skadma.strategies.UncertaintyHerding`, the twenty that
margin sampling chooses, and twenty at random.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

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

figure, axes = plt.subplots(3, 1, figsize=(10, 4.6), layout="constrained")
for ax, (name, chosen) in zip(axes, batches.items(), strict=True):
    chosen = chosen[np.argsort(digits.target[chosen], kind="stable")]
    n_classes = len(np.unique(digits.target[chosen]))
    ax.imshow(np.hstack(images[chosen]), cmap="gray_r")
    ax.set(title=f"{name}: {n_classes} of 10 digits", xticks=[], yticks=[])
