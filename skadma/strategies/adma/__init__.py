"""ADMA: the strategy, and its formulas as pure functions."""

from .formulas import (
    UNCERTAINTIES,
    CenterDistances,
    approximated_pattern,
    combined_score,
    distance_weights,
    distinctiveness,
    pairwise_distinctiveness,
    predict_weights,
    transformation_pattern,
    uncertainty,
)
from .kendall import kendall_tau

__all__ = [
    "UNCERTAINTIES",
    "CenterDistances",
    "approximated_pattern",
    "combined_score",
    "distance_weights",
    "distinctiveness",
    "kendall_tau",
    "pairwise_distinctiveness",
    "predict_weights",
    "transformation_pattern",
    "uncertainty",
]
