"""What a network is trained on: the readable images, from the cut on where it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..features.cache import DEFAULT_LIMIT, open_cache
from ..features.extractor import FeatureExtractor
from ..features.passes import frozen_outputs, warn_unreadable
from ..images.dataset import ImageDataset, Rows
from ..networks import PretrainedNetwork
from .finetune import AugmentedDataset


def training_inputs(
    source: PretrainedNetwork,
    dataset: Dataset,
    n_frozen: int,
    *,
    augment: str | Callable[[torch.Tensor], torch.Tensor] | None,
    device: torch.device,
    memory: Any,
    batch_size: int,
) -> tuple[Dataset, str | None]:
    """Bring images to where training starts, so that epochs need not run the rest.

    Parameters
    ----------
    source : PretrainedNetwork
        M0.
    dataset : torch.utils.data.Dataset
        Yields one tensor per image.
    n_frozen : int
    augment, device, memory
        See :class:`skadma.CNNClassifier`.
    batch_size : int
        Images that the frozen layers get at once.

    Returns
    -------
    dataset : torch.utils.data.Dataset
        As the tail gets the images.
    cut : str or None
        Name of the cut that they cross; None where the whole network is to run.

    Raises
    ------
    ValueError
        If there are rows of a table to augment.
    """
    if augment is not None:
        if not isinstance(dataset, ImageDataset):
            raise ValueError("augment is for images, but X is a table of numbers.")
        return AugmentedDataset(dataset, augment), None
    cut = source.graph.cut_before(n_frozen - 1)
    if cut is source.graph.input or not isinstance(dataset, ImageDataset):
        return dataset, None
    extractor = FeatureExtractor(
        source, None, [], [], n_frozen=n_frozen, device=device, cache=open_cache(memory)
    )
    values = frozen_outputs(dataset, extractor, batch_size, DEFAULT_LIMIT)
    return (dataset, None) if values is None else (Rows(values), cut.name)


def usable_rows(
    dataset: Any, weights: np.ndarray | None, skip_unreadable: bool
) -> np.ndarray | None:
    """Find the images that have a weight and can be decoded; warn of the latter.

    Parameters
    ----------
    dataset : ImageDataset or Rows
    weights : ndarray of shape (n,) or None
    skip_unreadable : bool
        Whether to look for images that cannot be decoded.

    Returns
    -------
    ndarray of int or None
        Their indices; None where that is all.

    Raises
    ------
    ValueError
        If there are none.
    """
    usable: np.ndarray = np.ones(len(dataset), dtype=bool)
    if skip_unreadable and isinstance(dataset, ImageDataset):
        usable = dataset.readable()
        if not usable.any():
            raise ValueError("None of the labelled images can be decoded.")
        if not usable.all():
            bad = np.flatnonzero(~usable)
            warn_unreadable([f"number {i} of the training images" for i in bad])
    if weights is not None:
        usable &= weights > 0
        if not usable.any():
            raise ValueError(
                "sample_weight is zero for every image that can be used, so there is "
                "nothing to train on. Give at least one image a weight above 0."
            )
    return None if usable.all() else np.flatnonzero(usable)
