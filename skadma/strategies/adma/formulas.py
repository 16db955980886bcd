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
from functools import cached_property
from itertools import combinations

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import entr
from torch import Tensor

from .kendall import kendall_tau, working_dtype

UNCERTAINTIES = ("gini", "entropy", "margin", "least_confident")
"""Names that :func:`uncertainty` takes as `kind`."""

# --- distances to the centres (Eq. 3-4) -----------------------------------------------


class CenterDistances:
    """Squared L2 distances to fixed centres, whose terms are computed once.

    ``||x - c||^2 = ||x||^2 + ||c||^2 - 2 x.c`` turns the distances of a batch into one
    matrix product. The subtraction loses the digits that the terms have in common,
    which is harmless here: the centres' mean is subtracted from both sides first, so
    that the terms are of the size of the distances themselves, and the product is
    computed in float64 whatever the features' type (float32 on ``mps``).

    The rounding error is about ``sqrt(d) * eps`` of the terms. A distance below eight
    times that is set to exactly 0. So the distance of a centre to itself is 0, also
    where the network computed its features twice with float32 noise. In float64, at
    d = 4096, only pairs nearer than about 3e-7 of their distance to the mean are
    affected.

    Parameters
    ----------
    centers : Tensor of shape (K, d), floating, K >= 1
        The centres' features at one layer.

    Raises
    ------
    ValueError
        If `centers` is not a matrix with at least one row.
    """

    def __init__(self, centers: Tensor) -> None:
        if centers.ndim != 2 or len(centers) == 0:
            raise ValueError(
                "centers has to be a matrix (K, d) with at least one row; "
                f"got shape {tuple(centers.shape)}."
            )
        centers = centers.detach().to(working_dtype(centers.device))
        self._mean = centers.mean(dim=0)
        self._centers = centers - self._mean
        self._norms = torch.linalg.vector_norm(self._centers, dim=1).square()

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the centres take."""
        return self._centers.nbytes + len(self._centers) ** 2 * 8

    def between_centers(self) -> Tensor:
        """Compute the distances between the centres (S_C, Eq. 3), once.

        Returns
        -------
        Tensor of shape (K, K), float64 (float32 on ``mps``), >= 0
        """
        return self._between

    @cached_property
    def _between(self) -> Tensor:
        return self._squared(self._centers)

    @property
    def device(self) -> torch.device:
        """Device of the centres."""
        return self._centers.device

    @property
    def shape(self) -> tuple[int, int]:
        """K and d."""
        return self._centers.shape[0], self._centers.shape[1]

    def __call__(self, x: Tensor) -> Tensor:
        """Compute the distances of a batch (Eq. 4).

        Parameters
        ----------
        x : Tensor of shape (n, d), floating, on the centres' device
            Features of n images at the centres' layer.

        Returns
        -------
        Tensor of shape (n, K), float64 (float32 on ``mps``), >= 0
            ``||x_i - c_j||^2`` at [i, j].

        Raises
        ------
        ValueError
            If `x` is not a matrix with as many columns as the centres have.
        """
        if x.ndim != 2 or x.shape[1] != self.shape[1]:
            raise ValueError(
                f"x has to have shape (n, {self.shape[1]}) like the centres; "
                f"got {tuple(x.shape)}."
            )
        return self._squared(x.detach().to(self._centers.dtype) - self._mean)

    def _squared(self, x: Tensor) -> Tensor:
        terms = torch.linalg.vector_norm(x, dim=1, keepdim=True).square() + self._norms
        squared = torch.addmm(terms, x, self._centers.T, alpha=-2)
        rounding = 8 * math.sqrt(x.shape[1]) * torch.finfo(x.dtype).eps
        # A NaN fails the comparison and so stays visible.
        return squared.masked_fill_(squared <= rounding * terms, 0.0)


def squared_distances(x: Tensor, centers: Tensor) -> Tensor:
    """Compute the squared L2 distances of features to the centres (Eq. 3-4).

    With ``x = centers`` it is S_C of Eq. 3. For more than one batch prepare the
    centres once with :class:`CenterDistances`, which documents the rounding.

    Parameters
    ----------
    x : Tensor of shape (n, d), floating
        Features of n images at one layer.
    centers : Tensor of shape (K, d), floating, on the same device
        The centres' features at that layer.

    Returns
    -------
    Tensor of shape (n, K), float64 (float32 on ``mps``), >= 0
        ``||x_i - c_j||^2`` at [i, j].

    Raises
    ------
    ValueError
        If either is not a matrix, there is no centre, or the columns differ.
    """
    return CenterDistances(centers)(x)


# --- transformation patterns and their approximation (Eq. 5-8) ------------------------


def layer_scale(S_C: Tensor) -> float:
    """Compute the mean squared distance between distinct centres at one layer.

    Parameters
    ----------
    S_C : Tensor of shape (K, K), floating, K >= 2
        Squared distances between the centres (Eq. 3).

    Returns
    -------
    float
        Mean of the off-diagonal entries, > 0.

    Raises
    ------
    ValueError
        If `S_C` is not square with K >= 2, or the mean is not a positive number:
        then all centres coincide at this layer, or it has NaN or infinite outputs.
    """
    if S_C.ndim != 2 or S_C.shape[0] != S_C.shape[1] or len(S_C) < 2:
        raise ValueError(
            "S_C has to be a square matrix (K, K) with K >= 2; "
            f"got shape {tuple(S_C.shape)}."
        )
    n_centers = len(S_C)
    total = S_C.sum(dtype=working_dtype(S_C.device)) - S_C.diagonal().sum()
    scale = float(total) / (n_centers * (n_centers - 1))
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(
            f"The mean squared distance between the centres is {scale}: the layer's "
            "outputs are the same for all centres, or not finite. Choose another layer."
        )
    return scale


def transformation_pattern(
    S_a: Tensor, S_b: Tensor, *, rescale: tuple[float, float] | None = None
) -> Tensor:
    """Compute what changes between layers A and B: S_a - S_b (Eq. 5-6).

    The distances of two layers differ in magnitude, as the layers do in dimension and
    in the scale of their activations; the larger one dominates the difference, and
    with it the order that Kendall's tau sees. `rescale` brings both to one scale. The
    divisors come from the centres alone, so that the pattern of an image does not
    depend on what else is in the pool. The paper has no such divisors.

    Parameters
    ----------
    S_a, S_b : Tensor of shape (n, K), floating
        Squared distances to the centres at layers A and B: of n images (Eq. 5), or
        between the centres, then n = K and column k belongs to c_k (Eq. 6).
    rescale : tuple of two positive floats or None, default=None
        Divisors of `S_a` and `S_b`, from :func:`layer_scale`. None: as in the paper.

    Returns
    -------
    Tensor of shape (n, K), of the inputs' type
        The patterns.

    Raises
    ------
    ValueError
        If the shapes differ, or a divisor is not a positive number.
    """
    if S_a.shape != S_b.shape or S_a.ndim != 2:
        raise ValueError(
            "S_a and S_b have to be matrices of one shape (n, K); "
            f"got {tuple(S_a.shape)} and {tuple(S_b.shape)}."
        )
    if rescale is None:
        return S_a - S_b
    scale_a, scale_b = rescale
    if not all(math.isfinite(scale) and scale > 0 for scale in (scale_a, scale_b)):
        raise ValueError(f"rescale has to be two positive numbers; got {rescale}.")
    return S_a / scale_a - S_b / scale_b


def predict_weights(
    source_proba: Tensor, classes: Sequence[int] | Tensor | None = None
) -> Tensor:
    """Weigh the centres by the pretrained network's class probabilities (Eq. 8).

    Parameters
    ----------
    source_proba : Tensor of shape (n, K_all), floating, >= 0
        Class probabilities of the pretrained model.
    classes : sequence of K ints in [0, K_all) or None, default=None
        Column of each centre's class, where not every source class has a centre.
        None: every column, in order.

    Returns
    -------
    Tensor of shape (n, K), float64 (float32 on ``mps``), in [0, 1]
        The columns of `classes`, every row divided by its sum. A row that sums to 0
        becomes uniform, 1/K.

    Raises
    ------
    ValueError
        If `source_proba` is not a matrix or has a value that is negative or NaN (as
        logits have), or `classes` is empty or out of range.
    """
    if source_proba.ndim != 2:
        raise ValueError(
            f"source_proba has to be a matrix; got shape {tuple(source_proba.shape)}."
        )
    n_columns = source_proba.shape[1]
    columns = torch.arange(n_columns) if classes is None else torch.as_tensor(classes)
    if columns.ndim != 1 or len(columns) == 0:
        raise ValueError(
            f"classes has to name at least one column in one dimension; got {classes}."
        )
    if columns.min() < 0 or columns.max() >= n_columns:
        raise ValueError(
            f"classes has to be in [0, {n_columns}), the columns of source_proba; "
            f"got {int(columns.min())} to {int(columns.max())}."
        )
    weights = source_proba.detach().to(working_dtype(source_proba.device))
    _check_nonnegative("source_proba", weights)
    weights = weights[:, columns.long().to(weights.device)]
    sums = weights.sum(dim=1, keepdim=True)
    return torch.where(sums > 0, weights / sums, 1 / len(columns))


def distance_weights(S_a: Tensor) -> Tensor:
    """Weigh the centres by their nearness at layer A ("distance", Sec. 4.3).

    The weights are ``1 / ||x^A - c_k^A||``, normalised to sum 1. `S_a` holds squared
    distances, so the root is taken here.

    Parameters
    ----------
    S_a : Tensor of shape (n, K), floating, >= 0
        Squared distances to the centres at layer A (Eq. 4).

    Returns
    -------
    Tensor of shape (n, K), float64 (float32 on ``mps``), in [0, 1]
        The weights. An image that coincides with one or more centres has all its
        weight on these, in equal parts: the limit of the formula.

    Raises
    ------
    ValueError
        If `S_a` is not a matrix with a column, or has a negative value or a NaN.
    """
    if S_a.ndim != 2 or S_a.shape[1] == 0:
        raise ValueError(
            f"S_a has to be a matrix (n, K) with K >= 1; got shape {tuple(S_a.shape)}."
        )
    distances = S_a.detach().to(working_dtype(S_a.device))
    _check_nonnegative("S_a", distances)
    distances = distances.sqrt()
    nearest = distances.min(dim=1, keepdim=True).values
    # nearest / distance, not 1 / distance: nothing overflows near a centre.
    weights = torch.where(
        nearest > 0, nearest / distances, (distances == 0).to(distances.dtype)
    )
    return weights / weights.sum(dim=1, keepdim=True)


def approximated_pattern(weights: Tensor, center_patterns: Tensor) -> Tensor:
    """Approximate patterns by the weighted sum of the centres' patterns (Eq. 7).

    Parameters
    ----------
    weights : Tensor of shape (n, K), floating
        The share alpha of each centre, from :func:`predict_weights` or
        :func:`distance_weights`.
    center_patterns : Tensor of shape (K, K), floating
        The centres' own patterns (Eq. 6); column k is the pattern of c_k.

    Returns
    -------
    Tensor of shape (n, K), float64 (float32 on ``mps``)
        ``sum_k weights[i, k] * center_patterns[:, k]`` in row i.

    Raises
    ------
    ValueError
        If the shapes are not (n, K) and (K, K).
    """
    if weights.ndim != 2 or center_patterns.shape != (weights.shape[1],) * 2:
        raise ValueError(
            "weights and center_patterns have to have shapes (n, K) and (K, K); "
            f"got {tuple(weights.shape)} and {tuple(center_patterns.shape)}."
        )
    dtype = working_dtype(weights.device)
    return weights.to(dtype) @ center_patterns.to(dtype).T


def _check_nonnegative(name: str, values: Tensor) -> None:
    if not bool((values >= 0).all()):
        lowest = float(values.min())
        got = "NaN" if math.isnan(lowest) else f"a lowest value of {lowest}"
        raise ValueError(f"{name} has to have no negative value and no NaN; got {got}.")


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
        0: both rank the centres in the same order; 1: in reverse. Where a row is
        constant tau is undefined and counts as 0, which gives 0.5.

    Raises
    ------
    ValueError
        As :func:`kendall_tau`: shapes, types, NaN.
    """
    tau = kendall_tau(pattern, approximated, variant="b")
    return (1 - tau.nan_to_num(nan=0.0)) / 2


def pairwise_distinctiveness(patterns: Sequence[Tensor]) -> Tensor:
    r"""Compute the distinctiveness over several starting layers (ADMA-2, Sec. 4.2).

    "Two transformation patterns A1 -> B and A2 -> B are calculated, and the variance
    between them is used to estimate the distinctiveness": the disagreement of an
    image's patterns with each other, measured as Eq. 9 measures it,
    :math:`(1 - \tau(S^{A_1 \to B}, S^{A_2 \to B})) / 2`; with more than two starting
    layers the mean over all pairs. No approximation from the centres takes part.

    Parameters
    ----------
    patterns : sequence of m >= 2 Tensors of shape (n, K), floating, K >= 2
        The images' patterns from each starting layer to B (Eq. 5).

    Returns
    -------
    Tensor of shape (n,), float64 (float32 on ``mps``), in [0, 1]
        The mean; a pair with a constant row counts 0.5, as in
        :func:`distinctiveness`.

    Raises
    ------
    ValueError
        If there are fewer than two patterns, or as :func:`kendall_tau`.
    """
    if len(patterns) < 2:
        raise ValueError(
            f"patterns has to hold at least two to compare; got {len(patterns)}."
        )
    pairs = combinations(patterns, 2)
    return torch.stack([distinctiveness(a, b) for a, b in pairs]).mean(dim=0)


# --- uncertainty and the combined score (Eq. 10-11) -----------------------------------


def uncertainty(proba: ArrayLike, kind: str = "gini") -> np.ndarray:
    r"""Compute how uncertain each prediction is (Eq. 10); more is more uncertain.

    The paper's Eq. 10 prints :math:`-\sum_c p_c (1 - p_c)`, which *falls* as the
    uncertainty rises, and calls it entropy: a slip. The criteria that can be meant
    are Gini's, without the minus, and the entropy.

    Parameters
    ----------
    proba : array-like of shape (n, C), in [0, 1]
        Class probabilities under the current model. Or of shape (n, L, C): of L
        labels, of which an image has any number, each absent or present (C = 2). The
        uncertainty is then the mean over the labels. For entropy that is the entropy
        of all labels together, if they are independent, over L; for "least_confident"
        the share of labels that are expected to be wrong.
    kind : {"gini", "entropy", "margin", "least_confident"}, default="gini"
        With the probabilities of a row in falling order, :math:`p_1 \ge p_2 \ge \dots`

        - "gini": :math:`\sum_c p_c (1 - p_c)`, in [0, 1 - 1/C];
        - "entropy": :math:`-\sum_c p_c \log p_c`, natural, 0 log 0 = 0, in [0, log C];
        - "margin": :math:`1 - (p_1 - p_2)`, in [0, 1]; 0 if C = 1;
        - "least_confident": :math:`1 - p_1`, in [0, 1 - 1/C].

    Returns
    -------
    ndarray of shape (n,), float64
        The uncertainties.

    Raises
    ------
    ValueError
        If `kind` is unknown, or `proba` is not a matrix with a column, or has a value
        outside [0, 1] (beyond rounding, 1e-6) or NaN.
    """
    if kind not in UNCERTAINTIES:
        raise ValueError(f"kind has to be one of {UNCERTAINTIES}; got {kind!r}.")
    proba = np.asarray(proba, dtype=np.float64)
    if proba.ndim == 3 and proba.shape[1]:
        each = uncertainty(proba.reshape(-1, proba.shape[2]), kind)
        return each.reshape(proba.shape[:2]).mean(axis=1)
    if proba.ndim != 2 or proba.shape[1] == 0:
        raise ValueError(
            f"proba has to have shape (n, C) with C >= 1; got {proba.shape}."
        )
    if not np.all((proba >= 0) & (proba <= 1 + 1e-6)):
        raise ValueError(
            "proba has to be probabilities in [0, 1]; "
            f"got values from {proba.min()} to {proba.max()}."
        )
    if kind == "gini":
        return (proba * (1 - proba)).sum(axis=1)
    if kind == "entropy":
        return entr(proba).sum(axis=1)
    if kind == "least_confident":
        return 1 - proba.max(axis=1)
    if proba.shape[1] == 1:
        return np.zeros(len(proba))
    second, first = np.partition(proba, -2, axis=1)[:, -2:].T
    return 1 - (first - second)


def combined_score(
    distinctiveness: ArrayLike,
    uncertainty: ArrayLike,
    trade_off: float,
    iteration: float,
) -> np.ndarray:
    r"""Compute :math:`(1 - \lambda t) \, d + \lambda t \, u` for each image (Eq. 11).

    The weight moves from distinctiveness to uncertainty as the model learns.

    Parameters
    ----------
    distinctiveness : array-like of shape (n,)
        d, from Eq. 9.
    uncertainty : array-like of shape (n,)
        u, from Eq. 10.
    trade_off : float
        :math:`\lambda`, the weight that uncertainty gains per round. The paper gives
        no value.
    iteration : float
        t, the round, from 0. :math:`\lambda t` is clipped to [0, 1].

    Returns
    -------
    ndarray of shape (n,), float64
        The scores.

    Raises
    ------
    ValueError
        If the two arrays differ in shape.
    """
    d = np.asarray(distinctiveness, dtype=np.float64)
    u = np.asarray(uncertainty, dtype=np.float64)
    if d.shape != u.shape:
        raise ValueError(
            "distinctiveness and uncertainty have to be of one shape; "
            f"got {d.shape} and {u.shape}."
        )
    weight = min(max(trade_off * iteration, 0.0), 1.0)
    return (1 - weight) * d + weight * u
