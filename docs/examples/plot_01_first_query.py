"""
First query
===========

You have a pretrained network and a pool of photographs without labels. Which ten of
them should be labelled first?
"""

import matplotlib.pyplot as plt
import numpy as np

from skadma import CNNClassifier
from skadma.bench.datasets import load_elpv
from skadma.strategies import UncertaintyHerding

# %%
# The pool: 400 photographs of solar cells. Nobody has said yet which are defective.

X, _ = load_elpv()
pool = X[np.random.default_rng(0).choice(len(X), 400, replace=False)]
pool.shape

# %%
# EfficientNet-Lite0 with its ImageNet weights, on images of 96 pixels. Before the first
# label the strategy goes by the features alone: it chooses images that stand for many
# others.

clf = CNNClassifier("efficientnet_lite0", image_size=96, random_state=0)
indices = UncertaintyHerding(random_state=0).query(clf, pool, n_instances=10)
indices

# %%
# These are the images to label, the most useful first.

figure, axes = plt.subplots(2, 5, figsize=(8, 3.6), layout="constrained")
for rank, (ax, index) in enumerate(zip(axes.flat, indices, strict=True), start=1):
    ax.imshow(pool[index], cmap="gray")
    ax.set_title(f"{rank}. image {index}", fontsize="small")
    ax.set_axis_off()
