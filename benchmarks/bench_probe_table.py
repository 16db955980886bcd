"""ProbeClassifier beside scikit-learn's linear classifiers, on frozen features.

    python benchmarks/bench_probe_table.py FOLDER OUT.csv [--seeds N ...]
    python benchmarks/bench_probe_table.py FOLDER OUT.csv --report

Features of EfficientNet-Lite0 at 128 px are computed once and kept in FOLDER: the last
layer's input (1,280 columns) and that of ``layers/efficientnet_lite0`` (7,232). Of each
set 600 images are the test set; 10, 40, 160 and 640 others have labels, at least one of
each class and three from 40 on. The peers get rows that are centred and scaled to
length 1, with ``layers/`` block by block, as ProbeClassifier does to its own.
SKADMA_DATA names the folder of the data sets. Prints means over sets, and each set's;
--report prints those of OUT.csv only.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import (
    LogisticRegression,
    LogisticRegressionCV,
    RidgeClassifierCV,
)
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier

from skadma import CNNClassifier, ProbeClassifier
from skadma.bench.datasets import load_dataset
from skadma.bench.report import markdown_table
from skadma.images.selection import take

SETS = ("dogs-vs-cats", "cifar10", "trash", "blood-cells")
WIDTHS = [1280, 960, 1344, 1344, 2304]
"""Columns of the blocks of ``layers/efficientnet_lite0``; the first is the last layer's
input."""
N_LABELS = (10, 40, 160, 640)
N_TEST = 600
FEATURES = {"last": "last layer", "layers": "`layers/`"}
PEERS: dict[str, Callable[[], Any]] = {
    "LogisticRegression(C=1)": lambda: LogisticRegression(C=1, max_iter=1000),
    "LogisticRegression(C=100)": lambda: LogisticRegression(C=100, max_iter=1000),
    "LogisticRegressionCV": lambda: LogisticRegressionCV(
        Cs=np.geomspace(0.1, 10_000, 6), cv=3, max_iter=1000, scoring="neg_log_loss"
    ),
    "LinearDiscriminantAnalysis": lambda: LinearDiscriminantAnalysis(
        solver="lsqr", shrinkage="auto"
    ),
    "RidgeClassifierCV": lambda: RidgeClassifierCV(alphas=np.geomspace(0.01, 10, 7)),
    "KNeighborsClassifier": lambda: KNeighborsClassifier(5, weights="distance"),
}  # fmt: skip


def read_features(name: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Compute the features of at most 2,000 images, or read them."""
    path = folder / f"{name}.npz"
    if not path.is_file():
        root = Path(os.environ["SKADMA_DATA"])
        packaged = name in ("dogs-vs-cats", "cifar10")
        images = (
            load_dataset(name, root=root)
            if packaged
            else load_dataset("folder", root / name)
        )
        rows = np.random.default_rng(0).permutation(len(images.y))[:2000]
        rows.sort()
        clf = CNNClassifier("layers/efficientnet_lite0", image_size=128, memory=False)
        X = clf.embed(take(images.X, rows), -2)[-2]
        np.savez(path, X=X, y=np.asarray(images.y)[rows])
    with np.load(path) as file:
        return file["X"], np.unique(file["y"], return_inverse=True)[1]


def draw(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw rows to label, the first of which have all classes, and rows to test on."""
    order = np.random.default_rng(seed).permutation(len(y))
    train, test = order[:-N_TEST], order[-N_TEST:]
    of_class = pd.Series(y[train]).groupby(y[train]).cumcount().to_numpy()
    return train[np.argsort(np.minimum(of_class, 3), kind="stable")], test


def scaled(rows: np.ndarray, center: np.ndarray, widths: list[int]) -> np.ndarray:
    """Centre blocks of rows and scale them, the first to twice the others' square."""
    blocks = np.split(rows - center, np.cumsum(widths)[:-1], axis=1)
    squares = np.ones(len(widths))
    squares[0] = 2
    shares = np.sqrt(squares / squares.sum())
    return np.hstack([
        share * block / np.linalg.norm(block, axis=1, keepdims=True)
        for share, block in zip(shares, blocks, strict=True)
    ])  # fmt: skip


def run(name: str, X: np.ndarray, y: np.ndarray, seed: int) -> list[dict[str, Any]]:
    """Fit all classifiers to all numbers of labels."""
    train, test = draw(y, seed)
    results = []
    for features, widths in (("last", WIDTHS[:1]), ("layers", WIDTHS)):
        d = sum(widths)
        for n in N_LABELS:
            rows, y_rows = X[train[:n], :d].astype(float), y[train[:n]]
            center = rows.mean(axis=0)
            prepared = scaled(rows, center, widths)
            rows_test = X[test, :d].astype(float)
            prepared_test = scaled(rows_test, center, widths)
            probe = ProbeClassifier(block_widths=widths)
            cells = [("ProbeClassifier", probe, rows, rows_test)]
            for peer, make in PEERS.items():
                few = (
                    peer == "LogisticRegressionCV" and np.bincount(y_rows).min() < 3
                ) or (peer == "LinearDiscriminantAnalysis" and n <= y.max() + 1)
                # Its covariance matrix would have 7,232 columns.
                large = peer == "LinearDiscriminantAnalysis" and d > 1280
                if not few and not large:
                    cells.append((peer, make(), prepared, prepared_test))
            for classifier, estimator, A, B in cells:
                begin = time.process_time()
                estimator.fit(A, y_rows)
                seconds = time.process_time() - begin
                loss = np.nan
                if hasattr(estimator, "predict_proba"):
                    loss = log_loss(y[test], estimator.predict_proba(B))
                results.append(
                    {
                        "set": name,
                        "features": features,
                        "n_labels": n,
                        "seed": seed,
                        "classifier": classifier,
                        "accuracy": (estimator.predict(B) == y[test]).mean(),
                        "log_loss": loss,
                        "fit_seconds": seconds,
                    }
                )
    return results


def report(results: pd.DataFrame) -> str:
    """Make a table of means over sets, and one for each set."""
    parts = []
    for name in ("all", *results["set"].unique()):
        some = results if name == "all" else results[results["set"] == name]
        rows = []
        for (features, classifier), group in some.groupby(
            ["features", "classifier"], sort=False
        ):
            cells = []
            for n in N_LABELS:
                cell = group[group["n_labels"] == n]
                means = cell[["accuracy", "log_loss", "fit_seconds"]].mean()
                every = cell["set"].nunique() == some["set"].nunique()
                texts = (f"{v:.3f}" if v == v else "-" for v in means)  # NaN: none
                cells.append(" / ".join(texts) if every else "-")
            rows.append([FEATURES[features], f"`{classifier}`", *cells])
        head = ["features", "classifier", "10 labels", *map(str, N_LABELS[1:])]
        title = f"{name}: accuracy / log loss / seconds of fit"
        parts += [title, markdown_table(head, rows)]
    return "\n\n".join(parts)


def main() -> None:
    """Run what is asked for, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--report", action="store_true", help="only print the tables")
    options = parser.parse_args()
    if options.report:
        print(report(pd.read_csv(options.out)))
        return
    options.folder.mkdir(exist_ok=True)
    warnings.simplefilter("ignore")  # regressions that do not converge, rare classes
    rows = []
    for name in options.sets:
        X, y = read_features(name, options.folder)
        for seed in options.seeds:
            rows += run(name, X, y, seed)
            pd.DataFrame(rows).round(4).to_csv(options.out, index=False)
    print(report(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
