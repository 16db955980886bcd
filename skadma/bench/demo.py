"""``skadma demo``: strategies side by side, on real photographs."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from .._utils.processes import progress_bar
from ..centers import SourceCenters, shipped_centers
from ..classifier import CNNClassifier
from ..learner import ActiveLearner
from ..strategies import ADMA, RandomSampling, UncertaintyHerding
from .cells import measure
from .datasets import load_elpv

BACKBONE = "efficientnet_lite0"
IMAGE_SIZE = 128
N_FROZEN = -5
N_CENTERS = 250
COLUMNS = {
    "accuracy": ("accuracy", 9, 3),
    "auc": ("AUC", 7, 3),
    "query_seconds": ("query s", 8, 1),
    "adapt_seconds": ("adapt s", 8, 1),
    "test_seconds": ("test s", 8, 1),
}
"""What is measured: title, width and decimals in the table."""


def demo_classifier(seed: int) -> CNNClassifier:
    """Build a classifier whose last stage and head are fine-tuned."""
    return CNNClassifier(
        BACKBONE,
        image_size=IMAGE_SIZE,
        n_frozen_layers=N_FROZEN,
        max_epochs=10,
        random_state=seed,
    )


def demo_centers() -> SourceCenters:
    """Take a quarter of the centres that the package ships for the network."""
    clf = demo_classifier(0)
    return shipped_centers(clf).subset(clf, N_CENTERS)


def run_demo(
    out: Path,
    *,
    n_rounds: int = 8,
    n_instances: int = 20,
    n_pool: int = 600,
    n_test: int = 400,
    seeds: Sequence[int] = (0, 1, 2),
) -> list[dict[str, Any]]:
    """Run the strategies, print the table, save curves and numbers in folder `out`.

    Each seed draws a pool and a test set of its own. Returns the rows of
    ``results.csv``.
    """
    begin = time.perf_counter()
    import_module("matplotlib")  # before minutes of work, not after
    centers = demo_centers()
    X, y = load_elpv()
    if n_rounds * n_instances > n_pool or n_pool + n_test > len(X):
        raise ValueError(
            f"{n_rounds} rounds of {n_instances} labels from a pool of {n_pool} and "
            f"{n_test} test photographs do not fit {len(X)} photographs."
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.csv").touch()  # fails before minutes of work, not after
    share = (y == "sound").mean()
    print(
        f"{n_pool} photographs to choose from, {n_test} to test on, others for each "
        f"seed; {1 - share:.0%} are defective, so always saying 'sound' gives "
        f"{share:.3f} accuracy.\n{centers!r}"
    )
    strategies = {
        "UncertaintyHerding": UncertaintyHerding(),
        "ADMA": ADMA(centers),
        "random": RandomSampling(),
    }
    rows: list[dict[str, Any]] = []
    with progress_bar(
        total=len(seeds) * len(strategies) * n_rounds, unit="round"
    ) as bar:
        for seed in seeds:
            pool, test = train_test_split(
                np.arange(len(y)),
                train_size=n_pool,
                test_size=n_test,
                stratify=y,
                random_state=seed,
            )
            for name, strategy in strategies.items():
                learner = ActiveLearner(
                    demo_classifier(seed).set_params(training="probe"),
                    strategy,
                    n_rounds=n_rounds,
                    n_instances=n_instances,
                    random_state=seed,
                )
                for record in learner.rounds(X[pool], y[pool]):
                    begin_test = time.perf_counter()
                    truth = np.searchsorted(learner.classes_, y[test])
                    measured = measure(learner.predict_proba(X[test]), truth)
                    rows.append(
                        {
                            "seed": seed,
                            "strategy": name,
                            "labels": record["n_labels"],
                            **measured,
                            "query_seconds": record["query_seconds"],
                            "adapt_seconds": record["adapt_seconds"],
                            "test_seconds": time.perf_counter() - begin_test,
                        }
                    )
                    bar.set_postfix_str(f"seed {seed} {name}")
                    bar.update()
    with (out / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    _plot(rows, out / "curves.png")
    print(format_table(rows, list(strategies)))
    print(_summary(rows))
    print(
        f"{time.perf_counter() - begin:.0f} s in all. Curves: {out / 'curves.png'}, "
        f"numbers: {out / 'results.csv'}"
    )
    return rows


def format_table(rows: list[dict[str, Any]], names: list[str]) -> str:
    """Lay out labels against accuracy, AUC and seconds: means over the seeds."""
    head = f"{'':>8}" + "".join(f" | {name:^40}" for name in names)
    titles = "".join(f"{title:>{width}}" for title, width, _ in COLUMNS.values())
    lines = [head, f"{'labels':>8}" + f" | {titles}" * len(names)]
    for n_labels in sorted({row["labels"] for row in rows}):
        line = f"{n_labels:>8}"
        for name in names:
            line += " | "
            for what, (_, width, decimals) in COLUMNS.items():
                mean = _mean(rows, what, strategy=name, labels=n_labels)
                line += f"{mean:>{width}.{decimals}f}"
        lines.append(line)
    return "\n".join(lines)


def _mean(rows: list[dict[str, Any]], what: str, **which: Any) -> float:
    chosen = [row for row in rows if which.items() <= row.items()]
    return float(np.mean([row[what] for row in chosen]))


def _summary(rows: list[dict[str, Any]]) -> str:
    lines = ["Mean accuracy (AUC) over the rounds, seed by seed:"]
    for name in dict.fromkeys(row["strategy"] for row in rows):
        cells = []
        for seed in sorted({row["seed"] for row in rows}):
            accuracy = _mean(rows, "accuracy", strategy=name, seed=seed)
            auc = _mean(rows, "auc", strategy=name, seed=seed)
            cells.append(f"{accuracy:.3f} ({auc:.3f})")
        lines.append(f"{name:>20}: {', '.join(cells)}")
    return "\n".join(lines) + (
        "\nThis shows how a pretrained network and a pool of photographs lead to "
        "chosen\nlabels and an adapted network, and what each step costs. It does not "
        "show\nwhich strategy is better: on one data set, seeds differ by as much as\n"
        "strategies. Others are in\n"
        "docs/label_efficiency.md. --seed N gives another run."
    )


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    labels = sorted({row["labels"] for row in rows})
    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, what in zip(figure.subplots(1, 2), ("accuracy", "auc"), strict=True):
        for name in dict.fromkeys(row["strategy"] for row in rows):
            means = [_mean(rows, what, strategy=name, labels=n) for n in labels]
            axes.plot(labels, means, marker="o", label=name)
        title = COLUMNS[what][0]
        axes.set(xlabel="labels", ylabel=f"{title} on the test photographs")
        axes.grid(alpha=0.3)
        axes.legend()
    n_seeds = len({row["seed"] for row in rows})
    figure.suptitle(f"Solar cells, {BACKBONE}, {IMAGE_SIZE} px, {n_seeds} seed(s)")
    figure.savefig(path, dpi=120)
