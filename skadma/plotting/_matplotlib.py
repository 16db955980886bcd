"""Matplotlib, which only figures need."""

from __future__ import annotations

from typing import Any


def new_axes(ax: Any, user: str) -> Any:
    """Return the axes that were given, or those of a new figure.

    `user` is named in the message where matplotlib is missing.
    """
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            f"{user} needs the package matplotlib: pip install matplotlib"
        ) from error
    return pyplot.subplots(layout="constrained")[1]
