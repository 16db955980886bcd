"""ADMA: the strategy, and its formulas as pure functions."""

from .._uncertainty import UNCERTAINTIES, uncertainty
from .formulas import (
    CenterDistances,
    combined_score,
    distance_weights,
    distinctiveness,
    pairwise_distinctiveness,
    predict_weights,
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
