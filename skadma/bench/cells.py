"""Run one cell: a simulation, measured after every round."""

from __future__ import annotations

import inspect
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from ..centers import SourceCenters, shipped_centers
from ..classifier import CNNClassifier
from ..features.adapter import need_adapter
from ..features.cache import DEFAULT_LIMIT, MemoryCache
from ..images.dataset import n_images
from ..learner import ActiveLearner
from ..strategies import QueryStrategy, RandomSampling
from .config import FULLY_TRAINED, Cell, strategy_class
from .datasets import find_data, load_dataset, split_dataset

CLASSIFIER_COLUMNS = (
    "backbone", "image_size", "n_frozen_layers", "max_epochs", "lr", "head_lr",
    "batch_size", "batch_norm", "augment",
)  # fmt: skip
"""Parameters of the classifier that get a column in the table of results."""


class Workbench:
    """Runs cells one after the other, and keeps what the next one needs again.

    A process has one. It holds a data set, a network's centres and the frozen layers'
    outputs of the images; they are dropped when a cell needs others.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self.cache = MemoryCache(DEFAULT_LIMIT)
        self._kept: dict[str, tuple[Any, Any]] = {}
        self._group: tuple[str, str] | None = None

    def run(self, cell: Cell) -> list[dict[str, Any]]:
        """Simulate all rounds; return a row per round, see docs/benchmarks.md."""
        dataset, network, own, protocol = (
            {**cell.settings[key]}
            for key in ("dataset", "network", "strategy", "protocol")
        )
        images = self._keep(
            "dataset",
            dataset,
            lambda: load_dataset(dataset["class"], dataset["path"], self.root),
        )
        split = split_dataset(
            images, cell.seed, protocol["pool_size"], protocol["test_size"]
        )
        group = cell.dataset, cell.network
        # Half: strategies that crop images leave the crops' outputs in the cache, and
        # then the next seed's images would not fit.
        if group != self._group or self.cache.nbytes > self.cache.limit // 2:
            self.cache.clear()
        self._group = group
        warm_start, centers = network.pop("warm_start"), network.pop("centers")
        clf = CNNClassifier(**network, memory=self.cache, random_state=cell.seed)
        # First of all, so that no strategy's other images take the cache's room.
        layer = -1 if clf.source_network().n_classes else -2
        for X in (split.X, split.X_test):
            for _ in need_adapter(clf).iter_outputs(X, source_layers=[layer]):
                pass
        name = own.pop("class")
        if name == FULLY_TRAINED:
            strategy: QueryStrategy = RandomSampling()
            n_rounds, n_instances = 1, len(split.y)
        else:
            cls = strategy_class(name)
            if "centers" in inspect.signature(cls).parameters:
                asked, n = own.pop("centers", centers), own.pop("n_centers", None)
                own["centers"] = self._keep(
                    "centers",
                    (asked, n, cell.settings["network"]),
                    lambda: read_centers(asked, n, clf, self.root),
                )
            strategy = cls(**own)
            n_rounds, n_instances = protocol["n_rounds"], protocol["n_instances"]
        learner = ActiveLearner(
            clf,
            strategy,
            n_rounds=n_rounds,
            n_instances=n_instances,
            warm_start=warm_start,
            classes=np.arange(len(split.classes)),
            random_state=cell.seed,
        )
        described = {
            "strategy_class": name,
            **{key: getattr(clf, key) for key in CLASSIFIER_COLUMNS},
            "warm_start": warm_start,
            "n_frozen": need_adapter(clf).n_frozen,
            "n_instances": protocol["n_instances"],
            "n_pool": n_images(split.X),
            "n_test": n_images(split.X_test),
            "n_classes": len(split.classes),
        }
        rows = []
        for record in learner.rounds(split.X, split.y):
            begin = perf_counter()
            measured = measure(learner.predict_proba(split.X_test), split.y_test)
            rows.append(
                {
                    "dataset": cell.dataset,
                    "network": cell.network,
                    "strategy": cell.strategy,
                    "seed": cell.seed,
                    "round": record["round"],
                    "n_labels": record["n_labels"],
                    **measured,
                    "query_seconds": record["query_seconds"],
                    "fit_seconds": record["adapt_seconds"],
                    "test_seconds": perf_counter() - begin,
                    **described,
                    "indices": record["indices"].tolist(),
                }
            )
        return rows

    def _keep(self, what: str, settings: Any, make: Any) -> Any:
        """Return the last value if it was made with the same settings, else make it."""
        if what not in self._kept or self._kept[what][0] != settings:
            self._kept.pop(what, None)
            self._kept[what] = settings, make()
        return self._kept[what][1]


def read_centers(
    asked: str | None, n: int | None, clf: CNNClassifier, root: Path | None
) -> SourceCenters:
    """Read `n` centres from a file or folder in `root`; the shipped ones if None."""
    if asked is None:
        every = shipped_centers(clf)
    else:
        found = find_data(asked, root, "The file or folder of source centres")
        if found.is_dir():
            return SourceCenters.from_dataset(clf, found, n_centers=n)
        every = SourceCenters.load(found)
    return every if n is None else every.subset(clf, n)


def measure(proba: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Measure accuracy and one-vs-rest AUC; with several labels average precision too.

    `y` holds class numbers (n,) or, with several labels per image, 0, 1 and -1 (not
    counted), (n, n_classes). AUC and average precision are means over the classes that
    some test images have and some have not; accuracy is then the share of images with
    all labels right. Images that cannot be decoded are left out.
    """
    read = ~np.isnan(proba).any(axis=1)
    proba, y = proba[read], y[read]
    several = y.ndim == 2
    truth = y if several else (y[:, None] == np.arange(proba.shape[1])).astype(int)
    counted = truth >= 0
    columns = [
        (truth[rows, k], proba[rows, k])
        for k, rows in enumerate(counted.T)
        if 0 < truth[rows, k].sum() < rows.sum()
    ]
    if several:
        right = (((proba > 0.5) == y) | ~counted).all(axis=1)
    else:
        right = proba.argmax(axis=1) == y
    measured = {
        "accuracy": float(right.mean()),
        "auc": float(np.mean([roc_auc_score(*column) for column in columns])),
    }
    if several:
        precisions = [average_precision_score(*column) for column in columns]
        measured["average_precision"] = float(np.mean(precisions))
    return measured
