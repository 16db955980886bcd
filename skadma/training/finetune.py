"""Fine-tuning by skorch: the net, its parameter groups, the labelled data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from fnmatch import fnmatch
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

from ..networks import AdaptedNetwork
from ..networks.graph import ONE_AT_A_TIME

_WEIGHT = "sample_weight"


class LabelledDataset(Dataset):
    """Tensors with their targets, and their weights where there are some.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Yields one tensor per image.
    y : ndarray of int, shape (n,), or of float32, shape (n, n_labels)
        Class numbers, or which labels an image has.
    weights : ndarray of shape (n,), optional
        Of mean 1.
    """

    def __init__(
        self, dataset: Dataset, y: np.ndarray, weights: np.ndarray | None = None
    ) -> None:
        self.dataset = dataset
        self.y = y
        self.weights = weights

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        target = int(self.y[i]) if self.y.ndim == 1 else self.y[i]
        if self.weights is None:
            return self.dataset[i], target
        # Beside the tensor, not the target, which skorch's callbacks score.
        return {"x": self.dataset[i], _WEIGHT: float(self.weights[i])}, target


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


class TrainingNet(NeuralNetClassifier):
    """A net whose images have weights, and that Ctrl-C stops.

    skorch's would count as trained after Ctrl-C.
    """

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, **fit_params: Any
    ) -> TrainingNet:
        """Train as skorch does, and pass KeyboardInterrupt on."""
        if not self.initialized_:
            self.initialize()
        self.notify("on_train_begin", X=X, y=y)
        try:
            self.fit_loop(X, y, **fit_params)
        finally:
            self.notify("on_train_end", X=X, y=y)
        return self

    def infer(self, x: Any, **fit_params: Any) -> torch.Tensor:
        """Run the network, which does not see the weights."""
        return super().infer(x["x"] if isinstance(x, Mapping) else x, **fit_params)

    def get_loss(
        self, y_pred: torch.Tensor, y_true: Any, X: Any = None, training: bool = False
    ) -> torch.Tensor:
        """Compute the loss; with weights, each image's times its weight.

        The weights' mean over all images is 1, not that over the batch: so a batch's
        gradient is in expectation that of the weighted mean over all, also for
        batches of one image, whose weight would cancel otherwise.
        """
        if not isinstance(X, Mapping) or _WEIGHT not in X:
            return super().get_loss(y_pred, y_true, X=X, training=training)
        criterion, weights = self.criterion_, X[_WEIGHT].to(y_pred)
        reduction = getattr(criterion, "reduction", None)
        if reduction not in ("mean", "sum"):
            raise ValueError(
                "sample_weight and class_weight need the loss of each image: a "
                "criterion with reduction='mean' or 'sum', such as torch's own; got "
                f"{criterion!r}."
            )
        criterion.reduction = "none"
        try:
            losses = super().get_loss(y_pred, y_true, X=X, training=training)
        finally:
            criterion.reduction = reduction
        if losses.shape[:1] != weights.shape:
            raise ValueError(
                f"The criterion {criterion!r} gave losses of shape "
                f"{tuple(losses.shape)} for {len(weights)} images with "
                "reduction='none'; sample_weight and class_weight need one each."
            )
        losses = losses * weights.view(-1, *[1] * (losses.ndim - 1))
        return losses.mean() if reduction == "mean" else losses.sum()


def build_net(
    network: AdaptedNetwork,
    n_classes: int,
    *,
    before: NeuralNetClassifier | None = None,
    multilabel: bool = False,
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
    multilabel : bool, default=False
        An image may have any number of the labels.
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
            (f"{name}.*", {"lr": head_lr}) for name in network.new_modules
        ],
        **params,
        **(net_params or {}),
    }
    if multilabel:
        settings.setdefault("callbacks__valid_acc", None)  # of one class per image
        if settings["criterion"] is nn.CrossEntropyLoss:
            settings["criterion"] = nn.BCEWithLogitsLoss
    if not settings.get("verbose"):
        settings.setdefault("callbacks__print_log", None)
    if before is not None:
        return _with_settings(before, settings)
    net = TrainingNet(network, classes=np.arange(n_classes), **settings)
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
    weights: np.ndarray | None = None,
) -> None:
    """Train a net for its number of epochs and leave it in eval mode.

    Parameters
    ----------
    net : skorch.NeuralNetClassifier
        Initialised.
    dataset : torch.utils.data.Dataset
        Yields one tensor per image.
    y : ndarray of int, shape (n,), or of float32, shape (n, n_labels)
        See :class:`LabelledDataset`.
    seed : int
        Seeds shuffling and dropout; torch's global generator stays as it was.
    cut : str, optional
        The tensors are not images but what crosses this cut: only the tail runs.
    weights : ndarray of shape (n,), optional
        How much each image counts; of mean 1.
    """
    start = net.module_.starting_at(cut) if cut else nullcontext()
    with ONE_AT_A_TIME, torch.random.fork_rng(), start:
        torch.manual_seed(seed)
        net.partial_fit(LabelledDataset(dataset, y, weights), y)
    net.module_.eval()
