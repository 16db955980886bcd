"""Query strategies: which images to label next."""

from ._aift import AIFT as AIFT
from ._badge import BADGE as BADGE
from ._ceal import CEAL as CEAL
from ._cluster_margin import ClusterMargin as ClusterMargin
from ._committee import QueryByCommittee as QueryByCommittee
from ._coreset import CoreSet as CoreSet
from ._dropout import BALD as BALD
from ._dropout import DropQuery as DropQuery
from ._modal import ModALStrategy as ModALStrategy
from ._modal import from_modal as from_modal
from ._probcover import ProbCover as ProbCover
from ._random import RandomSampling as RandomSampling
from ._skactiveml import SkactivemlStrategy as SkactivemlStrategy
from ._skactiveml import from_skactiveml as from_skactiveml
from ._skactiveml import to_skactiveml as to_skactiveml
from ._typiclust import TypiClust as TypiClust
from ._uncertainty import EntropySampling as EntropySampling
from ._uncertainty import LeastConfident as LeastConfident
from ._uncertainty import MarginSampling as MarginSampling
from ._uncertainty_herding import UncertaintyHerding as UncertaintyHerding
from .adma._adma import ADMA as ADMA
from .adma._adma import ADMAScores as ADMAScores
from .base import QueryStrategy as QueryStrategy
from .base import Scores as Scores
from .base import ScoringStrategy as ScoringStrategy

__all__: list[str]
