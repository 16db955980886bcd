"""Several labels per image, on real ones: solar cells, defective or not, mono or not.

    python benchmarks/bench_multilabel.py OUT.csv [--probe]

elpv's photographs with two labels, each there or not: "defective", and "mono" for a
monocrystalline cell. efficientnet_lite0 at 64 pixels, five rounds of 20 labels from a
pool of 300, tested on 500; mean average precision, three seeds. The last layers are
fine-tuned; --probe fits a linear probe on several layers, as campaigns do. --md prints
the table of docs/benchmarks.md. Needs the package elpv-dataset. What OUT.csv has is not
computed again.
"""

from __future__ import annotations

import argparse
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score
from tqdm.auto import tqdm

from skadma import ActiveLearner, CNNClassifier
from skadma._utils.atomic import write_atomically
from skadma.bench.report import markdown_table
from skadma.strategies import MarginSampling, RandomSampling, UncertaintyHerding

LABELS = ("defective", "mono")
STRATEGIES = {
    "random": RandomSampling,
    "uncertainty (margin)": MarginSampling,
    "uncertainty herding": UncertaintyHerding,
}
SEEDS = 3
POOL, TEST, ROUNDS, BATCH = 300, 500, 5, 20


def load() -> tuple[np.ndarray, np.ndarray]:
    """All photographs, and a column for each label."""
    X, probability, kind = import_module("elpv_dataset.utils").load_dataset()
    return X, np.stack([probability >= 0.5, kind == "mono"], axis=1).astype(int)


def run(
    X: np.ndarray, y: np.ndarray, strategy: str, seed: int, probe: bool
) -> list[dict]:
    """Label a pool round by round; the scores after each."""
    order = np.random.RandomState(seed).permutation(len(y))
    pool, test = order[:POOL], order[POOL : POOL + TEST]
    clf = CNNClassifier(
        "layers/efficientnet_lite0" if probe else "efficientnet_lite0",
        training="probe" if probe else "fine-tune",
        image_size=64,
        max_epochs=10,
        classes=LABELS,
    )
    learner = ActiveLearner(
        clf,
        STRATEGIES[strategy](),
        n_rounds=ROUNDS,
        n_instances=BATCH,
        random_state=seed,
    )
    rows = []
    for _ in learner.rounds(X[pool], y[pool]):
        scores = average_precision_score(
            y[test], learner.predict_proba(X[test]), average=None
        )
        rows.append(
            {
                "strategy": strategy,
                "seed": seed,
                "n_labels": int(learner.labeled_.sum()),
                **dict(zip(LABELS, scores, strict=True)),
                "mean": scores.mean(),
            }
        )
    return rows


def table(results: pd.DataFrame) -> str:
    """Mean average precision by number of labels."""
    numbers = sorted(results["n_labels"].unique())
    rows = []
    for strategy, mine in results.groupby("strategy", sort=False):
        by = mine.groupby("n_labels")["mean"].agg(["mean", "std"])
        last = mine[mine["n_labels"] == numbers[-1]][list(LABELS)].mean()
        rows.append(
            [strategy, *(f"{m:.3f} ± {s:.3f}" for m, s in by.to_numpy()),
             *(f"{value:.3f}" for value in last)]
        )  # fmt: skip
    ends = [f"{label}, {numbers[-1]}" for label in LABELS]
    return markdown_table(["strategy", *(f"{n} labels" for n in numbers), *ends], rows)


def main() -> None:
    """Run what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--probe", action="store_true", help="fit a linear probe")
    parser.add_argument("--md", action="store_true", help="print the table at the end")
    options = parser.parse_args()
    X, y = load()
    there = pd.read_csv(options.out) if options.out.is_file() else pd.DataFrame()
    done = set(zip(there.get("strategy", ()), there.get("seed", ()), strict=True))
    tasks = [(name, seed) for seed in range(SEEDS) for name in STRATEGIES]
    for name, seed in tqdm(tasks):
        if (name, seed) not in done:
            there = pd.concat(
                [there, pd.DataFrame(run(X, y, name, seed, options.probe))]
            )
            write = partial(there.to_csv, index=False, float_format="%.5g")
            write_atomically(options.out, write)
    if options.md:
        print(table(there))


if __name__ == "__main__":
    main()
