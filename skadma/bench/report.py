"""Write a report of the results: report.md and curves.png beside the table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..plotting import LearningCurveDisplay
from .analysis import (
    GROUP,
    area_under_curve,
    check_strategy,
    compare,
    curves,
    labels_to_reach,
)
from .runner import read_results

METRICS = {
    "accuracy": "accuracy",
    "auc": "AUC",
    "average_precision": "mean average precision",
}
"""The last only where images have several labels."""


def write_report(out: str | Path, *, against: str | None = None) -> Path:
    """Write tables, tests and learning curves of a benchmark's results.

    Parameters
    ----------
    out : str or Path
        The folder with ``results.csv``; gets ``report.md`` and ``curves.png``.
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
    against = against or _best(results)
    check_strategy(against, curves(results)["strategy"].unique())
    seeds = results.groupby([*GROUP, "strategy"])["seed"].nunique()
    sections = [
        f"# Label efficiency\n\n{results['strategy'].nunique()} strategies, "
        f"{' to '.join(map(str, sorted({seeds.min(), seeds.max()})))} seed(s). Mean ± "
        "standard deviation over seeds throughout. An area is the mean height of the "
        "curve over labels."
    ]
    for metric in _metrics(results):
        sections += _comparison(results[results[metric].notna()], metric, against)
    for (dataset, network), chosen in results.groupby(GROUP, sort=False):
        sections.append(f"## {dataset}, {network}")
        for metric in _metrics(chosen):
            sections += [f"### {METRICS[metric]}", _learning_table(chosen, metric)]
    sections.append("![learning curves](curves.png)")
    draw_curves(results).savefig(out / "curves.png", dpi=100)
    path = out / "report.md"
    path.write_text("\n\n".join(sections) + "\n", "utf-8")
    return path


def _metrics(results: pd.DataFrame) -> list[str]:
    return [m for m in METRICS if m in results and results[m].notna().any()]


def _best(results: pd.DataFrame) -> str:
    means = area_under_curve(results).groupby(GROUP).mean()
    # Of what every data set and network has, or a strategy that was spared the hard
    # ones would be the best.
    overall = means.mean(skipna=False)
    return str((means.mean() if overall.isna().all() else overall).idxmax())


def _comparison(results: pd.DataFrame, metric: str, against: str) -> Iterator[str]:
    """Compare areas under the curves, and labels needed."""
    areas = area_under_curve(results, metric).groupby(GROUP)
    means = areas.mean()
    text = _spread(means, areas.std()).reset_index()
    if len(means) > 1:
        overall = means.mean(skipna=False)
        text.loc[len(text)] = ["mean", "", *_spread(overall, overall * np.nan)]
    yield f"## Area under the {METRICS[metric]} curve"
    yield markdown_table(text.columns, text.to_numpy())
    if against in means:
        tests = compare(results, against, metric)
        for column, form in {"difference": "+.3f", "p": ".2g", "p_holm": ".2g"}.items():
            tests[column] = tests[column].map(f"{{:{form}}}".format)
        yield f"### Against {against}"
        yield (
            f"Mean differences of areas (the strategy's minus {against}'s), pairs won "
            "and lost, two-sided Wilcoxon tests; p_holm allows for the number of "
            "strategies."
        )
        yield markdown_table(tests.columns, tests.to_numpy())
    drawn = results.loc[results["strategy_class"] == "RandomSampling", "strategy"]
    if len(drawn):
        random = drawn.iloc[0]
        needed = labels_to_reach(results, random, metric)
        labels, share = needed["labels"], needed["share"]
        text = labels.map("{:.0f}".format) + share.map(" ({:.2f})".format)
        needed["target"] = needed["target"].map("{:.3f}".format)
        needed["labels"] = text.where(labels.notna(), "not reached")
        needed = needed.drop(columns="share")
        yield f"### Labels needed for the final {METRICS[metric]} of {random}"
        yield f"In brackets the share of {random}'s labels."
        yield markdown_table(needed.columns, needed.to_numpy())


def _learning_table(results: pd.DataFrame, metric: str) -> str:
    """Strategies in rows, labels in columns, as in the paper's Tables 1 and 2."""
    cells = results.groupby(["strategy", "n_labels"])[metric]
    text = _spread(cells.mean(), cells.std()).unstack(fill_value="")
    text = text.loc[results["strategy"].unique()].reset_index()
    return markdown_table(["labels", *map(str, text.columns[1:])], text.to_numpy())


def _spread(means: Any, stds: Any) -> Any:
    """Write down means and standard deviations, without those that are missing."""
    text = means.map("{:.3f}".format) + stds.map(" ± {:.3f}".format)
    return text.replace({"^nan.*": "", " ± nan": ""}, regex=True)


def markdown_table(head: Iterable[str], rows: Iterable[Sequence[Any]]) -> str:
    """Lay out a table in Markdown."""
    lines = [[*head], *rows]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def draw_curves(results: pd.DataFrame) -> Figure:
    """Data sets and networks in rows, metrics in columns."""
    metrics = _metrics(results)
    groups = results.groupby(GROUP, sort=False)
    size = 6.5 * len(metrics), 5 * len(groups)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(groups), len(metrics), squeeze=False)
    for row, (_, chosen) in zip(axes, groups, strict=True):
        for ax, metric in zip(row, metrics, strict=True):
            if metric in _metrics(chosen):
                LearningCurveDisplay.from_results(chosen, metric=metric, ax=ax)
            else:
                ax.set_axis_off()
    return figure
