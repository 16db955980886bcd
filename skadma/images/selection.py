"""Images of any accepted form by their numbers; nothing here imports torch."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from sklearn.utils import _safe_indexing

from .._utils.lazy_rows import BLOCK_ROWS, LazyRows, MappedRows
from .decoding import ACCEPTED, Range


def is_tensor(X: Any) -> bool:
    """Whether `X` is a tensor of torch, which is imported then."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(X, torch.Tensor)


def is_dataset(X: Any) -> bool:
    """Whether `X` is a Dataset of torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(X, torch.utils.data.Dataset)


class StoredImages(ABC):
    """Images with outputs of a network that a store on the disk holds."""

    @property
    @abstractmethod
    def images(self) -> Any:
        """The images in one of the other accepted forms."""

    @property
    @abstractmethod
    def value_range(self) -> Range | None:
        """The range of values of the images of more than 8 bits."""

    @abstractmethod
    def select(self, indices: ArrayLike) -> StoredImages:
        """Return some of them."""

    @abstractmethod
    def __len__(self) -> int: ...


def check_is_sized(X: Any) -> None:
    """Raise ValueError unless `X` has images by number, and a number of them."""
    has_items = hasattr(X, "__getitem__") and hasattr(X, "__len__")
    if (
        not (has_items or hasattr(X, "__array__") or hasattr(X, "shape"))
        or isinstance(X, (str, bytes, os.PathLike, dict, Image.Image))
        or getattr(X, "shape", None) == ()
    ):
        raise ValueError(
            f"X is {type(X).__name__}, which is no sequence of images. Put a single "
            "path or image in a list; of a generator make one, list(X); of a "
            f"DataLoader give its dataset. {ACCEPTED}."
        )


def is_lazy_sequence(X: Any) -> bool:
    """Whether `X` makes its items when they are asked for, as a column of `datasets`.

    Of torch's Datasets this is false.
    """
    return (
        not isinstance(X, (list, tuple, dict, str, bytes))
        and not is_dataset(X)
        and not any(
            hasattr(X, name) for name in ("__array__", "dtype", "columns", "toarray")
        )
        and hasattr(X, "__getitem__")
        and hasattr(X, "__len__")
    )


def is_stored(X: Any) -> bool:
    """Whether `X` is a FeatureStore."""
    return isinstance(X, StoredImages)


def n_images(X: Any) -> int:
    """Count the images (rows) of any accepted form."""
    if isinstance(X, StoredImages):
        return len(X)
    check_is_sized(X)
    if hasattr(X, "shape"):
        return X.shape[0]
    if hasattr(X, "__array__") and not hasattr(X, "__len__"):
        return len(np.asarray(X))
    return len(X)


def rows_of_file(X: Any) -> Any:
    """Return a memory-mapped table larger than a block as LazyRows, else X itself."""
    if isinstance(X, np.memmap) and X.ndim == 2 and len(X) > BLOCK_ROWS:
        return MappedRows(X)
    return X


def take(X: Any, indices: ArrayLike) -> Any:
    """Select images (rows) by indices or by a mask, in the form that they come in."""
    indices = np.asarray(indices)
    if indices.dtype.kind == "b":
        indices = np.flatnonzero(indices)
    if isinstance(X, StoredImages):
        return X.select(indices)
    X = rows_of_file(X)
    if isinstance(X, LazyRows):
        return X.select(indices) if len(indices) > X.block else X[indices]
    if is_dataset(X) or is_lazy_sequence(X):
        from .taken import TakenDataset  # torch's

        return TakenDataset(X, indices.tolist(), numbers_of(X, indices))
    if is_tensor(X):
        return X[indices.tolist()]
    if isinstance(X, (list, tuple)):
        return TakenList(X, indices)
    if hasattr(X, "__array__") and not hasattr(X, "shape"):
        X = np.asarray(X)
    if getattr(X, "ndim", 0) == 1 and len(indices):
        items = np.asarray(X)
        if isinstance(items[indices[0]], (Image.Image, np.ndarray)) or is_tensor(
            items[indices[0]]
        ):
            return TakenList(items, indices)
    return _safe_indexing(X, indices)


class TakenList(list[Any]):
    """Items of a list or tuple, with their numbers in the one of the user."""

    def __init__(self, X: Any, indices: np.ndarray) -> None:
        super().__init__(X[i] for i in indices)
        self.numbers = numbers_of(X, indices)


def numbers_of(X: Any, indices: Any) -> list[int]:
    """Numbers of items in the X of the user, of which some may be taken already."""
    numbers = getattr(X, "numbers", None) if not hasattr(X, "dtype") else None
    return [int(i if numbers is None else numbers[i]) for i in indices]
