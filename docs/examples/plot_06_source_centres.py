"""
Source centres
==============

ADMA compares the pool with one representative of each class of the source task. Here
are those that the package ships, of which none needs source data.
"""

import matplotlib.pyplot as plt

from skadma import CNNClassifier
from skadma.centers import shipped_centers

clf = CNNClassifier("efficientnet_lite0", image_size=96, random_state=0)

# %%
# The package ships centres for EfficientNet-Lite0. They were synthesised from the
# network itself. A subset covers the source space with fewer classes.
#
# For another network ``SourceCenters.synthesize(clf)`` makes such centres; for 1000
# classes that takes about an hour of one core, so it is not done here.

centers = shipped_centers(clf).subset(clf, 50)
print(f"{centers}, {centers.source_accuracy(clf):.0%} recognised")

# %%
# Twenty of them, with the names of their classes in ImageNet. ADMA compares the pool
# with these, so the choice of centres matters: the :doc:`user guide </user_guide>`
# tells which kind did best in which case.

figure, axes = plt.subplots(2, 10, figsize=(12, 3.4), layout="constrained")
shown = zip(axes.flat, centers.inputs, centers.class_names, strict=False)
for ax, image, title in shown:
    ax.imshow(image.transpose(1, 2, 0))
    ax.set_title(title.split(",")[0][:16], fontsize="x-small")
    ax.set(xticks=[], yticks=[])
