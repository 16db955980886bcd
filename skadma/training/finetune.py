"""Fine-tuning by skorch: its inputs, the net and its parameter groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from fnmatch import fnmatch
from functools import lru_cache
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
from ..networks import AdaptedNetwork, PretrainedNetwork
from ..networks.torch_state import NETWORK_LOCK, RandomStream

_WEIGHT = "sample_weight"

_SIMPLE = {"lr", "optimizer__param_groups", "max_epochs", "batch_size"}
"""Settings of a net that may change while it keeps its optimizer."""


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
        dataset: Dataset[Any],
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
    """A random crop of at least half the area, mirrored every other time."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(side, scale=(0.5, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
        ]
    )


class TrainingNet(NeuralNetClassifier):
    """A net with sample weights that passes Ctrl-C on.

    skorch stops training at Ctrl-C and returns the net as if it were trained.
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

    def __setstate__(self, state: dict[str, Any]) -> None:
        try:  # skorch maps to the CPU where there is no CUDA at all
            torch.empty(0, device=state["device"])
        except Exception:  # of types that depend on the kind of device
            state["device"] = "cpu"
        super().__setstate__(state)

    def _step(self) -> AbstractContextManager[None]:
        """Be alone, with random numbers of this training's own, within `train`."""
        stream = self.__dict__.get("_random_stream")
        return nullcontext() if stream is None else stream.use()

    def notify(self, method_name: str, **cb_kwargs: Any) -> None:
        """Call the callbacks, as a step of its own."""
        with self._step():
            super().notify(method_name, **cb_kwargs)

    def get_split_datasets(self, X: Any, y: Any = None, **fit_params: Any) -> Any:
        """Split off the validation images, as a step of its own."""
        with self._step():
            return super().get_split_datasets(X, y, **fit_params)

    def run_single_epoch(
        self, iterator: Any, training: bool, prefix: str, step_fn: Any, **params: Any
    ) -> None:
        """Run an epoch; reading a batch and training on it are steps."""

        def batches() -> Iterator[Any]:
            with self._step():
                remaining = iter(iterator)
            while True:
                with self._step():
                    batch = next(remaining, None)
                if batch is None:
                    return
                yield batch

        def step(batch: Any, **params: Any) -> Any:
            with self._step():
                return step_fn(batch, **params)

        some = None if iterator is None else batches()
        super().run_single_epoch(some, training, prefix, step, **params)

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
    """Wrap a network in an initialised skorch net that trains it in place.

    `before` is the network's net so far: training continues with its optimizer's state
    under the parameters that are given now. `params` and `net_params` are parameters
    of ``skorch.NeuralNetClassifier``; the latter win.
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
    if before is not None and _set_simple(before, settings):
        return before
    net = TrainingNet(network, classes=np.arange(n_classes), **settings)
    net.initialize()
    # The recipe would be pickled beside the network that was made from it.
    net.module = type(network)
    net.settings = settings
    if before is not None:
        net.history = before.history
        if type(net.optimizer_) is type(before.optimizer_):
            state = before.optimizer_.state_dict()
            state["param_groups"] = net.optimizer_.state_dict()["param_groups"]
            net.optimizer_.load_state_dict(state)
    return net


def _set_simple(net: TrainingNet, settings: dict[str, Any]) -> bool:
    """Set what changed in a net if it needs no new one; else return False."""
    before = net.settings
    for key in before.keys() | settings.keys():
        if key not in _SIMPLE and not (
            key in before and key in settings and _is_same(before[key], settings[key])
        ):
            return False
    net.set_params(max_epochs=settings["max_epochs"], batch_size=settings["batch_size"])
    # By set_params skorch would build a new optimizer, without moments.
    rates = {key: settings[key] for key in ("lr", "optimizer__param_groups")}
    net.__dict__.update(rates, settings=settings)
    names = {id(p): name for name, p in net.module_.named_parameters()}
    for group in net.optimizer_.param_groups:
        name = names[id(group["params"][0])]
        own = [v for p, v in rates["optimizer__param_groups"] if fnmatch(name, p)]
        group.update({"lr": rates["lr"], **(own[0] if own else {})})
    return True


def _is_same(a: Any, b: Any) -> bool:
    try:
        return a is b or bool(a == b)
    except (RuntimeError, ValueError):  # of arrays and tensors
        return False


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
    with ExitStack() as stack:
        if cut:
            with NETWORK_LOCK:
                stack.enter_context(net.module_.starting_at(cut))
        net.__dict__["_random_stream"] = RandomStream(seed, torch.device(net.device))
        stack.callback(net.__dict__.pop, "_random_stream")
        net.partial_fit(LabelledDataset(dataset, y, weights), y)
    net.module_.eval()
