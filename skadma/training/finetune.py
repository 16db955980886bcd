"""Fine-tuning by skorch: its inputs, the net and its parameter groups."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

from ..features.cache import DEFAULT_LIMIT, open_cache
from ..features.extractor import NONE_READABLE, FeatureExtractor, warn_unreadable
from ..images.dataset import ImageDataset, Rows
from ..networks import PretrainedNetwork
from ..networks.adapted import AdaptedNetwork
from ..networks.torch_state import NETWORK_LOCK, RandomStream

_WEIGHT = "sample_weight"


def training_inputs(
    source: PretrainedNetwork,
    dataset: ImageDataset | Rows,
    n_frozen: int,
    augment: str | Callable[[torch.Tensor], torch.Tensor] | None,
    device: torch.device,
    memory: Any,
    batch_size: int,
    skip_unreadable: bool,
) -> tuple[np.ndarray, Dataset[Any], str | None]:
    """Run the frozen layers once, so that epochs run the trainable ones only.

    Returns the indices of the images that can be decoded, a data set of what crosses
    the cut behind the frozen layers, and the cut's name; or images and None where the
    whole network has to run.
    """
    if not isinstance(dataset, ImageDataset):
        if augment is not None:
            raise ValueError("augment is for images, but X is a table of numbers.")
        return np.arange(len(dataset)), dataset, None
    cut = source.graph.cut_before(n_frozen - 1)
    if augment is None and cut is not source.graph.input:
        extractor = FeatureExtractor(
            source,
            None,
            [],
            [],
            n_frozen=n_frozen,
            device=device,
            batch_size=batch_size,
            skip_unreadable=skip_unreadable,
            cache=open_cache(memory),
        )
        found = extractor.frozen_outputs(dataset, DEFAULT_LIMIT)
        if found is not None:
            return found[0], Rows(found[1]), cut.name
    # Epochs decode the images, so that looking for bad ones before adds one more pass.
    rows = np.arange(len(dataset))
    if skip_unreadable and (bad := dataset.problems()):
        if len(bad) == len(dataset):
            raise ValueError(f"{NONE_READABLE} The first: {bad[0]}")
        warn_unreadable(list(bad.values()))
        rows = np.delete(rows, list(bad))
        dataset = dataset.select(rows)
    if augment is None:
        return rows, dataset, None
    return rows, AugmentedDataset(dataset, augment), None


class LabelledDataset(Dataset[Any]):
    """Tensors with their targets, and their weights (of mean 1) where given.

    Targets are class numbers (n,), or float32 (n, n_labels): which labels an image has.
    """

    def __init__(
        self, dataset: Dataset[Any], y: np.ndarray, weights: np.ndarray | None = None
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


class AugmentedDataset(Dataset[Any]):
    """Images, uint8 (3, side, side), changed at random each time they are read."""

    def __init__(
        self,
        dataset: ImageDataset,
        augment: str | Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        self.dataset = dataset
        self.augment: Callable[[torch.Tensor], torch.Tensor]
        if callable(augment):
            self.augment = augment
        else:  # "crop_flip"
            side = dataset.preprocessing.image_size
            crop = v2.RandomResizedCrop(side, scale=(0.5, 1.0), antialias=True)
            self.augment = v2.Compose([crop, v2.RandomHorizontalFlip()])

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> torch.Tensor:
        image = self.dataset[i]
        changed = self.augment(image)
        got = getattr(changed, "dtype", type(changed).__name__)
        shape = getattr(changed, "shape", None)
        if (got, shape) != (torch.uint8, image.shape):
            raise ValueError(
                f"augment gave {got} of shape {shape} for a torch.uint8 image of "
                f"shape {image.shape}; it must keep both."
            )
        return changed


class TrainingNet(NeuralNetClassifier):
    """A net with sample weights; between two batches of `train` other threads run."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        try:  # skorch maps to the CPU where there is no CUDA at all
            torch.empty(0, device=state["device"])
        except Exception:  # of types that depend on the kind of device
            state["device"] = "cpu"
        super().__setstate__(state)

    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        """Call the callbacks."""
        super().notify(method_name, **cb_kwargs)
        if method_name == "on_batch_end" and (pause := self.__dict__.get("_pause")):
            pause()

    def infer(self, x: Any, **fit_params: Any) -> torch.Tensor:
        """Run the network on the images without their weights."""
        return super().infer(x["x"] if isinstance(x, Mapping) else x, **fit_params)

    def get_loss(
        self, y_pred: torch.Tensor, y_true: Any, X: Any = None, training: bool = False
    ) -> torch.Tensor:
        """Compute the loss; with weights, each image's times its weight.

        The weights' mean over all images is 1, not that over the batch: so a batch's
        gradient is in expectation that of the weighted mean over all, also for
        batches of one image, whose weight would cancel otherwise.
        """
        if not isinstance(X, Mapping):
            return super().get_loss(y_pred, y_true, X=X, training=training)
        criterion, weights = self.criterion_, X[_WEIGHT].to(y_pred)
        reduction, losses = getattr(criterion, "reduction", None), None
        if reduction in ("mean", "sum"):
            criterion.reduction = "none"
            try:
                losses = super().get_loss(y_pred, y_true, X=X, training=training)
            finally:
                criterion.reduction = reduction
        if losses is None or losses.shape[:1] != weights.shape:
            raise ValueError(
                "sample_weight and class_weight need the losses of the images, one "
                "each: a criterion with reduction='mean' or 'sum' that takes 'none' as "
                f"well, such as torch's own; got {criterion!r}."
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
    """Wrap a network in an initialised skorch net that trains it in place.

    `before` is the net so far of a network with the same layers: its history and its
    optimizer's moments are taken over. `params` and `net_params` are parameters of
    ``skorch.NeuralNetClassifier``; the latter win.
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
    net = TrainingNet(network, classes=np.arange(n_classes), **settings)
    net.initialize()
    # The recipe would be pickled beside the network that was made from it.
    net.module = type(network)
    if before is not None:
        net.history = copy.copy(before.history)
        if type(net.optimizer_) is type(before.optimizer_):
            # Training changes moments in place, and `before` is kept if it fails.
            state = copy.deepcopy(before.optimizer_.state_dict())
            groups = zip(
                state["param_groups"], net.optimizer_.param_groups, strict=True
            )  # schedulers add entries to them
            state["param_groups"] = [
                {**old, **new, "params": old["params"]} for old, new in groups
            ]
            net.optimizer_.load_state_dict(state)
    return net


def train(
    net: NeuralNetClassifier,
    dataset: Dataset[Any],
    y: np.ndarray,
    seed: int,
    cut: str | None = None,
    weights: np.ndarray | None = None,
) -> None:
    """Train a net for its number of epochs and leave it in eval mode.

    `y` and `weights` as in :class:`LabelledDataset`. With `cut` the tensors are what
    crosses it, and only the layers behind it run. `seed` is for shuffling and dropout;
    torch's global generator stays as it was. Other threads run between two batches.
    """
    labelled = LabelledDataset(dataset, y, weights)
    stream = RandomStream(seed, torch.device(net.device))
    with ExitStack() as stack, ExitStack() as turn:
        if cut:
            with NETWORK_LOCK:
                stack.enter_context(net.module_.starting_at(cut))
        turn.enter_context(stream.use())

        def pause() -> None:
            turn.close()
            turn.enter_context(stream.use())

        net.__dict__["_pause"] = pause
        stack.callback(net.__dict__.pop, "_pause")
        # Not partial_fit, which would return at Ctrl-C as if the net were trained.
        net.notify("on_train_begin", X=labelled, y=y)
        try:
            net.fit_loop(labelled, y)
        finally:
            net.notify("on_train_end", X=labelled, y=y)
    net.module_.eval()
