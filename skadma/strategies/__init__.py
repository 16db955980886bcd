"""Query strategies: which images to label next; imported on first use (PEP 562)."""

from .._utils.lazy import lazy_getattr

_HOMES = {
    "AIFT": "_aift",
    "BADGE": "_badge",
    "CEAL": "_ceal",
    "ClusterMargin": "_cluster_margin",
    "QueryByCommittee": "_committee",
    "CoreSet": "_coreset",
    "BALD": "_dropout",
    "DropQuery": "_dropout",
    "ModALStrategy": "_modal",
    "from_modal": "_modal",
    "ProbCover": "_probcover",
    "RandomSampling": "_random",
    "SkactivemlStrategy": "_skactiveml",
    "from_skactiveml": "_skactiveml",
    "to_skactiveml": "_skactiveml",
    "TypiClust": "_typiclust",
    "EntropySampling": "_uncertainty",
    "LeastConfident": "_uncertainty",
    "MarginSampling": "_uncertainty",
    "UncertaintyHerding": "_uncertainty_herding",
    "ADMA": "adma._adma",
    "ADMAScores": "adma._adma",
    "QueryStrategy": "base",
    "Scores": "base",
    "ScoringStrategy": "base",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605
__getattr__ = lazy_getattr(__name__, _HOMES)
