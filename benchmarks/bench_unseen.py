"""Labels needed on data sets of many kinds, some of which nothing was chosen on.

    python benchmarks/make_image_sets.py DIR
    python benchmarks/bench_unseen.py DIR OUT.csv [--sets NAME ...] [--rules NAME ...]

The network's outputs are computed once (EfficientNet-Lite0, 128 px) and kept in
DIR/features; the probe of ``CNNClassifier(training="probe")`` is fitted to the last
layer's input alone or to that of ``layers/efficientnet_lite0``. Pools of 800, 400
images to test on, eight rounds of 20 labels. SKADMA_DATA names the folder of the data
sets that no package has. Prints accuracy, AUC, the labels needed for random's final
accuracy and paired tests. Rules named "their ..." are scikit-activeml's (pip install
scikit-activeml), at the same classifier.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from skadma import ActiveLearner, CNNClassifier
from skadma.bench import compare
from skadma.bench.cells import measure
from skadma.bench.datasets import LabelledImages, load_dataset, split_dataset
from skadma.images.selection import take
from skadma.networks.heads import BlockLinear, ProbeHead, get_head
from skadma.strategies import (
    BADGE,
    BALD,
    ClusterMargin,
    CoreSet,
    DropQuery,
    EntropySampling,
    LeastConfident,
    MarginSampling,
    ProbCover,
    QueryStrategy,
    RandomSampling,
    TypiClust,
    UncertaintyHerding,
    from_skactiveml,
)
from skadma.training.probe_head import fit_head

PACKAGED = ("cifar10", "dogs-vs-cats", "elpv", "digits")
CHOSEN_ON = (*PACKAGED, "letters", "slant", "textures", "cifar10-tail")
UNSEEN = ("emoji", "icons", "mnist", "parity")
BACKBONE = "layers/efficientnet_lite0"
MOST = 2000
BEST = "UncertaintyHerding"
THEIRS = ("Badge", "TypiClust", "MaxHerding", "DropQuery", "Falcun", "Clue")
"""scikit-activeml's; its other rules of features are the package's as well, or slow."""


def theirs(name: str) -> QueryStrategy:
    """Make a strategy of scikit-activeml's."""
    from skactiveml import pool

    return from_skactiveml(getattr(pool, name)())


RULES: dict[str, Callable[[], QueryStrategy]] = {
    "random": RandomSampling,
    "UncertaintyHerding": UncertaintyHerding,
    "margin": MarginSampling,
    "BADGE": BADGE,
    "TypiClust": TypiClust,
    "BALD": BALD,
    "DropQuery": DropQuery,
    "least confident": LeastConfident,
    "entropy": EntropySampling,
    "CoreSet": CoreSet,
    "ProbCover": ProbCover,
    "ClusterMargin": ClusterMargin,
    **{f"their {name}": partial(theirs, name) for name in THEIRS},
}


class Probe(ClassifierMixin, BaseEstimator):
    """The probe on rows that are what the last layer receives."""

    def __init__(self, parts: tuple[int, ...]) -> None:
        self.parts = parts

    def fit(self, X: np.ndarray, y: np.ndarray) -> Probe:
        """Fit the head."""
        self.classes_, numbers = np.unique(y, return_inverse=True)
        self.head_ = ProbeHead(list(self.parts), len(self.classes_))
        fit_head(self.head_, X, numbers)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Class probabilities."""
        check_is_fitted(self)
        with torch.no_grad():
            return softmax(self.head_(torch.from_numpy(X)).numpy().astype(float), 1)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Most probable classes."""
        return self.classes_[self.predict_proba(X).argmax(1)]


def read_features(name: str, folder: Path) -> tuple[LabelledImages, tuple[int, ...]]:
    """Compute what the last layer receives of a data set, or read it."""
    path = folder / "features" / f"{name}.npz"
    clf = CNNClassifier(BACKBONE, image_size=128, memory=False)
    source = clf.source_network()
    head = get_head(source.module, source.graph.layers[-1].name)
    assert isinstance(head, BlockLinear)
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        data = os.environ.get("SKADMA_DATA")
        if name in PACKAGED:
            images = load_dataset(name, root=data)
        else:
            images = load_dataset("folder", folder / "sets" / name)
        found, rng = {}, np.random.default_rng(0)
        for end, X, y in (("", images.X, images.y),
                          ("_test", images.X_test, images.y_test)):  # fmt: skip
            if y is None:
                continue
            share = 1.0 if images.y_test is None else 2 / 3 if end == "" else 1 / 3
            rows = np.sort(rng.permutation(len(y))[: int(MOST * share)])
            found[f"X{end}"] = clf.embed(take(X, rows), -2)[-2]
            found[f"y{end}"] = np.asarray(y)[rows]
        np.savez(path, allow_pickle=False, **found)
    with np.load(path) as file:
        read = {key: file[key] for key in file.files}
    return LabelledImages(**read), tuple(head.block_widths)


def run(
    name: str, rule: str, layers: str, seed: int, found: tuple
) -> list[dict[str, object]]:
    """Simulate, with the test set measured after each round."""
    images, parts = found
    if layers == "last":
        parts = parts[:1]
    split = split_dataset(images, seed, 800, 400)
    X, X_test = (np.ascontiguousarray(x[:, : sum(parts)])
                 for x in (split.X, split.X_test))  # fmt: skip
    split = type(split)(X, split.y, X_test, split.y_test, split.classes)
    learner = ActiveLearner(
        Probe(parts), RULES[rule](), n_instances=20, n_rounds=8,
        classes=np.arange(len(split.classes)), random_state=seed,
    )  # fmt: skip
    rows = []
    for record in learner.rounds(split.X, split.y):
        proba = np.zeros((len(split.y_test), len(split.classes)))
        fitted = learner.estimator_
        if hasattr(fitted, "classes_"):
            proba[:, fitted.classes_] = fitted.predict_proba(split.X_test)
        else:  # all labels are the same so far
            proba[:, split.y[learner.labeled_]] = 1
        row = {"set": name, "layers": layers, "training": "probe", "rule": rule}
        row["seed"] = seed
        row["n_labels"] = record["n_labels"]
        row["query_seconds"] = round(record["query_seconds"], 3)
        row["fit_seconds"] = round(record["adapt_seconds"], 3)
        rows.append(
            row | {k: round(v, 4) for k, v in measure(proba, split.y_test).items()}
        )
    return rows


def labels_needed(curve: pd.Series, wanted: float) -> float:
    """Labels at which a curve first reaches an accuracy, between rounds by a line."""
    n, accuracy = curve.index.to_numpy(float), curve.to_numpy()
    for k, value in enumerate(accuracy):
        if value >= wanted:
            if k == 0:
                return n[0]
            share = (wanted - accuracy[k - 1]) / (value - accuracy[k - 1])
            return n[k - 1] + share * (n[k] - n[k - 1])
    return np.nan


def report(results: pd.DataFrame) -> str:
    """Tables of areas and of labels needed for random's accuracy at the end."""
    found = []
    keys = ["layers", "rule"]
    sets = [s for s in CHOSEN_ON + UNSEEN if s in set(results["set"])]
    for what in ("accuracy", "auc"):
        table = results.pivot_table(what, keys, "set")[sets]
        table["mean"] = table.mean(axis=1)
        found += [f"mean {what} over rounds", table.round(3).to_string()]
    curves = results.groupby(["set", *keys, "n_labels"])["accuracy"].mean()
    last = results["n_labels"].max()
    for layers in sorted(set(results["layers"])):
        rows = {}
        for of, rule in sorted(
            set(zip(results["layers"], results["rule"], strict=True))
        ):
            rows[of, rule] = [
                labels_needed(curves[s, of, rule], curves[s, layers, "random", last])
                / last
                for s in sets
            ]
        table = pd.DataFrame(rows, index=sets).T
        table["mean"] = table.fillna(1.0).mean(axis=1)
        found += [f"share of labels needed for random's final accuracy on {layers!r}"]
        found += [table.round(2).to_string()]
    names = {"set": "dataset", "layers": "network", "rule": "strategy"}
    pairs = results.rename(columns=names).assign(strategy_class="")
    for layers, some in pairs.groupby("network"):
        for what in ("accuracy", "auc"):
            table = compare(some, BEST, what).query("dataset == 'all'")
            found += [f"{what} against {BEST} on {layers!r}"]
            found += [table.drop(columns=["dataset", "network"]).to_string()]
    return "\n\n".join(found)


def main() -> None:
    """Run what is asked for, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="+", default=CHOSEN_ON + UNSEEN)
    parser.add_argument("--rules", nargs="+", default=list(RULES), choices=RULES)
    parser.add_argument("--layers", nargs="+", default=["last", "several"])
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10, 15)))
    options = parser.parse_args()
    known = pd.read_csv(options.out) if options.out.is_file() else pd.DataFrame()
    cells = (
        {tuple(c) for c in known[["set", "rule", "layers", "seed"]].values}
        if len(known)
        else set()
    )
    for seed in options.seeds:
        for name in options.sets:
            found = None
            for rule in options.rules:
                for layers in options.layers:
                    if (name, rule, layers, seed) in cells:
                        continue
                    found = found or read_features(name, options.folder)
                    rows = pd.DataFrame(run(name, rule, layers, seed, found))
                    known = pd.concat([known, rows])
                    known.to_csv(options.out, index=False)
    if "random" in set(known["rule"]):
        print(report(known))


if __name__ == "__main__":
    main()
