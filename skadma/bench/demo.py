"""``skadma demo``: strategies side by side, on real photographs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from sklearn.model_selection import train_test_split

from .._utils.processes import progress_bar
from ..centers import SourceCenters, shipped_centers
from ..classifier import CNNClassifier
from ..learner import ActiveLearner
from ..plotting import LearningCurveDisplay
from ..strategies import ADMA, RandomSampling, UncertaintyHerding
from .cells import measure
from .datasets import load_elpv

BACKBONE = "efficientnet_lite0"
IMAGE_SIZE = 128
N_FROZEN = -5
N_CENTERS = 250
COLUMNS = {
    "accuracy": ("accuracy", "{:.3f}"),
    "auc": ("AUC", "{:.3f}"),
    "query_seconds": ("query s", "{:.1f}"),
    "adapt_seconds": ("adapt s", "{:.1f}"),
    "test_seconds": ("test s", "{:.1f}"),
}
"""What is measured: its title and format in the table."""


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
) -> None:
    """Run the strategies, print the table, save curves and numbers in folder `out`.

    Each seed draws a pool and a test set of its own.
    """
    begin = time.perf_counter()
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
                            "n_labels": record["n_labels"],
                            **measured,
                            "query_seconds": record["query_seconds"],
                            "adapt_seconds": record["adapt_seconds"],
                            "test_seconds": time.perf_counter() - begin_test,
                        }
                    )
                    bar.set_postfix_str(f"seed {seed} {name}")
                    bar.update()
    results = pd.DataFrame(rows)
    results.to_csv(out / "results.csv", index=False)
    _plot(results, out / "curves.png")
    print(format_table(results))
    print(_summary(results))
    print(
        f"{time.perf_counter() - begin:.0f} s in all. Curves: {out / 'curves.png'}, "
        f"numbers: {out / 'results.csv'}"
    )


def format_table(results: pd.DataFrame) -> str:
    """Lay out labels against accuracy, AUC and seconds: means over the seeds."""
    means = results.groupby(["n_labels", "strategy"])[list(COLUMNS)].mean().unstack()
    titles = {column: title for column, (title, _) in COLUMNS.items()}
    columns = [(c, name) for name in results["strategy"].unique() for c in COLUMNS]
    table = means[columns].swaplevel(axis="columns").rename(columns=titles)
    formats = [COLUMNS[column][1].format for column, _ in columns]
    return table.rename_axis(index="labels", columns=(None, None)).to_string(
        formatters=formats
    )


def _summary(results: pd.DataFrame) -> str:
    lines = ["Mean accuracy (AUC) over the rounds, seed by seed:"]
    for name, mine in results.groupby("strategy", sort=False):
        means = mine.groupby("seed")[["accuracy", "auc"]].mean()
        cells = [f"{accuracy:.3f} ({auc:.3f})" for accuracy, auc in means.to_numpy()]
        lines.append(f"{name:>20}: {', '.join(cells)}")
    return "\n".join(lines) + (
        "\nThis shows how a pretrained network and a pool of photographs lead to "
        "chosen\nlabels and an adapted network, and what each step costs. It does not "
        "show\nwhich strategy is better: on one data set, seeds differ by as much as\n"
        "strategies. Others are in\n"
        "docs/label_efficiency.md. --seed N gives another run."
    )


def _plot(results: pd.DataFrame, path: Path) -> None:
    figure = Figure(figsize=(9, 4), layout="constrained")
    for ax, metric in zip(figure.subplots(1, 2), ("accuracy", "auc"), strict=True):
        LearningCurveDisplay.from_results(results, metric=metric, ax=ax)
    n_seeds = results["seed"].nunique()
    figure.suptitle(f"Solar cells, {BACKBONE}, {IMAGE_SIZE} px, {n_seeds} seed(s)")
    figure.savefig(path, dpi=120)
