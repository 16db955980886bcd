"""Ten rounds of 20 labels, end to end: skadma, scikit-activeml and modAL.

    pip install "scikit-learn==1.7.*" scikit-activeml==1.0.1
    pip install --no-deps modAL-python==0.4.2.1
    python benchmarks/bench_end_to_end.py OUT.csv [--data DIR] [--sets NAME=FOLDER ...]
    python benchmarks/bench_end_to_end.py OUT.csv --md

modAL needs scikit-learn < 1.8, so an environment of its own is best. All get the same
images, splits, EfficientNet-Lite0 at 128 x 128, labels and seeds, on one thread. The
peers have no networks for images: there, the penultimate features are extracted by a
plain loop of torch, as their documentation advises, and a logistic regression is fitted
to them. Seconds are the processor's, without scoring on the test set.

The peers' features are extracted once before the first round, which needs room and code
for them, or by a pipeline that begins with the network, where every round passes over
the pool anew: the table has both, the latter as ten times the pass that was measured.
OUT.csv gets a row per round; a run that was stopped goes on. --md prints the tables.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pandas as pd
import torch
from modAL.batch import uncertainty_batch_sampling
from modAL.models import ActiveLearner as ModALLearner
from modAL.uncertainty import margin_sampling
from skactiveml.classifier import SklearnClassifier
from skactiveml.pool import (
    Badge,
    MaxHerding,
    RandomSampling,
    TypiClust,
    UncertaintySampling,
)
from sklearn.linear_model import LogisticRegression
from torch.utils.data import DataLoader

from skadma import CNNClassifier, strategies
from skadma.bench.datasets import LabelledImages, load_dataset, split_dataset
from skadma.features.cache import MemoryCache
from skadma.images.dataset import ImageDataset
from skadma.images.selection import n_images, take
from skadma.networks.adapted import Normalize

BACKBONE, SIDE = "efficientnet_lite0", 128
N_ROUNDS, N_INSTANCES = 10, 20
POOL, TEST = 1000, 500
SEEDS = range(5)
SLOW_SEEDS = range(2)
BASE = "scikit-activeml, random"
COLUMNS = ("set", "way", "seed", "n_labels", "accuracy", "seconds", "extract_seconds")

Rounds = Iterator[tuple[float, np.ndarray]]
"""After each round: its seconds, and the classes predicted for the test set."""


def ours(
    training: str, strategy: str, backbone: str = BACKBONE, **params: str
) -> Callable[..., Rounds]:
    """Rounds of skadma, with a cache in the process that is empty at first."""

    def run(split: LabelledImages, seed: int, features: Any) -> Rounds:
        clf = CNNClassifier(
            backbone,
            image_size=SIDE,
            training=training,
            classes=np.arange(len(split.classes)),
            memory=MemoryCache(),
            random_state=seed,
            **params,
        )
        asked = getattr(strategies, strategy)(random_state=seed)
        labeled = np.array([], dtype=int)
        for _ in range(N_ROUNDS):
            begin = process_time()
            rest = np.setdiff1d(np.arange(len(split.y)), labeled)
            known = {}
            if len(labeled):
                known = {"X_labeled": take(split.X, labeled),
                         "y_labeled": split.y[labeled]}  # fmt: skip
            chosen = asked.query(clf, take(split.X, rest), N_INSTANCES, **known)
            labeled = np.append(labeled, rest[chosen])
            clf.fit(take(split.X, labeled), split.y[labeled])
            yield process_time() - begin, clf.predict(split.X_test)

    return run


def activeml(
    strategy: Callable[..., Any], with_clf: bool = False
) -> Callable[..., Rounds]:
    """Rounds of scikit-activeml on features."""

    def run(
        split: LabelledImages, seed: int, features: tuple[np.ndarray, np.ndarray]
    ) -> Rounds:
        X, X_test = features
        classes = np.arange(len(split.classes))
        model = LogisticRegression(max_iter=1000)
        clf = SklearnClassifier(model, classes=classes, random_state=seed)
        asked, y = strategy(random_state=seed), np.full(len(X), np.nan)
        given = {"clf": clf, "fit_clf": False} if with_clf else {}
        clf.fit(X, y)
        for _ in range(N_ROUNDS):
            begin = process_time()
            chosen = asked.query(X, y, batch_size=N_INSTANCES, **given)
            y[chosen] = split.y[chosen]
            clf.fit(X, y)
            yield process_time() - begin, clf.predict(X_test)

    return run


def modal(strategy: Callable[..., Any]) -> Callable[..., Rounds]:
    """Rounds of modAL on features; it begins with labels at random."""

    def run(
        split: LabelledImages, seed: int, features: tuple[np.ndarray, np.ndarray]
    ) -> Rounds:
        X, X_test = features
        begin = process_time()
        order = np.random.default_rng(seed).permutation(len(X))
        first, rest = order[:N_INSTANCES], np.sort(order[N_INSTANCES:])
        model = LogisticRegression(max_iter=1000)
        learner = ModALLearner(model, strategy, X[first], split.y[first])
        yield process_time() - begin, learner.predict(X_test)
        for _ in range(N_ROUNDS - 1):
            begin = process_time()
            chosen, _ = learner.query(X[rest], n_instances=N_INSTANCES)
            learner.teach(X[rest[chosen]], split.y[rest[chosen]])
            rest = np.delete(rest, chosen)
            yield process_time() - begin, learner.predict(X_test)

    return run


def activeml_margin(random_state: int) -> UncertaintySampling:
    """Margin sampling of scikit-activeml."""
    return UncertaintySampling(method="margin_sampling", random_state=random_state)


WAYS: dict[str, Callable[..., Rounds]] = {
    "skadma, probe, UncertaintyHerding": ours("probe", "UncertaintyHerding"),
    "skadma, probe of middle layers, UncertaintyHerding": ours(
        "probe", "UncertaintyHerding", f"layers/{BACKBONE}"
    ),
    "skadma, probe, UncertaintyHerding, OpenVINO in bfloat16": ours(
        "probe", "UncertaintyHerding", engine="openvino", precision="bfloat16"
    ),
    "skadma, probe, random": ours("probe", "RandomSampling"),
    BASE: activeml(RandomSampling),
    "scikit-activeml, margin": activeml(activeml_margin, with_clf=True),
    "scikit-activeml, TypiClust": activeml(TypiClust),
    "scikit-activeml, Badge": activeml(Badge, with_clf=True),
    "scikit-activeml, MaxHerding": activeml(MaxHerding),
    "modAL, margin": modal(margin_sampling),
    "modAL, ranked batch": modal(uncertainty_batch_sampling),
    "skadma, fine-tuning, random": ours("fine-tune", "RandomSampling"),
}
SLOW = ("skadma, fine-tuning, random",)


def extracted(X: Any) -> tuple[np.ndarray, float]:
    """Penultimate features by a plain loop of torch, and the seconds it took."""
    source = CNNClassifier(BACKBONE, image_size=SIDE).source_network()
    loader = DataLoader(ImageDataset(X, source.preprocessing), batch_size=32)
    normalize, found = Normalize(source.preprocessing), []
    last = [m for m in source.module.modules() if isinstance(m, torch.nn.Linear)][-1]
    hook = last.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    begin = process_time()
    with torch.inference_mode():
        for batch in loader:
            source.module(normalize(batch))
    seconds = process_time() - begin
    hook.remove()
    return torch.cat(found).numpy(), seconds


def measure(out: Path, name: str, images: Any, ways: list[str]) -> None:
    """Run what is missing of one data set."""
    done = set()
    if out.is_file():
        table = pd.read_csv(out)
        done = set(table[["set", "way", "seed"]].itertuples(index=False, name=None))
    for seed in SEEDS:
        missing = [way for way in ways if (name, way, seed) not in done]
        missing = [w for w in missing if w not in SLOW or seed in SLOW_SEEDS]
        if not missing:
            continue
        split = split_dataset(images, seed, POOL, TEST)
        X, spent = extracted(split.X)
        features = X, extracted(split.X_test)[0]
        for way in missing:
            rows = []
            for i, (seconds, found) in enumerate(WAYS[way](split, seed, features), 1):
                accuracy = float(np.mean(found == split.y_test))
                rows.append((name, way, seed, i * N_INSTANCES, accuracy,
                             round(seconds, 3), round(spent, 2)))  # fmt: skip
            new = not out.is_file()
            with out.open("a", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerows([COLUMNS, *rows] if new else rows)
            print(name, n_images(split.X), *rows[-1][1:], flush=True)


def tables(out: Path) -> str:
    """Make a table for each data set, as Markdown."""
    lines: list[str] = []
    table = pd.read_csv(out)
    for name, of_set in table.groupby("set", sort=False):
        spent = of_set.extract_seconds.mean()
        curves = of_set.groupby(["way", "n_labels"]).accuracy.mean().unstack("way")
        target = curves[BASE].iloc[-1]
        lines += [
            f"\n{name}: labels needed for {target:.1%}; a pass of the peers over the "
            f"pool takes {spent:.1f} s",
            "",
            "| | labels needed | mean accuracy | final | first round, s | "
            "later rounds, s | 10 rounds, s | 10 rounds with a pass in each, s |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for way in WAYS:
            rows = of_set[of_set.way == way]
            if rows.empty:
                continue
            theirs = 0.0 if way.startswith("skadma") else spent
            seconds = rows.groupby("n_labels").seconds.mean()
            total = seconds.sum() + theirs
            again = f"{total + theirs * (N_ROUNDS - 1):.1f}" if theirs else ""
            lines.append(
                f"| {way} | {needed(curves[way], target)} | {curves[way].mean():.3f} | "
                f"{curves[way].iloc[-1]:.3f} | {seconds.iloc[0] + theirs:.1f} | "
                f"{seconds.iloc[1:].mean():.2f} | {total:.1f} | {again} |"
            )
    return "\n".join(lines)


def needed(curve: pd.Series, target: float) -> str:
    """Labels at which a mean curve first has that accuracy, linear between rounds."""
    above = np.flatnonzero(curve.to_numpy() >= target)
    if not len(above):
        return f"> {curve.index[-1]}"
    i = above[0]
    if i == 0:
        return f"<= {curve.index[0]}"
    share = (target - curve.iloc[i - 1]) / (curve.iloc[i] - curve.iloc[i - 1])
    return f"{curve.index[i - 1] + share * N_INSTANCES:.0f}"


def main() -> None:
    """Measure what is missing, or print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("SKADMA_DATA"))
    usual = ["cifar10", "dogs-vs-cats"]
    parser.add_argument("--sets", nargs="+", default=usual, help="or NAME=FOLDER")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--md", action="store_true")
    options = parser.parse_args()
    if not options.md:
        torch.set_num_threads(1)
        for entry in options.sets:
            name, _, path = entry.partition("=")
            kind = "folder" if path else name
            images = load_dataset(kind, path or None, options.data)
            measure(options.out, name, images, options.ways)
    print(tables(options.out))


if __name__ == "__main__":
    main()
