"""Data sets of tensors: preprocessed images of any accepted form, rows of numbers."""

from __future__ import annotations

import copy
import hashlib
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.transforms.functional as tv
from numpy.typing import ArrayLike
from PIL import Image
from sklearn.utils import _safe_indexing
from torch.utils.data import Dataset, Subset

from .._utils.lazy_rows import BLOCK_ROWS, LazyRows, MappedRows
from .forms import (
    ACCEPTED,
    UnreadableImageError,
    check_readable,
    from_array,
    from_path,
    open_images,
    unreadable,
)

_MARGIN = 3
"""Sides of reduced JPEG files, in resize sizes; with 2, twice as many pixels differ."""


@dataclass(frozen=True)
class Preprocessing:
    """How images are resized, cropped and normalized for a network.

    Attributes
    ----------
    image_size : int
        Side in pixels of the centre crop.
    resize_size : int
        Length of the shorter side before the crop.
    interpolation : {"bilinear", "bicubic"}
    mean, std : tuple of float
        Of pixels in [0, 1]; the network normalizes with them.
    reduced : bool
        Whether JPEG files are decoded at a half, a quarter or an eighth of their size
        where the shorter side stays at least three times `resize_size`.
    """

    image_size: int
    resize_size: int
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    # Not in the repr, from which namespaces of cached outputs are made: they add it.
    reduced: bool = field(default=False, repr=False)

    @property
    def least(self) -> int | None:
        """Minimum of the shorter side of a file that is decoded at a reduced size."""
        return _MARGIN * self.resize_size if self.reduced else None


class StoredImages(ABC):
    """Images with outputs of a network that a store on the disk holds."""

    @property
    @abstractmethod
    def images(self) -> Any:
        """The images in one of the other accepted forms."""

    @abstractmethod
    def select(self, indices: ArrayLike) -> StoredImages:
        """Return some of them."""

    @abstractmethod
    def __len__(self) -> int: ...


class ImageDataset(Dataset):
    """Images of any accepted form as uint8 tensors.

    The form is checked at once, files are decoded when they are indexed. The same
    picture gives the same tensor in any form. `image_shape` is what rows of a 2-D `X`
    are: (H, W), (H, W, 3) or (3, H, W).
    """

    def __init__(
        self,
        X: Any,
        preprocessing: Preprocessing,
        *,
        image_shape: Sequence[int] | None = None,
    ) -> None:
        self.preprocessing = preprocessing
        if isinstance(X, StoredImages):
            X = X.images
        self._items, self._decode = open_images(X, image_shape)
        if not len(self._items):
            raise ValueError(f"X has 0 images. {ACCEPTED}.")
        self._folders: dict[str, str] = {}

    @property
    def from_files(self) -> bool:
        """Whether images are read from files."""
        return self._decode is from_path

    @property
    def concurrent(self) -> bool:
        """Whether several threads may index it.

        Not a torch Dataset, which may hold an open file, nor PIL images, which load
        their pixels on first use.
        """
        return self.from_files or self._decode is from_array

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, i: int) -> torch.Tensor:
        if not -len(self) <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        if self.from_files:
            pixels = from_path(self._items[i], "", self.preprocessing.least)
        else:
            pixels = self._decode(self._items[i], f"X[{i}]")
        return fit_to_size(pixels, self.preprocessing)

    def select(self, indices: np.ndarray) -> ImageDataset:
        """Return a data set of some of the images."""
        selected = copy.copy(self)
        selected._items = take(self._items, indices)
        return selected

    def keyed(self, i: int) -> tuple[str, Callable[[], torch.Tensor]]:
        """Return a key of an image, and a function that returns its tensor.

        The key is a digest: of the pixels, of a file its path, size and time of change.
        """
        item = self._items[i]
        if self.from_files:
            try:
                path, state = self._real(item)
            except OSError as error:
                raise unreadable(item, error) from error
            name = f"{path}|{state.st_size}|{state.st_mtime_ns}"
            return _digest(name.encode()), lambda: self[i]
        if self._decode is from_array:
            return content_key(item), lambda: self[i]
        pixels = self._decode(item, f"X[{i}]")
        return content_key(pixels), lambda: fit_to_size(pixels, self.preprocessing)

    def _real(self, path: str) -> tuple[str, os.stat_result]:
        """Return a file's path without links, and its state; folders are kept."""
        state = os.lstat(path)
        if not stat.S_ISREG(state.st_mode):
            return os.path.realpath(path), Path(path).stat()
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder).rstrip(os.sep)
        return f"{self._folders[folder]}{os.sep}{name}", state

    def readable(self) -> np.ndarray:
        """Return a mask (n,): which images can be decoded; only files are tried."""
        readable = np.ones(len(self), dtype=bool)
        if self.from_files:
            for i, path in enumerate(self._items):
                try:
                    check_readable(path)
                except UnreadableImageError:
                    readable[i] = False
        return readable


class Rows(Dataset):
    """The rows of an array as tensors of one type."""

    def __init__(self, X: np.ndarray, dtype: torch.dtype = torch.float32) -> None:
        self.X = X
        self.dtype = dtype

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.tensor(self.X[i], dtype=self.dtype)

    def select(self, indices: np.ndarray) -> Rows:
        """Return a data set of some of the rows."""
        return Rows(self.X[indices], self.dtype)

    def keyed(self, i: int) -> tuple[str, Callable[[], torch.Tensor]]:
        """Return a key of a row, and a function that returns its tensor."""
        # Not the key of an image, which would be resized.
        return f"{content_key(self.X[i])}-as-it-is", lambda: self[i]


def fit_to_size(pixels: np.ndarray, preprocessing: Preprocessing) -> torch.Tensor:
    """Resize the shorter side and crop the centre, as torchvision's presets do.

    By Pillow, as the presets do for images from files: unlike that of torch's kernels,
    its result depends neither on the processor nor on the release. The tensor
    (3, image_size, image_size) shares no memory with `pixels` (H, W, 3).
    """
    image = Image.fromarray(pixels)
    if min(image.size) != preprocessing.resize_size:
        mode = tv.InterpolationMode(preprocessing.interpolation)
        image = tv.resize(image, [preprocessing.resize_size], mode)
    return tv.pil_to_tensor(tv.center_crop(image, [preprocessing.image_size]))


def content_key(array: np.ndarray) -> str:
    """Return a digest of an array, 32 hex digits."""
    described = f"{array.shape}{array.dtype}".encode()
    return _digest(described, np.ascontiguousarray(array).data)


def n_images(X: Any) -> int:
    """Count the images (rows) of any accepted form."""
    if isinstance(X, StoredImages):
        return len(X)
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
    if isinstance(X, Dataset):
        return Subset(X, indices.tolist())
    if isinstance(X, torch.Tensor):
        return X[torch.from_numpy(indices)]
    if isinstance(X, (list, tuple)):
        return type(X)([X[i] for i in indices])
    if hasattr(X, "__array__") and not hasattr(X, "shape"):
        X = np.asarray(X)
    return _safe_indexing(X, indices)


def _digest(*parts: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:32]
