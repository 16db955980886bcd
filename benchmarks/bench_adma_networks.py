"""ADMA with the networks of the paper's time, beside random choice.

    SKADMA_DATA=FOLDER python benchmarks/bench_adma_networks.py CACHE OUT.csv

`networks_of_the_paper.py CACHE` makes MobileNet v1 and VGG-16, which the package does
not have. VGG-16 ends at its last convolution: it has no scores of source classes, so
ADMA's weights are distances there, and the new head reads its 512 channels' means. The
first layers are frozen (7 of VGG-16 as in the paper, 4/9 of the others), the rest is
fine-tuned in each of 8 rounds of 20 labels. A row of OUT is a simulation; those that it
has are not run again, and the table is printed of all that it has. `--dry` prints only.
"""

from __future__ import annotations

import argparse
import csv
import os
from functools import partial
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pandas as pd
import torch
from networks_of_the_paper import mobilenet_v1, prepare, vgg16

from skadma.bench.analysis import area_under_curve
from skadma.bench.cells import Workbench
from skadma.bench.config import Cell

SETS: dict[str, dict[str, Any]] = {
    "cifar10": {"class": "cifar10", "path": None},
    "dogs-vs-cats": {"class": "dogs-vs-cats", "path": None},
    "elpv": {"class": "elpv", "path": None},
    "trash": {"class": "folder", "path": "trash"},
}
FROZEN = {"MobileNet v1": 12, "VGG-16": 7, "EfficientNet-Lite0": 22}
"""Frozen layers, by network: the paper's for VGG-16, 4/9 of the others' layers."""
STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {"class": "RandomSampling"},
    "ADMA": {"class": "ADMA"},
    "ADMA-2": {"class": "ADMA", "layer_a": [-4, -5]},
    "ADMA-distance": {"class": "ADMA", "weights": "distance"},
    "UncertaintyHerding": {"class": "UncertaintyHerding"},
}
WITHOUT_SCORES = [name for name in STRATEGIES if name != "ADMA"]
COLUMNS = (
    "dataset", "network", "strategy", "seed", "pool", "test", "pixels", "epochs",
    "frozen", "accuracy", "auc", "final_accuracy", "final_auc", "seconds",
)  # fmt: skip
KEY = COLUMNS[:9]


def build(name: str, cache: Path) -> dict[str, Any]:
    """Make a classifier's parameters that tell the network."""
    if name == "MobileNet v1":
        return {"backbone": partial(mobilenet_v1, cache)}
    if name == "VGG-16":
        return {"backbone": partial(vgg16, cache)}
    return {"backbone": "efficientnet_lite0"}


def run_cell(
    workbench: Workbench, network: dict[str, Any], row: dict[str, Any]
) -> dict[str, Any]:
    """Simulate; return areas under the curves over labels, and the last values."""
    settings = {
        "dataset": SETS[row["dataset"]],
        "network": {
            "centers": "source-imagenet-1k",
            "warm_start": True,
            "image_size": row["pixels"],
            "max_epochs": row["epochs"],
            "batch_size": 8,
            "n_frozen_layers": row["frozen"],
            **network,
        },
        "strategy": STRATEGIES[row["strategy"]],
        "protocol": {
            "n_rounds": 8,
            "n_instances": 20,
            "pool_size": row["pool"],
            "test_size": row["test"],
        },
    }
    begin = process_time()
    cell = Cell(*(row[key] for key in KEY[:4]), settings)
    rounds = pd.DataFrame(workbench.run(cell))
    values = {"seconds": round(process_time() - begin, 1)}
    for metric in ("accuracy", "auc"):
        values[metric] = round(float(area_under_curve(rounds, metric).iloc[0, 0]), 4)
        values[f"final_{metric}"] = round(float(rounds[metric].iloc[-1]), 4)
    return values


def run(options: argparse.Namespace) -> None:
    """Run the simulations that are missing, and add each as soon as it is done."""
    prepare(options.cache)
    torch.set_num_threads(1)
    done = set()
    if options.out.is_file():
        table = pd.read_csv(options.out, dtype=str)
        done = {tuple(values) for values in table[list(KEY)].to_numpy()}
    # Built once: the workbench keeps centres by the network's settings.
    networks = {name: build(name, options.cache) for name in options.networks}
    workbench = Workbench(Path(os.environ["SKADMA_DATA"]))
    for seed, dataset, network in product(
        options.seeds, options.sets, options.networks
    ):
        for strategy in WITHOUT_SCORES if network == "VGG-16" else STRATEGIES:
            given = (options.pool, options.test, options.pixels, options.epochs)
            frozen = options.frozen or FROZEN[network]
            key = (dataset, network, strategy, seed, *given, frozen)
            if tuple(map(str, key)) in done:
                continue
            row = dict(zip(KEY, key, strict=True))
            row |= run_cell(workbench, networks[network], row)
            new = not options.out.is_file()
            with options.out.open("a", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                if new:
                    writer.writeheader()
                writer.writerow(row)
            print(row, flush=True)


def report(out: Path) -> None:
    """Print each strategy's areas, and how far it is above random in the same cells."""
    table = pd.read_csv(out)
    pair = [key for key in KEY if key != "strategy"]
    sets = table["dataset"].unique()
    for metric in ("accuracy", "auc"):
        print(f"\n**{metric}**, area under the curve over labels\n")
        titles = ["network", "strategy", *sets, "above random, points", "in",
                  "with all labels", "in"]  # fmt: skip
        print(f"| {' | '.join(titles)} |")
        print("|" + "---|" * len(titles))
        by = ["network", "pixels", "frozen"]
        for (network, pixels, frozen), mine in table.groupby(by, sort=False):
            wides = [mine.pivot(index=pair, columns="strategy", values=column)
                     for column in (metric, f"final_{metric}")]  # fmt: skip
            for strategy in mine["strategy"].unique():
                areas = mine[mine["strategy"] == strategy].groupby("dataset")[metric]
                means = areas.mean()
                cells = [f"{means[s]:.3f}" if s in means else "" for s in sets]
                for wide in wides:
                    cells += above_random(wide, strategy)
                name = f"{network}, {pixels} px, {frozen} layers frozen"
                print(f"| {name} | {strategy} | {' | '.join(cells)} |")


def above_random(wide: pd.DataFrame, strategy: str) -> tuple[str, str]:
    """Mean difference from random choice in points, and in how many cells it is above.

    The interval is Student's for the mean over cells, which are data set and seed.
    """
    from scipy.stats import t

    if strategy == "random":
        return "", ""
    off = 100 * (wide[strategy] - wide["random"]).dropna()
    n, text = len(off), f"{off.mean():+.1f}"
    if n > 1:
        text += f" ± {t.ppf(0.975, n - 1) * off.std() / np.sqrt(n):.1f}"
    return text, f"{(off > 0).sum()} of {n}"


def main() -> None:
    """Run what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--networks", nargs="+", choices=FROZEN, default=[*FROZEN])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--pool", type=int, default=500)
    parser.add_argument("--test", type=int, default=400)
    parser.add_argument("--pixels", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--frozen", type=int, help="layers; by default the paper's")
    parser.add_argument("--dry", action="store_true", help="print the tables only")
    options = parser.parse_args()
    if not options.dry:
        run(options)
    report(options.out)


if __name__ == "__main__":
    main()
