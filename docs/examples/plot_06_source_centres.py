"""
Source centres
==============

ADMA compares the pool with one representative of each class of the source task. Here
are the three kinds that need no source data.
"""

import matplotlib.pyplot as plt
import numpy as np

from skadma import CNNClassifier, SourceCenters
from skadma.centers import shipped_centers
from skadma.demo import load_elpv

X, _ = load_elpv()
pool = X[np.random.default_rng(0).choice(len(X), 300, replace=False)]
clf = CNNClassifier("efficientnet_lite0", image_size=96, random_state=0)

# %%
# 1. The package ships centres for EfficientNet-Lite0, synthesised from the network. A
#    subset covers the source space with fewer classes.
# 2. ``synthesize`` makes such images for any network. A few steps take seconds and show
#    the idea; the default is 140.
# 3. ``from_pool`` takes, of the images that the network assigns to a source class, the
#    one nearest to their mean.

kinds = {
    "shipped": shipped_centers(clf).subset(clf, 50),
    "synthesize": SourceCenters.synthesize(
        clf, n_centers=8, n_steps=30, random_state=0
    ),
    "from_pool": SourceCenters.from_pool(clf, pool),
}
for name, centers in kinds.items():
    print(f"{name}: {centers}, source accuracy {centers.source_accuracy(clf):.2f}")

# %%
# Eight of each, with the names of their classes in ImageNet:

figure, axes = plt.subplots(3, 8, figsize=(11, 4.8), layout="constrained")
for row, (name, centers) in zip(axes, kinds.items(), strict=True):
    row[0].set_ylabel(name)
    for ax, image, title in zip(row, centers.inputs, centers.class_names, strict=False):
        ax.imshow(image.transpose(1, 2, 0))
        ax.set_title(title.split(",")[0][:16], fontsize="x-small")
        ax.set(xticks=[], yticks=[])
