"""The tables of docs/evaluation.md, of what evaluation.py has found."""

from __future__ import annotations

import pandas as pd

from skadma.bench.report import markdown_table

DATASETS = ("elpv", "dogs-vs-cats", "cifar10", "digits")
AUDITS = (
    ("random", "exact"),
    ("random", "wilson"),
    ("stratified", "wilson"),
    ("importance", "wilson"),
)


def tables(results: pd.DataFrame) -> str:
    """All of them."""
    parts = dict(list(results.groupby("part")))
    return "\n\n".join(
        [
            audits_by_method(parts["audits"]),
            coverage(parts["audits"]),
            calibration(parts["calibration"]),
            suspects_by_ranking(parts["suspects"]),
            suspects_by_share(parts["suspects"]),
            stopping(parts["stopping"]),
        ]
    )


def audits_by_method(found: pd.DataFrame) -> str:
    """Errors of audits of 100 labels, and what a label is worth beside a random one."""
    rows = []
    for (dataset, n_train), mine in found.groupby(["dataset", "n_train"], sort=False):
        row = [dataset, f"{n_train:.0f}", f"{100 * mine['accuracy'].iloc[0]:.1f}"]
        for method, interval in AUDITS[1:]:
            part = mine[(mine["method"] == method) & (mine["interval"] == interval)]
            part = part[part["n"] == 100]
            row.append(f"{100 * part['rmse'].iloc[0]:.1f}")
            if method != "random":
                row.append(f"{100 / part['relative_variance'].iloc[0]:.0f}")
        rows.append(row)
    return markdown_table(
        ["data set", "training labels", "accuracy %", "random: error",
         "stratified: error", "worth", "importance: error", "worth"],
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


def calibration(found: pd.DataFrame) -> str:
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


def stopping(found: pd.DataFrame) -> str:
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
