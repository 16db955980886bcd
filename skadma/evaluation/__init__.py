"""Estimates of accuracy from few labels, calibration, and labels that may be wrong.

Names are imported on first use (PEP 562), as SciPy's statistics take a second;
``__init__.pyi`` declares them for type checkers.
"""

from importlib import import_module
from typing import Any

_NAMES = {
    "_audit": ("METHODS", "Audit", "audit_sample"),
    "_calibration": (
        *("apply_temperature", "expected_calibration_error", "fit_temperature"),
    ),
    "_estimate": ("Estimate", "Share", "estimate"),
    "_forecast": ("Forecast", "forecast_accuracy"),
    "_out_of_fold": ("out_of_fold_proba",),
    "_suspects": ("Suspects", "suspects"),
}
"""What each file defines."""

__all__ = sorted(name for names in _NAMES.values() for name in names)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    for file, names in _NAMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{file}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
