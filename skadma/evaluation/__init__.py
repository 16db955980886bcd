"""Estimates of accuracy from few labels, calibration, and labels that may be wrong.

Imported on first use (PEP 562): a campaign's log is read without SciPy's statistics.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._audit import METHODS, Audit, audit_sample
    from ._calibration import (
        apply_temperature,
        expected_calibration_error,
        fit_temperature,
    )
    from ._estimate import Estimate, Share, estimate
    from ._out_of_fold import out_of_fold_proba
    from ._suspects import Suspects, suspects

__all__ = [
    "METHODS",
    "Audit",
    "Estimate",
    "Share",
    "Suspects",
    "apply_temperature",
    "audit_sample",
    "estimate",
    "expected_calibration_error",
    "fit_temperature",
    "out_of_fold_proba",
    "suspects",
]

_HOMES = ("_audit", "_suspects", "_calibration", "_estimate", "_out_of_fold")


def __getattr__(name: str) -> Any:
    for home in _HOMES if name in __all__ else ():
        if hasattr(module := import_module(f"{__name__}.{home}"), name):
            return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
