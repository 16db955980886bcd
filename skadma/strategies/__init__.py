"""Query strategies: which images to label next."""

from ._adma import ADMA, ADMAScores
from ._random import RandomSampling
from ._uncertainty import EntropySampling, LeastConfident, MarginSampling
from .base import QueryStrategy, Scores

__all__ = [
    "ADMA",
    "ADMAScores",
    "EntropySampling",
    "LeastConfident",
    "MarginSampling",
    "QueryStrategy",
    "RandomSampling",
    "Scores",
]
