"""ADMA: the strategy, and its formulas as pure functions."""

from .formulas import (
    UNCERTAINTIES,
    CenterDistances,
    combined_score,
    distance_weights,
    distinctiveness,
    pairwise_distinctiveness,
    predict_weights,
    uncertainty,
)
from .kendall import kendall_tau

__all__ = [
    "UNCERTAINTIES",
    "CenterDistances",
    "combined_score",
    "distance_weights",
    "distinctiveness",
    "kendall_tau",
    "pairwise_distinctiveness",
    "predict_weights",
    "uncertainty",
]
