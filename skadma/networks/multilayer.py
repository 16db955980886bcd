"""``layers/NAME``: a network whose last layer sees several of its layers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.nn.functional import normalize

from .heads import PartsLinear, get_head

if TYPE_CHECKING:
    from .pretrained import PretrainedNetwork

LAYERED = "layers/"
"""What the names of these networks begin with."""

DEPTHS = (0.44, 0.56, 0.68, 0.8)
"""Where the layers lie that are looked at, as a share of all of them: in the middle,
since the end knows the source classes and little else."""


def layered_network(source: PretrainedNetwork) -> fx.GraphModule:
    """Let the last layer of a network see several layers before it as well.

    Its input x is followed by a part for each of some layers: mean and spread, over all
    places, of what the layer hands on, together of length |x| / sqrt(2), so that x
    counts twice in distances. Its weights for these are 0, so that the scores of the
    source classes stay what they were.

    Parameters
    ----------
    source : PretrainedNetwork
        It is copied.

    Returns
    -------
    torch.fx.GraphModule
        Its modules have the names that they have in the network.

    Raises
    ------
    ValueError
        If the last layer is no Linear that gets one vector of an image.
    """
    layers, shapes = source.graph.layers, source.output_shapes
    module = copy.deepcopy(source.module)
    head = get_head(module, layers[-1].name)
    if not isinstance(head, nn.Linear) or len(layers) < 3 or len(shapes[-2]) != 1:
        raise ValueError(
            f"'layers/{source.name}': this network ends in {head}, but the last layer "
            "must be a Linear behind two other layers or more, and get one vector of "
            f"an image. Take {source.name!r} as it is."
        )
    n = len(layers)
    taps = sorted({min(round(depth * n), n - 3) for depth in DEPTHS})
    places = [_places(module, layers[i + 1].name, shapes[i]) for i in taps]
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in source.graph.graph.nodes:
        if node is layers[-1].node:
            maps = [copies[layers[i].output] for i in taps]
            args: Any = (copies[layers[-2].output], maps, places)
            copies[node] = graph.call_module(
                str(node.target), (graph.call_function(join, args),)
            )
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    _widen(module, layers[-1].name, [shapes[i] for i in taps], places)
    return fx.GraphModule(module, graph)


def join(
    last: torch.Tensor, maps: Sequence[torch.Tensor], places: Sequence[list[int]]
) -> torch.Tensor:
    """Put mean and spread of maps behind a vector, for each map half its squares.

    Parameters
    ----------
    last : torch.Tensor of shape (n, d)
    maps : sequence of torch.Tensor of shape (n, ...)
    places : sequence of list of int
        The dimensions of each map to take mean and spread over; none for a vector,
        which is taken as it is.

    Returns
    -------
    torch.Tensor of shape (n, d + twice the maps' channels)
    """
    length = torch.linalg.vector_norm(last, dim=1, keepdim=True) * 0.5**0.5
    parts = [last]
    for x, dims in zip(maps, places, strict=True):
        if dims:
            mean = x.mean(dims, keepdim=True)
            # x.std() takes 20 times as long, a fifth of all of M0's time.
            variance = (x - mean).square().mean(dims)
            varies = variance > 0  # the root of 0 has an infinite slope
            spread = torch.where(varies, variance, 1).sqrt() * varies
            x = torch.cat([mean.flatten(1), spread], dim=1)
        parts.append(normalize(x) * length)
    return torch.cat(parts, dim=1)


def _places(module: nn.Module, follower: str, shape: tuple[int, ...]) -> list[int]:
    """Dimensions of a batch other than images and channels, by who reads it next."""
    is_linear = isinstance(get_head(module, follower), nn.Linear)
    dims = list(range(1, len(shape) + 1))
    dims.remove(len(shape) if is_linear else 1)
    return dims


def _widen(
    module: nn.Module,
    name: str,
    shapes: Sequence[tuple[int, ...]],
    places: Sequence[list[int]],
) -> None:
    """Give the last layer the inputs that are new to it, with weights of 0."""
    old = get_head(module, name)
    parts = [old.weight.shape[1]]
    for shape, dims in zip(shapes, places, strict=True):
        (channels,) = (w for k, w in enumerate(shape, 1) if k not in dims)
        parts.append(2 * channels if dims else channels)
    with torch.no_grad():
        wide = PartsLinear(parts, old.weight.shape[0])
        wide.weight.zero_()[:, : parts[0]] = old.weight
        wide.bias.zero_()
        if old.bias is not None:
            wide.bias.copy_(old.bias)
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, wide.requires_grad_(False))
