"""ADMA: the strategy, and its formulas as pure functions."""

from .formulas import (
    UNCERTAINTIES,
    CenterDistances,
    approximated_pattern,
    combined_score,
    distance_weights,
    distinctiveness,
    layer_scale,
    pairwise_distinctiveness,
    predict_weights,
    squared_distances,
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
    "layer_scale",
    "predict_weights",
    "squared_distances",
    "transformation_pattern",
    "uncertainty",
]
