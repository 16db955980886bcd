"""Fine-tuning by skorch: the net, its parameter groups, the labelled data set."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from fnmatch import fnmatch
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch.utils.data import Dataset
from torchvision.transforms import v2

from .backbones import AdaptedNetwork
from .backbones.graph import ONE_AT_A_TIME


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
        return _crop_flip(image.shape[-1])(image)


@lru_cache
def _crop_flip(side: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """A random part of half the area or more, mirrored every other time."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(side, scale=(0.5, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
        ]
    )


class InterruptibleNet(NeuralNetClassifier):
    """A net that Ctrl-C stops; skorch's would count as trained then."""

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, **fit_params: Any
    ) -> InterruptibleNet:
        """Train as skorch does, and pass KeyboardInterrupt on."""
        if not self.initialized_:
            self.initialize()
        self.notify("on_train_begin", X=X, y=y)
        try:
            self.fit_loop(X, y, **fit_params)
        finally:
            self.notify("on_train_end", X=X, y=y)
        return self


def build_net(
    network: AdaptedNetwork,
    n_classes: int,
    *,
    before: NeuralNetClassifier | None = None,
    head_lr: float,
    net_params: dict[str, Any] | None,
    **params: Any,
) -> NeuralNetClassifier:
    """Wrap a network in a skorch net that goes on training that very network.

    Parameters
    ----------
    network : AdaptedNetwork
    n_classes : int
    before : skorch.NeuralNetClassifier, optional
        The network's net so far, to go on with, its optimizer as well, under the
        parameters that are given now.
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
    if before is not None:
        return _with_settings(before, settings)
    net = InterruptibleNet(network, classes=np.arange(n_classes), **settings)
    net.initialize()
    # The recipe would be pickled beside the network that was made from it.
    net.module = type(network)
    return net


def _with_settings(
    net: NeuralNetClassifier, settings: dict[str, Any]
) -> NeuralNetClassifier:
    """Change what differs; all else would make skorch forget the optimizer's state."""
    now = net.get_params(deep=False)
    rates = {key: settings[key] for key in ("lr", "optimizer__param_groups")}
    changed = {
        key: value
        for key, value in settings.items()
        if key not in rates and now[key] is not value and now[key] != value
    }
    net.set_params(**changed)
    vars(net).update(rates)
    names = {id(p): name for name, p in net.module_.named_parameters()}
    for group in net.optimizer_.param_groups:
        name = names[id(group["params"][0])]
        own = [
            v
            for pattern, v in rates["optimizer__param_groups"]
            if fnmatch(name, pattern)
        ]
        group.update({"lr": rates["lr"], **(own[0] if own else {})})
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
    with ONE_AT_A_TIME, torch.random.fork_rng(), start:
        torch.manual_seed(seed)
        net.partial_fit(LabelledDataset(dataset, y), y)
    net.module_.eval()
