"""Parts of a traced graph: from one node to others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import fx, nn


def extract_subgraph(
    graph: fx.Graph, network: nn.Module, ends: Sequence[fx.Node], start: fx.Node
) -> fx.GraphModule:
    """Build the part of a graph that leads from one node to others.

    Parameters
    ----------
    graph : torch.fx.Graph
    network : torch.nn.Module
        Has the modules that the graph calls. Its weights are shared, not copied.
    ends : sequence of torch.fx.Node
    start : torch.fx.Node

    Returns
    -------
    torch.fx.GraphModule
        See :meth:`NetworkGraph.extract`.

    Raises
    ------
    ValueError
        If an end does not lie behind `start`.
    """
    needed = ancestors(ends, start)
    if next(node for node in graph.nodes if node.op == "placeholder") in needed:
        raise ValueError(
            f"The outputs asked for are not all computed from {start.name!r}: one of "
            "them lies before it."
        )
    return fx.GraphModule(network, subgraph(graph, needed, start, ends))


def ancestors(nodes: Iterable[fx.Node], start: fx.Node | None = None) -> set[fx.Node]:
    """Nodes and what they are computed from, back to `start` (excluded)."""
    found: set[fx.Node] = set()
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if node is not start and node not in found:
            found.add(node)
            pending.extend(node.all_input_nodes)
    return found


def subgraph(
    graph: fx.Graph,
    needed: set[fx.Node],
    start: fx.Node | None,
    ends: Sequence[fx.Node],
) -> fx.Graph:
    """Copy the needed nodes; `start` becomes the input, the ends' tuple the output."""
    part = fx.Graph()
    copies = {} if start is None else {start: part.placeholder("x")}
    for node in graph.nodes:
        if node in needed:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(tuple(copies[end] for end in ends))
    return part
