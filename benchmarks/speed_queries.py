"""How fast queries are; a part of speed.py."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone
from speed_parts import SIDE, Measure, pool_at, seconds
from torch.utils.data import DataLoader, TensorDataset

from skadma import CNNClassifier, SourceCenters
from skadma.features.cache import MemoryCache
from skadma.images.dataset import ImageDataset
from skadma.networks import Normalize
from skadma.strategies import (
    ADMA,
    AIFT,
    MarginSampling,
    QueryStrategy,
    UncertaintyHerding,
)
from skadma.strategies.adma import _center_patterns


def source_images(folder: Path) -> tuple[list[Path], list[int]]:
    """List the photographs and their ImageNet classes."""
    folders = sorted(folder.glob("*/"))
    paths = [path for one in folders for path in sorted(one.iterdir())]
    return paths, [folders.index(path.parent) for path in paths]


def forward_pass(clf: CNNClassifier, X: np.ndarray) -> Callable[[], None]:
    """Make a function that runs M0 plainly over decoded images."""
    source = clf.source_network()
    dataset = ImageDataset(X, source.preprocessing)
    images = torch.stack([dataset[i] for i in range(len(dataset))])
    normalize = Normalize(source.preprocessing)
    loader = DataLoader(TensorDataset(images), batch_size=32)

    def run() -> None:
        with torch.inference_mode():
            for (batch,) in loader:
                source.module(normalize(batch))

    return run


def measure_query(folder: Path) -> Iterator[Measure]:
    """Time queries against a plain forward pass over the same images."""
    sources, classes = source_images(folder)
    fastest = {"engine": "openvino", "precision": "bfloat16"}
    for backbone, weights, n_frozen, sizes, engine in (
        ("efficientnet_lite0", "DEFAULT", "paper", (1399, 280), {}),
        ("efficientnet_lite0", "DEFAULT", "paper", (1399, 280), fastest),
        ("resnet18", None, "paper", (1399,), {}),
        ("resnet18", None, "paper", (1399,), fastest),
        ("resnet18", None, -4, (1399,), {}),
    ):
        clf = CNNClassifier(
            backbone,
            weights=weights,
            n_frozen_layers=n_frozen,
            image_size=SIDE,
            max_epochs=1,
            random_state=0,
            **engine,
        )
        centers = SourceCenters.from_dataset(clf, sources, classes)
        X = pool_at(clf.source_network().preprocessing.resize_size)
        for n in sizes:
            yield from time_queries(clf, ADMA(centers), X[:n])
            yield from time_queries(clf, UncertaintyHerding(), X[:n])


def time_queries(
    clf: CNNClassifier, strategy: QueryStrategy, X: np.ndarray
) -> Iterator[Measure]:
    """Time the first and the second round, from nothing that is kept."""
    forward = forward_pass(clf, X)
    forward()
    plain = seconds(forward, repeat=2)
    strategy = pickle.loads(pickle.dumps(strategy))  # knows no centre any more
    _center_patterns._OF_M0.clear()
    clf = clone(clf).set_params(memory=MemoryCache())

    def query() -> None:
        clf.memory.recent.clear()  # or the same query again would be a look-up
        strategy.query(clf, X, 20, X_labeled=X[:20])

    def predict() -> None:
        clf.memory.recent.clear()
        clf.predict_proba(X)

    cold = seconds(query)
    clf.fit(X[:20], np.arange(20) % 2)
    again = seconds(query, repeat=3)
    tail = seconds(predict, repeat=3)
    name = (
        f"{type(strategy).__name__}, {len(X)} images, {clf.backbone}, "
        f"n_frozen_layers={clf.n_frozen_layers!r}"
    )
    if clf.engine != "torch":
        name += f", {clf.engine} in {clf.precision}"
    parts = {"forward_s": plain, "cold_s": cold, "next_s": again, "tail_s": tail}
    centers = " and of 1000 centres" if isinstance(strategy, ADMA) else ""
    yield Measure(
        f"cold query / forward pass, {name}",
        cold / plain,
        "<= 1.05, aim 0.9",
        f"convolutions of the pool{centers}; a forward pass takes "
        f"{1e3 * plain / len(X):.1f} ms an image",
        parts,
    )
    yield Measure(
        f"next round's query / forward pass, {name}",
        again / plain,
        {"efficientnet_lite0": "<= 0.30" if centers else "<= 0.25"}.get(
            str(clf.backbone), "<= 0.35"
        ),
        f"the tail's own pass is {tail / plain:.3f} of the forward pass",
        parts,
    )
    yield Measure(
        f"next round's query / the tail's own pass, {name}",
        again / tail,
        "aim 1.10",
        "the tail, and 2 K d float64 operations an image for distances"
        if centers
        else "the tail, and n^2 d operations for the choice",
        parts,
    )


def measure_patches(folder: Path) -> Iterator[Measure]:
    """Time AIFT's 16 patches against a margin query, cold and in the next round."""
    X = pool_at(SIDE)[:128]
    for image_size in (SIDE, 224):
        clf = CNNClassifier(
            "efficientnet_lite0", image_size=image_size, max_epochs=1, random_state=0
        )
        clf.fit(X[:20], np.arange(20) % 2)
        memory = {kind: MemoryCache() for kind in (MarginSampling, AIFT)}
        spent: dict[type, list[float]] = {kind: [] for kind in memory}
        for _ in range(4):  # in turn: other work slows both alike
            for kind, cache in memory.items():
                clf.set_params(memory=cache)
                query = kind(random_state=0).query
                spent[kind].append(seconds(query, clf, X, 20))
        for phase, some in (("cold", slice(0, 1)), ("next round", slice(1, None))):
            margin, aift = (min(spent[kind][some]) for kind in (MarginSampling, AIFT))
            yield Measure(
                f"AIFT with 16 patches / margin, {phase}, {image_size} pixels",
                aift / margin,
                "<= 6",
                "16 windows of a quarter of the map's area, through the tail",
                {"aift_s": aift, "margin_s": margin},
            )
