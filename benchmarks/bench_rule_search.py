"""Rules for choosing labels, compared where a simulation takes seconds.

    python benchmarks/bench_rule_search.py OUT [--networks NAME ...] [--seeds N ...]

In place of fine-tuning, a logistic regression is fitted to the pretrained network's
penultimate features; everything else is as in `skadma bench`. Variants are tried here
first, as a simulation takes seconds, and then there.
Writes the features (once) and results.csv to OUT, prints the areas under the curves and
paired tests. With the defaults about 20 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.linear_model import LogisticRegression

from skadma import ActiveLearner, CNNClassifier
from skadma.bench import area_under_curve, compare
from skadma.bench.cells import measure
from skadma.bench.datasets import LabelledImages, load_dataset, split_dataset
from skadma.strategies import (
    BADGE,
    ClusterMargin,
    CoreSet,
    MarginSampling,
    ProbCover,
    QueryStrategy,
    RandomSampling,
    TypiClust,
    UncertaintyHerding,
)

DATASETS = ("cifar10", "dogs-vs-cats", "elpv", "digits")
IMAGE_SIZE = 128
RULES: dict[str, Callable[[], QueryStrategy]] = {
    "random": RandomSampling,
    "margin": MarginSampling,
    "CoreSet": CoreSet,
    "BADGE": BADGE,
    "ProbCover": ProbCover,
    "TypiClust": TypiClust,
    "ClusterMargin": ClusterMargin,
    "UncertaintyHerding": UncertaintyHerding,
    "UncertaintyHerding, as it is": lambda: UncertaintyHerding(normalize=False),
}


def read_features(name: str, network: str, folder: Path) -> LabelledImages:
    """Compute the features of a data set, or read them."""
    path = folder / f"{network}__{name}.npz"
    data = os.environ.get("SKADMA_DATA")
    images = load_dataset(name, root=data)
    if not path.is_file():
        clf = CNNClassifier(network, image_size=IMAGE_SIZE, memory=False, verbose=1)
        features = {"X": clf.embed(images.X, [-2])[-2]}
        if images.y_test is not None:
            features["X_test"] = clf.embed(images.X_test, [-2])[-2]
        np.savez(path, **features)
    with np.load(path) as file:
        X = file["X"]
        X_test = file["X_test"] if images.y_test is not None else None
    # Rows of length 5 on average, so that one C fits all networks.
    mean, scale = X.mean(0), 5 / np.sqrt(X.var(0).sum())
    X_test = None if X_test is None else (X_test - mean) * scale
    return LabelledImages((X - mean) * scale, images.y, X_test, images.y_test)


def run(name: str, network: str, rule: str, seed: int, images: LabelledImages) -> list:
    """Simulate, with the test set measured after each round."""
    split = split_dataset(images, seed, 1000, 500)
    learner = ActiveLearner(
        LogisticRegression(max_iter=100, tol=1e-3),
        RULES[rule](),
        n_instances=20,
        n_rounds=8,
        classes=np.arange(len(split.classes)),
        random_state=seed,
    )
    rows = []
    for record in learner.rounds(split.X, split.y):
        proba = np.zeros((len(split.y_test), len(split.classes)))
        proba[:, learner.estimator_.classes_] = learner.estimator_.predict_proba(
            split.X_test
        )
        row = {"dataset": name, "network": network, "strategy": rule, "seed": seed}
        row |= {"strategy_class": rule, "n_labels": record["n_labels"]}
        rows.append(row | measure(proba, split.y_test))
    return rows


def main() -> None:
    """Run what is asked for, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--networks", nargs="+", default=["efficientnet_lite0"])
    parser.add_argument("--datasets", nargs="+", default=DATASETS, choices=DATASETS)
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=RULES)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    for network in options.networks:
        for name in options.datasets:
            images = read_features(name, network, options.out)
            cells = (
                delayed(run)(name, network, rule, seed, images)
                for rule in options.rules
                for seed in options.seeds
            )
            for found in Parallel(options.jobs)(cells):
                rows += found
            print(f"{network}, {name}: done", file=sys.stderr, flush=True)
    results = pd.DataFrame(rows)
    results.to_csv(options.out / "results.csv", index=False)
    with pd.option_context("display.width", 200, "display.max_columns", None):
        areas = area_under_curve(results).groupby(["dataset", "network"])
        print(areas.mean().round(4).to_string())
        if "UncertaintyHerding" in options.rules:
            print(compare(results, "UncertaintyHerding").round(4).to_string())


if __name__ == "__main__":
    main()
