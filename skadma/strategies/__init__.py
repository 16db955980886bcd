"""Query strategies: which images to label next."""

from ._aift import AIFT
from ._badge import BADGE
from ._ceal import CEAL
from ._cluster_margin import ClusterMargin
from ._committee import QueryByCommittee
from ._coreset import CoreSet
from ._dropout import BALD, DropQuery
from ._modal import ModALStrategy, from_modal
from ._probcover import ProbCover
from ._random import RandomSampling
from ._skactiveml import SkactivemlStrategy, from_skactiveml, to_skactiveml
from ._typiclust import TypiClust
from ._uncertainty import EntropySampling, LeastConfident, MarginSampling
from ._uncertainty_herding import UncertaintyHerding
from .adma._adma import ADMA, ADMAScores
from .base import QueryStrategy, Scores, ScoringStrategy

__all__ = [
    "ADMA",
    "AIFT",
    "BADGE",
    "BALD",
    "CEAL",
    "ADMAScores",
    "ClusterMargin",
    "CoreSet",
    "DropQuery",
    "EntropySampling",
    "LeastConfident",
    "MarginSampling",
    "ModALStrategy",
    "ProbCover",
    "QueryByCommittee",
    "QueryStrategy",
    "RandomSampling",
    "Scores",
    "ScoringStrategy",
    "SkactivemlStrategy",
    "TypiClust",
    "UncertaintyHerding",
    "from_modal",
    "from_skactiveml",
    "to_skactiveml",
]
