"""Data sets of tensors: preprocessed images of any accepted form, rows of numbers."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import stat
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.transforms.functional as tv
from PIL import Image
from scipy import sparse
from torch.utils.data import Dataset

from .._utils.lazy_rows import LazyRows
from .decoding import (
    ACCEPTED,
    Range,
    UnreadableImageError,
    channel_axis,
    check_values,
    find_range,
    from_array,
    from_file,
    from_pil,
    from_unchecked_array,
    native,
    unreadable,
)
from .selection import StoredImages, TakenList, check_is_sized, is_lazy_sequence, take
from .taken import TakenDataset

_Decode = Callable[..., np.ndarray]
"""Gets an item, what it is called in messages, and the value range."""

_EXTREME = 64
"""From this ratio of sides on, what the centre crop discards is not even resized."""

_MARGIN = 3
"""Sides of reduced JPEG files, in resize sizes; with 2, twice as many pixels differ."""


_SAMPLE = 16
"""Images of a Dataset that are read to tell whether any has more than 8 bits."""


@dataclass(frozen=True)
class Preprocessing:
    """How images are resized, cropped and normalized for a network.

    The shorter side is brought to `resize_size` (`crop_mode` "center"), or both sides
    are ("squash"), the centre of `image_size` is cropped, and the network
    normalizes pixels in [0, 1] by `mean` and `std`. With `reduced` JPEG
    files are decoded at a half, a quarter or an eighth of their size where the shorter
    side stays at least three times `resize_size`. The ends of `value_range` become
    black and white in images of more than 8 bits; None: what a file states, else all
    that its type can hold.
    """

    image_size: int
    resize_size: int
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop_mode: str = "center"
    # Not in the repr, from which namespaces of cached outputs are made: they add it.
    reduced: bool = field(default=False, repr=False)
    value_range: Range | None = field(default=None, repr=False)

    @property
    def least(self) -> int | None:
        """Minimum of the shorter side of a file that is decoded at a reduced size."""
        return _MARGIN * self.resize_size if self.reduced else None


class ImageDataset(Dataset[Any]):
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
        self._items, self._decode = open_images(
            X, image_shape, preprocessing.value_range
        )
        if not len(self._items):
            raise ValueError(f"X has 0 images. {ACCEPTED}.")
        # Of images that were taken from the X of a user, their numbers there.
        taken = isinstance(X, (TakenList, TakenDataset))
        self._numbers = X.numbers if taken else range(len(self._items))
        self._folders: dict[str, str] = {}

    @property
    def from_files(self) -> bool:
        """Whether images are read from files."""
        return self._decode is from_file

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
        return self._fit(i, self._pixels(i))

    def name(self, i: int) -> str:
        """Name an image in messages: its path, or its number in the user's X."""
        return self._items[i] if self.from_files else f"X[{self._numbers[i]}]"

    def _pixels(self, i: int) -> np.ndarray:
        if self.from_files:
            how, path = self.preprocessing, self._items[i]
            return from_file(path, path, how.least, how.value_range)
        name = self.name(i)
        try:
            item = self._items[i]
            return self._decode(item, name, self.preprocessing.value_range)
        except UnreadableImageError:
            raise
        except Exception as error:  # a Dataset may decode files, and fail in any way
            if isinstance(error, ValueError) and str(error).startswith(name):
                raise UnreadableImageError(str(error)) from error
            raise unreadable(name, error) from error

    def _fit(self, i: int, pixels: np.ndarray) -> torch.Tensor:
        try:
            return fit_to_size(pixels, self.preprocessing)
        except Exception as error:  # too large for the memory, or for Pillow
            raise unreadable(self.name(i), error) from error

    def select(self, indices: np.ndarray) -> ImageDataset:
        """Return a data set of some of the images."""
        selected = copy.copy(self)
        selected._items = take(self._items, indices)
        selected._numbers = [self._numbers[i] for i in indices]
        return selected

    def keyed(self, i: int) -> tuple[str, Callable[[], torch.Tensor]]:
        """Return a key of an image, and a function that returns its tensor.

        The key is a digest: of the pixels, of a file its path, size and time of change.
        """
        if self.from_files:
            item = self._items[i]
            try:
                path, state = self._real(item)
            except (OSError, ValueError) as error:  # the latter of a name
                raise unreadable(item, error) from error
            name = f"{path}|{state.st_size}|{state.st_mtime_ns}"
            return _digest(os.fsencode(name)), lambda: self[i]
        if self._decode is from_array:
            return content_key(self._items[i]), lambda: self[i]
        pixels = self._pixels(i)
        return content_key(pixels), lambda: self._fit(i, pixels)

    def _real(self, path: str) -> tuple[str, os.stat_result]:
        """Return a file's path without links, and its state; folders are kept."""
        state = os.lstat(path)
        if not stat.S_ISREG(state.st_mode):
            return os.path.realpath(path), Path(path).stat()
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder).rstrip(os.sep)
        return f"{self._folders[folder]}{os.sep}{name}", state

    def find_value_range(
        self, trained: Preprocessing | None = None, goes_on: bool = False
    ) -> Range | None:
        """Find one range for all images of more than 8 bits; None to leave it open.

        It is what their files state, or what the fewest bits hold in which all their
        values fit: then there is a warning, and if it differs from that of the last
        fit, `trained`, which is kept if training `goes_on`. Of images that are made
        when they are asked for, sixteen are read first, and the others only if one of
        these has more than 8 bits.
        """
        if self._decode is from_array:
            return None
        n = len(self)
        is_lazy = self._decode is from_item and not isinstance(self._items, list)
        if is_lazy and n > _SAMPLE and not self._ranges(range(0, n, n // _SAMPLE)):
            return None
        found = self._ranges(range(n))
        if not found:
            return None
        lows, highs = zip(*(value_range for value_range, _, _ in found), strict=True)
        joint = min(lows), max(highs)
        is_full = any(full and value_range == joint for value_range, _, full in found)
        used = None if is_full else joint
        if trained is not None and used != trained.value_range:
            before = trained.value_range or "all that their type can hold"
            advice = (
                "The network goes on with that, so they may be too dark, or clipped. "
                "Give value_range= and fit anew with warm_start=False."
                if goes_on
                else "This fit and prediction from now on use what it found. Give "
                "value_range= to have the same in every fit."
            )
            warnings.warn(
                "The values of these images of more than 8 bits need value_range="
                f"{joint}, and the last fit found {before}. {advice}",
                stacklevel=2,
            )
        elif trained is None and used and not all(stated for _, stated, _ in found):
            warnings.warn(
                "There are images of more than 8 bits that do not state which values "
                f"they take. By the largest one, value_range={joint} is taken: these "
                "become black and white. Give value_range= to set it.",
                stacklevel=2,
            )
        return used

    def _ranges(self, indices: range) -> list[tuple[Range, bool, bool]]:
        found = []
        for i in indices:
            with contextlib.suppress(Exception):  # told when it is decoded for use
                item = self._items[i]
                path = isinstance(item, str)
                found.append(find_range(item if path else _image_of_item(item, "")))
        return [one for one in found if one is not None]

    def readable(self) -> np.ndarray:
        """Return a mask (n,): which images can be decoded and resized."""
        mask = np.ones(len(self), dtype=bool)
        mask[list(self.problems())] = False
        return mask

    def problems(self) -> dict[int, str]:
        """Which images cannot be decoded and resized, and why."""
        found = {}
        if self._decode is not from_array:  # whose values are checked
            for i in range(len(self)):
                try:
                    self[i]
                except UnreadableImageError as error:
                    found[i] = error.reason
        return found


class Rows(Dataset[Any]):
    """The rows of an array as tensors of one type."""

    def __init__(self, X: np.ndarray, dtype: torch.dtype = torch.float32) -> None:
        self.X = X
        self.dtype = dtype

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.tensor(self.X[i], dtype=self.dtype, device="cpu")

    def select(self, indices: np.ndarray) -> Rows:
        """Return a data set of some of the rows."""
        return Rows(self.X[indices], self.dtype)

    def keyed(self, i: int) -> tuple[str, Callable[[], torch.Tensor]]:
        """Return a key of a row, and a function that returns its tensor."""
        # Not the key of an image, which would be resized.
        return f"{content_key(self.X[i])}-as-it-is", lambda: self[i]


def fit_to_size(pixels: np.ndarray, preprocessing: Preprocessing) -> torch.Tensor:
    """Resize and crop the centre, as torchvision's presets and timm's do.

    By Pillow, as the presets do for images from files: unlike that of torch's kernels,
    its result depends neither on the processor nor on the release. The tensor
    (3, image_size, image_size) shares no memory with `pixels` (H, W, 3).
    """
    image = Image.fromarray(pixels)
    side = preprocessing.resize_size
    mode = tv.InterpolationMode(preprocessing.interpolation)
    if preprocessing.crop_mode == "squash":
        if image.size != (side, side):
            image = tv.resize(image, [side, side], mode)
    elif max(image.size) > _EXTREME * min(image.size):
        image = _resize_middle(image, side, preprocessing.image_size, mode)
    elif min(image.size) != side:
        image = tv.resize(image, [side], mode)
    cropped = np.array(tv.center_crop(image, [preprocessing.image_size]))
    # Not by torchvision, whose tensor would be on the caller's default device.
    return torch.from_numpy(cropped).permute(2, 0, 1)


def _resize_middle(
    image: Image.Image, side: int, crop: int, mode: tv.InterpolationMode
) -> Image.Image:
    """Resize as `tv.resize` does, but only what the centre crop will keep.

    A line of 65,000 pixels would be enlarged to gigabytes.
    """
    short, long = min(image.size), max(image.size)
    resized = side * long // short
    kept = min(crop, resized)
    start = round((resized - kept) / 2)
    begin, end = start * long / resized, (start + kept) * long / resized
    pil_mode = tv.pil_modes_mapping[mode]
    if image.width == long:
        return image.resize((kept, side), pil_mode, (begin, 0, end, short))
    return image.resize((side, kept), pil_mode, (0, begin, short, end))


def content_key(array: np.ndarray) -> str:
    """Return a digest of an array, 32 hex digits."""
    described = f"{array.shape}{array.dtype}".encode()
    return _digest(described, np.ascontiguousarray(array).data)


def _digest(*parts: bytes | memoryview) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:32]


# --- the accepted forms of X ---------------------------------------------------------


def open_images(
    X: Any, image_shape: Sequence[int] | None, value_range: Range | None = None
) -> tuple[Any, _Decode]:
    """Return a sequence of items, and the function that decodes one of them."""
    check_is_sized(X)
    if isinstance(X, Dataset):
        return X, from_item
    if sparse.issparse(X):
        raise ValueError(
            f"X is a sparse matrix of shape {X.shape}. Make it dense with X.toarray() "
            f"and give image_shape=. {ACCEPTED}."
        )
    if isinstance(X, torch.Tensor):
        X = _to_numpy(X, "X")
    if is_lazy_sequence(X) and len(X):
        first = X[0]
        if isinstance(first, dict):
            raise ValueError(
                f"X is {type(X).__name__}, whose rows have the columns {[*first]}: "
                f"give the one of images, such as X['image']. {ACCEPTED}."
            )
        if not isinstance(first, (str, os.PathLike)) and not is_number_like(first):
            return X, from_item
        X = list(X)
    if isinstance(X, (list, tuple)) and not (len(X) and is_number_like(X[0])):
        return _open_list(list(X))
    try:
        array = np.asarray(X)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"X is {type(X).__name__} and no array can be made of it: {error}. "
            f"{ACCEPTED}."
        ) from error
    if array.dtype.kind in "OUT" and array.ndim == 1:
        return _open_list(array.tolist())
    return _open_array(array, image_shape, value_range)


def _to_numpy(tensor: torch.Tensor, what: str) -> np.ndarray:
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    try:
        return tensor.detach().cpu().numpy()
    except (TypeError, NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f"{what} is a tensor of {tensor.dtype}, {tensor.layout}, on "
            f"{tensor.device} that no array can be made of: {error}. {ACCEPTED}."
        ) from error


def is_number_like(item: Any) -> bool:
    """Whether a list's first item is a number or a row of numbers."""
    while isinstance(item, (list, tuple)) and len(item):
        item = item[0]
    if isinstance(item, np.ndarray):
        return item.ndim < 2 and item.dtype.kind not in "OUT"
    return isinstance(item, (int, float, complex, np.number))


def _open_list(items: list[Any]) -> tuple[Any, _Decode]:
    paths = [isinstance(item, (str, os.PathLike)) for item in items]
    if all(paths):
        return np.array([os.fsdecode(item) for item in items], dtype=object), from_file
    if any(paths):
        other = paths.index(False)
        raise ValueError(
            f"X is a list that mixes paths with other things: X[{paths.index(True)}] "
            f"is a path, X[{other}] is {type(items[other]).__name__}. {ACCEPTED}."
        )
    for i, item in enumerate(items):
        if not isinstance(item, (Image.Image, np.ndarray, torch.Tensor, tuple)):
            raise ValueError(
                f"X[{i}] is {type(item).__name__}, neither a path nor a PIL image nor "
                f"an array. {ACCEPTED}."
            )
    return items, from_item


def _open_array(
    array: np.ndarray, image_shape: Sequence[int] | None, value_range: Range | None
) -> tuple[Any, _Decode]:
    got = f"X has shape {array.shape} and dtype {array.dtype}"
    if array.ndim == 2 and image_shape is None:
        raise ValueError(
            f"{got}, and rows are no images: give image_shape=(H, W), (H, W, 3) or "
            f"(3, H, W). {ACCEPTED}."
        )
    if array.ndim == 2 and image_shape is not None:
        shape = tuple(image_shape)
        if len(shape) not in (2, 3) or np.prod(shape) != array.shape[1]:
            raise ValueError(
                f"{got}, but image_shape={shape} has {np.prod(shape)} numbers instead "
                f"of {array.shape[1]}."
            )
        array = array.reshape(len(array), *shape)
    if array.dtype.kind not in "biuf" or not channel_axis(array.shape[1:]):
        raise ValueError(f"{got}. {ACCEPTED}.")
    if len(array):
        check_values(array, "X", value_range, allow_uint16=False)
    return array, from_array


def from_item(item: Any, what: str, value_range: Range | None = None) -> np.ndarray:
    """Decode an element of a list or of a Dataset: an image, or one with its label."""
    image = _image_of_item(item, what)
    if isinstance(image, Image.Image):
        return from_pil(image, what, value_range)
    return from_unchecked_array(image, what, value_range)


def _image_of_item(item: Any, what: str) -> Image.Image | np.ndarray:
    if isinstance(item, (tuple, list)) and len(item):
        item = item[0]
    if isinstance(item, torch.Tensor):
        item = _to_numpy(item, what)
    if isinstance(item, np.ndarray):
        return native(item)
    if not isinstance(item, Image.Image):
        raise ValueError(
            f"{what} is {type(item).__name__}, neither a PIL image nor an array. "
            f"{ACCEPTED}."
        )
    return item


def is_table(X: Any) -> bool:
    """Tell whether `X` is a table of numbers, as most of scikit-learn takes it.

    A 1-D array of numbers counts too, for scikit-learn to refuse it.
    """
    if sparse.issparse(X) or hasattr(X, "columns"):
        return True
    if isinstance(X, (list, tuple)):
        return bool(X) and is_number_like(X[0])
    if isinstance(X, Dataset) or not hasattr(X, "__array__"):
        return False
    array = X if isinstance(X, LazyRows) else np.asarray(X)
    return array.ndim == 2 or (array.ndim < 2 and array.dtype.kind in "biufc")
