"""
The map of the pool
===================

t-SNE of the network's features shows where in the pool the chosen images lie, round by
round, beside as many that were drawn at random.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skadma import ActiveLearner, CNNClassifier
from skadma.plotting import QueryDisplay
from skadma.strategies import UncertaintyHerding

digits = load_digits()
images = (digits.images * 255 / 16).astype(np.uint8)[:600]
clf = CNNClassifier(
    "efficientnet_lite0",
    image_size=64,
    n_frozen_layers=-5,
    max_epochs=10,
    random_state=0,
)
learner = ActiveLearner(
    clf, UncertaintyHerding(), n_rounds=4, n_instances=10, random_state=0
).fit(images, digits.target[:600])

# %%
# The features are those of the adapted network's second-last layer.

figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
display = QueryDisplay.from_learner(learner, random_state=0, ax=axes[0])
display.plot(kind="random", ax=axes[1])
axes[0].set_title("chosen by UncertaintyHerding")
_ = axes[1].set_title("drawn at random")
