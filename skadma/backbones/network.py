"""The network being adapted: M0 with a new last layer and its first layers frozen."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..images import Preprocessing
from .graph import NetworkGraph
from .source import SourceNetwork, get_head, replace_head


class Normalize(nn.Module):
    """Turn uint8 images into what a network wants; pass anything else on.

    Parameters
    ----------
    preprocessing : Preprocessing
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        shape = (1, -1, 1, 1)
        mean = torch.tensor(preprocessing.mean).view(shape)
        std = torch.tensor(preprocessing.std).view(shape)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise a batch."""
        if x.dtype != torch.uint8:
            return x
        return x * self.scale + self.shift


class AdaptedNetwork(nn.Module):
    """M0 with a new last layer, ready to be fine-tuned.

    Parameters
    ----------
    source : SourceNetwork
        M0. It is copied.
    n_classes : int
        Outputs of the new last layer.
    n_frozen : int
        How many weighted layers from the start fine-tuning must not change. All
        that feeds their output is frozen with them: norms, shortcut projections.
    update_batch_norm : bool
        Whether training updates the batch-norm statistics behind the frozen part.
    """

    def __init__(
        self,
        source: SourceNetwork,
        n_classes: int,
        n_frozen: int,
        update_batch_norm: bool,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(source.preprocessing)
        self.network = copy.deepcopy(source.module).requires_grad_(True)
        self.head_name = source.graph.layers[-1].name
        replace_head(self.network, self.head_name, n_classes)
        self.n_frozen = n_frozen
        self._example = source.example
        self.update_batch_norm = update_batch_norm
        self._frozen = source.graph.modules_of_first(n_frozen)
        for name in self._frozen:
            self._get(name).requires_grad_(False)
        self._set_mode(self.training)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores (logits) of a batch of images, or of what crosses the cut."""
        tail = self.__dict__.get("_tail")
        if tail is not None and x.dtype != torch.uint8:
            return tail(x)[0]
        return self.network(self.normalize(x))

    def train(self, mode: bool = True) -> AdaptedNetwork:
        """Switch to training, all but the frozen part and fixed batch norms."""
        if mode != self.training:  # asked for in every step, and it takes a while
            self._set_mode(mode)
        return self

    def _set_mode(self, mode: bool) -> None:
        super().train(mode)
        for name, module in self.network.named_modules():
            if name in self._frozen or (
                isinstance(module, _BatchNorm) and not self.update_batch_norm
            ):
                module.eval()

    @contextmanager
    def starting_at(self, cut: str) -> Iterator[None]:
        """Let ``forward`` take what crosses the cut for the time being.

        The tail is traced anew in training mode, for dropout that is called as a
        function. Weights are shared, not copied.

        Parameters
        ----------
        cut : str
            Name of the node, see :meth:`NetworkGraph.cut_before`.
        """
        self.network.train()
        graph = NetworkGraph(self.network, self._example, evaluate=False)
        self._set_mode(self.training)
        node = next(n for n in graph.graph.nodes if n.name == cut)
        # Not by attribute: its parameters must not be listed a second time.
        self.__dict__["_tail"] = graph.extract(self.network, [graph.output], node)
        try:
            yield
        finally:
            del self.__dict__["_tail"]

    def grow_head(self, positions: Sequence[int], n_classes: int) -> None:
        """Make room for new classes; the known ones keep their weights.

        Parameters
        ----------
        positions : sequence of int
            Where each of the present outputs lies among the new ones.
        n_classes : int
            Number of outputs from now on.
        """
        old = get_head(self.network, self.head_name)
        if n_classes == old.weight.shape[0]:
            return
        replace_head(self.network, self.head_name, n_classes)
        new = get_head(self.network, self.head_name)
        with torch.no_grad():
            for mine, theirs in zip(new.parameters(), old.parameters(), strict=True):
                mine[list(positions)] = theirs

    def _get(self, name: str) -> nn.Module | nn.Parameter:
        parent, _, child = name.rpartition(".")
        return getattr(self.network.get_submodule(parent), child)
