"""
Imbalanced classes
==================

Of 100 labels, ten are of defective cells. ``class_weight="balanced"`` makes both
classes count alike in training. Three draws of 100 labels, put together.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay, balanced_accuracy_score

from skadma import CNNClassifier
from skadma.bench.datasets import load_elpv

X, y = load_elpv()
figure, axes = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
for ax, weight in zip(axes, [None, "balanced"], strict=True):
    truth, predicted = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        defective = rng.permutation(np.flatnonzero(y == "defective"))
        sound = rng.permutation(np.flatnonzero(y == "sound"))
        train = np.concatenate([defective[:10], sound[:90]])
        test = np.concatenate([defective[10:110], sound[90:190]])
        clf = CNNClassifier(
            "efficientnet_lite0",
            class_weight=weight,
            image_size=64,
            n_frozen_layers=-5,
            max_epochs=10,
            random_state=seed,
        ).fit(X[train], y[train])
        truth.extend(y[test])
        predicted.extend(clf.predict(X[test]))
    ConfusionMatrixDisplay.from_predictions(
        truth, predicted, normalize="true", ax=ax, colorbar=False, cmap="Blues"
    )
    score = balanced_accuracy_score(truth, predicted)
    ax.set_title(f"class_weight={weight!r}: mean recall {score:.2f}", fontsize="medium")

# %%
# The weights move the decision towards the rare class. The :doc:`user guide
# </user_guide>` has means over five seeds.
