"""
Source centres
==============

ADMA compares the pool with one representative of each class of the source task. Here
are two kinds that need no source data.
"""

import matplotlib.pyplot as plt
import numpy as np

from skadma import CNNClassifier, SourceCenters
from skadma.bench.datasets import load_elpv
from skadma.centers import shipped_centers

X, _ = load_elpv()
pool = X[np.random.default_rng(0).choice(len(X), 300, replace=False)]
clf = CNNClassifier("efficientnet_lite0", image_size=96, random_state=0)

# %%
# 1. The package ships centres for EfficientNet-Lite0. They were synthesised from the
#    network itself. A subset covers the source space with fewer classes.
# 2. ``from_pool`` takes, of the images that the network assigns to a source class, the
#    one nearest to their mean.
#
# For another network ``SourceCenters.synthesize(clf)`` makes centres of the first kind;
# for 1000 classes that takes about an hour of one core, so it is not done here.

kinds = {
    "synthesised": shipped_centers(clf).subset(clf, 50),
    "of the pool": SourceCenters.from_pool(clf, pool),
}
for name, centers in kinds.items():
    print(f"{name}: {centers}, {centers.source_accuracy(clf):.0%} recognised")

# %%
# Ten of each, with the names of their classes in ImageNet. ADMA compares the pool with
# these, so the choice of centres matters: the :doc:`user guide </user_guide>` tells
# which kind did best in which case.

figure, axes = plt.subplots(2, 10, figsize=(12, 3.4), layout="constrained")
for row, (name, centers) in zip(axes, kinds.items(), strict=True):
    row[0].set_ylabel(name)
    for ax, image, title in zip(row, centers.inputs, centers.class_names, strict=False):
        ax.imshow(image.transpose(1, 2, 0))
        ax.set_title(title.split(",")[0][:16], fontsize="x-small")
        ax.set(xticks=[], yticks=[])
