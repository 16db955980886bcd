"""Write a report of the results: report.md and figures beside the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..plotting import LearningCurveDisplay
from .analysis import (
    GROUP,
    area_under_curve,
    ceiling,
    compare,
    curves,
    labels_to_reach,
    learning_table,
    summary_table,
    wins_and_losses,
)
from .config import file_stem
from .runner import read_results

METRICS = {
    "accuracy": "accuracy",
    "auc": "AUC",
    "average_precision": "mean average precision",
}
"""The last only where images have several labels."""


def write_report(out: str | Path, *, against: str | None = None) -> Path:
    """Write tables, tests and figures of a benchmark's results.

    Parameters
    ----------
    out : str or Path
        The folder with ``results.csv``; gets ``report.md`` and ``figures/``.
    against : str, optional
        The strategy that all others are tested against; the one with the largest
        mean area under the accuracy curve if None.

    Returns
    -------
    Path
        ``report.md``.
    """
    out = Path(out)
    results = read_results(out)
    if curves(results).empty:
        raise ValueError(f"There are no curves in {str(out)!r} yet, only ceilings.")
    best = against or _best(results)
    sections = [_head(results)]
    for metric in _metrics(results):
        measured = results[results[metric].notna()]
        strongest = best if best in set(measured["strategy"]) else _best(measured)
        sections += _of_areas(measured, strongest, metric, METRICS[metric])
    for (dataset, network), chosen in results.groupby(GROUP, sort=False):
        if curves(chosen).empty:
            continue
        sections.append(f"## {dataset}, {network}")
        for metric in _metrics(chosen):
            sections += [f"### {METRICS[metric]}", _learning(chosen, metric)]
        figure = _figure(chosen, out / "figures")
        sections.append(f"![learning curves](figures/{figure.name})")
    path = out / "report.md"
    path.write_text("\n\n".join(sections) + "\n", "utf-8")
    return path


def _metrics(results: pd.DataFrame) -> list[str]:
    return [m for m in METRICS if m in results and results[m].notna().any()]


def _best(results: pd.DataFrame) -> str:
    means = summary_table(results)
    # Of what every data set and network has, or a strategy that was spared the hard
    # ones would be the best.
    complete = means.dropna(axis="columns")
    return str((means if complete.empty else complete).mean().idxmax())


def _of_areas(
    results: pd.DataFrame, against: str, metric: str, label: str
) -> list[str]:
    wins = wins_and_losses(results, metric).astype(str)
    wins = wins.where(~np.eye(len(wins), dtype=bool), "")
    sections = [
        f"## Area under the {label} curve",
        _areas(results, metric),
        f"### Against {against}",
        f"Mean differences of areas (the strategy's minus {against}'s), pairs won and "
        "lost, two-sided Wilcoxon tests; p (Holm) allows for the number of strategies.",
        markdown_table(
            [*GROUP, "strategy", "difference", "won", "lost", "p", "p (Holm)"],
            [
                (
                    *row[1:4],
                    f"{row.difference:+.3f}",
                    f"{row.wins} of {row.n_pairs}",
                    row.losses,
                    f"{row.p:.2g}",
                    f"{row.p_holm:.2g}",
                )
                for row in compare(results, against, metric).itertuples()
            ],
        ),
        "### Wins",
        "In how many pairs the row's area is larger than the column's.",
        markdown_table(["", *wins], wins.reset_index().to_numpy()),
    ]
    drawn = results.loc[results["strategy_class"] == "RandomSampling", "strategy"]
    if len(drawn):
        random = drawn.iloc[0]
        sections += [
            f"### Labels needed for the final {label} of {random}",
            f"In brackets the share of {random}'s labels; > where it is not reached.",
            _needed(results, random, metric),
        ]
    return sections


def _head(results: pd.DataFrame) -> str:
    seeds = results.groupby([*GROUP, "strategy"])["seed"].nunique()
    span = f"{seeds.min()} to {seeds.max()}" if seeds.nunique() > 1 else seeds.max()
    groups = results[GROUP].drop_duplicates()
    return (
        "# Label efficiency\n\n"
        f"{len(groups)} combination(s) of data set and network, "
        f"{results['strategy'].nunique()} strategies, {span} seed(s). Mean ± standard "
        "deviation over seeds throughout. An area is the mean height of the curve "
        "over labels."
    )


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Lay out a table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _spread(mean: float, std: float) -> str:
    if np.isnan(mean):
        return ""
    return f"{mean:.3f}" if np.isnan(std) else f"{mean:.3f} ± {std:.3f}"


def _areas(results: pd.DataFrame, metric: str) -> str:
    """Data sets and networks in rows, strategies in columns, the best in bold."""
    means = summary_table(results, metric)
    grouped = area_under_curve(results, metric).groupby([*GROUP, "strategy"])["area"]
    stds = grouped.std().unstack("strategy")
    rows = []
    for group, row in means.iterrows():
        cells = [_spread(row[name], stds.loc[group, name]) for name in means]
        if row.notna().any():
            best = int(np.nanargmax(row.to_numpy()))
            cells[best] = f"**{cells[best]}**"
        rows.append([*group, *cells])
    complete = means.dropna(axis="columns")
    if len(means) > 1:
        ranks = complete.rank(axis="columns", ascending=False).mean()
        for label, values in (("mean", complete.mean()), ("mean rank", ranks)):
            cells = [f"{values[n]:.3f}" if n in values else "" for n in means]
            rows.append([label, "", *cells])
    return markdown_table([*GROUP, *means], rows)


def _needed(results: pd.DataFrame, random: str, metric: str) -> str:
    table = labels_to_reach(results, random, metric)
    names = table["strategy"].unique()
    last = curves(results).groupby([*GROUP, "strategy"])["n_labels"].max()
    rows = []
    for (*group, target), found in table.groupby([*GROUP, "target"], sort=False):
        cells = dict.fromkeys(names, "")
        for row in found.itertuples():
            cells[row.strategy] = (
                f"> {last[(*group, row.strategy)]}"
                if np.isnan(row.labels)
                else f"{row.labels:.0f} ({row.share:.2f})"
            )
        rows.append([*group, f"{target:.3f}", *cells.values()])
    return markdown_table([*GROUP, "to reach", *names], rows)


def _learning(results: pd.DataFrame, metric: str) -> str:
    """Strategies in rows, labels in columns, as in the paper's Tables 1 and 2."""
    table = learning_table(curves(results), metric).droplevel(GROUP)
    spreads = map(_spread, table["mean"], table["std"])
    wide = table.assign(text=list(spreads))["text"].unstack(fill_value="")
    wide = wide.loc[table.index.unique("strategy")].reset_index()
    text = markdown_table(["labels", *map(str, wide.columns[1:])], wide.to_numpy())
    for (*_, name, n), row in learning_table(ceiling(results), metric).iterrows():
        text += f"\n\n{name}, all {n} labels: {_spread(row['mean'], row['std'])}"
    return text


def _figure(results: pd.DataFrame, folder: Path) -> Path:
    metrics = _metrics(results)
    figure = Figure(figsize=(6.5 * len(metrics), 5), layout="constrained")
    (axes,) = figure.subplots(1, len(metrics), squeeze=False)
    for ax, metric in zip(axes, metrics, strict=True):
        LearningCurveDisplay.from_results(results, metric=metric, ax=ax)
    folder.mkdir(exist_ok=True)
    path = folder / f"{file_stem(*results[GROUP].iloc[0])}.png"
    figure.savefig(path, dpi=100)
    return path
