from ._audit import METHODS, Audit, audit_sample
from ._calibration import apply_temperature, expected_calibration_error, fit_temperature
from ._estimate import Estimate, Share, estimate
from ._forecast import Forecast, forecast_accuracy
from ._out_of_fold import out_of_fold_proba
from ._suspects import Suspects, suspects

__all__ = [
    "METHODS",
    "Audit",
    "Estimate",
    "Forecast",
    "Share",
    "Suspects",
    "apply_temperature",
    "audit_sample",
    "estimate",
    "expected_calibration_error",
    "fit_temperature",
    "forecast_accuracy",
    "out_of_fold_proba",
    "suspects",
]
