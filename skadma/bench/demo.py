"""``skadma demo``: strategies side by side, on real photographs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from .._utils.processes import progress_bar
from ..plotting import LearningCurveDisplay
from .cells import Workbench
from .config import expand, load_config
from .datasets import load_elpv

BACKBONE = "efficientnet_lite0"
IMAGE_SIZE = 128
CONFIG = {
    "datasets": ["elpv"],
    "networks": [BACKBONE],
    "strategies": {
        "UncertaintyHerding": {},
        "ADMA": {"n_centers": 250},  # a quarter of those that the package ships
        "random": {"class": "RandomSampling"},
    },
    "warm_start": False,
    "classifier": {"image_size": IMAGE_SIZE, "training": "probe"},
}
COLUMNS = {
    "accuracy": ("accuracy", "{:.3f}"),
    "auc": ("AUC", "{:.3f}"),
    "query_seconds": ("query s", "{:.1f}"),
    "fit_seconds": ("fit s", "{:.1f}"),
    "test_seconds": ("test s", "{:.1f}"),
}
"""What is measured: its title and format in the table."""


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
    _, y = load_elpv()
    if (
        n_rounds * n_instances > n_pool
        or n_pool > 0.7 * len(y)
        or n_test > 0.3 * len(y)
    ):
        raise ValueError(
            f"{n_rounds} rounds of {n_instances} labels from a pool of {n_pool} and "
            f"{n_test} test photographs do not fit {len(y)} photographs, of which 30% "
            "are for the test."
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.csv").touch()  # fails before minutes of work, not after
    share = (y == "sound").mean()
    print(
        f"{n_pool} photographs to choose from, {n_test} to test on, others for each "
        f"seed; {1 - share:.0%} are defective, so always saying 'sound' gives "
        f"{share:.3f} accuracy."
    )
    protocol = {"n_rounds": n_rounds, "n_instances": n_instances, "seeds": list(seeds)}
    sizes = {"pool_size": n_pool, "test_size": n_test}
    cells = expand(load_config({**CONFIG, **protocol, **sizes}))
    workbench = Workbench(None)
    rows = []
    for cell in progress_bar(cells, unit="run"):
        rows += workbench.run(cell)
    results = pd.DataFrame(rows).drop(columns="indices")
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
