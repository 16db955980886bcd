"""Groups: images that are queried and labelled together."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import column_or_1d

from .labels import as_labels, plain_labels


class Groups:
    """The group of each of n images; without `groups`, each is a group of its own."""

    def __init__(self, groups: ArrayLike | None, n: int) -> None:
        self.given = groups is not None
        if groups is None:
            self.names = self.codes = np.arange(n)
            return
        found = column_or_1d(plain_labels(as_labels(groups)))
        if len(found) != n:
            raise ValueError(f"groups has {len(found)} entries for {n} images.")
        if found.dtype.kind in "fO" and any(v is None or v != v for v in found):
            raise ValueError(
                "groups contains None or NaN. Give each image that belongs to no "
                "group a name of its own."
            )
        self.names, self.codes = np.unique(found, return_inverse=True)

    def refuse_split(self, labeled: np.ndarray, indices: np.ndarray) -> None:
        """Raise ValueError if a group of `indices` has images that are not labelled.

        `labeled` is a mask of shape (n,).
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
        """Extend a mask of images to all images of their groups."""
        return np.isin(self.codes, self.codes[some])

    def count(self, indices: np.ndarray) -> int:
        """Count the groups of some images."""
        return len(np.unique(self.codes[indices]))

    def first_of_each(self, indices: np.ndarray) -> np.ndarray:
        """Return the positions where `indices` has a group's first image, sorted."""
        _, first = np.unique(self.codes[indices], return_index=True)
        return np.sort(first)

    def members(
        self, chosen: np.ndarray, pool: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Complete the groups of `chosen` images with those of `pool`.

        Returns indices, group by group, each with its chosen image first, and the sizes
        of the groups.
        """
        by_group = pool[np.argsort(self.codes[pool], kind="stable")]
        codes = self.codes[by_group]
        begin = np.searchsorted(codes, self.codes[chosen], side="left")
        end = np.searchsorted(codes, self.codes[chosen], side="right")
        found = [
            np.concatenate([[image], (group := by_group[b:e])[group != image]])
            for image, b, e in zip(chosen, begin, end, strict=True)
        ]
        return np.concatenate(found), end - begin
