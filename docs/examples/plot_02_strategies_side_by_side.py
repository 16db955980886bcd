"""
ADMA beside strategies of modAL and scikit-activeml
===================================================

Strategies of other packages run in the same :class:`~skadma.ActiveLearner`, on the same
network, images and seed, so that their curves can be compared.
"""

import matplotlib.pyplot as plt
from sklearn.model_selection import train_test_split

from skadma import ActiveLearner, CNNClassifier
from skadma.bench.datasets import load_elpv
from skadma.centers import shipped_centers
from skadma.strategies import (
    ADMA,
    RandomSampling,
    UncertaintyHerding,
    from_modal,
    from_skactiveml,
)

X, y = load_elpv()
X, X_test, y, y_test = train_test_split(
    X, y, train_size=300, test_size=300, stratify=y, random_state=0
)
clf = CNNClassifier(
    "efficientnet_lite0",
    image_size=64,
    n_frozen_layers=-5,
    max_epochs=10,
    random_state=0,
)

# %%
# ADMA compares images with one representative for each source class. The package ships
# some for this network; a hundred of them are enough here.

strategies = {
    "UncertaintyHerding": UncertaintyHerding(),
    "ADMA": ADMA(shipped_centers(clf).subset(clf, 100)),
    "random": RandomSampling(),
}

# %%
# modAL 0.4.2.1 needs scikit-learn 1.7 or older, and scikit-activeml is a package of its
# own: each takes part where it can be imported.

try:
    from skactiveml.pool import Falcun
except ImportError as error:
    print(f"without scikit-activeml: {error}")
else:
    strategies["scikit-activeml: Falcun"] = from_skactiveml(Falcun())
try:
    from modAL.uncertainty import margin_sampling
except ImportError as error:
    print(f"without modAL: {error}")
else:
    strategies["modAL: margin_sampling"] = from_modal(
        margin_sampling, random_tie_break=True
    )

# %%
# :meth:`~skadma.ActiveLearner.rounds` is ``fit`` that stops after each round.

curves = {}
for name, strategy in strategies.items():
    learner = ActiveLearner(clf, strategy, n_rounds=5, n_instances=15, random_state=0)
    curves[name] = [learner.score(X_test, y_test) for _ in learner.rounds(X, y)]

# %%
# One data set and one seed show how to compare, not which strategy is better. For that
# see :doc:`/label_efficiency`.

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for name, scores in curves.items():
    ax.plot(range(15, 76, 15), scores, marker="o", label=name)
ax.set(xlabel="labels", ylabel="accuracy on 300 other cells", xticks=range(15, 76, 15))
ax.grid(alpha=0.3)
_ = ax.legend()
