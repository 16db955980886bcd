"""ADMA in formulas: Eq. 3-11 of the paper as pure functions, without networks.

The functions work on tensors (uncertainty and the final score on NumPy arrays), on
whatever device these are, and keep no state. Shapes: n images of the pool, K centres
(one per source class), d features of a layer, C target classes.

References
----------
.. [1] Huang, Zhao & Liu, "Cost-Effective Training of Deep CNNs with Active Model
   Adaptation", KDD 2018. :doi:`10.1145/3219819.3220026`
"""

from .distances import CenterDistances, squared_distances
from .distinctiveness import distinctiveness, pairwise_distinctiveness
from .kendall import kendall_tau
from .patterns import (
    approximated_pattern,
    distance_weights,
    layer_scale,
    predict_weights,
    transformation_pattern,
)
from .uncertainty import UNCERTAINTIES, combined_score, uncertainty

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
