"""Choices among images that depend on their keys alone, in whatever order they come."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def key_hashes(keys: Iterable[str]) -> np.ndarray:
    """Hash keys: 64 bits of BLAKE2b.

    Parameters
    ----------
    keys : iterable of str

    Returns
    -------
    ndarray of uint64, shape (n,)
    """
    digests = b"".join(
        hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for key in keys
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def mixed(hashes: np.ndarray, seed: int) -> np.ndarray:
    """Hash hashes anew under a seed: the finaliser of SplitMix64 [1]_.

    Parameters
    ----------
    hashes : ndarray of uint64, shape (n,)
    seed : int
        From 0.

    Returns
    -------
    ndarray of uint64, shape (n,)

    References
    ----------
    .. [1] Steele, Lea & Flood, Fast Splittable Pseudorandom Number Generators,
       OOPSLA 2014.
    """
    step = (seed + 1) * 0x9E3779B97F4A7C15 % 2**64
    with np.errstate(over="ignore"):
        x = hashes + np.uint64(step)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(hashes: np.ndarray, seed: int) -> np.ndarray:
    """Draw a number for each hash.

    Parameters
    ----------
    hashes : ndarray of uint64, shape (n,)
    seed : int

    Returns
    -------
    ndarray of float64, shape (n,)
        In (0, 1).
    """
    return ((mixed(hashes, seed) >> np.uint64(11)) + 0.5) / 2.0**53


def partition(hashes: np.ndarray, n_parts: int, seed: int) -> list[np.ndarray]:
    """Divide images at random, each to a part by itself.

    Parameters
    ----------
    hashes : ndarray of uint64, shape (n,)
    n_parts : int
    seed : int

    Returns
    -------
    list of ndarray of int
        Positions, in the order of the hashes under the seed; parts may be empty.
    """
    under = mixed(hashes, seed)
    part = (under % np.uint64(n_parts)).astype(np.intp)
    order = np.lexsort((hashes, under, part))
    return np.split(order, np.searchsorted(part[order], np.arange(1, n_parts)))


def priority_sample(
    weights: np.ndarray, hashes: np.ndarray, n: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    r"""Draw images by their weights, so that weighted sums are kept on average [1]_.

    Of a stream of images it keeps the `n` with the greatest priorities u / r, r drawn
    from (0, 1) by the image's hash. (A weighted reservoir: of the images of several
    shards, the `n` best of the shards' `n` best.) With the next priority :math:`\tau`,
    each counts :math:`\max(u, \tau)`, and for every f, :math:`\sum \max(u, \tau) f` is
    :math:`\sum u f` on average.

    Parameters
    ----------
    weights : ndarray of shape (m,)
        u, from 0.
    hashes : ndarray of uint64, shape (m,)
    n : int
        All images if there are no more, each with its own weight.
    seed : int

    Returns
    -------
    chosen : ndarray of int, shape (min(n, m),)
        Greatest priority first.
    counts : ndarray of shape (min(n, m),)
        What each counts.

    References
    ----------
    .. [1] Duffield, Lund & Thorup, Priority Sampling for Estimation of Arbitrary
       Subset Sums, JACM 2007.
    """
    priority = weights / uniform(hashes, seed)
    order = np.lexsort((hashes, -priority))
    if n >= len(weights):
        return order, weights[order].astype(np.float64)
    chosen, tau = order[:n], priority[order[n]]
    return chosen, np.maximum(weights[chosen], tau)


def smallest(hashes: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Draw `n` images, each as likely as any other.

    Parameters
    ----------
    hashes : ndarray of uint64, shape (m,)
    n : int
        At most m.
    seed : int

    Returns
    -------
    ndarray of int, shape (n,)
    """
    return np.lexsort((hashes, mixed(hashes, seed)))[:n]
