"""``skadma demo``: strategies side by side, on real photographs."""

from __future__ import annotations

import csv
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from tqdm.auto import tqdm

from .centers import SourceCenters, shipped_centers
from .classifier import CNNClassifier
from .learner import ActiveLearner
from .strategies import ADMA, RandomSampling, UncertaintyHerding

BACKBONE = "efficientnet_lite0"
IMAGE_SIZE = 128
N_FROZEN = -5
N_CENTERS = 250
COLUMNS = (
    "strategy",
    "labels",
    "accuracy",
    "auc",
    "query_seconds",
    "adapt_seconds",
    "test_seconds",
)


def demo_classifier(seed: int) -> CNNClassifier:
    """Build the demo's classifier: the last stage and the head are fine-tuned."""
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


def load_elpv() -> tuple[np.ndarray, np.ndarray]:
    """Read the photographs of solar cells.

    Returns
    -------
    X : ndarray of uint8, shape (2624, 300, 300)
    y : ndarray of str, shape (2624,)
        "defective" where the experts' defect probability is at least 0.5.
    """
    try:
        utils = import_module("elpv_dataset.utils")
    except ImportError as error:
        raise ImportError(
            "the demo needs the package elpv-dataset: pip install 'skadma[demo]'"
        ) from error
    X, probability, _ = utils.load_dataset()
    return X, np.where(probability >= 0.5, "defective", "sound")


def run_demo(
    out: Path,
    *,
    n_rounds: int = 8,
    n_instances: int = 20,
    n_pool: int = 600,
    n_test: int = 400,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Run the strategies, print the table, save curves and numbers.

    Parameters
    ----------
    out : Path
        Folder for ``curves.png`` and ``results.csv``; made if missing.
    n_rounds, n_instances, n_pool, n_test, seed : int

    Returns
    -------
    list of dict
        The rows of ``results.csv``.
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
    X, X_test, y, y_test = train_test_split(
        X, y, train_size=n_pool, test_size=n_test, stratify=y, random_state=seed
    )
    print(
        f"{n_pool} photographs to choose from, {n_test} to test on; "
        f"{(y_test == 'defective').mean():.0%} are defective, so always saying 'sound' "
        f"gives {(y_test == 'sound').mean():.3f} accuracy.\n{centers!r}"
    )
    strategies = {
        "UncertaintyHerding": UncertaintyHerding(),
        "ADMA": ADMA(centers),
        "random": RandomSampling(),
    }
    rows: list[dict[str, Any]] = []
    with tqdm(total=len(strategies) * n_rounds, unit="round") as bar:
        for name, strategy in strategies.items():
            learner = ActiveLearner(
                demo_classifier(seed),
                strategy,
                n_rounds=n_rounds,
                n_instances=n_instances,
                random_state=seed,
            )
            for record in learner.rounds(X, y):
                rows.append(_measure(name, learner, record, X_test, y_test))
                bar.set_postfix_str(f"{name} {record['n_labels']} labels")
                bar.update()
    out.mkdir(parents=True, exist_ok=True)
    _write_csv(rows, out / "results.csv")
    _plot(rows, out / "curves.png")
    print(format_table(rows, list(strategies)))
    print(_summary(rows, seed))
    print(
        f"{time.perf_counter() - begin:.0f} s in all. Curves: {out / 'curves.png'}, "
        f"numbers: {out / 'results.csv'}"
    )
    return rows


def _measure(
    name: str,
    learner: ActiveLearner,
    record: dict[str, Any],
    X_test: np.ndarray,
    y_test: np.ndarray,
) -> dict[str, Any]:
    begin = time.perf_counter()
    proba = learner.predict_proba(X_test)
    classes = learner.classes_
    return {
        "strategy": name,
        "labels": record["n_labels"],
        "accuracy": float((classes[proba.argmax(axis=1)] == y_test).mean()),
        "auc": float(roc_auc_score(y_test == classes[0], proba[:, 0])),
        "query_seconds": record["query_seconds"],
        "adapt_seconds": record["adapt_seconds"],
        "test_seconds": time.perf_counter() - begin,
    }


def format_table(rows: list[dict[str, Any]], names: list[str]) -> str:
    """Lay out labels against accuracy, AUC and seconds, strategies side by side."""
    head = f"{'':>8}" + "".join(f" | {name:^40}" for name in names)
    columns = f"{'accuracy':>9}{'AUC':>7}{'query s':>8}{'adapt s':>8}{'test s':>8}"
    lines = [head, f"{'labels':>8}" + f" | {columns}" * len(names)]
    for n_labels in sorted({row["labels"] for row in rows}):
        line = f"{n_labels:>8}"
        for name in names:
            cells = [
                f"{row['accuracy']:>9.3f}{row['auc']:>7.3f}"
                f"{row['query_seconds']:>8.1f}{row['adapt_seconds']:>8.1f}"
                f"{row['test_seconds']:>8.1f}"
                for row in rows
                if row["labels"] == n_labels and row["strategy"] == name
            ]
            line += f" | {cells[0] if cells else '':<40}"
        lines.append(line)
    return "\n".join(lines)


def _summary(rows: list[dict[str, Any]], seed: int) -> str:
    said = []
    for name in dict.fromkeys(row["strategy"] for row in rows):
        mine = [row for row in rows if row["strategy"] == name]
        accuracy, auc = (np.mean([r[w] for r in mine]) for w in ("accuracy", "auc"))
        said.append(f"{name} {accuracy:.3f} ({auc:.3f})")
    return (
        f"Mean accuracy (AUC) over the rounds: {', '.join(said)}.\n"
        "What this shows: the whole road works, from a pretrained network and a pool\n"
        "of photographs to labels chosen and a network adapted, and what each phase\n"
        "costs. What it does not show: which strategy is better. This is one run\n"
        f"(seed {seed}) on one data set, in which a few points are noise. --seed N\n"
        "gives another run."
    )


def _write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, what, label in zip(
        figure.subplots(1, 2), ("accuracy", "auc"), ("accuracy", "AUC"), strict=True
    ):
        for name in dict.fromkeys(row["strategy"] for row in rows):
            mine = [row for row in rows if row["strategy"] == name]
            axes.plot(
                [row["labels"] for row in mine],
                [row[what] for row in mine],
                marker="o",
                label=name,
            )
        axes.set(xlabel="labels", ylabel=f"{label} on the test photographs")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(f"Solar cells, {BACKBONE}, {IMAGE_SIZE} px")
    figure.savefig(path, dpi=120)
