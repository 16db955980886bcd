"""How a classifier's network is built and adapted to labelled images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length, check_random_state
from skorch import NeuralNetClassifier
from torch.utils.data import Dataset

from .features.cnn_adapter import CNNAdapter
from .inference import CNNInference
from .networks import AdaptedNetwork, PretrainedNetwork
from .networks.adapted import copy_network
from .networks.graph import ONE_AT_A_TIME
from .targets.labels import (
    check_labels,
    encode,
    known_classes,
    refuse_other_form,
)
from .targets.weights import check_sample_weight, loss_weights
from .training.finetune import build_net, train
from .training.inputs import training_inputs, usable_rows
from .training.probe import fit_head

_Self = TypeVar("_Self", bound="CNNFitting")


class CNNFitting(CNNInference):
    """The part of :class:`~skadma.CNNClassifier` that trains."""

    batch_norm: str
    lr: float
    head_lr: float
    optimizer: type
    criterion: type
    max_epochs: int
    batch_size: int
    callbacks: list | None
    train_split: Callable | None
    augment: str | Callable[[torch.Tensor], torch.Tensor] | None
    class_weight: dict | str | None
    net_params: dict[str, Any] | None
    random_state: int | np.random.RandomState | None
    random_state_: np.random.RandomState
    n_labels_: int

    def _fit(
        self: _Self,
        X: Any,
        y: ArrayLike,
        classes: ArrayLike | None,
        sample_weight: ArrayLike | None,
        *,
        goes_on: bool,
        partial: bool,
    ) -> _Self:
        self._validate_params()
        labels = check_labels(y, self)
        source, dataset = CNNAdapter(self).open(X, reset=not goes_on)
        check_consistent_length(dataset, labels)
        weights = check_sample_weight(sample_weight, labels)
        rows = usable_rows(dataset, weights, self.on_bad_image == "skip")
        if rows is not None:
            dataset, labels = dataset.select(rows), labels[rows]  # type: ignore[attr-defined]
            weights = None if weights is None else weights[rows]
        multilabel = labels.ndim == 2
        if goes_on:
            refuse_other_form(multilabel, self.multilabel_)
        found = known_classes(labels, classes, self.classes_ if goes_on else None)
        n_frozen = self._resolve_frozen(source)
        if goes_on and n_frozen != self.n_frozen_:
            raise ValueError(
                f"n_frozen_layers now means {n_frozen} layers, but the network that is "
                f"to go on training was fitted with {self.n_frozen_}. Fit it anew with "
                "warm_start=False."
            )
        weights = loss_weights(labels, found, weights, self.class_weight)
        targets = encode(labels, found)
        if self.training == "probe":
            features = self._last_inputs(source, dataset)
        else:
            inputs, cut = self._training_inputs(source, dataset, n_frozen)
        rng = self.random_state_ if goes_on else check_random_state(self.random_state)
        with ONE_AT_A_TIME, torch.random.fork_rng():
            torch.manual_seed(rng.randint(2**31))
            if not goes_on or self.training == "probe":
                network = self._new_network(source, len(found), n_frozen)
                net = self._build_net(network, len(found), multilabel)
            elif partial and len(found) == len(self.classes_):
                net = self._build_net(
                    self.net_.module_, len(found), multilabel, self.net_
                )
            else:
                network = copy_network(self.net_.module_)  # for the case of failure
                if not multilabel:
                    positions = np.searchsorted(found, self.classes_)
                    network.grow_head(positions, len(found))
                net = self._build_net(network, len(found), multilabel)
        if self.training == "probe":
            fit_head(net.module_.head, features, targets, weights)
            net.module_.eval()
        else:
            train(net, inputs, targets, rng.randint(2**31), cut, weights)
        self.n_labels_ = len(labels) + (self.n_labels_ if goes_on and partial else 0)
        self.net_ = net
        self.source_network_ = source
        self.n_frozen_ = n_frozen
        self.classes_ = found
        self.multilabel_ = multilabel
        self.random_state_ = rng
        return self

    def _last_inputs(self, source: PretrainedNetwork, dataset: Dataset) -> np.ndarray:
        """What the last layer gets of images, (n, d)."""
        before = len(source.graph.layers) - 2
        batches = CNNAdapter(self).iter_outputs_of(
            source, dataset, source_layers=[before]
        )
        return np.concatenate([batch.source[before].cpu().numpy() for batch in batches])

    def _training_inputs(
        self, source: PretrainedNetwork, dataset: Dataset, n_frozen: int
    ) -> tuple[Dataset, str | None]:
        return training_inputs(
            source,
            dataset,
            n_frozen,
            augment=self.augment,
            device=self.torch_device(),
            memory=self.memory,
            batch_size=self._scan_batch_size(),
        )

    def _new_network(
        self, source: PretrainedNetwork, n_classes: int, n_frozen: int
    ) -> AdaptedNetwork:
        update_batch_norm = self.batch_norm == "update"
        network = AdaptedNetwork(source, n_classes, n_frozen, update_batch_norm)
        if self.training == "probe":
            network.put_probe_head()
        return network

    def _build_net(
        self,
        network: AdaptedNetwork,
        n_classes: int,
        multilabel: bool,
        before: NeuralNetClassifier | None = None,
    ) -> NeuralNetClassifier:
        return build_net(
            network,
            n_classes,
            before=before,
            multilabel=multilabel,
            head_lr=self.head_lr,
            net_params=self.net_params,
            lr=self.lr,
            optimizer=self.optimizer,
            criterion=self.criterion,
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            callbacks=self.callbacks,
            train_split=self.train_split,
            device=str(self.torch_device()),
            verbose=self.verbose,
        )
