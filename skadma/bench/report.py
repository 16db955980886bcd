"""Write a report of the results: report.md and figures beside the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
    for dataset, network in curves(results)[GROUP].drop_duplicates().to_numpy():
        sections.append(f"## {dataset}, {network}")
        for metric in _metrics(_of_group(results, dataset, network)):
            sections.append(f"### {METRICS[metric]}")
            sections.append(_learning(results, metric, dataset, network))
        figure = _figure(results, dataset, network, out / "figures")
        sections.append(f"![learning curves](figures/{figure.name})")
    path = out / "report.md"
    path.write_text("\n\n".join(sections) + "\n", "utf-8")
    return path


def _metrics(results: Any) -> list[str]:
    return [m for m in METRICS if m in results and results[m].notna().any()]


def _of_group(results: Any, dataset: str, network: str) -> Any:
    return results[(results["dataset"] == dataset) & (results["network"] == network)]


def _best(results: Any) -> str:
    means = summary_table(results)
    # Of what every data set and network has, or a strategy that was spared the hard
    # ones would be the best.
    complete = means.dropna(axis="columns")
    return str((means if complete.empty else complete).mean().idxmax())


def _of_areas(results: Any, against: str, metric: str, label: str) -> list[str]:
    sections = [
        f"## Area under the {label} curve",
        _areas(results, metric),
        f"### Against {against}",
        f"Mean differences of areas (the strategy's minus {against}'s), pairs won and "
        "lost, two-sided Wilcoxon tests; p (Holm) allows for the number of strategies.",
        _comparison(compare(results, against, metric)),
        "### Wins",
        "In how many pairs the row's area is larger than the column's.",
        _wins(wins_and_losses(results, metric)),
    ]
    random = _random(results)
    if random is not None:
        sections += [
            f"### Labels needed for the final {label} of {random}",
            f"In brackets the share of {random}'s labels; > where it is not reached.",
            _needed(results, random, metric),
        ]
    return sections


def _random(results: Any) -> str | None:
    found = results.loc[results["strategy_class"] == "RandomSampling", "strategy"]
    return None if found.empty else str(found.iloc[0])


def _head(results: Any) -> str:
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


def _areas(results: Any, metric: str) -> str:
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


def _comparison(table: Any) -> str:
    head = ["dataset", "network", "strategy", "difference", "won", "lost", "p",
            "p (Holm)"]  # fmt: skip
    rows = [
        [
            row.dataset, row.network, row.strategy, f"{row.difference:+.3f}",
            f"{row.wins} of {row.n_pairs}", row.losses, f"{row.p:.2g}",
            f"{row.p_holm:.2g}",
        ]
        for row in table.itertuples()
    ]  # fmt: skip
    return markdown_table(head, rows)


def _wins(table: Any) -> str:
    rows = [
        [name, *("" if name == other else table.loc[name, other] for other in table)]
        for name in table.index
    ]
    return markdown_table(["", *table], rows)


def _needed(results: Any, random: str, metric: str) -> str:
    table = labels_to_reach(results, random, metric)
    names = list(dict.fromkeys(table["strategy"]))
    last = curves(results).groupby([*GROUP, "strategy"])["n_labels"].max()
    rows = []
    for group, rows_of_group in table.groupby(GROUP, sort=False):
        found = rows_of_group.set_index("strategy")
        cells = []
        for name in names:
            if name not in found.index:
                cells.append("")
            elif np.isnan(found.loc[name, "labels"]):
                cells.append(f"> {last[(*group, name)]}")
            else:
                labels, share = found.loc[name, "labels"], found.loc[name, "share"]
                cells.append(f"{labels:.0f} ({share:.2f})")
        target = found["target"].iloc[0]
        rows.append([*group, f"{target:.3f}", *cells])
    return markdown_table([*GROUP, "to reach", *names], rows)


def _learning(results: Any, metric: str, dataset: str, network: str) -> str:
    """Strategies in rows, labels in columns, as in the paper's Tables 1 and 2."""
    chosen = _of_group(results, dataset, network)
    table = learning_table(curves(chosen), metric).droplevel(GROUP)
    labels = sorted({n for _, n in table.index})
    rows = []
    for name in dict.fromkeys(name for name, _ in table.index):
        mine = table.loc[name]
        cells = [
            _spread(*mine.loc[n, ["mean", "std"]]) if n in mine.index else ""
            for n in labels
        ]
        rows.append([name, *cells])
    text = markdown_table(["labels", *map(str, labels)], rows)
    for (*_, name, n), row in learning_table(ceiling(chosen), metric).iterrows():
        text += f"\n\n{name}, all {n} labels: {_spread(row['mean'], row['std'])}"
    return text


def _figure(results: Any, dataset: str, network: str, folder: Path) -> Path:
    # Not by pyplot: that would choose a backend, and keep the figure open.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = _of_group(results, dataset, network)
    metrics = _metrics(chosen)
    figure = Figure(figsize=(6.5 * len(metrics), 5), layout="constrained")
    FigureCanvasAgg(figure)
    (axes,) = figure.subplots(1, len(metrics), squeeze=False)
    for ax, metric in zip(axes, metrics, strict=True):
        table = learning_table(curves(chosen), metric).droplevel(GROUP)
        for i, name in enumerate(dict.fromkeys(name for name, _ in table.index)):
            mine = table.loc[name].sort_index()
            # There are ten colours; more curves differ by their dashes.
            style = {"color": f"C{i % 10}", "ls": ("-", "--", ":")[i // 10 % 3]}
            ax.plot(mine.index, mine["mean"], marker=".", label=name, **style)
            low, high = mine["mean"] - mine["std"], mine["mean"] + mine["std"]
            ax.fill_between(mine.index, low, high, color=f"C{i % 10}", alpha=0.12, lw=0)
        for (*_, name, _), row in learning_table(ceiling(chosen), metric).iterrows():
            ax.axhline(row["mean"], color="0.4", ls="-.", lw=1, label=name)
        ax.set(xlabel="labels", ylabel=METRICS[metric], title=f"{dataset}, {network}")
        ax.grid(alpha=0.3)
        ax.legend(fontsize="small", ncols=2 if len(ax.lines) > 6 else 1)
    folder.mkdir(exist_ok=True)
    path = folder / f"{file_stem(dataset, network)}.png"
    figure.savefig(path, dpi=100)
    return path
