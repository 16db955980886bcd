"""Last layers: found, replaced, on blocks of features, on several layers' outputs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn.functional import normalize

from .graph import NetworkGraph, set_submodule

DEPTHS = (0.44, 0.56, 0.68, 0.8)
"""Depths of the layers that a multi-layer head reads, as a share of all layers: in the
middle, since the last layers are specific to the source classes."""


def get_head(network: nn.Module, name: str) -> nn.Conv2d | nn.Linear:
    """Return the last weighted layer of a network.

    Parameters
    ----------
    network : torch.nn.Module
    name : str
        Name of its module.

    Returns
    -------
    torch.nn.Conv2d or torch.nn.Linear
    """
    head = network.get_submodule(name)
    assert isinstance(head, (nn.Conv2d, nn.Linear))
    return head


def replace_head(network: nn.Module, name: str, n_classes: int) -> None:
    """Put a new last layer with `n_classes` outputs in place of the old one."""
    old = get_head(network, name)
    bias = old.bias is not None
    head: nn.Module
    if isinstance(old, nn.Conv2d):
        same = {
            key: getattr(old, key)
            for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
        }
        head = nn.Conv2d(old.in_channels, n_classes, bias=bias, **same)
    elif isinstance(old, BlockLinear):
        head = old.resized(n_classes)
    else:
        head = nn.Linear(old.in_features, n_classes, bias=bias)
    head.train(old.training)
    set_submodule(network, name, head.to(old.weight.device))


class BlockLinear(nn.Linear):
    """A Linear whose input is a concatenation of feature blocks."""

    def __init__(self, block_widths: Sequence[int], n_classes: int) -> None:
        super().__init__(sum(block_widths), n_classes)
        self.block_widths = list(block_widths)

    def resized(self, n_classes: int) -> BlockLinear:
        """Make one of the same blocks with other outputs, of random weights."""
        return BlockLinear(self.block_widths, n_classes)


class ProbeHead(BlockLinear):
    """A Linear on feature blocks that are centred and scaled to fixed norms.

    With x_i the blocks, c_i the centres and m the number of blocks its input is
    w_i (x_i - c_i) / |x_i - c_i|, a vector of norm 1: the first block, which is the
    input of the network's own last layer, counts twice, w_1^2 = 2 / (m + 1) and
    w_i^2 = 1 / (m + 1); with one block w_1 = 1.
    """

    centre: torch.Tensor

    def __init__(self, block_widths: Sequence[int], n_classes: int) -> None:
        super().__init__(block_widths, n_classes)
        self.register_buffer("centre", torch.zeros(sum(block_widths)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores of a batch."""
        return super().forward(self.prepare(x))

    def prepare(self, x: torch.Tensor) -> torch.Tensor:
        """Centre the blocks and scale them to their norms."""
        first, *more = torch.split(x - self.centre, self.block_widths, dim=1)
        shared = 1 / (len(self.block_widths) + 1) ** 0.5
        norms = [2**0.5 * shared if more else 1.0, *(shared for _ in more)]
        scaled = [
            normalize(block) * norm
            for block, norm in zip([first, *more], norms, strict=True)
        ]
        return torch.cat(scaled, dim=1)

    def resized(self, n_classes: int) -> ProbeHead:
        """Make one of the same blocks and centres with other outputs."""
        head = ProbeHead(self.block_widths, n_classes)
        head.centre.copy_(self.centre)
        return head


# --- a last layer on several layers' outputs ------------------------------------------


def multilayer_network(
    name: str,
    network: nn.Module,
    graph: NetworkGraph,
    output_shapes: Sequence[tuple[int, ...]],
) -> fx.GraphModule:
    """Extend the input of a network's last layer by the outputs of some earlier layers.

    The input x is followed by one feature block per layer of :data:`DEPTHS`, see
    :func:`append_feature_blocks`. The weights of these blocks are 0, so the scores of
    the source classes stay what they were. `network` is copied; `name` is for messages,
    `output_shapes` are for one image. ValueError if the last layer is no Linear that
    gets one vector of an image.
    """
    layers, n = graph.layers, len(graph.layers)
    network = copy.deepcopy(network)
    head = get_head(network, layers[-1].name)
    if not isinstance(head, nn.Linear) or n < 3 or len(output_shapes[-2]) != 1:
        raise ValueError(
            f"'layers/{name}': this network ends in {head}, but the last layer "
            "must be a Linear behind two other layers or more, and get one vector of "
            f"an image. Take {name!r} as it is."
        )
    taps = sorted({min(round(depth * n), n - 3) for depth in DEPTHS})
    block_widths, pooled_dims = [head.in_features], []
    for i in taps:
        dims = list(range(1, len(output_shapes[i]) + 1))
        # Channels come last where a Linear reads the output, else first.
        reader = get_head(network, layers[i + 1].name)
        channels = dims.pop(-1 if isinstance(reader, nn.Linear) else 0)
        pooled_dims.append(dims)
        width = output_shapes[i][channels - 1]
        block_widths.append(2 * width if dims else width)
    extended = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.graph.nodes:
        if node is layers[-1].node:
            outputs = [copies[layers[i].output] for i in taps]
            args: Any = (copies[layers[-2].output], outputs, pooled_dims)
            joined = extended.call_function(append_feature_blocks, args)
            copies[node] = extended.call_module(str(node.target), (joined,))
        else:
            copies[node] = extended.node_copy(node, copies.__getitem__)
    wide = BlockLinear(block_widths, head.out_features)
    with torch.no_grad():
        wide.weight.zero_()[:, : head.in_features] = head.weight
        wide.bias.zero_()
        if head.bias is not None:
            wide.bias.copy_(head.bias)
    set_submodule(network, layers[-1].name, wide.requires_grad_(False))
    return fx.GraphModule(network, extended)


def append_feature_blocks(
    last: torch.Tensor,
    outputs: Sequence[torch.Tensor],
    pooled_dims: Sequence[list[int]],
) -> torch.Tensor:
    """Append a feature block for each layer output (n, ...) to a vector (n, d).

    A block is mean and standard deviation over `pooled_dims`, or the output itself
    where there are none. Its norm is that of `last` / sqrt(2), so `last` counts twice
    in distances.
    """
    norm = torch.linalg.vector_norm(last, dim=1, keepdim=True) * 0.5**0.5
    blocks = [last]
    for x, dims in zip(outputs, pooled_dims, strict=True):
        if dims:
            mean = x.mean(dims, keepdim=True)
            # x.std() takes 20 times as long, a fifth of the pretrained network's time.
            variance = (x - mean).square().mean(dims)
            varies = variance > 0  # the root of 0 has an infinite slope
            spread = torch.where(varies, variance, 1).sqrt() * varies
            x = torch.cat([mean.flatten(1), spread], dim=1)
        blocks.append(normalize(x) * norm)
    return torch.cat(blocks, dim=1)
