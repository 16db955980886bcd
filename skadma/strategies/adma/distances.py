"""Relative representation: squared distances to the centres (Eq. 3-4)."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor


def working_dtype(device: torch.device) -> torch.dtype:
    """Return the type that this package computes in on a device.

    Parameters
    ----------
    device : torch.device
        Where the tensors are.

    Returns
    -------
    torch.dtype
        ``torch.float64``, or ``torch.float32`` on ``mps``, which has no float64.
    """
    return torch.float32 if device.type == "mps" else torch.float64


class CenterDistances:
    """Squared L2 distances to fixed centres, whose part is computed once.

    ``||x - c||^2 = ||x||^2 + ||c||^2 - 2 x.c`` turns the distances of a batch into one
    matrix product. The subtraction loses the digits that the terms have in common,
    which is harmless here: the centres' mean is subtracted from both sides first, so
    that the terms are of the size of the distances themselves, and the product is
    computed in float64 whatever the features' type (float32 on ``mps``).

    What remains is rounding of about ``sqrt(d) * eps`` of the terms. A distance below
    eight times that cannot be told from 0 and is set to exactly 0. So the distance of
    a centre to itself is 0, also where the network computed its features twice with
    float32 noise, while distances that mean something stay: in float64, at d = 4096,
    only pairs nearer than about 3e-7 of their distance to the mean are affected.

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

    @cached_property
    def between(self) -> Tensor:
        """The distances between the centres, computed when first asked for."""
        return self.between_centers()

    @property
    def nbytes(self) -> int:
        """Bytes that the centres take here."""
        return self._centers.nbytes + len(self._centers) ** 2 * 8

    def between_centers(self) -> Tensor:
        """Compute the distances between the centres (S_C, Eq. 3).

        Returns
        -------
        Tensor of shape (K, K), float64 (float32 on ``mps``), >= 0
        """
        return self._squared(self._centers)

    @property
    def device(self) -> torch.device:
        """Where the centres are."""
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
    centres once with :class:`CenterDistances`, which also says how exact it is.

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
