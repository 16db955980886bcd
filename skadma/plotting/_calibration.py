"""CalibrationDisplay: accuracy over confidence."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..evaluation import apply_temperature, reliability
from ._matplotlib import new_axes


class CalibrationDisplay:
    """Accuracy over confidence, before and after the temperature is set.

    Make one with :meth:`from_predictions`. On the diagonal accuracy equals confidence;
    below it, the model is too sure.

    Parameters
    ----------
    curves : dict of str to skadma.evaluation.Reliability
        By name: confidence, accuracy and number of images in each bin.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
    figure_ : matplotlib.figure.Figure
    lines_ : dict of str to matplotlib.lines.Line2D

    Examples
    --------
    >>> import numpy as np
    >>> from skadma.plotting import CalibrationDisplay
    >>> proba = np.tile([0.9, 0.1], (20, 1))
    >>> display = CalibrationDisplay.from_predictions([0] * 15 + [1] * 5, proba,
    ...                                               n_bins=1)
    >>> round(display.curves["model"].error, 2)
    0.15
    """

    def __init__(self, *, curves: dict[str, Any]) -> None:
        self.curves = curves

    @classmethod
    def from_predictions(
        cls,
        y: ArrayLike,
        proba: ArrayLike,
        *,
        classes: ArrayLike | None = None,
        temperature: float | None = None,
        n_bins: int = 10,
        name: str = "model",
        ax: Any = None,
    ) -> CalibrationDisplay:
        """Draw the curve of probabilities against labels.

        Parameters
        ----------
        y, proba, classes
            See :func:`skadma.evaluation.reliability`.
        temperature : float, optional
            From :func:`skadma.evaluation.fit_temperature`: a second curve with it.
        n_bins
            See :func:`skadma.evaluation.reliability`.
        name : str, default="model"
        ax : matplotlib.axes.Axes, optional
            Where to draw; a new figure if None.

        Returns
        -------
        CalibrationDisplay
        """
        shown = {name: np.asarray(proba, dtype=float)}
        if temperature is not None:
            key = f"{name}, temperature {temperature:.2f}"
            shown[key] = apply_temperature(proba, temperature)
        curves = {
            key: reliability(table, y, classes=classes, n_bins=n_bins)
            for key, table in shown.items()
        }
        return cls(curves=curves).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> CalibrationDisplay:
        """Draw the curves; `ax` as in :meth:`from_predictions`."""
        ax = new_axes(ax, type(self).__name__)
        ax.plot([0, 1], [0, 1], ":", color="0.4", label="as sure as right")
        self.lines_: dict[str, Any] = {}
        for name, curve in self.curves.items():
            (self.lines_[name],) = ax.plot(
                curve.confidence,
                curve.accuracy,
                marker="o",
                label=f"{name} (error {curve.error:.3f})",
            )
        ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
        ax.set_aspect("equal")
        ax.grid(alpha=0.3)
        ax.legend(fontsize="small", loc="upper left")
        self.ax_, self.figure_ = ax, ax.figure
        return self
