"""Figures, in scikit-learn's manner: Display classes that keep what they show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.manifold import TSNE
from sklearn.utils import check_random_state

from .adafilter import AdaFilterClassifier
from .centers import SourceCenters, shipped_centers
from .features.adapter import CNNAdapter
from .features.estimators import find_adapter
from .images.selection import n_images, take
from .learner import ActiveLearner
from .strategies import ADMA
from .strategies.adma import CenterDistances

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GateUsageDisplay", "LearningCurveDisplay", "QueryDisplay"]

_CEILING = "FullyTrained"  # as skadma.bench marks what is no curve
_LABELS = {"auc": "AUC", "average_precision": "mean average precision"}


class _Display:
    """A figure's axes, and what draws into them."""

    ax_: Any
    figure_: Any

    def _set_axes(self, ax: Any) -> Any:
        """Keep the axes that were given, or those of a new figure."""
        if ax is None:
            try:
                from matplotlib import pyplot
            except ImportError as error:
                raise ImportError(
                    f"{type(self).__name__} needs the package matplotlib: "
                    "pip install matplotlib"
                ) from error
            ax = pyplot.subplots(layout="constrained")[1]
        self.ax_, self.figure_ = ax, ax.figure
        return ax


class LearningCurveDisplay(_Display):
    """Curves of strategies over the number of labels, with bands.

    Make one with :meth:`from_results`.

    Parameters
    ----------
    curves : dict of str to pandas.DataFrame
        By strategy: ``mean`` and ``std`` over seeds at each number of labels. A single
        seed has a standard deviation of NaN, and no band.
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
    >>> display.curves["ADMA"]["mean"].round(2).tolist()
    [0.55, 0.85]
    """

    def __init__(
        self,
        *,
        curves: dict[str, pd.DataFrame],
        metric: str,
        ceiling: dict[str, float] | None = None,
        title: str = "",
    ) -> None:
        self.curves = curves
        self.metric = metric
        self.ceiling = ceiling
        self.title = title

    @classmethod
    def from_results(
        cls, results: pd.DataFrame, *, metric: str = "accuracy", ax: Any = None
    ) -> LearningCurveDisplay:
        """Draw the curves of one data set and network.

        Parameters
        ----------
        results : pandas.DataFrame
            Rows of :func:`skadma.bench.read_results`, or any with the columns
            ``strategy``, ``seed``, ``n_labels`` and the metric's.
        metric : str, default="accuracy"
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure if None.

        Returns
        -------
        LearningCurveDisplay
        """
        columns = ["strategy", "seed", "n_labels", metric]
        if missing := [column for column in columns if column not in results]:
            raise ValueError(f"results has no column {missing}, only {list(results)}.")
        titles = []
        for column in ("dataset", "network"):
            names = list(results[column].unique()) if column in results else []
            if len(names) > 1:
                raise ValueError(f"Choose the rows of one {column}, of {names}.")
            titles += names
        ceiling = {}
        if "strategy_class" in results:
            full = results["strategy_class"] == _CEILING
            ceiling = results[full].groupby("strategy")[metric].mean().to_dict()
            results = results[~full]
        curves = {
            str(name): rows.groupby("n_labels")[metric].agg(["mean", "std"])
            for name, rows in results.groupby("strategy", sort=False)
        }
        title = ", ".join(titles)
        display = cls(curves=curves, metric=metric, ceiling=ceiling, title=title)
        return display.plot(ax=ax)

    def plot(self, *, ax: Any = None) -> LearningCurveDisplay:
        """Draw the curves; `ax` as in :meth:`from_results`."""
        ax = self._set_axes(ax)
        self.lines_: dict[str, Any] = {}
        self.bands_: dict[str, Any] = {}
        for i, (name, curve) in enumerate(self.curves.items()):
            x, mean, std = curve.index, curve["mean"], curve["std"]
            # There are ten colours; more curves differ by their dashes.
            style = ("-", "--", ":")[i // 10 % 3]
            color = f"C{i % 10}"
            (line,) = ax.plot(x, mean, style, marker=".", color=color, label=name)
            self.lines_[name] = line
            if std.notna().any():
                self.bands_[name] = ax.fill_between(
                    x, mean - std, mean + std, color=color, alpha=0.12, lw=0
                )
        for name, value in (self.ceiling or {}).items():
            ax.axhline(value, color="0.4", ls="-.", lw=1, label=name)
        ax.set(xlabel="labels", ylabel=_LABELS.get(self.metric, self.metric))
        ax.set_title(self.title)
        ax.grid(alpha=0.3)
        ax.legend(fontsize="small", ncols=2 if len(self.curves) > 6 else 1)
        return self


class GateUsageDisplay(_Display):
    """Share of filters taken from the fine-tuned ones, layer by layer.

    Use :meth:`from_estimator` to make one.

    Parameters
    ----------
    usage : mapping of str to float
        See :meth:`skadma.AdaFilterClassifier.gate_usage`.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    bars_ : matplotlib.container.BarContainer

    Examples
    --------
    >>> from skadma.plotting import GateUsageDisplay
    >>> display = GateUsageDisplay({"conv1": 0.4, "conv2": 0.7}).plot()
    >>> [float(bar.get_width()) for bar in display.bars_]
    [0.4, 0.7]
    """

    def __init__(self, usage: Mapping[str, float]) -> None:
        self.usage = usage

    @classmethod
    def from_estimator(
        cls, estimator: AdaFilterClassifier, X: Any, *, ax: Any = None
    ) -> GateUsageDisplay:
        """Compute the gates' usage on images, and draw it.

        Parameters
        ----------
        estimator : AdaFilterClassifier
            Fitted.
        X : images
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure if None.

        Returns
        -------
        GateUsageDisplay
        """
        return cls(estimator.gate_usage(X)).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> GateUsageDisplay:
        """Draw the bars, the first layer on top; `ax` as in :meth:`from_estimator`."""
        own = ax is None
        ax = self._set_axes(ax)
        if own:
            self.figure_.set_figheight(max(2.0, 1 + 0.2 * len(self.usage)))
        self.bars_ = ax.barh(list(self.usage), list(self.usage.values()))
        ax.yaxis.set_inverted(True)
        ax.set(xlim=(0, 1), xlabel="share of fine-tuned filters")
        return self


@dataclass(frozen=True)
class QueryExample:
    """An image of the learner's X, and the source centre nearest to it.

    Images are uint8 (side, side, 3).
    """

    index: int
    queried: bool
    image: np.ndarray
    center_name: str
    center_image: np.ndarray


class QueryDisplay(_Display):
    """The queried images of a pool: Fig. 6 of the ADMA paper [1]_.

    Make one with :meth:`from_learner`.

    Parameters
    ----------
    indices : ndarray of int, shape (n,)
        Images of the pool.
    embedding : ndarray of shape (n, 2)
        Where t-SNE puts them, by their features.
    rounds : ndarray of int, shape (n,)
        In which round each was queried; -1 for those that were not.
    drawn : ndarray of bool, shape (n,)
        As many images as were queried, drawn at random from the pool.
    examples : list of QueryExample
        Images beside their nearest centres; empty without source centres.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure

    References
    ----------
    .. [1] Huang, Zhao & Liu, Cost-Effective Training of Deep CNNs with Active Model
       Adaptation, KDD 2018, doi 10.1145/3219819.3220026.
    """

    def __init__(
        self,
        *,
        indices: np.ndarray,
        embedding: np.ndarray,
        rounds: np.ndarray,
        drawn: np.ndarray,
        examples: list[QueryExample],
    ) -> None:
        self.indices = indices
        self.embedding = embedding
        self.rounds = rounds
        self.drawn = drawn
        self.examples = examples

    @classmethod
    def from_learner(
        cls,
        learner: ActiveLearner,
        *,
        centers: SourceCenters | None = None,
        n_examples: int = 6,
        max_images: int = 2000,
        random_state: int | np.random.RandomState | None = None,
        kind: str = "embedding",
        ax: Any = None,
    ) -> QueryDisplay:
        """Draw a learner's queries in the penultimate features of its present network.

        Parameters
        ----------
        learner : ActiveLearner
            Fitted, around a CNNClassifier.
        centers : SourceCenters, optional
            To find the nearest one of; the strategy's if None and if it has them.
        n_examples : int, default=6
            How many queried images, the first ones, and as many others, drawn at
            random, are shown beside their centres.
        max_images : int, default=2000
            With more, t-SNE gets all queried ones and a random sample of the others.
        random_state : int, RandomState instance or None, default=None
            Seeds t-SNE and the drawing.
        kind, ax
            See :meth:`plot`.

        Returns
        -------
        QueryDisplay

        Raises
        ------
        ValueError
            If nothing was queried yet.
        TypeError
            If the learner has no CNNClassifier.
        """
        queried = np.concatenate([*learner.queried_indices_, np.empty(0, int)])
        if not len(queried):
            raise ValueError("The learner has queried nothing yet.")
        adapter, X = find_adapter(learner.estimator_, learner.X_)
        if not isinstance(adapter, CNNAdapter):
            raise TypeError(
                f"{cls.__name__} shows the images that a CNNClassifier reads, got "
                f"{type(adapter.estimator).__name__}."
            )
        rng = check_random_state(random_state)
        rounds = np.full(n_images(X), -1)
        for t, chosen in enumerate(learner.queried_indices_):
            rounds[chosen] = t
        n_queried = len(np.unique(queried))
        drawn = rng.choice(len(rounds), n_queried, replace=False)
        others = rng.permutation(np.flatnonzero(rounds < 0))
        # Those drawn come first, so that thinning keeps them.
        others = others[np.argsort(~np.isin(others, drawn), kind="stable")]
        n_others = max(max_images - n_queried, 0)
        indices = np.sort(np.concatenate([np.unique(queried), others[:n_others]]))
        features = adapter.estimator.embed(take(X, indices), -2)[-2]
        usable = np.isfinite(features).all(axis=1)
        indices, features = indices[usable], features[usable]
        if centers is None:
            centers = getattr(learner.strategy_, "centers", None)
            if centers is None and isinstance(learner.strategy_, ADMA):
                centers = shipped_centers(adapter.estimator)
        examples = []
        if centers is not None:
            first = list(dict.fromkeys(queried.tolist()))[:n_examples]
            beside = rng.permutation(others[np.isin(others, indices)])[:n_examples]
            shown = np.concatenate([first, beside]).astype(int)
            examples = _examples(adapter, X, shown, rounds >= 0, centers)
        # The usual 30 neighbours, or as many as few images allow.
        tsne = TSNE(perplexity=min(30.0, (len(features) - 1) / 3), random_state=rng)
        display = cls(
            indices=indices,
            embedding=tsne.fit_transform(features),
            rounds=rounds[indices],
            drawn=np.isin(indices, drawn),
            examples=examples,
        )
        return display.plot(kind=kind, ax=ax)

    def plot(self, *, kind: str = "embedding", ax: Any = None) -> QueryDisplay:
        """Draw the embedding or the examples.

        Parameters
        ----------
        kind : {"embedding", "random", "examples"}, default="embedding"
            "embedding": the pool by t-SNE, the queried images marked by their round
            (Fig. 6 a). "random": the same map with as many images marked that were
            drawn at random from the pool (Fig. 6 b). "examples": images, queried ones
            left and others right, over the source centres nearest to them (Fig. 6 c,
            d).
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure if None.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there are no examples to show.
        """
        if kind not in ("embedding", "random", "examples"):
            raise ValueError(
                f"kind={kind!r} must be 'embedding', 'random' or 'examples'."
            )
        if kind == "examples" and not self.examples:
            raise ValueError(
                "The examples are shown beside source centres, and the learner's "
                "strategy has none: give centers= to from_learner."
            )
        ax = self._set_axes(ax)
        if kind == "examples":
            self._plot_examples(ax)
        elif kind == "random":
            self._mark(ax, self.drawn, "drawn at random", color="tab:orange")
        else:
            asked = self.rounds >= 0
            points = self._mark(ax, asked, "queried", c=self.rounds[asked])
            last = self.rounds.max()
            ticks = np.unique(np.linspace(0, last, min(last + 1, 10)).astype(int))
            ax.figure.colorbar(points, ax=ax, label="round", ticks=ticks)
        return self

    def _mark(self, ax: Any, marked: np.ndarray, label: str, **color: Any) -> Any:
        """Draw the map with some images as stars."""
        ax.scatter(*self.embedding[~marked].T, s=8, color="0.75", label=f"not {label}")
        points = ax.scatter(
            *self.embedding[marked].T,
            s=45,
            marker="*",
            edgecolors="k",
            linewidths=0.3,
            label=label,
            **color,
        )
        ax.set(xticks=[], yticks=[])
        ax.legend()
        return points

    def _plot_examples(self, ax: Any) -> None:
        groups = [[e for e in self.examples if e.queried is q] for q in (True, False)]
        side = self.examples[0].image.shape[0]
        gap = side // 2
        left = 0
        for label, group in zip(("queried", "not queried"), groups, strict=True):
            for i, example in enumerate(group):
                x = left + i * side
                ax.imshow(example.image, extent=(x, x + side, side, 0))
                extent = (x, x + side, 2 * side, side)
                ax.imshow(example.center_image, extent=extent)
                ax.text(x + side / 2, 2.05 * side, example.center_name, rotation=90,
                        ha="center", va="top", fontsize="small")  # fmt: skip
            if group:
                middle = left + len(group) * side / 2
                ax.text(middle, -0.05 * side, label, ha="center", va="bottom")
            left += len(group) * side + gap
        ax.text(-gap / 4, side / 2, "image", ha="right", va="center")
        ax.text(-gap / 4, 1.5 * side, "nearest\ncentre", ha="right", va="center")
        ax.set(xlim=(-3 * gap, left), ylim=(4 * side, -gap), aspect="equal")
        ax.set_axis_off()


def _examples(
    adapter: CNNAdapter,
    X: Any,
    indices: np.ndarray,
    queried: np.ndarray,
    centers: SourceCenters,
) -> list[QueryExample]:
    """Find the centre nearest to each image at layer B of the present network."""
    clf, position = adapter.estimator, adapter.position(-2)
    outputs = centers.outputs(clf, [position], initial=False)[position]
    features = torch.from_numpy(clf.embed(take(X, indices), -2)[-2])
    nearest = CenterDistances(outputs)(features.to(outputs.device)).argmin(dim=1)
    names = list(centers.class_names or centers.classes)
    dataset = adapter.image_dataset(take(X, indices))
    return [
        QueryExample(
            index=int(index),
            queried=bool(queried[index]),
            image=dataset[i].permute(1, 2, 0).numpy(),
            center_name=str(names[k]),
            center_image=centers.inputs[k].transpose(1, 2, 0),
        )
        for i, (index, k) in enumerate(zip(indices, nearest.tolist(), strict=True))
    ]
