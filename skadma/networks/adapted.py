"""The adapted network: the pretrained one with a new last layer and frozen layers."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..images.dataset import Preprocessing
from .graph import NetworkGraph, extract_subgraph, fold_batch_norms, set_submodule
from .heads import BlockLinear, ProbeHead, get_head, replace_head
from .pretrained import PretrainedNetwork


class Normalize(nn.Module):
    """Normalise uint8 images for a network; return anything else unchanged."""

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
    """The pretrained network with a new last layer, ready to be fine-tuned.

    `source` is copied. Fine-tuning must not change its first `n_frozen` weighted layers
    and all that feeds their output: norms, shortcut projections. Training updates the
    batch-norm statistics of the other layers if `update_batch_norm`.
    """

    def __init__(
        self,
        source: PretrainedNetwork,
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
            parent, _, child = name.rpartition(".")  # a module or a parameter
            getattr(self.network.get_submodule(parent), child).requires_grad_(False)
        self._set_mode(self.training)

    @property
    def head(self) -> nn.Conv2d | nn.Linear:
        """The last weighted layer."""
        return get_head(self.network, self.head_name)

    @property
    def new_modules(self) -> list[str]:
        """Modules that the pretrained network lacks: they have their own learning rate.

        Names as in ``get_submodule``.
        """
        return [f"network.{self.head_name}"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores (logits) of a batch of images, or of values of the cut."""
        trainable = self.__dict__.get("_trainable_layers")
        if trainable is not None and x.dtype != torch.uint8:
            return trainable(x)[0]
        return self._run(self.normalize(x))

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of normalised images by the whole network."""
        return self.network(x)

    def subgraph(
        self, graph: NetworkGraph, ends: Sequence[fx.Node], start: fx.Node | None
    ) -> fx.GraphModule:
        """Make a subgraph of the network, with shared weights.

        `graph` is a trace of the pretrained network or of this one, and the subgraph
        maps the value of its node `start` (None: the input) to those of `ends`.
        """
        return extract_subgraph(graph.graph, self.network, ends, start or graph.input)

    def inference_subgraph(
        self, graph: NetworkGraph, ends: Sequence[fx.Node], start: fx.Node | None
    ) -> fx.GraphModule:
        """Make a fast subgraph, which is valid until the network is trained again."""
        return fold_batch_norms(self.subgraph(graph, ends, start))

    def train(self, mode: bool = True) -> AdaptedNetwork:
        """Switch to training, except for frozen layers and fixed batch norms."""
        if mode != self.training:  # called in every step, and it takes a while
            self._set_mode(mode)
        return self

    def _set_mode(self, mode: bool) -> None:
        super().train(mode)
        frozen = {f"network.{name}" for name in self._frozen}
        for name, module in self.named_modules():
            is_fixed = isinstance(module, _BatchNorm) and not self.update_batch_norm
            if is_fixed or name in frozen:
                module.eval()

    @contextmanager
    def starting_at(self, cut: str) -> Iterator[None]:
        """Within this context ``forward`` takes values of the cut, a node's name.

        The trainable layers are traced anew in training mode, for dropout that is
        called as a function. Weights are shared, not copied.
        """
        graph = NetworkGraph(self.network, self._example, training=True)
        node = next(n for n in graph.graph.nodes if n.name == cut)
        # Not by attribute: its parameters must not be listed a second time.
        self.__dict__["_trainable_layers"] = self.subgraph(graph, [graph.output], node)
        try:
            yield
        finally:
            del self.__dict__["_trainable_layers"]

    def grow_head(self, positions: Sequence[int], n_classes: int) -> None:
        """Have `n_classes` outputs; the present ones go to these positions."""
        old = self.head
        if n_classes == old.weight.shape[0]:
            return
        replace_head(self.network, self.head_name, n_classes)
        with torch.no_grad():
            new = self.head.parameters()
            for mine, theirs in zip(new, old.parameters(), strict=True):
                mine[list(positions)] = theirs

    def put_probe_head(self) -> None:
        """Replace the new last layer by one that normalises its input.

        ValueError if the last layer is no Linear that gets one vector of an image.
        """
        old = self.head
        if not isinstance(old, nn.Linear):
            raise ValueError(
                f"training='probe' needs a network that ends in a Linear, and this one "
                f"ends in {old}. Take training='fine-tune' or another backbone."
            )
        widths = old.block_widths if isinstance(old, BlockLinear) else [old.in_features]
        head = ProbeHead(widths, old.out_features).to(old.weight.device)
        set_submodule(self.network, self.head_name, head.train(old.training))
