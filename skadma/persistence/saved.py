"""save and load, and what an estimator takes over from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from ..networks import PretrainedNetwork
from ..networks.registry import load_into
from .folder import load_model, save_model

_Self = TypeVar("_Self")


class SavedMixin:
    """The part of :class:`~skadma.CNNClassifier` that is handed on."""

    def save(self: Any, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the fitted classifier to a folder: safetensors and JSON, no pickle.

        The folder has all that :meth:`load` needs, the pretrained weights included.
        The optimizer's state, `memory` and `device` are not part of it.

        Parameters
        ----------
        folder : str or Path
            It is there whole or not at all.
        overwrite : bool, default=False
            Replace a model that is there already.

        Raises
        ------
        ModelError
            A ValueError: there is something in the folder, the labels are of a type
            that cannot be stored, or the disk is full.
        """
        check_is_fitted(self)
        save_model(self, folder, overwrite=overwrite)

    @classmethod
    def load(
        cls: type[_Self],
        folder: str | Path,
        *,
        backbone: Callable[[], nn.Module] | None = None,
    ) -> _Self:
        """Read a classifier that :meth:`save` wrote; it predicts the same to the bit.

        Nothing that the folder holds is run, and nothing is downloaded.

        Parameters
        ----------
        folder : str or Path
        backbone : callable, optional
            The network, where the classifier had a callable one: of that only the
            name is stored.

        Returns
        -------
        CNNClassifier
            Or the subclass of it that was saved.

        Raises
        ------
        ModelError
            A ValueError: the model is damaged, of a newer skadma, of another class,
            or its backbone has to be given.
        """
        return load_model(cls, folder, backbone=backbone)  # type: ignore[type-var]

    def restore(
        self: Any,
        source: PretrainedNetwork,
        tensors: dict[str, torch.Tensor],
        classes: np.ndarray,
        n_frozen: int,
        n_labels: int,
        random_state: np.random.RandomState,
        multilabel: bool = False,
    ) -> Any:
        """Take over what an earlier fit made, as if it had been made here.

        Parameters
        ----------
        source : PretrainedNetwork
            M0.
        tensors : dict of str to torch.Tensor
            The state dict of the earlier ``net_.module_``.
        classes : ndarray of shape (n_classes,)
        n_frozen : int
            How many layers were frozen then.
        n_labels : int
            How many labels the network was fitted with.
        random_state : RandomState
            As the fit left it.
        multilabel : bool, default=False
            Whether an image may have several labels.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the weights or the frozen layers are not those of this classifier's
            network; it stays as it was then.
        """
        if n_frozen != self._resolve_frozen(source):
            raise ValueError(
                f"it has {n_frozen} frozen layers, but n_frozen_layers="
                f"{self.n_frozen_layers!r} means {self._resolve_frozen(source)}"
            )
        with torch.random.fork_rng():  # for a head that is not kept
            network = self._new_network(source, len(classes), n_frozen)
        load_into(network, tensors, source.name)
        net = self._build_net(network, len(classes), multilabel)
        net.module_.eval()
        self.net_ = net
        self.source_network_ = source
        self.n_frozen_ = n_frozen
        self.classes_ = classes
        self.multilabel_ = multilabel
        self.n_labels_ = n_labels
        self.random_state_ = random_state
        return self
