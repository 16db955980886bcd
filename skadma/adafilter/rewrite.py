"""A network's graph, rewritten so that its convolutions have two sets of filters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..networks.graph import NetworkGraph
from .gates import GateNetwork, mix


@dataclass(frozen=True)
class GatedLayer:
    """A convolution with two sets of filters.

    Attributes
    ----------
    name : str
        Its module.
    norm : str or None
        The batch norm that normalises each set on its own, if there is one.
    """

    name: str
    norm: str | None


@dataclass(frozen=True)
class GatedGraph:
    """A rewritten graph.

    Attributes
    ----------
    graph : torch.fx.Graph
    nodes : dict of torch.fx.Node to torch.fx.Node
        Where each value of the old graph is in the new one. What lies between a
        convolution and its norm is missing: there are two of it.
    gates : torch.fx.Node
        The gates of all layers, of shape (n, sum of filters).
    """

    graph: fx.Graph
    nodes: dict[fx.Node, fx.Node]
    gates: fx.Node


def find_gated_layers(
    graph: NetworkGraph,
    network: nn.Module,
    frozen: Container[str],
    *,
    with_norms: bool,
) -> list[GatedLayer]:
    """List the convolutions that are to get two sets of filters, as they run.

    All that are neither frozen nor the last layer: those on shortcuts and in
    squeeze-excite too, depthwise and grouped ones as well.

    Parameters
    ----------
    graph : NetworkGraph
    network : torch.nn.Module
    frozen : container of str
        Names of frozen modules.
    with_norms : bool
        Pair each with the batch norm that reads it, where nothing else does.

    Returns
    -------
    list of GatedLayer
    """
    nodes = [n for n in graph.graph.nodes if n.op == "call_module"]
    calls = Counter(str(n.target) for n in nodes)
    found: dict[str, GatedLayer] = {}
    for node in nodes:
        name = str(node.target)
        is_conv = isinstance(network.get_submodule(name), nn.Conv2d)
        if not is_conv or name in frozen or name == graph.layers[-1].name:
            continue
        norm = _norm_of(node, network) if with_norms and calls[name] == 1 else None
        if norm is not None and calls[norm] > 1:
            norm = None
        found[name] = GatedLayer(name, norm)
    return list(found.values())


def _norm_of(conv: fx.Node, network: nn.Module) -> str | None:
    if len(conv.users) != 1:
        return None
    user = next(iter(conv.users))
    if user.op != "call_module" or user.args != (conv,):
        return None
    is_norm = isinstance(network.get_submodule(str(user.target)), _BatchNorm)
    return str(user.target) if is_norm else None


def rewrite(
    graph: NetworkGraph,
    layers: Sequence[GatedLayer],
    gates: GateNetwork,
) -> GatedGraph:
    """Write the second set of filters and the gates into a graph.

    Parameters
    ----------
    graph : NetworkGraph
        It stays as it is.
    layers : sequence of GatedLayer
    gates : GateNetwork

    Returns
    -------
    GatedGraph
        It calls the modules of the network as ``network.<name>``, the pretrained
        filters and norms as ``branch.convolutions.<number>`` and
        ``branch.norms.<number>``, and the gates as ``branch.gates``.
    """
    numbers = {layer.name: i for i, layer in enumerate(layers)}
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
        norm = layers[number].norm
        if norm is not None:
            (node,) = node.users
            fine = new.call_module(f"network.{norm}", (fine,))
            frozen = new.call_module(f"branch.norms.{number}", (frozen,))
        nodes[node] = new.call_function(mix, (fine, frozen, gate))
        all_gates.append(gate)
    return GatedGraph(new, nodes, new.call_function(torch.cat, (all_gates, 1)))


def _copy(node: fx.Node, graph: fx.Graph, nodes: dict[fx.Node, fx.Node]) -> fx.Node:
    copied = graph.node_copy(node, nodes.__getitem__)
    if node.op in ("call_module", "get_attr"):
        copied.target = f"network.{node.target}"
    return copied
