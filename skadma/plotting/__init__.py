"""Figures, in scikit-learn's manner: Display classes that keep what they show."""

from ._gate_usage import GateUsageDisplay
from ._learning_curve import LearningCurveDisplay
from ._query import QueryDisplay

__all__ = ["GateUsageDisplay", "LearningCurveDisplay", "QueryDisplay"]
