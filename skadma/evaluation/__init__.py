"""How good a model is, how far its confidence can be trusted, and which labels not."""

from ._audit import Audit, audit_sample
from ._estimate import Estimate, Share, estimate
from ._out_of_fold import out_of_fold_proba
from ._suspects import Suspects, suspects

__all__ = [
    "Audit",
    "Estimate",
    "Share",
    "Suspects",
    "audit_sample",
    "estimate",
    "out_of_fold_proba",
    "suspects",
]
