"""A feature store, or a part of one, as images."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ..._utils.lazy_rows import LazyRows
from ...images.dataset import StoredImages, take
from .columns import StoredRows, StoreError
from .plan import Plan, read_images
from .scanning import CONTENT

if TYPE_CHECKING:
    from typing import Self


class ImagesOfStore(StoredImages):
    """Images whose names, and what is known of them, are in a store's folder.

    Parameters
    ----------
    folder : str or Path
    plan : Plan
    images : images or None
    block_rows : int

    Attributes
    ----------
    skip_unreadable : bool
        Whether images that cannot be decoded are left out whatever the classifier
        does: where it is known which are there, and only these are selected.
    """

    def __init__(
        self, folder: str | Path, plan: Plan, images: Any, block_rows: int
    ) -> None:
        self.folder = Path(folder).absolute()
        self.block_rows = block_rows
        self.skip_unreadable = False
        self._plan = plan
        self._given = images
        self._rows: np.ndarray | None = None

    def __len__(self) -> int:
        return self._plan.n_rows if self._rows is None else len(self._rows)

    @property
    def exists(self) -> bool:
        """Whether the store is there still."""
        return (self.folder / "store.json").is_file()

    @property
    def whole(self) -> Self:
        """The store that this is, or is a part of."""
        store = copy.copy(self)
        store._rows = None
        return store

    def select(self, indices: ArrayLike) -> Self:
        """Return some of the images, in the order of the indices.

        Parameters
        ----------
        indices : array-like of int

        Returns
        -------
        FeatureStore
        """
        indices = np.asarray(indices, dtype=np.intp)
        part = copy.copy(self)
        part._rows = indices if self._rows is None else self._rows[indices]
        return part

    def __getitem__(self, i: int) -> str:
        """The key of an image."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        return self.select([i % len(self)]).keys[0]

    @property
    def keys(self) -> list[str]:
        """Names of the images."""
        return self._texts(0)

    @property
    def images(self) -> Any:
        """The images themselves: paths, or what was given."""
        if self._given is None and self._plan.from_files:
            return self._texts(1)
        if self._given is None:
            raise StoreError(
                "The images of this store are no files, and have to be looked at: give "
                "them to FeatureStore.open(folder, images=...)."
            )
        return self._given if self._rows is None else take(self._given, self._rows)

    @property
    def readable(self) -> np.ndarray:
        """Which images could be decoded, shape (n,), bool."""
        return self._content("readable")

    @property
    def sha256(self) -> np.ndarray:
        """Digests of the images' files (pixels), shape (n, 32), uint8."""
        return self._content("sha256")

    @property
    def hashes(self) -> np.ndarray:
        """Hashes of the keys, shape (n,), uint64."""
        return self._content("hash")

    def _column(self, name: str, array: str = "rows", *, raw: bool = False) -> LazyRows:
        rows = StoredRows(
            self.folder, name, array, self._plan.sizes, self.block_rows, raw=raw
        )
        return rows if self._rows is None else rows.select(self._rows)

    def _content(self, name: str) -> np.ndarray:
        return self._column(CONTENT, name, raw=True)[:]

    def _touched(self) -> np.ndarray:
        """Numbers of the shards that the images are in."""
        if self._rows is None:
            return np.arange(len(self._plan.sizes))
        ends = np.cumsum(self._plan.sizes)
        return np.unique(np.searchsorted(ends, self._rows, side="right"))

    def _texts(self, which: int) -> list[str]:
        """Keys (0) or paths (1)."""
        if self._rows is None:
            shards = range(len(self._plan.sizes))
            return [t for n in shards for t in read_images(self.folder, n)[which]]
        ends = np.cumsum(self._plan.sizes)
        numbers = np.searchsorted(ends, self._rows, side="right")
        starts = ends - self._plan.sizes
        found: list[str] = [""] * len(self._rows)
        for i in np.argsort(numbers, kind="stable"):
            number = int(numbers[i])
            inside = int(self._rows[i] - starts[number])
            found[i] = read_images(self.folder, number)[which][inside]
        return found

    def _check_whole(self, what: str) -> None:
        if self._rows is not None:
            raise StoreError(
                f"This is a part of a store; {what} the whole one "
                "(FeatureStore.open(folder))."
            )
