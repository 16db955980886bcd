"""Probe, fine-tuning, fine-tuning from the probe and their mean: 20 to 1,280 labels.

    python benchmarks/bench_curves.py DIR OUT.csv [--deep] [--sets NAME ...]
    python benchmarks/bench_curves.py DIR OUT.csv --report

Random labels on the data sets that are large enough, EfficientNet-Lite0 at 128 px. DIR
as in bench_defaults.py, whose features it shares. OUT.csv gets a row per fit; a run
that was stopped goes on. --report prints the table of OUT.csv only.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from bench_defaults import (
    last_stage,
    predict_proba,
    read_features,
    read_images,
    train,
)
from scipy.special import softmax
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split

from skadma import CNNClassifier
from skadma.bench.report import markdown_table
from skadma.networks.heads import ProbeHead
from skadma.training.probe_head import fit_head

SETS = ("trash", "cifar10", "elpv", "dogs-vs-cats")
N_LABELS = (1280, 320, 80, 640, 160, 40, 20)
N_TEST = 500
NAMES = {
    "probe": "probe on several layers",
    "fine-tuned": "last stage fine-tuned",
    "from the probe": "... from the probe",
    "mean of probe and fine-tuned": "mean",
    "fine-tuned, 28 layers": "28 layers fine-tuned",
}
N_EPOCHS = 12


class StageAndRest(torch.nn.Module):
    """The last stage, followed by the other layers' outputs, which it leaves alone."""

    def __init__(self, n_stage: int) -> None:
        super().__init__()
        self.stage, self.n_stage = last_stage().eval(), n_stage

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Input of the last layer of ``layers/efficientnet_lite0``."""
        stage, rest = x[:, : self.n_stage], x[:, self.n_stage :]
        return torch.cat([self.stage(stage), rest], dim=1)


def fits(
    rows: np.ndarray,
    widths: list[int],
    stage: np.ndarray,
    y: np.ndarray,
    labeled: np.ndarray,
    test: np.ndarray,
    seed: int,
) -> dict[str, tuple[np.ndarray, float]]:
    """Probabilities of the test set, and seconds of the fit, of each way."""
    n_classes = int(y.max()) + 1
    found: dict[str, tuple[np.ndarray, float]] = {}
    begin = time.process_time()
    head = ProbeHead(widths, n_classes)
    fit_head(head, rows[labeled], y[labeled])
    seconds = time.process_time() - begin
    with torch.no_grad():
        scores = head(torch.from_numpy(rows[test])).numpy().astype(float)
    found["probe"] = softmax(scores, axis=1), seconds

    begin = time.process_time()
    torch.manual_seed(seed)
    layers, last = last_stage().eval(), torch.nn.Linear(1280, n_classes)
    layers.requires_grad_(True)
    targets = torch.from_numpy(y[labeled])
    train(layers, last, torch.from_numpy(stage[labeled]), targets, N_EPOCHS)
    seconds = time.process_time() - begin
    found["fine-tuned"] = (
        predict_proba(layers, last, torch.from_numpy(stage[test])), seconds
    )  # fmt: skip

    begin = time.process_time()
    both = torch.from_numpy(np.hstack([stage, rows[:, widths[0] :]]))
    tuned = StageAndRest(stage.shape[1])
    tuned.stage.requires_grad_(True)
    head.requires_grad_(True)
    train(tuned, head, both[labeled], targets, N_EPOCHS, head_lr=1e-4)
    seconds = found["probe"][1] + time.process_time() - begin
    found["from the probe"] = predict_proba(tuned, head, both[test]), seconds
    for name, ways in {
        "mean of probe and fine-tuned": ("probe", "fine-tuned"),
        "mean of all three": ("probe", "fine-tuned", "from the probe"),
    }.items():
        found[name] = (
            np.mean([found[way][0] for way in ways], axis=0),
            sum(found[way][1] for way in ways),
        )
    return found


def fine_tuned_deep(
    name: str, folder: Path, numbers: np.ndarray, y: np.ndarray, n_labels: int,
    seed: int,
) -> tuple[np.ndarray, float]:  # fmt: skip
    """Fine-tune 28 layers, CNNClassifier's default, on the first images of `numbers`.

    Probabilities of the other images, and seconds of the fit.
    """
    images = read_images(name, folder)
    X = list(images.X) + ([] if images.X_test is None else list(images.X_test))
    chosen = [X[i] for i in numbers]
    clf = CNNClassifier("efficientnet_lite0", image_size=128, max_epochs=N_EPOCHS,
                        classes=np.unique(y), random_state=seed)  # fmt: skip
    begin = time.process_time()
    clf.fit(chosen[:n_labels], y[:n_labels])
    seconds = time.process_time() - begin
    return clf.predict_proba(chosen[n_labels:]), seconds


def report(results: pd.DataFrame) -> str:
    """Accuracy and log loss of each set, then seconds, means over sets."""
    numbers = sorted(results["n_labels"].unique())
    rows = []
    for (name, way), some in results.groupby(["set", "way"], sort=False):
        if way in NAMES:
            means = some.groupby("n_labels")[["accuracy", "log_loss"]].mean()
            means = means.reindex(numbers).itertuples(index=False)
            cells = (f"{a:.3f} / {b:.2f}" if a == a else "-" for a, b in means)
            rows.append([str(name), NAMES[str(way)], *cells])
    for way, some in results.groupby("way", sort=False):
        if way in NAMES:
            means = some.groupby("n_labels")["seconds"].mean().reindex(numbers)
            texts = means.map(lambda s: f"{s:.2g}" if s < 10 else f"{s:.0f}")
            cells = texts.where(means.notna(), "-")
            rows.append(["seconds of a fit", NAMES[str(way)], *cells])
    return markdown_table(["", "", *(f"{n:,}" for n in numbers)], rows)


def main() -> None:
    """Run what is asked for, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--labels", nargs="+", type=int, default=N_LABELS)
    parser.add_argument("--deep", action="store_true", help="only fine-tune 28 layers")
    parser.add_argument("--report", action="store_true", help="only print the table")
    options = parser.parse_args()
    known = pd.read_csv(options.out) if options.out.is_file() else pd.DataFrame()
    done = set()
    if len(known):
        done = {
            (*cell[:3], "28" in cell[3])
            for cell in known[["set", "n_labels", "seed", "way"]].values
        }
    for seed in [] if options.report else options.seeds:
        for name in options.sets:
            features = read_features(name, options.folder)
            stage = read_features(name, options.folder, "stage")
            common, at, at_stage = np.intersect1d(
                features["rows"], stage["rows"], return_indices=True
            )
            rows, inputs = features["X"][at], stage["X"][at_stage]
            y = np.unique(features["y"], return_inverse=True)[1][at]
            pool, test = train_test_split(
                np.arange(len(y)), test_size=min(N_TEST, len(y) // 3), stratify=y,
                random_state=seed,
            )  # fmt: skip
            for n in options.labels:
                if n > len(pool) or (name, n, seed, options.deep) in done:
                    continue
                labeled = pool[:n]
                if options.deep:
                    chosen = np.concatenate([labeled, test])
                    numbers = stage["rows"][at_stage][chosen]
                    found = {
                        "fine-tuned, 28 layers": fine_tuned_deep(
                            name, options.folder, numbers, y[chosen], n, seed
                        )
                    }
                else:
                    widths = list(features["block_widths"])
                    found = fits(rows, widths, inputs, y, labeled, test, seed)
                lines: list[dict[str, Any]] = [
                    {
                        "set": name, "n_labels": n, "seed": seed, "way": way,
                        "accuracy": round((proba.argmax(axis=1) == y[test]).mean(), 4),
                        "log_loss": round(log_loss(y[test], np.maximum(proba, 1e-7)
                                    / np.maximum(proba, 1e-7).sum(1, keepdims=True),
                                    labels=np.arange(y.max() + 1)), 4),
                        "seconds": round(seconds, 2),
                    }
                    for way, (proba, seconds) in found.items()
                ]  # fmt: skip
                known = pd.concat([known, pd.DataFrame(lines)])
                known.to_csv(options.out, index=False)
    print(report(known))


if __name__ == "__main__":
    main()
