"""Rules for choosing labels, compared where a simulation takes seconds.

    python benchmarks/bench_rule_search.py OUT [--networks NAME ...] [--seeds N ...]
    python benchmarks/bench_rule_search.py OUT --report FILE

In place of fine-tuning, a logistic regression is fitted to the pretrained network's
penultimate features; everything else is as in `skadma bench`. Variants are tried here
first, as a simulation takes seconds, and then there.
Writes the features (once) and results.csv to OUT, prints the areas under the curves and
paired tests; --report prints those of FILE, such as results/rule_search.csv, only. With
the defaults about an hour on 2 cores.
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
from skadma.bench.report import markdown_table
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
NETWORKS = ("efficientnet_lite0", "efficientnet_lite1")
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
        row |= {"n_labels": record["n_labels"]}
        rows.append(row | measure(proba, split.y_test))
    return rows


def main() -> None:
    """Run what is asked for, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--datasets", nargs="+", default=DATASETS, choices=DATASETS)
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=RULES)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10, 20)))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--report", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.report:
        print(report(pd.read_csv(options.report)))
        return
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
    print(report(results))


def report(results: pd.DataFrame) -> str:
    """Areas under the curves, and paired tests over all of them."""
    results = results.assign(strategy_class=results["strategy"])
    areas = area_under_curve(results).groupby(["network", "dataset"]).mean()
    rows = [
        [f"{network.replace('efficientnet_l', 'L')}, {name}",
         *(f"{area:.3f}" for area in row)]
        for (network, name), row in areas.iterrows()
    ]  # fmt: skip
    rows.append(["mean", *(f"{area:.3f}" for area in areas.mean())])
    parts = [markdown_table(["", *areas.columns], rows)]
    for against in ("UncertaintyHerding", "UncertaintyCover"):
        if against in areas:
            tests = compare(results, against)
            tests = tests.loc[tests["dataset"] == "all", "strategy":].round(4)
            table = markdown_table(tests.columns, tests.astype(str).to_numpy())
            parts += [f"against {against}", table]
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
