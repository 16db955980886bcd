"""Look at the weights of ADMA's approximation (Eq. 7-8 and Sec. 4.3).

    SKADMA_DATA=FOLDER python benchmarks/bench_adma_weights.py [--pool 400]

For each data set: the largest weight alpha of an image's centres, how many centres
share the weight (1 / sum alpha^2), and what the distinctiveness follows: its rank
correlation with the squared distance of the image to the centres' mean at layer A. For
the pretrained network's probabilities ("predict"), for reciprocal distances
("distance") and for two sharper forms of these. EfficientNet-Lite0 at 128 pixels,
before the first fit; it takes three minutes.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from skadma import CNNClassifier, SourceCenters
from skadma.bench.datasets import load_dataset, split_dataset
from skadma.strategies.adma import (
    CenterDistances,
    distance_weights,
    distinctiveness,
    predict_weights,
)

A, B = -4, -2


def sharper(s_a: torch.Tensor, power: float) -> torch.Tensor:
    """Reciprocal distances to a power."""
    return distance_weights(s_a.pow(power))


def nearest(s_a: torch.Tensor, k: int) -> torch.Tensor:
    """Reciprocal distances of the k nearest centres alone."""
    kept = torch.zeros_like(s_a).scatter(1, s_a.topk(k, largest=False).indices, 1.0)
    weights = distance_weights(s_a) * kept
    return weights / weights.sum(dim=1, keepdim=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pool", type=int, default=400)
    options = parser.parse_args()
    root = Path(os.environ["SKADMA_DATA"])
    clf = CNNClassifier("efficientnet_lite0", image_size=128, n_frozen_layers=-5)
    centers = SourceCenters.from_dataset(clf, root / "source-imagenet-1k")
    position = clf.source_network().graph.position
    layers = [position(A), position(B)]
    outputs = centers.outputs(clf, layers, initial=True)
    at_a, at_b = (CenterDistances(outputs[p]) for p in layers)
    mean = outputs[layers[0]].double().mean(dim=0)
    of_centers = at_a.between_centers() - at_b.between_centers()
    print(f"K = {len(centers)}, d_A = {len(mean)}, uniform alpha = 0.001")
    print("| data set | weights | largest alpha | centres that share | follows |")
    print("|---|---|---|---|---|")
    for name in ("cifar10", "dogs-vs-cats", "elpv", "digits"):
        split = split_dataset(load_dataset(name, None, root), 5, options.pool, 10)
        features = clf.embed(split.X, [A, B])
        x_a, x_b = (torch.from_numpy(features[layer]) for layer in (A, B))
        s_a, s_b = at_a(x_a), at_b(x_b)
        outlying = (x_a.double() - mean).square().sum(dim=1).numpy()
        proba = torch.from_numpy(clf.source_proba(split.X))
        forms = {
            "predict": predict_weights(proba, centers.classes.tolist()),
            "distance": distance_weights(s_a),
            "distance to the 16th power": sharper(s_a, 16),
            "distance, 10 nearest": nearest(s_a, 10),
        }
        for form, alpha in forms.items():
            d = distinctiveness(s_a - s_b, alpha @ of_centers).numpy()
            sharing = float((1 / alpha.square().sum(dim=1)).median())
            print(
                f"| {name} | {form} | {np.median(alpha.max(dim=1).values):.4f} | "
                f"{sharing:.0f} | {spearmanr(d, outlying).statistic:+.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
