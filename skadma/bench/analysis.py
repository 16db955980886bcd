"""Analyse results: areas, labels needed, paired tests.

Every function gets the table of :func:`~skadma.bench.read_results`. The fully trained
network is left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid
from scipy.stats import wilcoxon

from .config import FULLY_TRAINED

GROUP = ["dataset", "network"]
PAIR = [*GROUP, "seed"]


def curves(results: pd.DataFrame) -> pd.DataFrame:
    """Leave out the fully trained network."""
    return results[results["strategy_class"] != FULLY_TRAINED]


def area_under_curve(results: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """Area under each cell's curve over labels, divided by the range of labels.

    By the trapezoidal rule from the first to the last measured number of labels: a
    mean of the metric in which all labels count alike. Of a single point, its value.

    Parameters
    ----------
    results : pandas.DataFrame
    metric : {"accuracy", "auc", "average_precision"}, default="accuracy"

    Returns
    -------
    pandas.DataFrame
        Indexed by dataset, network and seed, a column per strategy; NaN where there are
        no results. A row's cells share split and first network.
    """
    results = curves(results)
    cells = results.groupby([*PAIR, "strategy"])[["n_labels", metric]]
    return cells.apply(_area).unstack("strategy")[results["strategy"].unique()]


def _area(rounds: pd.DataFrame) -> float:
    x, y = rounds.sort_values("n_labels").to_numpy(float).T
    return float(trapezoid(y, x) / np.ptp(x) if len(x) > 1 else y[0])


def labels_to_reach(
    results: pd.DataFrame, reference: str = "random", metric: str = "accuracy"
) -> pd.DataFrame:
    """Labels that each strategy needs for what the reference has in the end.

    Read off the mean curves over seeds: the first number of labels at which a
    strategy's mean reaches the reference's last mean, linear between two rounds. It
    is at least the first round's number, before which nothing is measured.

    Parameters
    ----------
    results : pandas.DataFrame
    reference : str, default="random"
        Name of a strategy.
    metric : {"accuracy", "auc", "average_precision"}, default="accuracy"

    Returns
    -------
    pandas.DataFrame
        A row per dataset, network and strategy: ``target``, ``labels`` (NaN where it
        is not reached), ``share`` (of the reference's labels; NaN likewise).
    """
    results = curves(results)
    check_strategy(reference, results["strategy"].unique())
    rows = []
    for group, mine in results.groupby(GROUP, sort=False):
        means = mine.groupby(["strategy", "n_labels"])[metric].mean()
        if reference not in means:
            continue
        target, n_all = means[reference].iloc[-1], means[reference].index[-1]
        for strategy in mine["strategy"].unique():
            labels = _first_crossing(means[strategy], target)
            rows.append((*group, strategy, target, labels, labels / n_all))
    columns = [*GROUP, "strategy", "target", "labels", "share"]
    return pd.DataFrame(rows, columns=columns)


def _first_crossing(curve: pd.Series, target: float) -> float:
    x, y = curve.index.to_numpy(float), curve.to_numpy(float)
    reached = np.flatnonzero(y >= target)
    if not len(reached):
        return float("nan")
    step = slice(max(reached[0] - 1, 0), reached[0] + 1)
    return float(np.interp(target, y[step], x[step]))


def compare(
    results: pd.DataFrame, against: str, metric: str = "accuracy"
) -> pd.DataFrame:
    """Test every strategy's area against one strategy's, paired by seeds.

    Two-sided Wilcoxon signed-rank tests per data set and network, where five seeds
    cannot give less than p = 0.0625, and over all pairs together. Pairs are cells of
    the same data set, network and seed, which share split and first network.

    Parameters
    ----------
    results : pandas.DataFrame
    against : str
        Name of a strategy.
    metric : {"accuracy", "auc", "average_precision"}, default="accuracy"

    Returns
    -------
    pandas.DataFrame
        A row per dataset, network ("all" in the last ones) and strategy: ``n_pairs``,
        ``difference`` (mean of strategy minus `against`), ``wins``, ``losses`` (of
        the strategy), ``p`` and ``p_holm``, which allows for all strategies of the
        data set and network being tested (Holm's method).
    """
    areas = area_under_curve(results, metric)
    check_strategy(against, areas.columns)
    gains = areas.drop(columns=against).sub(areas[against], axis="index")
    rows = []
    for group, table in [*gains.groupby(GROUP), (("all", "all"), gains)]:
        table = table.dropna(axis="columns", how="all")
        p = pd.Series({name: _wilcoxon(table[name]) for name in table}, dtype=float)
        tests = {
            "n_pairs": table.count(),
            "difference": table.mean(),
            "wins": (table > 0).sum(),
            "losses": (table < 0).sum(),
            "p": p,
            "p_holm": _holm(p),
        }
        names = dict(zip(GROUP, group, strict=True))
        rows.append(pd.DataFrame(tests).reset_index(names="strategy").assign(**names))
    return pd.concat(rows, ignore_index=True)[[*GROUP, "strategy", *tests]]


def _wilcoxon(difference: pd.Series) -> float:
    # Equal pairs have no rank, and keep scipy from computing p exactly.
    unequal = difference[difference.notna() & (difference != 0)]
    return float(wilcoxon(unequal).pvalue) if len(unequal) else 1.0


def _holm(p: pd.Series) -> pd.Series:
    ordered = p.sort_values()
    return (ordered * np.arange(len(p), 0, -1)).cummax().clip(upper=1)


def check_strategy(name: str, names: Any) -> None:
    """Refuse the name of a strategy without results."""
    if name not in names:
        raise ValueError(f"There are no results of {name!r}, only of {list(names)}.")
