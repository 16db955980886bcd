"""The formulas of ADMA, Eq. 3-11 of the paper, as pure functions without networks.

They take tensors on any device (uncertainty and the combined score: arrays) and keep no
state. Shapes: n images of the pool, K centres, one for each source class, d features of
a layer, C target classes.

References
----------
.. [1] Huang, Zhao & Liu, "Cost-Effective Training of Deep CNNs with Active Model
   Adaptation", KDD 2018. :doi:`10.1145/3219819.3220026`
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .kendall import kendall_tau, working_dtype

# --- distances to the centres (Eq. 3-4) -----------------------------------------------


class CenterDistances:
    """Squared L2 distances to fixed centres, ``||x||^2 + ||c||^2 - 2 x.c`` (Eq. 3-4).

    The centres' mean is subtracted from both sides first, and the product is computed
    in float64 (float32 on ``mps``), so that little is lost by the subtraction. A
    distance below eight times the rounding error, ``sqrt(d) eps`` of the terms, is
    exactly 0: so is that of a centre to itself, even where the network's outputs have
    float32 noise.

    Parameters
    ----------
    centers : Tensor of shape (K, d), floating, K >= 1
        The centres' features at one layer.
    """

    def __init__(self, centers: Tensor) -> None:
        _check_matrix("centers", centers)
        centers = centers.detach().to(working_dtype(centers.device))
        self._mean = centers.mean(dim=0)
        self._centers = centers - self._mean
        self._norms = torch.linalg.vector_norm(self._centers, dim=1).square()

    def between_centers(self) -> Tensor:
        """Return the distances between the centres (S_C, Eq. 3), shape (K, K)."""
        return self._squared(self._centers)

    def __call__(self, x: Tensor) -> Tensor:
        """Compute the distances of a batch (n, d), shape (n, K) (Eq. 4)."""
        _check_matrix("x", x, self._centers.shape[1])
        return self._squared(x.detach().to(self._centers.dtype) - self._mean)

    def _squared(self, x: Tensor) -> Tensor:
        terms = torch.linalg.vector_norm(x, dim=1, keepdim=True).square() + self._norms
        squared = torch.addmm(terms, x, self._centers.T, alpha=-2)
        rounding = 8 * math.sqrt(x.shape[1]) * torch.finfo(x.dtype).eps
        # A NaN fails the comparison and so stays visible.
        return squared.masked_fill_(squared <= rounding * terms, 0.0)


# --- weights of the centres (Eq. 8) ---------------------------------------------------


def predict_weights(
    source_proba: Tensor, classes: Sequence[int] | Tensor | None = None
) -> Tensor:
    """Weigh the centres by the pretrained network's class probabilities (Eq. 8).

    Parameters
    ----------
    source_proba : Tensor of shape (n, K_all), floating, >= 0
    classes : sequence of K ints in [0, K_all) or None, default=None
        Column of each centre's class. None: every column, in order.

    Returns
    -------
    Tensor of shape (n, K), float64 (float32 on ``mps``), in [0, 1]
        The columns of `classes`, every row divided by its sum; 1/K where that is 0.
    """
    _check_matrix("source_proba", source_proba)
    n_columns = source_proba.shape[1]
    columns = torch.arange(n_columns) if classes is None else torch.as_tensor(classes)
    if not len(columns) or columns.min() < 0 or columns.max() >= n_columns:
        raise ValueError(
            f"classes has to name columns of source_proba, in [0, {n_columns}); got "
            f"{classes}."
        )
    weights = source_proba.detach().to(working_dtype(source_proba.device))
    weights = weights[:, columns.long().to(weights.device)]
    sums = weights.sum(dim=1, keepdim=True)
    # NaN stays NaN, which the comparison of patterns refuses.
    return torch.where(sums == 0, 1 / len(columns), weights / sums)


def distance_weights(S_a: Tensor) -> Tensor:
    """Weigh the centres by ``1 / ||x^A - c_k^A||``, normalised to sum 1 (Sec. 4.3).

    Parameters
    ----------
    S_a : Tensor of shape (n, K), floating, >= 0
        Squared distances to the centres at layer A (Eq. 4).

    Returns
    -------
    Tensor of shape (n, K), float64 (float32 on ``mps``), in [0, 1]
        An image that coincides with centres has all its weight on these, in equal
        parts.
    """
    _check_matrix("S_a", S_a)
    distances = S_a.detach().to(working_dtype(S_a.device)).sqrt()
    nearest = distances.min(dim=1, keepdim=True).values
    # nearest / distance, not 1 / distance: nothing overflows near a centre.
    weights = torch.where(
        nearest > 0, nearest / distances, (distances == 0).to(distances.dtype)
    )
    return weights / weights.sum(dim=1, keepdim=True)


def _check_matrix(name: str, values: Tensor, n_columns: int | None = None) -> None:
    columns = values.shape[1] if values.ndim == 2 else 0
    if columns == 0 or n_columns not in (None, columns):
        raise ValueError(
            f"{name} has to be a matrix of {n_columns or 'one or more'} columns; got "
            f"shape {tuple(values.shape)}."
        )


# --- distinctiveness (Eq. 9) ----------------------------------------------------------


def distinctiveness(pattern: Tensor, approximated: Tensor) -> Tensor:
    r"""Compute :math:`(1 - \tau(S_x, \hat S_x)) / 2` for each image (Eq. 9).

    Tau is Kendall's tau-b, as the paper does not say how it treats ties.

    Parameters
    ----------
    pattern : Tensor of shape (n, K), floating, K >= 2
        The images' transformation patterns (Eq. 5).
    approximated : Tensor of shape (n, K), floating
        Their approximations from the centres (Eq. 7).

    Returns
    -------
    Tensor of shape (n,), float64 (float32 on ``mps``), in [0, 1]
        0.5 where a row is constant and tau undefined.
    """
    tau = kendall_tau(pattern, approximated)
    return (1 - tau.nan_to_num(nan=0.0)) / 2


def pairwise_distinctiveness(patterns: Sequence[Tensor]) -> Tensor:
    r"""Compute the distinctiveness over several starting layers (ADMA-2, Sec. 4.2).

    The mean over all pairs of starting layers of
    :math:`(1 - \tau(S^{A_1 \to B}, S^{A_2 \to B})) / 2`, the paper's "variance between"
    patterns, measured as in Eq. 9.

    Parameters
    ----------
    patterns : sequence of m >= 2 Tensors of shape (n, K), floating, K >= 2
        The images' patterns from each starting layer to B (Eq. 5).

    Returns
    -------
    Tensor of shape (n,), float64 (float32 on ``mps``), in [0, 1]
    """
    pairs = combinations(patterns, 2)
    return torch.stack([distinctiveness(a, b) for a, b in pairs]).mean(dim=0)


# --- uncertainty and the combined score (Eq. 10-11) -----------------------------------


def combined_score(
    distinctiveness: ArrayLike,
    uncertainty: ArrayLike,
    trade_off: float,
    iteration: float,
) -> np.ndarray:
    r"""Compute :math:`(1 - \lambda t) \, d + \lambda t \, u` for each image (Eq. 11).

    Parameters
    ----------
    distinctiveness : array-like of shape (n,)
        d, from Eq. 9.
    uncertainty : array-like of shape (n,)
        u, from Eq. 10.
    trade_off : float
        :math:`\lambda`; the paper gives no value.
    iteration : float
        t, the round, from 0. :math:`\lambda t` is clipped to [0, 1].

    Returns
    -------
    ndarray of shape (n,), float64
    """
    d = np.asarray(distinctiveness, dtype=np.float64)
    u = np.asarray(uncertainty, dtype=np.float64)
    weight = min(max(trade_off * iteration, 0.0), 1.0)
    return (1 - weight) * d + weight * u
