"""Batch sizes, fine-tuning and several networks beside the default of campaigns.

    python benchmarks/make_image_sets.py DIR
    python benchmarks/bench_defaults.py DIR OUT.csv STUDY [--sets NAME ...]
    python benchmarks/bench_defaults.py DIR SUMMARY.csv STUDY --report

STUDY is "batches", "fine-tuning" or "networks". The outputs of EfficientNet-Lite0 (and
Lite1, Lite2, and of the mirror images) at 128 px are computed once and kept in
DIR/features. Pools of 600 images, 400 to test on, 160 labels. SKADMA_DATA names the
folder of the data sets that no package has. OUT.csv gets the curves, and a run that was
stopped goes on; --summary FILE gets a line per set, way and seed, of which --report
prints the tables.

The probe and UncertaintyHerding depend on the rows' products with each other only, so
that a label costs milliseconds here. The probe is the package's own, and the images
chosen are those that ActiveLearner chooses.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.special import softmax
from scipy.stats import wilcoxon
from sklearn.model_selection import train_test_split

from skadma import CNNClassifier
from skadma.bench.datasets import LabelledImages, load_dataset
from skadma.bench.report import markdown_table
from skadma.images.selection import take
from skadma.networks.heads import BlockLinear, get_head
from skadma.training.probe import fit_probe

PACKAGED = ("cifar10", "dogs-vs-cats", "elpv", "digits")
GIVEN = ("trash", "blood-cells")
MADE = ("letters", "slant", "textures", "cifar10-tail", "emoji", "icons", "mnist",
        "parity")  # fmt: skip
SETS = (*PACKAGED, *GIVEN, *MADE)
NETWORKS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
N_POOL, N_TEST, N_LABELS, STEP = 600, 400, 160, 20
SOME = (40, 80, N_LABELS)
STAGE = -6
"""The layer before the last stage, whose outputs fine-tuning starts from."""

Predict = Callable[[np.ndarray, np.ndarray, int], np.ndarray]
"""Labelled images, their classes, number of classes -> probabilities of all images."""


# --- features -------------------------------------------------------------------------


def read_images(name: str, folder: Path) -> LabelledImages:
    """Read a data set."""
    data = os.environ.get("SKADMA_DATA", "")
    if name in PACKAGED:
        return load_dataset(name, root=data)
    root = Path(data) / name if name in GIVEN else folder / "sets" / name
    return load_dataset("folder", root)


def read_features(
    name: str, folder: Path, kind: str = "lite0", n_most: int | None = None
) -> dict[str, np.ndarray]:
    """Compute features of a data set, or read them.

    `kind` is "lite0", "lite1", "lite2" (the last layer's input of ``layers/...``),
    "lite0_mirror" (that of the mirror images) or "stage" (what enters the last stage
    of Lite0). Of at most `n_most` images, which `rows` names.
    """
    path = folder / "features" / f"{name}{'' if kind == 'lite0' else '_' + kind}.npz"
    if not path.is_file():
        images = read_images(name, folder)
        network = f"efficientnet_{kind[:5]}" if kind != "stage" else NETWORKS[0]
        prefix, layer = ("", STAGE) if kind == "stage" else ("layers/", -2)
        clf = CNNClassifier(prefix + network, image_size=128, memory=False)
        parts, y = [images.X], np.asarray(images.y)
        split = np.zeros(len(y), np.int8)
        if images.y_test is not None:
            parts.append(images.X_test)
            y = np.concatenate([y, images.y_test])
            split = np.concatenate([split, np.ones(len(images.y_test), np.int8)])
        order = np.random.default_rng(0).permutation(len(y))
        rows, found = np.sort(order[:n_most]), []
        for k, part in enumerate(parts):
            some = take(part, rows[split[rows] == k] - k * len(parts[0]))
            if kind.endswith("mirror"):
                some = [mirrored(image) for image in some]
            found.append(clf.embed(some, layer)[layer])
        source = clf.source_network()
        head = get_head(source.module, source.graph.layers[-1].name)
        widths = head.block_widths if isinstance(head, BlockLinear) else [3072]
        path.parent.mkdir(exist_ok=True)
        np.savez(path, X=np.concatenate(found), block_widths=np.array(widths),
                 y=y[rows], split=split[rows], rows=rows)  # fmt: skip
    with np.load(path) as file:
        return {key: file[key] for key in file.files}


def mirrored(image: Any) -> np.ndarray:
    """Mirror an image, or the image of a file."""
    pixels = image
    if not isinstance(image, np.ndarray):
        pixels = np.asarray(Image.open(image).convert("RGB"))
    return np.ascontiguousarray(pixels[:, ::-1])


@dataclass
class Split:
    """Images of which the first `n_pool` are the pool, the others the test set.

    `products` are the images' products with each other, (n, n) for each block of a
    network's features, centred on the pool.
    """

    products: list[list[np.ndarray]]  # of each network, of each block
    y: np.ndarray
    n_pool: int
    rows: np.ndarray  # numbers of the images
    stage: np.ndarray | None = None


def draw(name: str, folder: Path, seed: int, kinds: tuple[str, ...],
         with_stage: bool = False) -> Split:  # fmt: skip
    """Draw a pool and a test set and compute products of their features."""
    found = [read_features(name, folder, kind) for kind in kinds]
    stage = read_features(name, folder, "stage") if with_stage else None
    known = [f["rows"] for f in (*found, *([stage] if stage else []))]
    common = known[0]
    for rows in known[1:]:
        common = np.intersect1d(common, rows)
    first = found[0]
    at = np.searchsorted(first["rows"], common)
    y = np.unique(first["y"], return_inverse=True)[1][at]
    n = min(len(y), N_POOL + N_TEST)
    some = np.arange(len(y))
    if n < len(y):
        some, _ = train_test_split(some, train_size=n, stratify=y, random_state=seed)
    n_test = min(N_TEST, int(0.4 * n))
    pool, test = train_test_split(
        some, test_size=n_test, stratify=y[some], random_state=seed
    )
    chosen = np.concatenate([pool, test])
    rows = common[chosen]
    products = []
    for kind, features in zip(kinds, found, strict=True):
        X = features["X"][np.searchsorted(features["rows"], rows)]
        if kind.endswith("mirror"):  # the mean of an image and its mirror image
            X = (X + first["X"][np.searchsorted(first["rows"], rows)]) / 2
        products.append(block_products(X, features["block_widths"], len(pool)))
    if stage:
        stage = stage["X"][np.searchsorted(stage["rows"], rows)]
    return Split(products, y[chosen], len(pool), rows, stage)


def block_products(X: np.ndarray, widths: np.ndarray, n_pool: int) -> list[np.ndarray]:
    """Products of rows with each other, block by block, centred on the pool's mean."""
    X = X - X[:n_pool].mean(axis=0)
    blocks = np.split(X, np.cumsum(widths)[:-1], axis=1)
    return [(block @ block.T).astype(float) for block in blocks]


# --- classifiers ----------------------------------------------------------------------


def probe_rows(products: list[list[np.ndarray]], labeled: np.ndarray) -> np.ndarray:
    """Rows as ProbeHead prepares them, in coordinates of the labelled rows' span.

    Of several networks each has the same share.
    """
    total = 0.0
    for blocks in products:
        for k, block in enumerate(blocks):
            square = 1.0 if len(blocks) == 1 else (1 + (k == 0)) / (len(blocks) + 1)
            some = block[:, labeled]
            mean = some.mean(axis=1)
            middle = mean[labeled].mean()
            norms = np.sqrt(np.maximum(np.diag(block) - 2 * mean + middle, 1e-12))
            some = some - mean[:, None] - mean[labeled] + middle
            share = square / len(products)
            total = total + share * some / norms[:, None] / norms[labeled]
    squares, vectors = np.linalg.eigh(total[labeled])
    kept = squares > 1e-10 * squares[-1]
    kept[-1] = True  # of a single image all products are 0
    return total @ (vectors[:, kept] / np.sqrt(np.maximum(squares[kept], 1e-12)))


def probe(products: list[list[np.ndarray]]) -> Predict:
    """Make the probe on blocks of one network or of several."""

    def predict(labeled: np.ndarray, y: np.ndarray, n_classes: int) -> np.ndarray:
        rows = probe_rows(products, labeled)
        found = fit_probe(rows[labeled], y, n_classes)
        return softmax(rows @ found.coef.T + found.intercept, axis=1)

    return predict


def mean_of(predicts: list[Predict]) -> Predict:
    """Make the classifier whose scores are the mean of several."""

    def predict(labeled: np.ndarray, y: np.ndarray, n_classes: int) -> np.ndarray:
        logs = [np.log(p(labeled, y, n_classes) + 1e-30) for p in predicts]
        return softmax(np.mean(logs, axis=0), axis=1)

    return predict


def best_of(candidates: list[list[list[np.ndarray]]]) -> Predict:
    """Make the probe with the least leave-one-out log loss, anew for each fit."""

    def predict(labeled: np.ndarray, y: np.ndarray, n_classes: int) -> np.ndarray:
        losses, found = [], []
        for products in candidates:
            rows = probe_rows(products, labeled)
            one = fit_probe(rows[labeled], y, n_classes)
            own = softmax(one.left_out, axis=1)[np.arange(len(y)), y]
            losses.append(-np.log(own + 1e-30).mean())
            found.append(softmax(rows @ one.coef.T + one.intercept, axis=1))
        return found[int(np.argmin(losses))]

    return predict


def last_stage() -> torch.nn.Sequential:
    """Make the layers of Lite0 that ``n_frozen_layers=-5`` trains, without the head."""
    net = CNNClassifier(NETWORKS[0], image_size=128).source_network().module
    layers = (net.blocks[-1], net.conv_head, net.bn2, net.global_pool)
    return torch.nn.Sequential(
        torch.nn.Unflatten(1, (192, 4, 4)), *copy.deepcopy(layers)
    )


def fine_tune(stage: np.ndarray, seed: int, n_epochs: int = 12) -> Predict:
    """Make the fine-tuned network, as CNNClassifier(n_frozen_layers=-5) trains it."""
    inputs = torch.from_numpy(stage)

    def predict(labeled: np.ndarray, y: np.ndarray, n_classes: int) -> np.ndarray:
        torch.manual_seed(seed)
        layers = last_stage().eval()  # the statistics of batch norms stay
        for parameter in layers.parameters():
            parameter.requires_grad_(True)
        head = torch.nn.Linear(1280, n_classes)
        train(layers, head, inputs[labeled], torch.from_numpy(y), n_epochs)
        return predict_proba(layers, head, inputs)

    return predict


def fine_tune_deep(name: str, folder: Path, split: Split, seed: int) -> Predict:
    """CNNClassifier's default: 28 layers are trained for 20 epochs."""
    images = read_images(name, folder)
    X = list(images.X) + ([] if images.X_test is None else list(images.X_test))
    chosen = [X[i] for i in split.rows]

    def predict(labeled: np.ndarray, y: np.ndarray, n_classes: int) -> np.ndarray:
        clf = CNNClassifier("efficientnet_lite0", image_size=128, random_state=seed,
                            classes=np.arange(n_classes))  # fmt: skip
        clf.fit([chosen[i] for i in labeled], y)
        proba = np.zeros((len(chosen), n_classes))
        proba[split.n_pool :] = clf.predict_proba(chosen[split.n_pool :])
        return proba

    return predict


def train(
    layers: torch.nn.Module,
    head: torch.nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    n_epochs: int,
    head_lr: float = 1e-3,
) -> None:
    """Train with CNNClassifier's defaults."""
    optimizer = torch.optim.AdamW(
        [{"params": layers.parameters()}, {"params": head.parameters(), "lr": head_lr}],
        lr=1e-4,
    )
    for _ in range(n_epochs):
        for batch in torch.randperm(len(inputs)).split(16):
            scores = head(layers(inputs[batch]))
            loss = torch.nn.functional.cross_entropy(scores, targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def predict_proba(
    layers: torch.nn.Module, head: torch.nn.Module, inputs: torch.Tensor
) -> np.ndarray:
    """Probabilities of all classes."""
    with torch.no_grad():
        scores = torch.cat([head(layers(batch)) for batch in inputs.split(64)])
    return softmax(scores.numpy().astype(float), axis=1)


# --- UncertaintyHerding ---------------------------------------------------------------


def squared_distances(products: list[list[np.ndarray]], n_pool: int) -> np.ndarray:
    """Squared distances (n, n) of the pool's rows, of length 1 for each network."""
    total = np.zeros((n_pool, n_pool))
    for blocks in products:
        product = sum(block[:n_pool, :n_pool] for block in blocks)
        norms = np.sqrt(np.diag(product))
        total += product / norms[:, None] / norms / len(products)
    return np.maximum(2 - 2 * total, 0).astype(np.float32)


class Herding:
    """UncertaintyHerding on squared distances (n, n)."""

    def __init__(self, squared: np.ndarray) -> None:
        self.squared = squared
        self.nearest = np.sort(squared, axis=1).mean(axis=0, dtype=float)

    def choose(
        self, labeled: np.ndarray, proba: np.ndarray | None, n: int, n_shares: int
    ) -> list[int]:
        """Choose n images; the kernel's width is that of n_shares equal shares."""
        rest = np.setdiff1d(np.arange(len(self.squared)), labeled)
        k = min(max(len(self.squared) // n_shares, 1), len(self.squared) - 1)
        width = np.float32(self.nearest[k])
        weights = np.ones(len(rest), np.float32)
        if proba is not None:
            two = -np.partition(-proba[rest], 1, axis=1)[:, :2]
            uncertain = 1 - (two[:, 0] - two[:, 1])
            if uncertain.max() > 0:
                weights = (uncertain + 1e-6 * uncertain.max()).astype(np.float32)
        covered = np.zeros(len(rest), np.float32)
        if len(labeled):
            near = self.squared[np.ix_(labeled, rest)].min(axis=0)
            covered = np.exp(near / -width)
        similar = np.exp(self.squared[np.ix_(rest, rest)] / -width)
        chosen = []
        for _ in range(n):
            gains = np.maximum(similar - covered, 0) @ weights
            gains[chosen] = -1
            chosen.append(int(gains.argmax()))
            covered = np.maximum(covered, similar[chosen[-1]])
        return list(rest[chosen])


def simulate(
    split: Split, predict: Predict, herding: Herding | None, seed: int,
    batch: int = STEP, first: int | None = None, ahead: int | None = None,
    n_labels: int = N_LABELS, tested: Predict | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Label the pool in batches and test after each 20 labels.

    `first` is the first batch's size and `ahead` what is added to the number of labels
    for the kernel's width, both by default the batch's; without `herding` choices are
    random. `predict` chooses, and is tested; with `tested` that is, at some numbers of
    labels.
    """
    order = np.random.default_rng(seed).permutation(split.n_pool)
    n_classes = split.y.max() + 1
    labeled, proba, rows = np.zeros(0, int), None, []
    fit_seconds = query_seconds = 0.0
    while len(labeled) < n_labels:
        n = batch if len(labeled) or first is None else first
        begin = time.process_time()
        if herding is None:
            chosen = order[len(labeled) : len(labeled) + n]
        else:
            chosen = herding.choose(labeled, proba, n, len(labeled) + (ahead or n))
        labeled = np.concatenate([labeled, np.asarray(chosen, int)])
        middle = time.process_time()
        proba = predict(labeled, split.y[labeled], n_classes)
        fit_seconds += time.process_time() - middle
        query_seconds += middle - begin
        if len(labeled) % STEP == 0 and (tested is None or len(labeled) in SOME):
            if tested is not None:
                middle = time.process_time()
                test = tested(labeled, split.y[labeled], n_classes)[split.n_pool :]
                fit_seconds = time.process_time() - middle
            else:
                test = proba[split.n_pool :]
            test = test.argmax(axis=1)
            accuracy = (test == split.y[split.n_pool :]).mean()
            rows.append({
                "n_labels": len(labeled),
                "accuracy": round(float(accuracy), 4),
                "classes_seen": len(np.unique(split.y[labeled])),
                "fit_seconds": round(fit_seconds, 3),
                "query_seconds": round(query_seconds, 3),
            })  # fmt: skip
            fit_seconds = query_seconds = 0.0
    return rows


# --- studies --------------------------------------------------------------------------


def batches(name: str, folder: Path, seed: int) -> dict[str, Callable[[], Any]]:
    """Batches of 1 to 20, as they are, and with what may explain the difference."""
    split = draw(name, folder, seed, ("lite0",))
    model = probe(split.products)
    herding = Herding(squared_distances(split.products, split.n_pool))

    def way(batch: int, **how: Any) -> Callable[[], Any]:
        return lambda: simulate(split, model, herding, seed, batch, **how)

    ways = {"random": lambda: simulate(split, model, None, seed)}
    for batch in (20, 10, 5):
        ways[f"{batch}"] = way(batch)
    ways["5, first 20 at once"] = way(5, first=20)
    ways["5, width of 20 more"] = way(5, ahead=20)
    ways["5, both"] = way(5, first=20, ahead=20)
    for batch in (1, 2):
        ways[f"{batch}"] = way(batch)
    ways["1, both"] = way(1, first=20, ahead=20)
    return ways


def fine_tuning(name: str, folder: Path, seed: int) -> dict[str, Callable[[], Any]]:
    """The probe on several layers, on the last one, and fine-tuning."""
    split = draw(name, folder, seed, ("lite0",), with_stage=True)
    last = [split.products[0][:1]]
    assert split.stage is not None
    models = {
        "probe on several layers": (split.products, probe(split.products)),
        "probe on the last layer": (last, probe(last)),
        "fine-tuning": (last, fine_tune(split.stage, seed)),
    }
    ways = {}
    for key, (products, model) in models.items():
        herding = Herding(squared_distances(products, split.n_pool))
        ways[key] = lambda m=model, h=herding: simulate(split, m, h, seed)
    several = models["probe on several layers"]
    ways["28 layers fine-tuned"] = lambda: simulate(
        split, several[1], Herding(squared_distances(several[0], split.n_pool)), seed,
        tested=fine_tune_deep(name, folder, split, seed),
    )  # fmt: skip
    return ways


def networks(name: str, folder: Path, seed: int) -> dict[str, Callable[[], Any]]:
    """Lite0 alone, three networks and mirror images."""
    split = draw(name, folder, seed, ("lite0", "lite1", "lite2", "lite0_mirror"))
    one, three, mirror = split.products[:1], split.products[:3], split.products[3:]
    row = [[block for blocks in three for block in blocks]]
    models = {
        "Lite0": (one, probe(one)),
        "three, one row": (row, probe(row)),
        "three, one row, shares": (row, probe(three)),
        "three, joined": (three, probe(three)),
        "three, mean of scores": (three, mean_of([probe([p]) for p in three])),
        "Lite2": (split.products[2:3], probe(split.products[2:3])),
        "mean with the mirror image": (mirror, probe(mirror)),
        "chosen by leave-one-out": (three, best_of([[p] for p in three])),
        "... or three, joined": (three, best_of([*([p] for p in three), three])),
    }
    ways = {"Lite0, random": lambda: simulate(split, probe(one), None, seed)}
    for key, (products, model) in models.items():
        herding = Herding(squared_distances(products, split.n_pool))
        ways[key] = lambda m=model, h=herding: simulate(split, m, h, seed)
    return ways


STUDIES = {"batches": batches, "fine-tuning": fine_tuning, "networks": networks}


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


def summary(results: pd.DataFrame) -> pd.DataFrame:
    """Mean accuracy over rounds, accuracy at some numbers of labels, seconds."""
    cells = results.pivot_table("accuracy", ["set", "way", "seed"], "n_labels")
    table = cells[[*range(STEP, N_LABELS + 1, STEP)]].add_prefix("at_")
    means = cells.mean(axis=1).where(table.notna().all(axis=1))
    table.insert(0, "mean", means.round(4))
    seconds = results.groupby(["set", "way", "seed"])[["fit_seconds", "query_seconds"]]
    return table.join(seconds.sum().round(2)).reset_index()


def by_set(cells: pd.DataFrame) -> str:
    """Accuracy of each set in percent: the curve's mean, and at some labels."""
    sets = [name for name in SETS if name in set(cells["set"])]
    rows = []
    for column in ("mean", "at_40", "at_80", "at_160"):
        table = 100 * cells.pivot_table(column, "way", "set", sort=False)[sets]
        for way, row in table.iterrows():
            labels = "" if column == "mean" else f", {column[3:]} labels"
            values = (f"{v:.1f}" if v == v else "-" for v in (*row, row.mean()))
            rows.append([f"{way}{labels}", *values])
    return markdown_table(["", *sets, "mean"], rows)


def beside_batches_of_20(cells: pd.DataFrame) -> str:
    """Points of each way above batches of 20 on the same pairs, Wilcoxon's p."""
    columns = ["mean", "at_40", "at_80", "at_160"]
    pairs = cells.set_index(["way", "set", "seed"])[columns]
    rows = []
    for way in cells["way"].unique():
        if way != "20":
            gains = (100 * (pairs.loc[way] - pairs.loc["20"]).dropna()).round(2)
            texts = (f"{gains[c].mean():.2f} ({wilcoxon(gains[c])[1]:.2f})"
                     for c in columns)  # fmt: skip
            rows.append([way, str(len(gains)), *texts])
    head = ["batch", "pairs", "mean of 20 to 160 labels", "at 40", "at 80", "at 160"]
    return markdown_table(head, rows)


def labels_saved(cells: pd.DataFrame) -> str:
    """Accuracies, and the share of 160 labels for what Lite0 has with random ones.

    Of what random labels reach with the same seeds.
    """
    curve = [f"at_{n}" for n in range(STEP, N_LABELS + 1, STEP)]
    rows = []
    for way in cells["way"].unique():
        mine = cells[cells["way"] == way]
        means = mine.groupby("set")[["mean", *curve]].mean()
        shares = []
        for name, row in means.iterrows():
            seeds = mine.loc[mine["set"] == name, "seed"]
            wanted = cells[(cells["way"] == "Lite0, random") & (cells["set"] == name)]
            wanted = wanted[wanted["seed"].isin(seeds)]
            accuracies = pd.Series(row[curve].to_numpy(), range(20, 161, 20))
            needed = labels_needed(accuracies, wanted["at_160"].mean())
            shares.append(min(needed, N_LABELS) / N_LABELS if needed == needed else 1)
        values = means["mean"].mean(), means["at_160"].mean()
        rows.append([way, *(f"{v:.3f}" for v in values), f"{np.mean(shares):.2f}"])
    return markdown_table(["", "mean accuracy", "at 160", "labels"], rows)


def report(cells: pd.DataFrame, study: str) -> str:
    """Make the tables of a study."""
    tables = {"batches": beside_batches_of_20, "networks": labels_saved}
    parts = [tables[study](cells)] if study in tables else []
    return "\n\n".join((*parts, by_set(cells)))


def main() -> None:
    """Run what is asked for, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--ways", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int, default=[40, 41, 42])
    parser.add_argument("--summary", type=Path)
    parser.add_argument(
        "--report", action="store_true", help="print a summary's tables"
    )
    options = parser.parse_args()
    known = pd.read_csv(options.out) if options.out.is_file() else pd.DataFrame()
    if options.report:
        print(report(known, options.study))
        return
    done = set()
    if len(known):
        done = {tuple(cell) for cell in known[["set", "way", "seed"]].values}
    for seed in options.seeds:
        for name in options.sets:
            ways = STUDIES[options.study](name, options.folder, seed)
            for way, run in ways.items():
                if (name, way, seed) in done or way not in (options.ways or ways):
                    continue
                key = {"set": name, "way": way, "seed": seed}
                rows = pd.DataFrame([key | row for row in run()])
                known = pd.concat([known, rows])
                known.to_csv(options.out, index=False)
    if options.summary:
        summary(known).to_csv(options.summary, index=False)
    print(report(summary(known), options.study))


if __name__ == "__main__":
    main()
