"""
AdaFilter's gates
=================

:class:`~skadma.AdaFilterClassifier` decides for each image and each filter whether to
use the pretrained or the fine-tuned one. The picture shows the share of fine-tuned
filters in each layer.
"""

import numpy as np

from skadma import AdaFilterClassifier
from skadma.bench.datasets import load_elpv
from skadma.plotting import GateUsageDisplay

X, y = load_elpv()
order = np.random.default_rng(0).permutation(len(X))
train, test = order[:150], order[150:350]

clf = AdaFilterClassifier(
    "efficientnet_lite0",
    image_size=64,
    n_frozen_layers=-8,
    max_epochs=6,
    random_state=0,
).fit(X[train], y[train])
print(f"accuracy {clf.score(X[test], y[test]):.3f}")

# %%
# A share of 0 is a layer that stayed as it was pretrained, for all images; 1 one that
# was fine-tuned for all.

display = GateUsageDisplay.from_estimator(clf, X[test])
_ = display.ax_.set(xlim=(0, 1))
