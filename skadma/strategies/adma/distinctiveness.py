"""Distinctiveness: how badly the centres explain an image's pattern (Eq. 9)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor

from .kendall import kendall_tau


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
        0: both rank the centres alike; 1: in reverse. Where a row is constant it
        ranks nothing and tau is undefined; it counts as 0, which gives 0.5.

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
