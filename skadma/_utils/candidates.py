"""Checks of how many images (or groups) can be chosen from a pool."""

from __future__ import annotations

from numbers import Integral


class TooFewCandidatesError(ValueError):
    """A query asks for more images than the pool has usable ones, `n_available`."""

    def __init__(self, message: str, n_available: int) -> None:
        super().__init__(message)
        self.n_available = n_available


def check_n_instances(n_instances: int, n_pool: int) -> None:
    """Raise ValueError unless `n_instances` is an int from 1 to `n_pool`."""
    if (
        not isinstance(n_instances, Integral)
        or isinstance(n_instances, bool)
        or not 1 <= n_instances <= n_pool
    ):
        raise ValueError(
            f"n_instances={n_instances!r}; it must be an int from 1 to the size of the "
            f"pool, {n_pool}."
        )


def check_enough(n_usable: int, n_instances: int, n_pool: int) -> None:
    """Raise TooFewCandidatesError if fewer images are usable than are asked for."""
    if n_usable < n_instances:
        raise TooFewCandidatesError(
            f"n_instances={n_instances}, but only {n_usable} of the {n_pool} images in "
            "the pool can be decoded and scored.",
            n_usable,
        )
