"""Kendall's rank correlation of many pairs of vectors at once."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor

try:
    from . import _kendall
except ImportError:  # installed without a compiler
    _kendall = None  # type: ignore[assignment]

_THREAD_SHARE = 1 << 15
"""Elements that are worth a thread of their own: about half a millisecond."""


def working_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on ``mps``, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def kendall_tau(a: Tensor, b: Tensor) -> Tensor:
    r"""Compute Kendall's tau-b between each row of `a` and the same row of `b`.

    With P concordant and Q discordant of N = K (K - 1) / 2 pairs, and :math:`T_a`,
    :math:`T_b` pairs tied in `a`, in `b`:

    .. math:: \tau_b = \frac{P - Q}{\sqrt{(N - T_a)(N - T_b)}}

    Pairs are counted by sorting [1]_, on the CPU: by compiled code on as many threads
    as torch uses, or by SciPy (about 0.4 ms for a row) if there was no compiler at
    installation.

    Parameters
    ----------
    a, b : Tensor of shape (n, K), without NaN, K >= 2

    Returns
    -------
    Tensor of shape (n,), float64 (float32 on ``mps``), in [-1, 1]
        NaN where a row of `a` or `b` is constant.

    References
    ----------
    .. [1] Knight, "A Computer Method for Calculating Kendall's Tau with Ungrouped
       Data", JASA 1966. :doi:`10.1080/01621459.1966.10480879`
    """
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] < 2:
        raise ValueError(
            "a and b have to be matrices of one shape (n, K) with K >= 2; "
            f"got {tuple(a.shape)} and {tuple(b.shape)}."
        )
    dtype = torch.float32 if a.dtype == b.dtype == torch.float32 else torch.float64
    a_rows, b_rows = (
        np.ascontiguousarray(x.detach().cpu().to(dtype).numpy()) for x in (a, b)
    )
    count = _count_by_scipy if _kendall is None else _count_compiled
    difference, tied_a, tied_b = count(a_rows, b_rows)
    n_pairs = a.shape[1] * (a.shape[1] - 1) // 2
    with np.errstate(invalid="ignore"):  # 0 / 0: a row is constant
        # One root of the product: exactly 1 and -1 for equal and reversed orders.
        untied = (n_pairs - tied_a).astype(float) * (n_pairs - tied_b)
        tau = (difference / np.sqrt(untied)).clip(-1, 1)
    return torch.from_numpy(tau).to(working_dtype(a.device)).to(a.device)


def _count_compiled(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Count pairs by rows: concordant less discordant, tied in a, tied in b; (3, n)."""
    n, n_values = a.shape
    counts = np.empty((n, 4), dtype=np.int64)

    def count(first: int, last: int) -> None:
        rows = slice(first, last)
        single = a.dtype == np.float32
        _kendall.count_pairs(a[rows], b[rows], n_values, single, counts[rows])

    n_threads = min(torch.get_num_threads(), n, 1 + n * n_values // _THREAD_SHARE)
    if n_threads > 1:
        bounds = np.linspace(0, n, n_threads + 1).astype(int)
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(count, bounds[:-1], bounds[1:]))
    elif n:
        count(0, n)
    discordant, tied_a, tied_b, tied_both = counts.T
    n_pairs = n_values * (n_values - 1) // 2
    difference = n_pairs - tied_a - tied_b + tied_both - 2 * discordant
    return np.stack([difference, tied_a, tied_b])


def _count_by_scipy(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Count as :func:`_count_compiled` does."""
    for name, values in (("a", a), ("b", b)):
        if np.isnan(values).any():
            raise ValueError(f"{name} has NaN.")
    found = np.zeros((3, len(a)), dtype=np.int64)
    n_pairs = a.shape[1] * (a.shape[1] - 1) // 2
    for i, rows in enumerate(zip(a, b, strict=True)):
        # By ranks, as SciPy 1.12 answers NaN where there are infinities.
        ranks = [np.unique(row, return_inverse=True)[1] for row in rows]
        tied = [int((n * (n - 1) // 2).sum()) for n in map(np.bincount, ranks)]
        tau = np.nan_to_num(kendalltau(*ranks).statistic)
        untied = math.sqrt((n_pairs - tied[0]) * (n_pairs - tied[1]))
        found[:, i] = round(tau * untied), *tied
    return found
