"""The network and the centres of `skadma demo`, for the benchmarks."""

from skadma import CNNClassifier, SourceCenters
from skadma.centers import shipped_centers


def demo_classifier(seed: int) -> CNNClassifier:
    """Build a classifier whose last stage and head are fine-tuned."""
    return CNNClassifier(
        "efficientnet_lite0",
        image_size=128,
        n_frozen_layers=-5,
        max_epochs=10,
        random_state=seed,
    )


def demo_centers() -> SourceCenters:
    """Take a quarter of the centres that the package ships for the network."""
    clf = demo_classifier(0)
    return shipped_centers(clf).subset(clf, 250)
