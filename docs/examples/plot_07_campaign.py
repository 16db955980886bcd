"""
A campaign in 20 lines
======================

A :class:`~skadma.Campaign` keeps labels, questions and models in a folder. It can be
broken off at any moment, and loses no label. Here the true labels answer in place of a
person.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from skadma import Campaign, CNNClassifier
from skadma.bench.datasets import load_elpv
from skadma.strategies import UncertaintyHerding

# %%
# A folder of 200 photographs, and what a person would say about each:

work = Path(tempfile.mkdtemp())
(work / "photos").mkdir()
X, y = load_elpv()
truth = {}
for index in np.random.default_rng(0).choice(len(X), 200, replace=False):
    Image.fromarray(X[index]).save(work / "photos" / f"{index:04}.png")
    truth[f"{index:04}.png"] = str(y[index])

# %%
# The campaign. ``skadma start``, ``skadma query`` and ``skadma teach`` do the same by
# command, and ``skadma label`` in the browser.

classes = ["defective", "sound"]
clf = CNNClassifier("layers/efficientnet_lite0", image_size=64, training="probe")
Campaign.create(
    work / "campaign",
    work / "photos",
    classes,
    clf,
    UncertaintyHerding(),
    n_instances=10,
).close()
rounds = []
for _ in range(4):
    with Campaign.open(work / "campaign") as campaign:  # as if on another day
        asked = [proposal.path for proposal in campaign.query()]
        campaign.teach({path: truth[path] for path in asked})
        rounds.append(campaign.status().labels)

# %%
# Where it stands, and the model's predictions for the images that nobody labelled:

campaign = Campaign.open(work / "campaign")
print(campaign.status())
labelled = {path for path, _, _ in campaign.decisions()}
rest = [path for path in truth if path not in labelled]
predicted = campaign.estimator().predict([str(work / "photos" / path) for path in rest])
accuracy = np.mean(predicted == [truth[path] for path in rest])

figure, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
bottom = np.zeros(len(rounds))
for name, hatch in zip(classes, ["//", ""], strict=True):
    counts = np.array([labels.get(name, 0) for labels in rounds])
    ax.bar(range(1, 5), counts, bottom=bottom, label=name, hatch=hatch, edgecolor="w")
    bottom += counts
ax.set(
    xlabel="day", ylabel="labels", xticks=range(1, 5),
    title=f"{accuracy:.0%} of the other {len(rest)} are predicted right",
)  # fmt: skip
ax.legend()
campaign.close()
