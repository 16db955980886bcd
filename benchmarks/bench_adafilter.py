"""AdaFilter against fine-tuning and L2-SP: all layers and many labels, or few of both.

    python benchmarks/bench_adafilter.py run RUNS.csv "all layers"
    python benchmarks/bench_adafilter.py run RUNS.csv "few labels"
    python benchmarks/bench_adafilter.py report RUNS.csv

`run` appends a line as each training ends and skips those that the file has, so a
stopped run goes on. In "all layers" seed 0 chooses the learning rates of fine-tuning
and AdaFilter: three are tried on 30 % of the training images and measured on another
30 %. L2-SP takes fine-tuning's. The other seeds train on all training images with that
rate and are tested. `report` prints the table of docs/adafilter.md. SKADMA_DATA names
the folder with the data sets; elpv and the weights are packages.
"""

from __future__ import annotations

import argparse
import csv
import os
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy import stats
from sklearn.model_selection import train_test_split
from skorch.callbacks import Callback

from skadma import AdaFilterClassifier, CNNClassifier
from skadma.bench.datasets import LabelledImages, load_dataset, split_dataset
from skadma.bench.report import markdown_table
from skadma.images.selection import take

NETWORK = "efficientnet_lite0"
BASE = "fine-tuning"
METHODS = {BASE: BASE, "AdaFilter": "AdaFilter", "L2-SP": BASE}
"""Each with the one whose learning rate it takes."""
OTHERS = ("AdaFilter", "L2-SP")


@dataclass(frozen=True)
class Setting:
    """What is trained, and on how much."""

    datasets: tuple[str, ...]
    n_train: int
    n_test: int
    epochs: dict[float, int]
    """By share of the training set; the same for all methods."""
    rates: tuple[float, ...]
    """Factors of the default learning rates, of layers and head; none: not tuned."""
    image_size: int
    n_frozen: int | str
    batch_norm: str


SETTINGS = {
    "all layers": Setting(
        datasets=("trash", "cifar10", "elpv"),
        n_train=1800,
        n_test=600,
        epochs={1.0: 4},
        rates=(1, 3, 10),
        image_size=48,
        n_frozen=0,
        batch_norm="update",
    ),
    "few labels": Setting(
        datasets=("dogs-vs-cats", "cifar10", "elpv"),
        n_train=400,
        n_test=400,
        epochs={0.05: 20, 0.2: 10, 1.0: 6},
        rates=(),
        image_size=96,
        n_frozen="paper",
        batch_norm="fixed",
    ),
}
COLUMNS = (
    "setting", "dataset", "measured_on", "share", "seed", "method", "rate",
    "n_labels", "n_test", "error", "train_seconds", "open_gates",
)  # fmt: skip
KEY = list(COLUMNS[:7])


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


# --- runs -----------------------------------------------------------------------------


def run(options: argparse.Namespace) -> None:
    """Train and test what the file lacks."""
    torch.set_num_threads(1)  # so that processor time is comparable
    setting = SETTINGS[options.setting]
    for dataset in options.datasets or setting.datasets:
        given = ("folder", dataset) if dataset == "trash" else (dataset, None)
        images = load_dataset(*given, root=os.environ.get("SKADMA_DATA"))
        trainings = product(options.seeds, setting.epochs, options.methods)
        for seed, share, method in trainings:
            on, rates, tuned = "test", setting.rates or (1,), METHODS[method]
            if setting.rates and seed == 0:
                on, rates = "validation", rates if tuned == method else ()
            elif setting.rates:
                rates = (best_rate(read(options.runs), dataset, tuned),)
            for rate in rates:
                cell = (options.setting, dataset, on, share, seed, method, rate)
                done = read(options.runs)[KEY].itertuples(index=False, name=None)
                if cell in set(done):
                    continue
                split = split_dataset(images, seed, setting.n_train, setting.n_test)
                found = train(setting, share_of(split, share, on, seed), *cell[3:])
                append(options.runs, dict(zip(KEY, cell, strict=True)) | found)


def share_of(split: LabelledImages, share: float, on: str, seed: int) -> LabelledImages:
    """Take a share of the training set, and what to measure on."""
    every = np.arange(len(split.y))
    drawn = {"stratify": split.y, "random_state": seed}
    if on == "validation":
        some, others = train_test_split(every, train_size=0.3, test_size=0.3, **drawn)
        X_test, y_test = take(split.X, others), split.y[others]
    else:
        some, X_test, y_test = every, split.X_test, split.y_test
        if share < 1:
            some, _ = train_test_split(every, train_size=share, **drawn)
    some = np.sort(some)
    return LabelledImages(take(split.X, some), split.y[some], X_test, y_test)


def train(
    setting: Setting,
    images: LabelledImages,
    share: float,
    seed: int,
    method: str,
    rate: float,
) -> dict[str, Any]:
    """Train by one method and measure."""
    kind = AdaFilterClassifier if method == "AdaFilter" else CNNClassifier
    clf = kind(
        NETWORK,
        image_size=setting.image_size,
        n_frozen_layers=setting.n_frozen,
        batch_norm=setting.batch_norm,
        max_epochs=setting.epochs[share],
        lr=1e-4 * rate,
        head_lr=1e-3 * rate,
        random_state=seed,
    )
    if method == "L2-SP":
        clf.set_params(callbacks=[L2SP()], net_params__optimizer__weight_decay=0.0)
    if setting.n_frozen:
        clf.source_proba(images.X)  # the frozen part is none of the methods' doing
    begin = process_time()
    clf.fit(images.X, images.y)
    seconds = process_time() - begin
    error = float((clf.predict(images.X_test) != images.y_test).mean())
    gates: Any = ""
    if isinstance(clf, AdaFilterClassifier):
        gates = round(float(np.mean(list(clf.gate_usage(images.X_test).values()))), 4)
    return {
        "n_labels": len(images.y),
        "n_test": len(images.y_test),
        "error": round(error, 5),
        "train_seconds": round(seconds, 1),
        "open_gates": gates,
    }


def best_rate(runs: pd.DataFrame, dataset: str, method: str) -> float:
    """Find the rate with the least error on the images held out."""
    held_out = runs[runs["measured_on"] == "validation"]
    cells = held_out.set_index(["dataset", "method", "rate"]).sort_index()
    return float(cells.loc[(dataset, method), "error"].idxmin())


def read(path: Path) -> pd.DataFrame:
    """Read the rows that there are."""
    if not path.is_file():
        return pd.DataFrame(columns=COLUMNS)
    return pd.read_csv(path)


def append(path: Path, row: dict[str, Any]) -> None:
    """Write a row, after the names of the columns where the file is new."""
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(row, flush=True)


# --- report ---------------------------------------------------------------------------


def report(options: argparse.Namespace) -> None:
    """Print the rates that were chosen and the table of docs/adafilter.md."""
    runs = read(options.runs)
    tuned = runs[runs["measured_on"] == "validation"]
    cells = ["setting", "dataset", "method"]
    print(tuned.pivot(index=cells, columns="rate", values="error").round(3), "\n")
    tested = runs[runs["measured_on"] == "test"]
    rows = []
    for name, mine in tested.groupby("setting", sort=False):
        if name == "all layers":
            sets = mine.groupby("dataset", sort=False)
            rows += [line(f"{name}, {dataset}", some) for dataset, some in sets]
        rows.append(line(f"{name}, all sets", mine))
    gains = [f"{method} gains" for method in OTHERS]
    head = ["", "labels", f"{BASE}, %", "AdaFilter, %", *gains, "time", "open"]
    print(markdown_table(head, rows))


def line(name: str, runs: pd.DataFrame) -> list[str]:
    """Errors, points gained over fine-tuning, AdaFilter's time and open gates."""
    pairs = runs.pivot(index=["dataset", "share", "seed"], columns="method")
    error = 100 * pairs["error"].reindex(columns=list(METHODS))
    seconds = pairs["train_seconds"].dropna(subset=[BASE, "AdaFilter"])
    labels = sorted({runs["n_labels"].min(), runs["n_labels"].max()})
    times = seconds["AdaFilter"].sum() / seconds[BASE].sum()
    return [
        name,
        " to ".join(map(str, labels)),
        *(f"{error[method].mean():.1f}" for method in (BASE, "AdaFilter")),
        *(interval(error[BASE] - error[method]) for method in OTHERS),
        f"{times:.1f}",
        f"{runs['open_gates'].mean():.0%}",
    ]


def interval(gains: pd.Series) -> str:
    """Mean of paired differences (how many: Student's interval of at least three)."""
    gains = gains.dropna()
    mean, n = gains.mean(), len(gains)
    if n < 3:
        return f"{mean:+.2f} ({n})"
    half = stats.t.ppf(0.975, n - 1) * gains.std() / n**0.5
    return f"{mean:+.2f} ({n}: {mean - half:+.2f} to {mean + half:+.2f})"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    for command in (run, report):
        sub = commands.add_parser(command.__name__)
        sub.set_defaults(command=command)
        sub.add_argument("runs", type=Path)
        if command is run:
            sub.add_argument("setting", choices=SETTINGS)
            sub.add_argument("--datasets", nargs="+")
            sub.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
            sub.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    options = parser.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()
