"""Estimates of accuracy, calibration, suspects and stopping, on real images.

    python benchmarks/bench_evaluation.py OUT.csv [--data DIR] [--parts ...] [--md]

The features are efficientnet_lite0's at 128 pixels, kept in a folder beside OUT; the
models are logistic regressions on them. Where cleanlab is installed, its rankings of
labels stand beside skadma's. --md prints the tables of docs/evaluation.md.

- audits: what a model with 20, 60 or 160 labels is worth on all other images, by
  audits of 15 to 100 labels, each drawn 500 times;
- calibration: expected calibration error on images that were not labelled, before and
  after the temperature is set by out-of-fold scores, and by the labels' own;
- suspects: 5 and 10 % of the labels are flipped, ranked, and the first 50 corrected;
- stopping: how often EstimatedScore stops a run too early, with 50, 100 and 200 labels
  set apart.

What OUT.csv has already is not computed again: stopped, the same command goes on; for a
fresh run take a new file.
"""

from __future__ import annotations

import argparse
import itertools
import os
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm.auto import tqdm

from skadma import ActiveLearner, CNNClassifier
from skadma._utils.atomic import write_atomically
from skadma.bench.datasets import load_dataset
from skadma.bench.report import markdown_table
from skadma.evaluation import (
    apply_temperature,
    audit_sample,
    estimate,
    expected_calibration_error,
    fit_temperature,
    out_of_fold_proba,
    suspects,
)
from skadma.stopping import EstimatedScore
from skadma.strategies import MarginSampling

DATASETS = ("elpv", "dogs-vs-cats", "cifar10", "digits")
AUDITS = (("random", "exact"), ("stratified", "wilson"))


def tables(results: pd.DataFrame) -> str:
    """All of them."""
    parts = dict(list(results.groupby("part")))
    return "\n\n".join(
        [
            audits_by_method(parts["audits"]),
            coverage(parts["audits"]),
            calibration_table(parts["calibration"]),
            suspects_by_ranking(parts["suspects"]),
            suspects_by_share(parts["suspects"]),
            stopping_table(parts["stopping"]),
        ]
    )


def audits_by_method(found: pd.DataFrame) -> str:
    """Errors of audits of 100 labels, and what a label is worth beside a random one."""
    rows = []
    for (dataset, n_train), mine in found.groupby(["dataset", "n_train"], sort=False):
        row = [dataset, f"{n_train:.0f}", f"{100 * mine['accuracy'].iloc[0]:.1f}"]
        for method, interval in AUDITS:
            part = mine[(mine["method"] == method) & (mine["interval"] == interval)]
            part = part[part["n"] == 100]
            row.append(f"{100 * part['rmse'].iloc[0]:.1f}")
            if method != "random":
                row.append(f"{100 / part['relative_variance'].iloc[0]:.0f}")
        rows.append(row)
    return markdown_table(
        ["data set", "training labels", "accuracy %", "random: error",
         "stratified: error", "worth"],
        rows,
    )  # fmt: skip


def coverage(found: pd.DataFrame) -> str:
    """How often the intervals have the truth, and how wide they are."""
    rows = []
    for (method, interval), mine in found.groupby(["method", "interval"], sort=False):
        for n, part in mine.groupby("n"):
            cover = part["coverage"]
            rows.append(
                [f"{method}, {interval}", f"{n:.0f}", f"{100 * cover.mean():.1f}",
                 f"{100 * cover.min():.1f}", f"{100 * part['width'].mean():.1f}",
                 f"{part['relative_variance'].mean():.2f}",
                 f"{100 * part['recall_coverage'].mean():.1f}",
                 f"{100 * part['recall_coverage'].min():.1f}"]
            )  # fmt: skip
    return markdown_table(
        ["audit", "labels", "coverage %", "least", "width", "variance / random's",
         "recall: coverage %", "least"],
        rows,
    )  # fmt: skip


def calibration_table(found: pd.DataFrame) -> str:
    """Calibration errors before and after, and the temperatures."""
    means = found.groupby(["dataset", "n_train"], sort=False)[
        ["ece", "ece_folds", "ece_own", "temperature_folds", "temperature_own"]
    ].mean()
    return markdown_table(
        ["data set", "labels", "before", "out of fold", "own labels", "temperature",
         "own labels' temperature"],
        [[d, f"{n:.0f}", *(f"{v:.3f}" for v in row[:3]),
          *(f"{v:.2f}" for v in row[3:])]
         for (d, n), row in zip(means.index, means.to_numpy(), strict=True)],
    )  # fmt: skip


def suspects_by_ranking(found: pd.DataFrame) -> str:
    """How soon rankings come to the flipped labels, and what correcting is worth."""
    rows = []
    for (n, method), mine in found.groupby(["n_train", "method"], sort=False):
        by = mine.groupby("dataset", sort=False)["average_precision"].mean()
        rows.append(
            [f"{n:.0f}", method, *(f"{by[d]:.3f}" for d in DATASETS),
             *(f"{mine[c].mean():.3f}" for c in (
                 "average_precision", "precision_at_50")),
             *(f"{100 * mine[c].mean():.2f}" for c in (
                 "accuracy_flipped", "accuracy_corrected", "accuracy_clean"))]
        )  # fmt: skip
    return markdown_table(
        ["labels", "ranking", *DATASETS, "mean", "precision at 50",
         "accuracy, flipped", "corrected", "clean"],
        rows,
    )  # fmt: skip


def suspects_by_share(found: pd.DataFrame) -> str:
    """The same of skadma's ranking, by how many labels were flipped."""
    columns = ["average_precision", "precision_at_50", "accuracy_flipped",
               "accuracy_corrected", "accuracy_clean"]  # fmt: skip
    mine = found[found["method"] == "skadma"].groupby(["n_train", "share"])[columns]
    return markdown_table(
        ["labels", "flipped", "average precision", "precision at 50",
         "accuracy, flipped", "corrected", "clean"],
        [[f"{n:.0f}", f"{share:.0%}", *(f"{v:.3f}" for v in row[:2]),
          *(f"{100 * v:.2f}" for v in row[2:])]
         for (n, share), row in mine.mean().iterrows()],
    )  # fmt: skip


def stopping_table(found: pd.DataFrame) -> str:
    """How often EstimatedScore stops, and how often too early."""
    return markdown_table(
        ["data set", "target", "labels set apart", "runs that stopped",
         "of all runs too early", "if the estimate alone decided",
         "training labels", "accuracy at the stop %"],
        [[d, f"{mine['target'].iloc[0]:g}", f"{n:.0f}",
          f"{100 * mine['stopped'].mean():.0f} %",
          f"{100 * mine['below'].mean():.0f} %",
          f"{100 * mine['value_below'].mean():.0f} %",
          f"{mine['n_train'].mean():.0f}",
          f"{100 * mine[mine['stopped']]['accuracy'].mean():.1f}"]
         for (d, n), mine in found.groupby(["dataset", "n"], sort=False)],
    )  # fmt: skip


REPEATS = 500
SET_APART = (50, 100, 200)
TARGETS = {"elpv": 0.8, "dogs-vs-cats": 0.95, "cifar10": 0.65, "digits": 0.9}

Rows = Iterator[dict[str, Any]]


def features(name: str, data: Path, kept: Path) -> tuple[np.ndarray, np.ndarray]:
    """Features and numbered classes of all images of a data set."""
    file = kept / f"{name}.npz"
    if not file.is_file():
        images = load_dataset(name, None, data)
        network = CNNClassifier("efficientnet_lite0", image_size=128, memory=False)
        parts = [(images.X, images.y)]
        if images.X_test is not None:
            parts.append((images.X_test, images.y_test))
        X = np.concatenate([network.embed(X, layers=(-2,))[-2] for X, _ in parts])
        y = np.unique(np.concatenate([y for _, y in parts]), return_inverse=True)[1]
        kept.mkdir(parents=True, exist_ok=True)
        np.savez(file, X=X.astype(np.float32), y=y)
    with np.load(file) as stored:
        return stored["X"], stored["y"]


def model() -> Any:
    """The classifier on features."""
    return LogisticRegression(max_iter=500)


def trained(
    X: np.ndarray, y: np.ndarray, n: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities and labels of what a model of `n` labels has not seen."""
    order = np.random.RandomState(seed).permutation(len(y))
    fitted = model().fit(X[order[:n]], y[order[:n]])
    proba = np.zeros((len(y) - n, y.max() + 1))
    proba[:, fitted.classes_] = fitted.predict_proba(X[order[n:]])
    return proba, y[order[n:]], order


# --- audits ---------------------------------------------------------------------------


def audits(name: str, X: np.ndarray, y: np.ndarray) -> Rows:
    """Error, coverage and width of each kind of audit."""
    every = np.arange(y.max() + 1)
    for n_train in (20, 60, 160):
        proba, truth, _ = trained(X, y, n_train, 0)
        predicted = proba.argmax(axis=1)
        right = predicted == truth
        recall = [right[truth == k].mean() for k in every]
        for n in (15, 30, 100):
            for method, interval in AUDITS:
                values, covered, widths, recalled, seen = [], [], [], [], []
                for seed in range(REPEATS):
                    drawn = audit_sample(proba, n, method=method, random_state=seed)
                    found = estimate(
                        drawn,
                        predicted[drawn.indices],
                        truth[drawn.indices],
                        classes=every,
                    )
                    values.append(found.value)
                    covered.append(found.low <= right.mean() <= found.high)
                    widths.append(found.high - found.low)
                    for k, true in enumerate(recall):
                        share = found.recall[k]
                        if share.n_labels:
                            seen.append(share.n_labels)
                            recalled.append(share.low <= true <= share.high)
                bias = np.mean(values) - right.mean()
                mse = np.mean((np.array(values) - right.mean()) ** 2)
                chance = right.mean() * (1 - right.mean()) / n
                chance *= (len(right) - n) / (len(right) - 1)
                yield {
                    "n_train": n_train,
                    "n": n,
                    "method": method,
                    "interval": interval,
                    "accuracy": right.mean(),
                    "bias": bias,
                    "rmse": mse**0.5,
                    "coverage": np.mean(covered),
                    "width": np.mean(widths),
                    "relative_variance": mse / chance,
                    "recall_coverage": np.mean(recalled),
                }


# --- calibration ----------------------------------------------------------------------


def calibration(name: str, X: np.ndarray, y: np.ndarray) -> Rows:
    """Calibration error before and after the temperature is set in two ways."""
    every = np.arange(y.max() + 1)
    for n_train in (60, 160, 400):
        for seed in range(5):
            proba, truth, order = trained(X, y, n_train, seed)
            mine, labels = X[order[:n_train]], y[order[:n_train]]
            folds = out_of_fold_proba(model(), mine, labels, classes=every)
            fitted = model().fit(mine, labels)
            own = np.zeros((n_train, len(every)))
            own[:, fitted.classes_] = fitted.predict_proba(mine)
            row: dict[str, Any] = {"n_train": n_train, "seed": seed}
            row["ece"] = expected_calibration_error(proba, truth, classes=every)
            for key, table in (("folds", folds), ("own", own)):
                found = fit_temperature(table, labels, classes=every)
                row[f"temperature_{key}"] = found
                row[f"ece_{key}"] = expected_calibration_error(
                    apply_temperature(proba, found), truth, classes=every
                )
            yield row


# --- suspects -------------------------------------------------------------------------


def rankings(y: np.ndarray, proba: np.ndarray) -> dict[str, np.ndarray]:
    """Labels in the order in which to look at them, by several methods."""
    found = suspects(y, proba, classes=np.arange(proba.shape[1]))
    ranked = {"skadma": found.indices}
    try:
        from cleanlab.filter import find_label_issues
        from cleanlab.rank import get_label_quality_scores
    except ImportError:
        return ranked
    for method in ("normalized_margin", "confidence_weighted_entropy"):
        scores = get_label_quality_scores(y, proba, method=method)
        ranked[f"cleanlab {method}"] = np.argsort(scores, kind="stable")
    for method in ("self_confidence", "normalized_margin"):
        scores = get_label_quality_scores(
            y, proba, method=method, adjust_pred_probs=True
        )
        ranked[f"cleanlab {method} adjusted"] = np.argsort(scores, kind="stable")
    issues = find_label_issues(
        y, proba, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    others = found.indices[~np.isin(found.indices, issues)]
    ranked["cleanlab issues first"] = np.concatenate([issues, others])
    return ranked


def flipped(name: str, X: np.ndarray, y: np.ndarray) -> Rows:
    """Flip labels, rank them, correct the first 50."""
    n_classes = y.max() + 1
    for n in (200, 800):
        for share in (0.05, 0.1):
            for seed in range(5):
                rng = np.random.RandomState(seed)
                order = rng.permutation(len(y))
                train, test = order[:n], order[n:]
                wrong = np.zeros(n, dtype=bool)
                wrong[rng.choice(n, round(share * n), replace=False)] = True
                other = (y[train] + rng.randint(1, n_classes, n)) % n_classes
                noisy = np.where(wrong, other, y[train])
                accuracy = {
                    key: model().fit(X[train], labels).score(X[test], y[test])
                    for key, labels in (("flipped", noisy), ("clean", y[train]))
                }
                proba = out_of_fold_proba(
                    model(), X[train], noisy, classes=np.arange(n_classes)
                )
                for ranking, ranked in rankings(noisy, proba).items():
                    place = np.empty(n)
                    place[ranked] = np.arange(len(ranked))
                    mended = noisy.copy()
                    mended[ranked[:50]] = y[train][ranked[:50]]
                    after = model().fit(X[train], mended).score(X[test], y[test])
                    yield {
                        "n_train": n,
                        "share": share,
                        "seed": seed,
                        "method": ranking,
                        "average_precision": average_precision_score(wrong, -place),
                        "precision_at_50": wrong[ranked[:50]].mean(),
                        "accuracy_flipped": accuracy["flipped"],
                        "accuracy_corrected": after,
                        "accuracy_clean": accuracy["clean"],
                    }


# --- stopping -------------------------------------------------------------------------


def stopping(name: str, X: np.ndarray, y: np.ndarray) -> Rows:
    """Runs until the accuracy is shown; features of 32 components, for speed."""
    X = PCA(32, random_state=0).fit_transform(X)
    target = TARGETS[name]
    for n_labels, seed in itertools.product(SET_APART, range(60)):
        pool = np.random.RandomState(seed).permutation(len(y))[:1000]
        rule = EstimatedScore(target, n_labels=n_labels, random_state=seed)
        learner = ActiveLearner(
            make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)),
            MarginSampling(),
            n_rounds=20,
            n_instances=20,
            stopping=rule,
            random_state=seed,
        )
        rest = np.setdiff1d(np.arange(len(y)), pool)
        first = None  # where the estimate itself reaches the target
        for _ in learner.rounds(X[pool], y[pool]):
            score = learner.score(X[rest], y[rest])
            shown = rule.estimates_[-1].value if rule.estimates_ else 0
            if first is None and shown >= target:
                first = score
        stopped = rule.estimates_[-1].low >= target
        yield {
            "n": n_labels,
            "seed": seed,
            "target": target,
            "stopped": stopped,
            "n_train": int(learner.labeled_.sum()),
            "accuracy": score,
            "below": stopped and score < target,
            "value_below": first is not None and first < target,
        }


PARTS = {
    "audits": audits,
    "calibration": calibration,
    "suspects": flipped,
    "stopping": stopping,
}


def main() -> None:
    """Run what is asked for and not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("SKADMA_DATA"))
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--md", action="store_true", help="print the tables at the end")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    there = pd.read_csv(options.out) if options.out.is_file() else pd.DataFrame()
    done = set(zip(there.get("part", ()), there.get("dataset", ()), strict=True))
    missing = [pair for pair in product(options.parts, DATASETS) if pair not in done]
    if missing and options.data is None:
        parser.error("say where the data are: --data, or SKADMA_DATA")
    for part, dataset in tqdm(missing):
        kept = options.out.parent / "features"
        X, y = features(dataset, Path(options.data), kept)
        found = pd.DataFrame(PARTS[part](dataset, X, y))
        found.insert(0, "part", part)
        found.insert(1, "dataset", dataset)
        there = pd.concat([there, found], ignore_index=True)
        write = partial(there.to_csv, index=False, float_format="%.5g")
        write_atomically(options.out, write)
    if options.md:
        print(tables(pd.read_csv(options.out)))


if __name__ == "__main__":
    main()
