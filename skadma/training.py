"""Fine-tuning by skorch: the net, its parameter groups, the labelled data set."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch.utils.data import Dataset
from torchvision.transforms import v2

from .backbones import AdaptedNetwork


class LabelledDataset(Dataset):
    """Tensors with their class numbers.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Yields one tensor per image.
    y : ndarray of int, shape (n,)
    """

    def __init__(self, dataset: Dataset, y: np.ndarray) -> None:
        self.dataset = dataset
        self.y = y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.dataset[i], int(self.y[i])


class AugmentedDataset(Dataset):
    """Images, each time a little different.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Yields uint8 tensors (3, side, side).
    augment : "crop_flip" or callable
        See :class:`skadma.CNNClassifier`.
    """

    def __init__(
        self,
        dataset: Dataset,
        augment: str | Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        self.dataset = dataset
        self.augment = augment

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, i: int) -> torch.Tensor:
        image = self.dataset[i]
        if callable(self.augment):
            changed = self.augment(image)
            if (
                not isinstance(changed, torch.Tensor)
                or changed.shape != image.shape
                or changed.dtype != torch.uint8
            ):
                got = getattr(changed, "dtype", type(changed).__name__)
                shape = getattr(changed, "shape", None)
                raise ValueError(
                    f"augment gave {got} of shape {shape} for a torch.uint8 image of "
                    f"shape {image.shape}; it must keep both."
                )
            return changed
        return crop_flip(image.shape[-1], 0.5)(image)


@lru_cache
def crop_flip(side: int, least_area: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """Make a transform that crops at random, and mirrors every other time.

    Parameters
    ----------
    side : int
        Of what it returns, in pixels.
    least_area : float
        Share of the image that a crop has at least.

    Returns
    -------
    callable
        Maps a uint8 tensor (3, H, W) to one of (3, side, side).
    """
    return v2.Compose(
        [
            v2.RandomResizedCrop(side, scale=(least_area, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
        ]
    )


def build_net(
    network: AdaptedNetwork,
    n_classes: int,
    *,
    head_lr: float,
    net_params: dict[str, Any] | None,
    **params: Any,
) -> NeuralNetClassifier:
    """Wrap a network in a skorch net that goes on training that very network.

    Parameters
    ----------
    network : AdaptedNetwork
    n_classes : int
    head_lr : float
        Learning rate of the network's new parts; `lr` among the others is the tail's.
    net_params : dict or None
        More parameters of ``skorch.NeuralNetClassifier``; they win.
    **params
        Parameters of ``skorch.NeuralNetClassifier``.

    Returns
    -------
    skorch.NeuralNetClassifier
        Initialised.
    """
    settings = {
        "iterator_train__shuffle": True,
        "optimizer__param_groups": [
            (f"{name}.*", {"lr": head_lr}) for name in network.new_parts
        ],
        **params,
        **(net_params or {}),
    }
    if not settings.get("verbose"):
        settings.setdefault("callbacks__print_log", None)
    net = NeuralNetClassifier(network, classes=np.arange(n_classes), **settings)
    net.initialize()
    # The recipe would be pickled beside the network that was made from it.
    net.module = type(network)
    return net


def train(
    net: NeuralNetClassifier,
    dataset: Dataset,
    y: np.ndarray,
    seed: int,
    cut: str | None = None,
) -> None:
    """Train a net for its number of epochs and leave it in eval mode.

    Parameters
    ----------
    net : skorch.NeuralNetClassifier
        Initialised.
    dataset : torch.utils.data.Dataset
        Yields one tensor per image.
    y : ndarray of int, shape (n,)
        Class numbers.
    seed : int
        Seeds shuffling and dropout; torch's global generator stays as it was.
    cut : str, optional
        The tensors are not images but what crosses this cut: only the tail runs.
    """
    start = net.module_.starting_at(cut) if cut else nullcontext()
    with torch.random.fork_rng(), start:
        torch.manual_seed(seed)
        net.partial_fit(LabelledDataset(dataset, y), y)
    net.module_.eval()
