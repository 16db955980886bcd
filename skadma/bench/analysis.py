"""Analyse results: areas, labels needed, paired tests, wins and losses.

Every function gets the table of :func:`~skadma.bench.read_results`. The fully trained
network is left out of what is about curves.
"""

from __future__ import annotations

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


def ceiling(results: pd.DataFrame) -> pd.DataFrame:
    """Keep the fully trained network alone."""
    return results[results["strategy_class"] == FULLY_TRAINED]


def learning_table(results: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """Mean and standard deviation over seeds at each number of labels.

    Parameters
    ----------
    results : pandas.DataFrame
    metric : {"accuracy", "auc"}, default="accuracy"

    Returns
    -------
    pandas.DataFrame
        Indexed by dataset, network, strategy and n_labels, with ``mean``, ``std``
        (of a sample, so NaN for one seed) and ``n_seeds``.
    """
    grouped = results.groupby([*GROUP, "strategy", "n_labels"], sort=False)[metric]
    return grouped.agg(mean="mean", std="std", n_seeds="count")


def area_under_curve(results: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """Area under each cell's curve over labels, divided by the range of labels.

    By the trapezoidal rule from the first to the last measured number of labels: a
    mean of the metric in which all labels count alike. Of a single point, its value.

    Parameters
    ----------
    results : pandas.DataFrame
    metric : {"accuracy", "auc"}, default="accuracy"

    Returns
    -------
    pandas.DataFrame
        A row per cell: dataset, network, strategy, seed, ``area``.
    """
    cells = curves(results).groupby([*PAIR, "strategy"], sort=False)
    areas = cells[["n_labels", metric]].apply(_area).rename("area").reset_index()
    return areas[[*GROUP, "strategy", "seed", "area"]]


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
    metric : {"accuracy", "auc"}, default="accuracy"

    Returns
    -------
    pandas.DataFrame
        A row per dataset, network and strategy: ``target``, ``labels`` (NaN where it
        is not reached), ``share`` (of the reference's labels; NaN likewise).
    """
    _check_strategy(results, reference)
    rows = []
    for group, mine in curves(results).groupby(GROUP, sort=False):
        means = mine.groupby(["strategy", "n_labels"])[metric].mean()
        if reference not in means:
            continue
        target, n_all = means[reference].iloc[-1], means[reference].index[-1]
        for strategy in mine["strategy"].unique():
            curve = means[strategy]
            labels = _first_crossing(
                curve.index.to_numpy(float), curve.to_numpy(float), target
            )
            rows.append((*group, strategy, target, labels, labels / n_all))
    columns = [*GROUP, "strategy", "target", "labels", "share"]
    return pd.DataFrame(rows, columns=columns)


def _first_crossing(x: np.ndarray, y: np.ndarray, target: float) -> float:
    reached = np.flatnonzero(y >= target)
    if not len(reached):
        return float("nan")
    i = reached[0]
    if i == 0:
        return float(x[0])
    rise = (target - y[i - 1]) / (y[i] - y[i - 1])
    return float(x[i - 1] + rise * (x[i] - x[i - 1]))


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
    metric : {"accuracy", "auc"}, default="accuracy"

    Returns
    -------
    pandas.DataFrame
        A row per dataset, network ("all" in the last ones) and strategy: ``n_pairs``,
        ``difference`` (mean of strategy minus `against`), ``wins``, ``losses`` (of
        the strategy), ``p`` and ``p_holm``, which allows for all strategies of the
        data set and network being tested (Holm's method).
    """
    _check_strategy(results, against)
    areas = _pivoted(results, metric)
    others = [s for s in _order(results) if s != against]
    names = dict.fromkeys(areas.index.droplevel("seed"))
    groups = [(group, areas.xs(group, level=GROUP)) for group in names]
    rows = []
    for group, table in [*groups, (("all", "all"), areas)]:
        gains = {s: (table[s] - table[against]).dropna().to_numpy() for s in others}
        gains = {strategy: gain for strategy, gain in gains.items() if len(gain)}
        p = np.array([_wilcoxon(gain) for gain in gains.values()])
        for (strategy, gain), *ps in zip(gains.items(), p, _holm(p), strict=True):
            wins, losses = (gain > 0).sum(), (gain < 0).sum()
            rows.append((*group, strategy, len(gain), gain.mean(), wins, losses, *ps))
    columns = ["n_pairs", "difference", "wins", "losses", "p", "p_holm"]
    return pd.DataFrame(rows, columns=[*GROUP, "strategy", *columns])


def _wilcoxon(difference: np.ndarray) -> float:
    # Equal pairs have no rank, and keep scipy from computing p exactly.
    unequal = difference[difference != 0]
    return float(wilcoxon(unequal).pvalue) if len(unequal) else 1.0


def _holm(p: np.ndarray) -> np.ndarray:
    order = np.argsort(p)
    scaled = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted


def wins_and_losses(results: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """Count the pairs in which one strategy's area is larger than another's.

    Parameters
    ----------
    results : pandas.DataFrame
    metric : {"accuracy", "auc"}, default="accuracy"

    Returns
    -------
    pandas.DataFrame
        Square: how often the row's strategy beats the column's.
    """
    areas, names = _pivoted(results, metric), _order(results)
    rows = [[int((areas[a] > areas[b]).sum()) for b in names] for a in names]
    return pd.DataFrame(rows, index=names, columns=names)


def summary_table(results: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """Mean area under the curve by data set, network and strategy.

    Parameters
    ----------
    results : pandas.DataFrame
    metric : {"accuracy", "auc"}, default="accuracy"

    Returns
    -------
    pandas.DataFrame
        Indexed by dataset and network, a column per strategy; NaN where there are no
        results.
    """
    areas = area_under_curve(results, metric)
    table = areas.groupby([*GROUP, "strategy"], sort=False)["area"].mean().unstack()
    groups = areas[GROUP].drop_duplicates().itertuples(index=False, name=None)
    return table.loc[list(groups), _order(results)]


def _pivoted(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Areas with a row for each pair and a column for each strategy."""
    areas = area_under_curve(results, metric)
    return areas.pivot(index=PAIR, columns="strategy", values="area")


def _order(results: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(curves(results)["strategy"]))


def _check_strategy(results: pd.DataFrame, name: str) -> None:
    names = _order(results)
    if name not in names:
        raise ValueError(f"There are no results of {name!r}, only of {names}.")
