"""How good a model is, how far its confidence can be trusted, and which labels not."""

from ._out_of_fold import out_of_fold_proba
from ._suspects import Suspects, suspects

__all__ = ["Suspects", "out_of_fold_proba", "suspects"]
