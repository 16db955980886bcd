"""LearningCurveDisplay: accuracy, or another metric, over the number of labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._matplotlib import new_axes

_CEILING = "FullyTrained"  # as skadma.bench marks what is no curve
_LABELS = {"auc": "AUC", "average_precision": "mean average precision"}


class LearningCurveDisplay:
    """Curves of strategies over the number of labels, with bands.

    Make one with :meth:`from_results`.

    Parameters
    ----------
    n_labels : dict of str to ndarray of int
        By strategy.
    mean : dict of str to ndarray
        Over seeds.
    std : dict of str to ndarray
        Likewise; NaN for a single seed, which has no band.
    metric : str
        What is measured.
    ceiling : dict of str to float, optional
        Fully trained networks' values: horizontal lines.
    title : str, default=""

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    lines_ : dict of str to matplotlib.lines.Line2D
    bands_ : dict of str to matplotlib.collections.PolyCollection

    Examples
    --------
    >>> import pandas as pd
    >>> from skadma.plotting import LearningCurveDisplay
    >>> results = pd.DataFrame({
    ...     "strategy": ["random"] * 4 + ["ADMA"] * 4, "seed": [0, 0, 1, 1] * 2,
    ...     "n_labels": [10, 20] * 4,
    ...     "accuracy": [.5, .6, .6, .7, .5, .8, .6, .9]})
    >>> display = LearningCurveDisplay.from_results(results)
    >>> display.mean["ADMA"].round(2).tolist()
    [0.55, 0.85]
    """

    def __init__(
        self,
        *,
        n_labels: dict[str, np.ndarray],
        mean: dict[str, np.ndarray],
        std: dict[str, np.ndarray],
        metric: str,
        ceiling: dict[str, float] | None = None,
        title: str = "",
    ) -> None:
        self.n_labels = n_labels
        self.mean = mean
        self.std = std
        self.metric = metric
        self.ceiling = ceiling
        self.title = title

    @classmethod
    def from_results(
        cls,
        results: Any,
        *,
        metric: str = "accuracy",
        dataset: str | None = None,
        network: str | None = None,
        strategies: list[str] | None = None,
        ax: Any = None,
    ) -> LearningCurveDisplay:
        """Draw the curves of a benchmark's results.

        Parameters
        ----------
        results : pandas.DataFrame
            From :func:`skadma.bench.read_results`, or any with the columns
            ``strategy``, ``seed``, ``n_labels`` and the metric's.
        metric : str, default="accuracy"
        dataset, network : str, optional
            Which ones; needed where there are several.
        strategies : list of str, optional
            Which ones, in this order; all if None.
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure if None.

        Returns
        -------
        LearningCurveDisplay
        """
        columns = ["strategy", "seed", "n_labels", metric]
        missing = [column for column in columns if column not in results.columns]
        if missing:
            raise ValueError(
                f"results has no column {missing}, only {list(results.columns)}."
            )
        titles = []
        for column, wanted in (("dataset", dataset), ("network", network)):
            if column not in results.columns:
                continue
            names = list(results[column].unique())
            if wanted is None and len(names) > 1:
                raise ValueError(
                    f"results has several, so choose {column}= from {names}."
                )
            if wanted is not None and wanted not in names:
                raise ValueError(
                    f"{column}={wanted!r} is not in results, only {names}."
                )
            titles.append(wanted or names[0])
            results = results[results[column] == titles[-1]]
        ceiling = {}
        if "strategy_class" in results.columns:
            full = results["strategy_class"] == _CEILING
            ceiling = results[full].groupby("strategy")[metric].mean().to_dict()
            results = results[~full]
        names = list(results["strategy"].unique())
        unknown = [name for name in strategies or [] if name not in names]
        if unknown:
            raise ValueError(f"results has no strategies {unknown}, only {names}.")
        found = {}
        for name in names if strategies is None else strategies:
            mine = results[results["strategy"] == name].groupby("n_labels")[metric]
            found[name] = mine.agg(["mean", "std"])
        display = cls(
            n_labels={name: table.index.to_numpy() for name, table in found.items()},
            mean={name: table["mean"].to_numpy() for name, table in found.items()},
            std={name: table["std"].to_numpy() for name, table in found.items()},
            metric=metric,
            ceiling=ceiling,
            title=", ".join(titles),
        )
        return display.plot(ax=ax)

    def plot(self, *, ax: Any = None) -> LearningCurveDisplay:
        """Draw the curves; `ax` as in :meth:`from_results`."""
        ax = new_axes(ax, type(self).__name__)
        self.lines_: dict[str, Any] = {}
        self.bands_: dict[str, Any] = {}
        for i, (name, x) in enumerate(self.n_labels.items()):
            mean, std = self.mean[name], self.std[name]
            # There are ten colours; more curves differ by their dashes.
            style = ("-", "--", ":")[i // 10 % 3]
            (line,) = ax.plot(
                x, mean, style, marker=".", color=f"C{i % 10}", label=name
            )
            self.lines_[name] = line
            if np.isfinite(std).any():
                self.bands_[name] = ax.fill_between(
                    x, mean - std, mean + std, color=line.get_color(), alpha=0.12, lw=0
                )
        for name, value in (self.ceiling or {}).items():
            ax.axhline(value, color="0.4", ls="-.", lw=1, label=name)
        ax.set(xlabel="labels", ylabel=_LABELS.get(self.metric, self.metric))
        ax.set_title(self.title)
        ax.grid(alpha=0.3)
        ax.legend(fontsize="small", ncols=2 if len(self.n_labels) > 6 else 1)
        self.ax_, self.figure_ = ax, ax.figure
        return self
