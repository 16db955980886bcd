"""The network being adapted, with two sets of filters in each convolution."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from ..networks import AdaptedNetwork, PretrainedNetwork
from ..networks.folding import fold_batch_norms
from ..networks.graph import NetworkGraph
from ..networks.subgraph import extract_subgraph
from .gates import GateNetwork
from .rewrite import GatedGraph, GatedLayer, find_gated_layers, rewrite
from .used import compute_used_filters

_CACHES = ("_gated", "_whole")


class PretrainedBranch(nn.Module):
    """The filters that stay as they are, and the gates that choose them or others.

    Parameters
    ----------
    network : torch.nn.Module
        Its convolutions and norms are copied.
    layers : sequence of GatedLayer
    kind, width
        See :class:`GateNetwork`.

    Attributes
    ----------
    convolutions, norms : torch.nn.ModuleList
        By number of the layer; an identity where there is no norm.
    gates : GateNetwork
    n_filters : list of int
        Of each layer.
    """

    def __init__(
        self, network: nn.Module, layers: Sequence[GatedLayer], kind: str, width: int
    ) -> None:
        super().__init__()
        convs = [_convolution(network, layer.name) for layer in layers]
        norms = [
            nn.Identity() if layer.norm is None else network.get_submodule(layer.norm)
            for layer in layers
        ]
        self.convolutions = nn.ModuleList(copy.deepcopy(convs)).requires_grad_(False)
        self.norms = nn.ModuleList(copy.deepcopy(norms)).requires_grad_(False)
        self.n_filters = [conv.out_channels for conv in convs]
        channels = [(conv.in_channels, conv.out_channels) for conv in convs]
        self.gates = GateNetwork(kind, channels, width)


class AdaFilterNetwork(AdaptedNetwork):
    """M0 with a new last layer, and with gates between its filters and their copies.

    The network's own convolutions are the fine-tuned filters F; the pretrained ones S
    and the gates are a module ``branch`` beside it. The network stays as it is, down to
    the names of its weights: what runs is a rewritten graph.

    Parameters
    ----------
    source, n_classes, n_frozen, update_batch_norm
        See :class:`skadma.networks.AdaptedNetwork`.
    gates : {"recurrent", "independent", "global"}
    gated_batch_norm : bool
        Whether each set of filters has a batch norm of its own.
    gate_width : int

    Raises
    ------
    ValueError
        If no convolution is adapted.
    """

    def __init__(
        self,
        source: PretrainedNetwork,
        n_classes: int,
        n_frozen: int,
        update_batch_norm: bool,
        *,
        gates: str,
        gated_batch_norm: bool,
        gate_width: int,
    ) -> None:
        super().__init__(source, n_classes, n_frozen, update_batch_norm)
        self.gated_layers = find_gated_layers(
            source.graph, self.network, self._frozen, with_norms=gated_batch_norm
        )
        if not self.gated_layers:
            raise ValueError(
                f"{source.name} has no convolution between its {n_frozen} frozen "
                f"layers and its last one of {len(source.graph.layers)}, so AdaFilter "
                "has no filters to choose among. Freeze fewer layers (n_frozen_layers; "
                "layers() lists them) or take CNNClassifier."
            )
        self.branch = PretrainedBranch(
            self.network, self.gated_layers, gates, gate_width
        )
        self._set_mode(self.training)

    @property
    def new_modules(self) -> list[str]:
        """Modules that M0 does not have: they learn at a rate of their own."""
        return [*super().new_modules, "branch.gates"]

    def part(
        self, graph: NetworkGraph, ends: Sequence[fx.Node], start: fx.Node | None
    ) -> fx.GraphModule:
        """Make a part of the network, of shared weights.

        Parameters
        ----------
        graph, ends, start
            See :meth:`skadma.networks.AdaptedNetwork.part`.

        Raises
        ------
        ValueError
            If `start` lies behind a gated layer, and recurrent gates before an end.
        """
        gated = self._rewritten(graph)
        begin = gated.nodes[graph.input if start is None else start]
        try:
            found = [gated.nodes[end] for end in ends]
            return extract_subgraph(gated.graph, self, found, begin)
        except ValueError as error:
            if self.branch.gates.kind != "recurrent":
                raise
            raise ValueError(
                f"{error} Recurrent gates need all gated layers before them, so the "
                f"network cannot be entered behind {self.gated_layers[0].name!r}."
            ) from error

    def inference_subgraph(
        self, graph: NetworkGraph, ends: Sequence[fx.Node], start: fx.Node | None
    ) -> fx.GraphModule:
        """Make a part that is fast, and true until the network is trained again.

        Parameters
        ----------
        graph, ends, start
            See :meth:`part`.
        """
        return compute_used_filters(super().inference_subgraph(graph, ends, start))

    def gates_part(self, graph: NetworkGraph, start: fx.Node) -> fx.GraphModule:
        """Make the part that leads to all gates, (n, sum of filters), for inference.

        Parameters
        ----------
        graph, start
            See :meth:`part`.
        """
        gated = self._rewritten(graph)
        begin = gated.nodes[start]
        part = extract_subgraph(gated.graph, self, [gated.gates], begin)
        return compute_used_filters(fold_batch_norms(part))

    def grow_head(self, positions: Sequence[int], n_classes: int) -> None:
        """Make room for new classes; the known ones keep their weights."""
        super().grow_head(positions, n_classes)
        self._forget()

    def _set_mode(self, mode: bool) -> None:
        super()._set_mode(mode)
        if "branch" in self._modules and not self.update_batch_norm:
            self.branch.eval()

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.__dict__.setdefault("_whole", {})
        if self.training not in parts:
            graph = self._trace(self.training)
            parts[self.training] = self.part(graph, [graph.output], None)
        return parts[self.training](x)[0]

    def _rewritten(self, graph: NetworkGraph) -> GatedGraph:
        """Rewrite a graph, or take the last one that was rewritten."""
        known, gated = self.__dict__.get("_gated", (None, None))
        if known is not graph:
            gated = rewrite(graph, self.gated_layers, self.branch.gates)
            self.__dict__["_gated"] = (graph, gated)
        return gated

    def _forget(self) -> None:
        for name in _CACHES:
            self.__dict__.pop(name, None)

    def __getstate__(self) -> dict[str, Any]:
        # Graphs do not pickle, and a copy's must lead to the copy's modules.
        return {k: v for k, v in self.__dict__.items() if k not in _CACHES}


def _convolution(network: nn.Module, name: str) -> nn.Conv2d:
    module = network.get_submodule(name)
    assert isinstance(module, nn.Conv2d)
    return module
