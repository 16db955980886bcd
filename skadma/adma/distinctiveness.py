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


def multi_layer_distinctiveness(
    patterns: Sequence[Tensor], approximations: Sequence[Tensor]
) -> Tensor:
    r"""Compute the distinctiveness over several starting layers (ADMA-2, Sec. 4.2).

    For starting layers :math:`A_1, \dots, A_m` and one layer B it is the mean of
    m + m(m-1)/2 disagreements, weighted alike: of each pattern with its approximation,
    :math:`(1 - \tau(S_i, \hat S_i)) / 2`, and of each two patterns of the image,
    :math:`(1 - \tau(S_i, S_j)) / 2`. With m = 1 it is Eq. 9.

    That ADMA-2 uses the disagreement between the patterns is the paper's; this way of
    combining the terms is ours, as the paper's text could not be consulted.

    Parameters
    ----------
    patterns : sequence of m Tensors of shape (n, K), floating, K >= 2
        The images' patterns from each :math:`A_i` to B (Eq. 5).
    approximations : sequence of m Tensors of shape (n, K), floating
        Their approximations, in the same order (Eq. 7).

    Returns
    -------
    Tensor of shape (n,), float64 (float32 on ``mps``), in [0, 1]
        The mean; a term with a constant row counts 0.5, as in
        :func:`distinctiveness`.

    Raises
    ------
    ValueError
        If there is no pattern, there are not as many approximations, or as
        :func:`kendall_tau`.
    """
    if len(patterns) == 0 or len(patterns) != len(approximations):
        raise ValueError(
            "patterns and approximations have to be equally many, at least one; "
            f"got {len(patterns)} and {len(approximations)}."
        )
    pairs = [*zip(patterns, approximations, strict=True), *combinations(patterns, 2)]
    return torch.stack([distinctiveness(a, b) for a, b in pairs]).mean(dim=0)
