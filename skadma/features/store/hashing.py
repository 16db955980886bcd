"""Random choices by the hashes of images' keys, whatever the order of the images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def key_hashes(keys: Iterable[str]) -> np.ndarray:
    """Hash each key to 64 bits by BLAKE2b, uint64."""
    digests = b"".join(
        hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for key in keys
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def mixed(hashes: np.ndarray, seed: int) -> np.ndarray:
    """Hash hashes with a seed, uint64: the finaliser of SplitMix64.

    Steele, Lea & Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014.
    """
    step = (seed + 1) * 0x9E3779B97F4A7C15 % 2**64
    with np.errstate(over="ignore"):
        x = hashes + np.uint64(step)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(hashes: np.ndarray, seed: int) -> np.ndarray:
    """Draw a number in (0, 1) for each hash."""
    return ((mixed(hashes, seed) >> np.uint64(11)) + 0.5) / 2.0**53


def partition(hashes: np.ndarray, n_partitions: int, seed: int) -> list[np.ndarray]:
    """Assign each image to a random partition; return the positions in each.

    In a partition they are ordered by their hashes with the seed. Empty partitions are
    left out.
    """
    mixed_hashes = mixed(hashes, seed)
    number = (mixed_hashes % np.uint64(n_partitions)).astype(np.intp)
    order = np.lexsort((hashes, mixed_hashes, number))
    bounds = np.searchsorted(number[order], np.arange(1, n_partitions))
    return [rows for rows in np.split(order, bounds) if len(rows)]


def priority_sample(
    weights: np.ndarray, hashes: np.ndarray, n: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    r"""Draw `n` images by their weights, so that weighted sums are unbiased.

    The images with the greatest priorities u / r are drawn, u being the weight and r
    uniform in (0, 1) by the image's hash. With the next priority :math:`\tau`, each
    image counts :math:`\max(u, \tau)`. Returns positions and what each counts.
    Duffield, Lund & Thorup, Priority Sampling for Estimation of Arbitrary Subset Sums,
    JACM 2007.
    """
    priority = weights / uniform(hashes, seed)
    order = np.lexsort((hashes, -priority))
    if n >= len(weights):
        return order, weights[order].astype(np.float64)
    chosen, tau = order[:n], priority[order[n]]
    return chosen, np.maximum(weights[chosen], tau)


def smallest(hashes: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Draw `n` images with equal probabilities; return their positions."""
    return np.lexsort((hashes, mixed(hashes, seed)))[:n]
