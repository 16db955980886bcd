"""The adapted network with two sets of filters, and the gates that choose between them.

The gates and the second set of filters are inserted into the network's graph.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Container, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..networks import PretrainedNetwork
from ..networks.adapted import AdaptedNetwork
from ..networks.graph import NetworkGraph, extract_subgraph, fold_batch_norms

GATE_WIDTH = 128
"""Width of the recurrent network."""


# --- gates ----------------------------------------------------------------------------


def threshold(logits: torch.Tensor) -> torch.Tensor:
    r"""Turn logits into gates of 0 or 1 that let a gradient through.

    .. math:: G = 1[z > 0], \qquad \partial G / \partial z := \sigma(z)(1 - \sigma(z)),

    the straight-through estimator [1]_ with the slope of the sigmoid in place of the
    step's, which is 0 wherever it exists.

    References
    ----------
    .. [1] Bengio, Leonard & Courville, Estimating or Propagating Gradients Through
       Stochastic Neurons for Conditional Computation, 2013, arXiv 1308.3432.
    """
    soft = torch.sigmoid(logits)
    hard = (logits > 0).to(soft.dtype)
    return hard + (soft - soft.detach())  # the difference is 0, exactly


def mix(fine: torch.Tensor, frozen: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """Take each channel from the fine-tuned filter or from the pretrained one.

    G F(x) + (1 - G) S(x), for F(x) and S(x) of shape (n, c, h, w) and gates (n, c).
    """
    # Exact at both ends, and one pass over the maps where the formula takes three.
    return torch.lerp(frozen, fine, gate[:, :, None, None])


class GateNetwork(nn.Module):
    """One gate for each example and filter of each layer.

    A layer's gates come from its input: average over the area, projection to a width
    that all layers share, an LSTM cell whose state goes on from layer to layer, and
    projection to the number of filters. The network is not called: :meth:`insert`
    appends it to a graph, so the state is not stored between batches. `channels` are
    input channels and filters of each layer.
    """

    def __init__(self, channels: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        width = GATE_WIDTH
        self.inputs = nn.ModuleList(nn.Linear(n_in, width) for n_in, _ in channels)
        self.outputs = nn.ModuleList(nn.Linear(width, n_out) for _, n_out in channels)
        self.cell = nn.LSTMCell(width, width)

    def insert(
        self, graph: fx.Graph, name: str, layer: int, x: fx.Node, state: fx.Node | None
    ) -> tuple[fx.Node, fx.Node]:
        """Append the gates (n, filters) of layer number `layer` to a graph.

        `name` is this module's name in the network that the graph runs, `x` the layer's
        input (n, c, h, w), `state` the cell's state after the layer before. The new
        state is returned beside the gates.
        """
        pooled = graph.call_method("mean", (x, (2, 3)))
        projected = graph.call_module(f"{name}.inputs.{layer}", (pooled,))
        before = () if state is None else (state,)
        state = graph.call_module(f"{name}.cell", (projected, *before))
        hidden = graph.call_function(operator.getitem, (state, 0))
        logits = graph.call_module(f"{name}.outputs.{layer}", (hidden,))
        return graph.call_function(threshold, (logits,)), state


# --- the rewritten graph --------------------------------------------------------------


def find_gated_layers(
    graph: NetworkGraph, network: nn.Module, frozen: Container[str]
) -> dict[str, str | None]:
    """Find the convolutions that get two sets of filters, in the order of running.

    These are all that are neither frozen nor the last layer, including those on
    shortcuts and in squeeze-excite, depthwise and grouped ones. Each is mapped to the
    batch norm that reads it, where nothing else does.
    """
    nodes = [n for n in graph.graph.nodes if n.op == "call_module"]
    calls = Counter(str(n.target) for n in nodes)
    found: dict[str, str | None] = {}
    for node in nodes:
        name = str(node.target)
        is_conv = isinstance(network.get_submodule(name), nn.Conv2d)
        if not is_conv or name in frozen or name == graph.layers[-1].name:
            continue
        found[name] = None
        user = next(iter(node.users), node)
        is_norm = user.op == "call_module" and isinstance(
            network.get_submodule(str(user.target)), _BatchNorm
        )
        is_alone = len(node.users) == calls[name] == calls[str(user.target)] == 1
        if is_norm and is_alone and user.args == (node,):
            found[name] = str(user.target)
    return found


def rewrite(
    graph: NetworkGraph, layers: dict[str, str | None], gates: GateNetwork
) -> tuple[fx.Graph, dict[fx.Node, fx.Node], fx.Node]:
    """Make a graph with the second set of filters and the gates.

    It calls the modules of the network as ``network.<name>``, the pretrained filters
    and norms as ``branch.convolutions.<number>`` and ``branch.norms.<number>``, and the
    gates as ``branch.gates``. A dict maps nodes of the old graph to those of the new
    one, without nodes between a convolution and its norm: there are two of each. The
    value of the node returned last are all gates (n, sum of filters).
    """
    numbers = {name: i for i, name in enumerate(layers)}
    new = fx.Graph()
    nodes: dict[fx.Node, fx.Node] = {}
    state: fx.Node | None = None
    all_gates: list[fx.Node] = []
    for node in graph.graph.nodes:
        if node.op == "output":
            break
        if node in nodes:
            continue  # a norm, done with its convolution
        number = numbers.get(str(node.target)) if node.op == "call_module" else None
        if number is None:
            nodes[node] = _copy(node, new, nodes)
            continue
        x = nodes[node.all_input_nodes[0]]
        gate, state = gates.insert(new, "branch.gates", number, x, state)
        fine = _copy(node, new, nodes)
        frozen = new.call_module(f"branch.convolutions.{number}", (x,))
        norm = layers[str(node.target)]
        if norm is not None:
            (node,) = node.users
            fine = new.call_module(f"network.{norm}", (fine,))
            frozen = new.call_module(f"branch.norms.{number}", (frozen,))
        nodes[node] = new.call_function(mix, (fine, frozen, gate))
        all_gates.append(gate)
    return new, nodes, new.call_function(torch.cat, (all_gates, 1))


def _copy(node: fx.Node, graph: fx.Graph, nodes: dict[fx.Node, fx.Node]) -> fx.Node:
    copied = graph.node_copy(node, nodes.__getitem__)
    if node.op in ("call_module", "get_attr"):
        copied.target = f"network.{node.target}"
    return copied


# --- the network ----------------------------------------------------------------------


class AdaFilterNetwork(AdaptedNetwork):
    """The adapted network with gates between its filters and the pretrained ones.

    The network's own convolutions are the fine-tuned filters F. Beside it is a module
    ``branch``: copies of the pretrained filters S and of their norms (an identity
    where there is none), which stay unchanged, and the gates. The network stays as it
    is, down to the names of its weights: what runs is a rewritten graph. ValueError if
    no convolution is adapted.
    """

    def __init__(
        self,
        source: PretrainedNetwork,
        n_classes: int,
        n_frozen: int,
        update_batch_norm: bool,
    ) -> None:
        super().__init__(source, n_classes, n_frozen, update_batch_norm)
        self.gated_layers = find_gated_layers(source.graph, self.network, self._frozen)
        if not self.gated_layers:
            raise ValueError(
                f"{source.name} has no convolution between its {n_frozen} frozen "
                f"layers and its last one of {len(source.graph.layers)}, so AdaFilter "
                "has no filters to choose among. Freeze fewer layers (n_frozen_layers; "
                "layers() lists them) or take CNNClassifier."
            )
        convs: list[Any] = [self.network.get_submodule(n) for n in self.gated_layers]
        norms = [
            nn.Identity() if norm is None else self.network.get_submodule(norm)
            for norm in self.gated_layers.values()
        ]
        self.branch: Any = nn.ModuleDict(
            {
                "convolutions": nn.ModuleList(copy.deepcopy(convs)),
                "norms": nn.ModuleList(copy.deepcopy(norms)),
            }
        ).requires_grad_(False)
        channels = [(conv.in_channels, conv.out_channels) for conv in convs]
        self.branch["gates"] = GateNetwork(channels)
        self._set_mode(self.training)

    @property
    def new_modules(self) -> list[str]:
        """The new last layer and the gates."""
        return [*super().new_modules, "branch.gates"]

    def _run(self, x: torch.Tensor) -> torch.Tensor:
        whole = self.__dict__.setdefault("_whole", {})
        if self.training not in whole:
            graph = NetworkGraph(self.network, self._example, training=self.training)
            whole[self.training] = self.subgraph(graph, [graph.output], None)
        return whole[self.training](x)[0]

    def subgraph(
        self, graph: NetworkGraph, ends: Sequence[fx.Node], start: fx.Node | None
    ) -> fx.GraphModule:
        """Make a subgraph of the network, with shared weights.

        ValueError if `start` lies behind a gated layer and gates before an end.
        """
        gated, nodes, _ = rewrite(graph, self.gated_layers, self.branch.gates)
        begin = nodes[graph.input if start is None else start]
        try:
            return extract_subgraph(gated, self, [nodes[end] for end in ends], begin)
        except ValueError as error:
            raise ValueError(
                f"{error} The gates need all gated layers before them, so the "
                f"network cannot be entered behind {next(iter(self.gated_layers))!r}."
            ) from error

    def grow_head(self, positions: Sequence[int], n_classes: int) -> None:
        """Add outputs for new classes; those of known classes keep their weights."""
        super().grow_head(positions, n_classes)
        self.__dict__.pop("_whole", None)

    def __getstate__(self) -> dict[str, Any]:
        # Graphs do not pickle, and a copy's must lead to the copy's modules.
        return {k: v for k, v in self.__dict__.items() if k != "_whole"}


class GateOutputs(nn.Module):
    """A network for feature extraction whose output is the gates of another one."""

    def __init__(self, network: AdaFilterNetwork) -> None:
        super().__init__()
        self.network = network

    def inference_subgraph(
        self, graph: NetworkGraph, ends: Sequence[fx.Node], start: fx.Node
    ) -> fx.GraphModule:
        """Make the subgraph that computes all gates (n, sum of filters)."""
        network = self.network
        gated, nodes, gates = rewrite(graph, network.gated_layers, network.branch.gates)
        subgraph = extract_subgraph(gated, network, [gates], nodes[start])
        return fold_batch_norms(subgraph)
