"""Groups of images that are asked for together: a patient's, a plant's, a burst's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import column_or_1d

from .._utils.candidates import TooFewCandidatesError, check_n_instances


class Groups:
    """Which images belong together.

    Parameters
    ----------
    groups : array-like of shape (n,) or None
        A name or number for each image. None: each image is a group of its own.
    n : int
        Images.

    Raises
    ------
    ValueError
        If there are more or fewer than `n`, or some are missing.
    """

    def __init__(self, groups: ArrayLike | None, n: int) -> None:
        self.given = groups is not None
        if groups is None:
            self.names = self.codes = np.arange(n)
            return
        found = column_or_1d(groups)
        if len(found) != n:
            raise ValueError(f"groups has {len(found)} entries for {n} images.")
        if found.dtype.kind in "fO" and any(v is None or v != v for v in found):
            raise ValueError(
                "groups contains None or NaN. Give each image that belongs to no "
                "group a name of its own."
            )
        self.names, self.codes = np.unique(found, return_inverse=True)

    def refuse_split(self, labeled: np.ndarray, indices: np.ndarray) -> None:
        """Refuse labels of a part of a group.

        Parameters
        ----------
        labeled : ndarray of bool, shape (n,)
            Which images have a label, or are given one now.
        indices : ndarray of int
            Images of the groups to look at.

        Raises
        ------
        ValueError
            If some of these groups' images have no label.
        """
        touched = np.unique(self.codes[indices])
        left = np.flatnonzero(np.isin(self.codes, touched) & ~labeled)
        if len(left):
            code = self.codes[left[0]]
            left = left[self.codes[left] == code]
            name = self.names[code : code + 1].tolist()[0]
            raise ValueError(
                f"The group {name!r} would be split: its images {left.tolist()} have "
                "no label, others have. Label a group as a whole, or give no groups."
            )

    def whole(self, some: np.ndarray) -> np.ndarray:
        """Complete the groups that some images are of.

        Parameters
        ----------
        some : ndarray of bool, shape (n,)

        Returns
        -------
        ndarray of bool, shape (n,)
        """
        return np.isin(self.codes, self.codes[some])

    def count(self, indices: np.ndarray) -> int:
        """How many groups some images are of."""
        return len(np.unique(self.codes[indices]))

    def choose(
        self,
        pool: np.ndarray,
        n_groups: int,
        ask: Callable[[int], tuple[np.ndarray, np.ndarray]],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Choose groups by the images that a strategy chooses.

        The strategy is asked for as many images as groups are wanted and, while they
        are of fewer groups, for twice as many again.

        Parameters
        ----------
        pool : ndarray of int
            Images without a label; of each group all or none.
        n_groups : int
        ask : callable
            Gives so many positions in `pool`, most useful first, and their scores.

        Returns
        -------
        indices : ndarray of int
            All images of the groups, the best group first, and in a group the image
            first that the strategy chose.
        scores : ndarray of float
            Of the image that the strategy chose, for the whole group.

        Raises
        ------
        TooFewCandidatesError
            If the pool's usable images are of fewer groups; with their number.
        """
        codes = self.codes[pool]
        check_n_instances(n_groups, self.count(pool))
        n, most = n_groups, len(pool)
        while True:
            try:
                chosen, scores = ask(n)
            except TooFewCandidatesError as error:
                if not (self.given and error.n_available):
                    raise
                n = most = error.n_available
                chosen, scores = ask(n)
            _, first = np.unique(codes[chosen], return_index=True)
            first = np.sort(first)[:n_groups]
            if len(first) == n_groups:
                break
            if n == most:
                raise TooFewCandidatesError(
                    f"{n_groups} groups are asked for, but the images in the pool that "
                    f"can be decoded and scored are of {len(first)}.",
                    len(first),
                )
            n = min(2 * n, most)
        return self._members(codes, chosen[first], scores[first], pool)

    @staticmethod
    def _members(
        codes: np.ndarray, chosen: np.ndarray, scores: np.ndarray, pool: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(codes, kind="stable")
        begin, end = (
            np.searchsorted(codes[order], codes[chosen], side=side)
            for side in ("left", "right")
        )
        members = [
            np.concatenate([[best], (group := order[b:e])[group != best]])
            for best, b, e in zip(chosen, begin, end, strict=True)
        ]
        sizes = [len(group) for group in members]
        return pool[np.concatenate(members)], np.repeat(scores, sizes)
