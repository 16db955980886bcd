"""
GridSearchCV over lambda and layers
===================================

A whole simulation, with its strategy and its network, is one scikit-learn estimator. So
``GridSearchCV`` searches the parameters of all three.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from skadma import ActiveLearner, CNNClassifier
from skadma.centers import shipped_centers
from skadma.strategies import ADMA

digits = load_digits()
X = (digits.images * 255 / 16).astype(np.uint8)[:300]
y = digits.target[:300]
clf = CNNClassifier(
    "efficientnet_lite0",
    image_size=64,
    n_frozen_layers=-5,
    max_epochs=6,
    random_state=0,
)
learner = ActiveLearner(
    clf,
    ADMA(shipped_centers(clf).subset(clf, 100)),
    n_rounds=3,
    n_instances=20,
    random_state=0,
)

# %%
# ``layer_a`` is the layer that ADMA compares with layer B; two of them are ADMA-2.
# ``trade_off`` is lambda. The frozen layers' outputs are computed once for all folds
# and all cells of the grid.

lambdas = [0.1, 0.3, 0.5]
layers = [-4, (-4, -5)]
search = GridSearchCV(
    learner,
    {"strategy__trade_off": lambdas, "strategy__layer_a": layers},
    cv=2,
    error_score="raise",
).fit(X, y)
search.best_params_

# %%
# The mean accuracy over the folds, after 60 labels:

scores = {
    (params["strategy__layer_a"], params["strategy__trade_off"]): score
    for params, score in zip(
        search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True
    )
}
grid = [[scores[layer, value] for value in lambdas] for layer in layers]
figure, ax = plt.subplots(figsize=(5, 3), layout="constrained")
image = ax.imshow(grid, cmap="viridis")
ax.set(
    xticks=range(3), xticklabels=lambdas, xlabel="lambda",
    yticks=range(2), yticklabels=layers, ylabel="layer A",
)  # fmt: skip
for i, row in enumerate(grid):
    for j, score in enumerate(row):
        box = {"facecolor": "white", "edgecolor": "none", "pad": 2}
        ax.text(j, i, f"{score:.3f}", ha="center", va="center", bbox=box)
_ = figure.colorbar(image, label="accuracy")
