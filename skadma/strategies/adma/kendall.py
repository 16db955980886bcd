"""Kendall's rank correlation of many pairs of vectors at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

try:
    from . import _kendall
except ImportError:  # installed without a compiler
    _kendall = None  # type: ignore[assignment]

_CHUNK = 1 << 18
"""Elements handled at once: temporaries stay under about 50 MB."""

_THREAD_SHARE = 1 << 15
"""Elements that are worth a thread of their own: about half a millisecond."""


def working_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on ``mps``, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def kendall_tau(a: Tensor, b: Tensor, *, variant: str = "b") -> Tensor:
    r"""Compute Kendall's tau between each row of `a` and the same row of `b`.

    With P concordant and Q discordant of N = K (K - 1) / 2 pairs, and :math:`T_a`,
    :math:`T_b` pairs tied in `a`, in `b`:

    .. math::
        \tau_a = \frac{P - Q}{N}, \qquad
        \tau_b = \frac{P - Q}{\sqrt{(N - T_a)(N - T_b)}}

    Pairs are counted by sorting [1]_. On CPU this is compiled code on as many threads
    as torch uses, or torch (about 15 times slower) if there was no compiler at
    installation; elsewhere it is torch.

    Parameters
    ----------
    a, b : Tensor of shape (n, K), floating, without NaN, K >= 2
    variant : {"a", "b"}, default="b"
        "b" allows for ties, as ``scipy.stats.kendalltau`` does by default.

    Returns
    -------
    Tensor of shape (n,), float64 (float32 on ``mps``), in [-1, 1]
        Where a row of `a` or `b` is constant, tau-b is NaN and tau-a 0.

    References
    ----------
    .. [1] Knight, "A Computer Method for Calculating Kendall's Tau with Ungrouped
       Data", JASA 1966. :doi:`10.1080/01621459.1966.10480879`
    """
    if variant not in ("a", "b"):
        raise ValueError(f"variant has to be 'a' or 'b'; got {variant!r}.")
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] < 2:
        raise ValueError(
            "a and b have to be matrices of one shape (n, K) with K >= 2; "
            f"got {tuple(a.shape)} and {tuple(b.shape)}."
        )
    for name, values in (("a", a), ("b", b)):
        if not values.is_floating_point():
            raise ValueError(f"{name} has to be of a float type; got {values.dtype}.")
    a, b = a.detach(), b.detach()
    compiled = _kendall is not None and a.device.type == "cpu"
    tau = torch.empty(len(a), dtype=working_dtype(a.device), device=a.device)
    n_rows = max(1, _CHUNK * (4 if compiled else 1) // a.shape[1])
    for start in range(0, len(a), n_rows):
        rows = slice(start, start + n_rows)
        counts = (_count_compiled if compiled else _count)(a[rows], b[rows])
        tau[rows] = _tau(a.shape[1], counts, variant)
    return tau


def _tau(n_values: int, counts: Tensor, variant: str) -> Tensor:
    n_pairs = n_values * (n_values - 1) // 2
    discordant, tied_a, tied_b, tied_both = counts
    dtype = working_dtype(counts.device)
    difference = (n_pairs - tied_a - tied_b + tied_both - 2 * discordant).to(dtype)
    if variant == "a":
        return difference / n_pairs
    # One root of the product: exactly 1 and -1 for equal and reversed orders.
    untied = (n_pairs - tied_a).to(dtype) * (n_pairs - tied_b).to(dtype)
    return (difference / untied.sqrt()).clamp(-1, 1)


def _count_compiled(a: Tensor, b: Tensor) -> Tensor:
    """Count as :func:`_count` does, by compiled code on several threads."""
    n, n_values = a.shape
    single = a.dtype == b.dtype == torch.float32
    dtype = torch.float32 if single else torch.float64
    a_rows, b_rows = (np.ascontiguousarray(x.to(dtype).numpy()) for x in (a, b))
    counts = np.empty((n, 4), dtype=np.int64)

    def count(first: int, last: int) -> None:
        rows = slice(first, last)
        _kendall.count_pairs(a_rows[rows], b_rows[rows], n_values, single, counts[rows])

    n_threads = min(torch.get_num_threads(), n, 1 + n * n_values // _THREAD_SHARE)
    if n_threads == 1:
        count(0, n)
    else:
        bounds = np.linspace(0, n, n_threads + 1).astype(int)
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(count, bounds[:-1], bounds[1:]))
    return torch.from_numpy(counts).T


def _count(a: Tensor, b: Tensor) -> Tensor:
    """Count the pairs of each row: discordant, tied in a, tied in b, tied in both."""
    # Adding 0 turns -0 into 0, which a radix sort (CUDA) would put behind it.
    a_sorted, order = (a + 0.0).sort(dim=1, stable=True)
    b_sorted, order = (b + 0.0).gather(1, order).sort(dim=1, stable=True)
    for name, last in (("a", a_sorted[:, -1]), ("b", b_sorted[:, -1])):
        if bool(last.isnan().any()):  # sorting puts NaN last
            raise ValueError(f"{name} has NaN.")
    a_by_b = a_sorted.gather(1, order)  # in order of b, and of a where b is tied
    new_a, new_b = _starts_run(a_sorted), _starts_run(b_sorted)
    # Stable, so tied values of a keep the order of b: no tie counts as discordant.
    return torch.stack(
        [
            _inversions(a_by_b.argsort(dim=1, stable=True)),
            _tied_pairs(new_a),
            _tied_pairs(new_b),
            _tied_pairs(new_b | _starts_run(a_by_b)),
        ]
    )


def _starts_run(values: Tensor) -> Tensor:
    """Mark where a row differs from the element before it; the first always does."""
    starts = torch.ones(values.shape, dtype=torch.bool, device=values.device)
    torch.ne(values[:, 1:], values[:, :-1], out=starts[:, 1:])
    return starts


def _tied_pairs(starts_run: Tensor) -> Tensor:
    """Count the pairs within the same run: each element with those before it."""
    position = torch.arange(starts_run.shape[1], device=starts_run.device)
    run_start = (position * starts_run).cummax(dim=1).values
    return (position - run_start).sum(dim=1)


def _inversions(permutation: Tensor) -> Tensor:
    """Count the pairs i < j with a larger value at i, in each row, a permutation.

    A merge sort run backwards. Padded to a power of two, the row is split by the
    highest bit of its values, stably, into a lower and an upper half, then each half
    by the next bit, and so on. A pair is inverted if the larger value stands first
    when its two values part. All blocks have half their values on either side, so the
    blocks of a level need no bookkeeping.
    """
    n, n_values = permutation.shape
    size = 1 << (n_values - 1).bit_length()
    position = torch.arange(size, dtype=torch.int32, device=permutation.device)
    values = position.repeat(n, 1)  # the padding is in order: it adds no inversion
    values[:, :n_values] = permutation
    count = torch.zeros(n, dtype=torch.int64, device=permutation.device)
    while size > 1:
        half = size // 2
        block = position & -size
        upper = (values & half) != 0
        # Upper values that stand earlier in the block; blocks before hold half each.
        earlier = upper.cumsum(dim=1, dtype=torch.int32) - upper.int() - block // 2
        count += (earlier * ~upper).sum(dim=1)
        target = torch.where(upper, block + half + earlier, position - earlier)
        values = torch.empty_like(values).scatter_(1, target.long(), values)
        size = half
    return count
