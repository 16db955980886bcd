"""ADMA, AIFT and fine-tuning on splits of bench_study.py, beside the default.

    python benchmarks/bench_study_networks.py DIR CELLS.csv [--sets NAME ...]
    python benchmarks/bench_study_networks.py DIR CELLS.csv --report

DIR as in bench_study.py: the same pools and test images, eight rounds of 20 labels. All
ways run by the package's own objects. The last stage of EfficientNet-Lite0 at 128 px (5
of 50 layers) is fine-tuned for CNNClassifier's 20 epochs, in each round from where the
last one ended. ADMA is the published form with the centres that the package ships.
CELLS.csv gets a line per tested number of labels, and a run that was stopped goes on;
--report prints the tables. Seconds are processor time of a round without tests, means
since the last line; the outputs of frozen layers are computed before.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pandas as pd
import torch
from bench_defaults import read_images
from bench_study import DEFAULT, METRICS, draw_rows, markdown, measure, read

from skadma import ActiveLearner, CNNClassifier
from skadma.features.cache import MemoryCache
from skadma.strategies import ADMA, AIFT, RandomSampling, UncertaintyHerding

WAYS: dict[str, Callable[[], Any]] = {
    DEFAULT: UncertaintyHerding,
    "random, last stage": RandomSampling,
    "ADMA, last stage": ADMA,
    "AIFT, last stage": AIFT,
}
SETS = ("parity", "elpv", "dogs-vs-cats", "slant", "trash", "cifar10")
TWO_CLASSES = SETS[:4]
N_ROUNDS, BATCH, TESTED = 8, 20, (20, 40, 80, 160)
COLUMNS = ("set", "way", "seed", "n_labels", *METRICS, "seconds")


def simulate(
    name: str, folder: Path, seed: int, way: str, memory: MemoryCache
) -> list[dict[str, Any]]:
    """Label a pool in batches, and test at some numbers of labels."""
    found = read(name, folder)
    y, rows = found["y"], found["rows"]
    pool, test = draw_rows(y, seed)
    images = read_images(name, folder)
    every = [*images.X, *([] if images.X_test is None else images.X_test)]
    X, X_test = ([every[i] for i in rows[some]] for some in (pool, test))
    how: dict[str, Any] = {"image_size": 128, "memory": memory, "random_state": seed}
    if way == DEFAULT:
        clf = CNNClassifier("layers/efficientnet_lite0", training="probe", **how)
    else:
        clf = CNNClassifier("efficientnet_lite0", n_frozen_layers=-5, **how)
    learner = ActiveLearner(
        clf, WAYS[way](), n_rounds=N_ROUNDS, n_instances=BATCH,
        classes=np.arange(y.max() + 1), random_state=seed,
    )  # fmt: skip
    for some in (X, X_test):  # the frozen layers' outputs are kept
        clf.embed(some, -2)
    begin = process_time()
    lines, seconds = [], []
    for record in learner.rounds(X, y[pool]):
        seconds.append(process_time() - begin)
        if record["n_labels"] in TESTED:
            measured = measure(learner.predict_proba(X_test), y[test])
            lines.append({
                "n_labels": record["n_labels"],
                **{key: round(float(value), 5) for key, value in measured.items()},
                "seconds": round(float(np.mean(seconds)), 3),
            })  # fmt: skip
            seconds = []
        begin = process_time()
    return lines


def run(folder: Path, cells: Path, sets: list[str], ways: list[str],
        seeds: list[int]) -> None:  # fmt: skip
    """Run what is missing, and add each simulation as soon as it is done."""
    done: set[Any] = set()
    kept: tuple[Any, MemoryCache] = None, MemoryCache()
    if cells.is_file():
        table = pd.read_csv(cells)
        done = set(zip(table["set"], table["way"], table["seed"], strict=True))
    for seed, name, way in product(seeds, sets, ways):
        if kept[0] != (seed, name):
            kept = (seed, name), MemoryCache()
        only_two = way.startswith("AIFT") and name not in TWO_CLASSES
        if only_two or (name, way, seed) in done:
            continue
        lines = simulate(name, folder, seed, way, kept[1])
        new = not cells.is_file()
        with cells.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(COLUMNS)
            writer.writerows([name, way, seed, *line.values()] for line in lines)
        print(name, way, seed, lines[-1], flush=True)


def report(cells: Path) -> str:
    """Make tables of accuracy, with seconds of a round, and of AUC by set."""
    table = pd.read_csv(cells)
    sets = [name for name in SETS if name in set(table["set"])]
    n_rounds = np.diff((0, *TESTED)) // BATCH
    since = table["n_labels"].map(dict(zip(TESTED, n_rounds, strict=True)))
    weighted = (table["seconds"] * since).groupby(table["way"]).sum()
    seconds = weighted / since.groupby(table["way"]).sum()
    parts = []
    for metric in ("accuracy", "auc"):
        wide = 100 * table.pivot_table(metric, ["set", "seed", "n_labels"], "way")
        last = wide.xs(TESTED[-1], level="n_labels")
        wide = wide.groupby(["set", "seed"]).mean()
        rows: dict[str, dict[str, str]] = {}
        for way in [way for way in WAYS if way in wide]:
            means, ends = (some.groupby("set")[way].mean() for some in (wide, last))
            rows[way] = {
                name: f"{means[name]:.1f} / {ends[name]:.1f}" if means[name] > 0 else ""
                for name in sets
            }
            if way != DEFAULT:
                ahead = (wide[DEFAULT] - wide[way]).dropna()
                rows[way]["default ahead by"] = f"{ahead.mean():.1f}"
                rows[way]["in"] = f"{(ahead > 0).sum()} of {len(ahead)}"
            if metric == "accuracy":
                rows[way]["seconds"] = f"{seconds[way]:.1f}"
        title = f"{metric}, mean of {TESTED} labels / with {TESTED[-1]}"
        parts += [title, markdown(pd.DataFrame(rows).T.fillna(""), "way")]
    return "\n\n".join(parts)


def main() -> None:
    """Run what is missing, or print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("cells", type=Path)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[100])
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.report:
        print(report(options.cells))
    else:
        run(options.folder, options.cells, options.sets, options.ways, options.seeds)


if __name__ == "__main__":
    main()
