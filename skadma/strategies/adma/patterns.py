"""Transformation patterns and their approximation from the centres (Eq. 5-8)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .distances import working_dtype


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
    """Weigh the centres by M0's class probabilities ("predict", Eq. 8).

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
    _refuse_negative("source_proba", weights)
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
    _refuse_negative("S_a", distances)
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


def _refuse_negative(name: str, values: Tensor) -> None:
    if not bool((values >= 0).all()):
        lowest = float(values.min())
        got = "NaN" if math.isnan(lowest) else f"a lowest value of {lowest}"
        raise ValueError(f"{name} has to have no negative value and no NaN; got {got}.")
