"""GateUsageDisplay: how much of each layer AdaFilter fine-tunes, as bars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..adafilter import AdaFilterClassifier
from ._matplotlib import new_axes


class GateUsageDisplay:
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
        cls,
        estimator: AdaFilterClassifier,
        X: Any,
        *,
        ax: Any = None,
        **kwargs: Any,
    ) -> GateUsageDisplay:
        """Compute the gates' usage on images, and draw it.

        Parameters
        ----------
        estimator : AdaFilterClassifier
            Fitted.
        X : images
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure if None.
        **kwargs
            Passed on to ``barh`` of matplotlib's axes.

        Returns
        -------
        GateUsageDisplay

        Raises
        ------
        TypeError
            If the estimator has no gates.
        """
        if not hasattr(estimator, "gate_usage"):
            raise TypeError(
                f"GateUsageDisplay needs an AdaFilterClassifier, got "
                f"{type(estimator).__name__}, which has no gates."
            )
        return cls(estimator.gate_usage(X)).plot(ax=ax, **kwargs)

    def plot(self, *, ax: Any = None, **kwargs: Any) -> GateUsageDisplay:
        """Draw the bars, the first layer on top; see :meth:`from_estimator`."""
        own = ax is None
        ax = new_axes(ax, type(self).__name__)
        if own:
            ax.figure.set_figheight(max(2.0, 1 + 0.2 * len(self.usage)))
        self.bars_ = ax.barh(list(self.usage), list(self.usage.values()), **kwargs)
        if not ax.yaxis_inverted():
            ax.invert_yaxis()
        ax.set(xlim=(0, 1), xlabel="share of fine-tuned filters")
        self.ax_, self.figure_ = ax, ax.figure
        return self
