"""Figures, in scikit-learn's manner: Display classes that keep what they show."""

from ._calibration import CalibrationDisplay
from ._gate_usage import GateUsageDisplay
from ._learning_curve import LearningCurveDisplay
from ._query import QueryDisplay

__all__ = [
    "CalibrationDisplay",
    "GateUsageDisplay",
    "LearningCurveDisplay",
    "QueryDisplay",
]
