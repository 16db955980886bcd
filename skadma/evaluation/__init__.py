"""Estimates of accuracy from few labels, calibration, and labels that may be wrong.

Names are imported on first use (PEP 562), as SciPy's statistics take a second;
``__init__.pyi`` declares them for type checkers.
"""

from .._utils.lazy import lazy_getattr

_HOMES = {
    "METHODS": "_audit",
    "Audit": "_audit",
    "audit_sample": "_audit",
    "apply_temperature": "_calibration",
    "expected_calibration_error": "_calibration",
    "fit_temperature": "_calibration",
    "Estimate": "_estimate",
    "Share": "_estimate",
    "estimate": "_estimate",
    "Forecast": "_forecast",
    "forecast_accuracy": "_forecast",
    "out_of_fold_proba": "_out_of_fold",
    "Suspects": "_suspects",
    "suspects": "_suspects",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605
__getattr__ = lazy_getattr(__name__, _HOMES)
