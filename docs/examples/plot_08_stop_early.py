"""
Stop early
==========

A stopping rule ends a simulation before its last round. Here are the points at which
three rules would have stopped the same run.
"""

import matplotlib.pyplot as plt
from sklearn.model_selection import train_test_split

from skadma import ActiveLearner, CNNClassifier
from skadma.bench.datasets import load_elpv
from skadma.stopping import LabelBudget, StablePredictions, TargetScore
from skadma.strategies import UncertaintyHerding

X, y = load_elpv()
X, X_test, y, y_test = train_test_split(
    X, y, train_size=300, test_size=200, stratify=y, random_state=0
)
clf = CNNClassifier(
    "efficientnet_lite0",
    image_size=64,
    n_frozen_layers=-5,
    max_epochs=10,
    random_state=0,
)
learner = ActiveLearner(
    clf, UncertaintyHerding(), n_rounds=7, n_instances=10, random_state=0
)

# %%
# ``ActiveLearner(stopping=rule)`` asks a rule after each round, and rules combine by
# ``|`` and ``&``. To compare rules on one run we ask them ourselves. Half of the test
# images decide for ``TargetScore``; the other half measures.

rules = {
    "LabelBudget(40)": LabelBudget(40),
    "TargetScore(0.75)": TargetScore(0.75, X_test[:100], y_test[:100]),
    "StablePredictions(0.9)": StablePredictions(X_test[:100], threshold=0.9, window=2),
}
for rule in rules.values():
    rule.start(len(X))
labels, scores, stops = [], [], {}
for record in learner.rounds(X, y):
    labels.append(record["n_labels"])
    scores.append(learner.score(X_test[100:], y_test[100:]))
    for name, rule in rules.items():
        if name not in stops and rule.should_stop(learner):
            stops[name] = labels[-1]
stops

# %%
# :class:`~skadma.stopping.EstimatedScore` is the rule for a target that has to be shown
# with confidence: see :doc:`/evaluation`.

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.plot(labels, scores, marker="o", color="k")
for (name, at), color in zip(stops.items(), ["C0", "C1", "C2"], strict=False):
    offset = 0.5 * list(stops).index(name)
    ax.axvline(at + offset, color=color, ls="--", label=f"{name}: {at} labels")
ax.set(xlabel="labels", ylabel="accuracy on 100 other cells", xticks=labels)
ax.grid(alpha=0.3)
_ = ax.legend()
