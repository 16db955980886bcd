"""Last layers: found, replaced, on blocks of features, on several layers' outputs."""

from __future__ import annotations

import copy
import operator
import re
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.functional import normalize
from torchvision.models import SqueezeNet

from .graph import (
    NetworkGraph,
    ancestors,
    set_submodule,
    shape_of_image,
    weighted_module,
)

DEPTHS = (0.44, 0.56, 0.68, 0.8)
"""Depths of the layers that a multi-layer head reads, as a share of all layers: in the
middle, since the last layers are specific to the source classes."""


NEW_LAST_LAYER = "new_last_layer"
"""Name of the last layer of a network that has no classifier of its own."""


def get_head(network: nn.Module, name: str) -> nn.Conv2d | nn.Linear:
    """Return a network's last weighted layer, which is the module of that name."""
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
        head = type(old)(old.block_widths, n_classes)
        head.load_state_dict(dict(old.named_buffers()), strict=False)
    else:
        head = nn.Linear(old.in_features, n_classes, bias=bias)
    head.train(old.training)
    set_submodule(network, name, head.to(old.weight.device))


class BlockLinear(nn.Linear):
    """A Linear whose input is a concatenation of feature blocks."""

    def __init__(self, block_widths: Sequence[int], n_classes: int) -> None:
        super().__init__(sum(block_widths), n_classes)
        self.block_widths = list(block_widths)


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


# --- what may follow the last layer ---------------------------------------------------

_SPATIAL = (
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AvgPool1d, nn.AvgPool2d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.MaxPool1d, nn.MaxPool2d),
)
_HARMLESS = (
    *(nn.Identity, nn.Flatten, nn.Unflatten, *_SPATIAL),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout),
)
_METHODS = {
    *("flatten", "reshape", "view", "squeeze", "unsqueeze", "contiguous", "clone"),
    *("mean", "amax", "permute", "transpose", "float", "to", "type_as", "detach"),
}
_FUNCTIONS = {
    *(torch.mean, torch.amax, torch.permute, torch.transpose, operator.getitem),
    *(torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.clone),
    *(functional.dropout, functional.dropout2d, functional.alpha_dropout),
    *(functional.avg_pool2d, functional.adaptive_avg_pool2d),
    *(functional.max_pool2d, functional.adaptive_max_pool2d),
}
_ARITHMETIC = {
    *(operator.add, operator.mul, operator.truediv, operator.iadd, operator.imul),
    *(operator.itruediv, torch.add, torch.mul, torch.div),
    *("add", "add_", "mul", "mul_", "div", "div_"),
}


_SUMS = {operator.add, torch.add, "add"}

_PROBABILITIES = ("softmax", "softmin", "sigmoid", "logsigmoid", "gumbelsoftmax")


def why_no_scores(network: nn.Module, graph: NetworkGraph) -> str:
    """Tell a classifier, whose last layer can be replaced, from other networks.

    In a classifier, pooling, reshaping, dropout and a temperature may follow the last
    weighted layer, but no norm and no activation, no other layer's output is added, and
    the output has one score per output of that layer. Returns what else was found,
    or nothing for a classifier.
    """
    layer = graph.layers[-1]
    needed, behind = ancestors([graph.output]), {layer.node}
    for node in graph.graph.nodes:
        if node in needed and behind.intersection(node.all_input_nodes):
            behind.add(node)
            if "shape" in node.meta and not _keeps_scores(node, network):
                return f"comes {_describe(node, network)}"
    shape = graph.output.meta.get("shape")
    if shape != (get_head(network, layer.name).weight.shape[0],):
        return f"the output of one image has the shape {shape}"
    return ""


def why_no_features(
    network: nn.Module, graph: NetworkGraph, example: torch.Tensor
) -> str:
    """Why the output of a network without a classifier is no vector of features.

    It is none if it is probabilities, or the sum of several classifiers' scores.
    Returns nothing where it is one.
    """
    ends, pending = set(), [graph.output]
    while pending:
        node = pending.pop()
        inputs = [
            n for n in node.all_input_nodes if "shape" in n.meta and n.op != "get_attr"
        ]
        is_sum = node.target in _ARITHMETIC and len(inputs) > 1
        if inputs and (is_sum or _keeps_scores(node, network)):
            pending.extend(inputs)
        else:
            ends.add(node)
    for node in ends:
        if _kinds(node, network)[-1].replace("_", "").lower() in _PROBABILITIES:
            return f"it ends in {_describe(node, network)}, so it gives probabilities"
    before = ancestors([n for node in ends for n in node.all_input_nodes])
    is_parallel = len(ends) > 1 and not ends & before  # no shortcut past the other
    if is_parallel and all(weighted_module(network, node) for node in ends):
        return f"it adds the scores of {len(ends)} layers"
    noise = torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = network(noise)[0].double().flatten()
    for values in (out, out.exp()):
        if len(out) > 1 and (values >= 0).all() and abs(values.sum() - 1) < 1e-3:
            return "its outputs are probabilities, whose sum is 1"
    return ""


class WithLastLayer(nn.Module):
    """A network that gives features, with a last layer of no use on its output.

    The layer is to be replaced by one with an output per class. Modules and parameters
    have the names that they have in the network.
    """

    _network: nn.Module

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self._parameters, self._buffers = network._parameters, network._buffers
        self._modules = dict(network._modules)
        last = nn.Linear(width, 1)
        self.add_module(NEW_LAST_LAYER, last)
        for tensor in last.parameters():
            nn.init.zeros_(tensor)
        self.__dict__["_network"] = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores of the network's output."""
        self._network.training = self.training
        features = self._network.forward(x).flatten(1)
        return self.get_submodule(NEW_LAST_LAYER)(features)


def _keeps_scores(node: fx.Node, network: nn.Module) -> bool:
    """Whether a node behind the last layer leaves class scores what they are."""
    if node.target in _ARITHMETIC:  # a temperature, or another branch?
        others = [n for n in node.all_input_nodes[1:] if "shape" in n.meta]
        for n in others:
            if n.op != "get_attr":
                return False
            scale: Any = reduce(getattr, str(n.target).split("."), network)
            if scale.numel() != 1:
                return False
        return True
    if node.op == "call_method":
        return node.target in _METHODS
    if node.op != "call_module":
        return node.target in _FUNCTIONS
    module = network.get_submodule(str(node.target))
    leaves = [m for m in module.modules() if not isinstance(m, nn.Sequential)]
    if all(isinstance(m, _HARMLESS) for m in leaves):
        return True
    if isinstance(module, nn.ReLU):  # in SqueezeNet, between the last layer and pooling
        return any(isinstance(m, SqueezeNet) for m in network.modules()) and all(
            user.op == "call_module"
            and isinstance(network.get_submodule(str(user.target)), _SPATIAL)
            for user in node.users
        )
    if any(True for _ in (*module.parameters(), *module.buffers())):
        return False
    if type(module).__module__.startswith("timm.") and "Pool" in type(module).__name__:
        return True
    return _is_affine(module, node.all_input_nodes[0].meta["shape"])


def _is_affine(module: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether f(a + b) = f(a) + f(b) - f(0): of no activation and of no norm."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 2, *shape, generator=generator)
    with torch.no_grad():
        try:
            together, apart = module(a + b), module(a) + module(b) - module(0 * a)
            return torch.allclose(together, apart, rtol=1e-3, atol=1e-4)
        except Exception:  # it returns no tensor, or takes something else
            return False


def _kinds(node: fx.Node, network: nn.Module) -> list[str]:
    """Names of the classes of a module and what is in it, or of a function."""
    if node.op != "call_module":
        return [str(getattr(node.target, "__name__", node.target))]
    modules = network.get_submodule(str(node.target)).modules()
    return [type(m).__name__ for m in modules if not isinstance(m, nn.Sequential)]


def _describe(node: fx.Node, network: nn.Module) -> str:
    kinds = _kinds(node, network)
    if node.op == "call_module":
        return f"{str(node.target)!r} ({', '.join(kinds)})"
    joined = " with another layer's output" * (len(node.all_input_nodes) > 1)
    return f"the function {kinds[0]!r}{joined}"


# --- a last layer on several layers' outputs ------------------------------------------


def multilayer_network(
    name: str, network: nn.Module, graph: NetworkGraph
) -> fx.GraphModule:
    """Extend the input of a network's last layer by the outputs of some earlier layers.

    The input x is followed by one feature block per layer of :data:`DEPTHS`, or per
    block of a network of tokens, see :func:`append_feature_blocks`. The weights of
    these blocks are 0, so the scores of the source classes stay what they were.
    `network` is copied; `name` is for messages. ValueError if the last layer is no
    Linear that gets one vector of an image.
    """
    layers, n = graph.layers, len(graph.layers)
    output_shapes = [shape_of_image(layer.output) for layer in layers]
    network = copy.deepcopy(network)
    head = get_head(network, layers[-1].name)
    taps = token_blocks(network, graph)
    positions = sorted({min(round(depth * n), n - 3) for depth in DEPTHS})
    is_linear = isinstance(head, nn.Linear) and n > 2 and len(output_shapes[-2]) == 1
    if not is_linear or not (taps or all(output_shapes[i] for i in positions)):
        raise ValueError(
            f"'layers/{name}': this network ends in {head}, of {n} layers. The last "
            "one must be a Linear behind two other layers or more, and get one vector "
            "of an image, and those in the middle must give an output for each image. "
            f"Take {name!r} as it is; 'skadma start' does with --training fine-tune."
        )
    assert isinstance(head, nn.Linear)
    if not taps:
        for i in positions:
            dims = list(range(1, len(output_shapes[i]) + 1))
            # Channels come last where a Linear reads the output, else first.
            reader = get_head(network, layers[i + 1].name)
            dims.pop(-1 if isinstance(reader, nn.Linear) else 0)
            taps.append((layers[i].output, dims, 0, False))
    block_widths = [head.in_features]
    for node, dims, _, has_class_token in taps:
        shape = shape_of_image(node)
        (channels,) = {*range(1, len(shape) + 1)} - {*dims}
        n_statistics = 2 * bool(dims) or 1
        block_widths.append((n_statistics + has_class_token) * shape[channels - 1])
    extended = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.graph.nodes:
        if node is layers[-1].node:
            outputs = [(copies[tap[0]], *tap[1:]) for tap in taps]
            args: Any = (copies[layers[-2].output], outputs)
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


def token_blocks(
    network: nn.Module, graph: NetworkGraph
) -> list[tuple[fx.Node, list[int], int, bool]]:
    """Find the outputs of four blocks of a network of tokens; none of other networks.

    A block is one of at least four modules that are numbered and end in a sum of
    tokens (T, d), or of a map (H, W, d) that a LayerNorm reads. Each output comes with
    the dimensions of its patches, the number of other tokens before them, and whether
    the first of these is the class token.
    """
    found: dict[str, dict[str, fx.Node]] = {}
    for node in graph.graph.nodes:
        scope = next(reversed(node.meta.get("nn_module_stack", {})), "")
        kind = re.sub(r"\d+", "#", scope)
        if (
            kind.endswith("#")
            and node.target in _SUMS
            and len(shape_of_image(node)) in (2, 3)
        ):
            found.setdefault(kind, {})[scope] = node
    for blocks in found.values():
        nodes = [node for node in blocks.values() if _is_tokens(node, network)]
        if len(nodes) < len(DEPTHS):
            continue
        own: Any = getattr(network, "_network", network)
        before = _weights_before(nodes[0])  # CaiT adds its class token behind them
        has_class_token = not before.isdisjoint(("cls_token", "class_token"))
        has_prefix = has_class_token or "reg_token" in before
        n_prefix = getattr(own, "num_prefix_tokens", 1) if has_prefix else 0
        chosen = sorted({max(round(depth * len(nodes)) - 1, 0) for depth in DEPTHS})
        return [
            (nodes[i], [1], n_prefix, has_class_token)
            if len(shape_of_image(nodes[i])) == 2
            else (nodes[i], [1, 2], 0, False)
            for i in chosen
        ]
    return []


def _weights_before(node: fx.Node) -> set[str]:
    """Names of the network's own weights that a node depends on."""
    seen, left = {node}, [node]
    while left:
        new = {*left.pop().all_input_nodes} - seen
        seen |= new
        left += new
    return {str(n.target).rpartition(".")[2] for n in seen if n.op == "get_attr"}


def _is_tokens(node: fx.Node, network: nn.Module) -> bool:
    """Whether a sum is of tokens, and is not overwritten later."""
    readers = [
        type(network.get_submodule(str(user.target))).__name__
        for user in node.users
        if user.op == "call_module"
    ]
    is_kept = not any(user.target in (operator.iadd, "add_") for user in node.users)
    return is_kept and (len(shape_of_image(node)) == 2 or "LayerNorm" in readers)


def append_feature_blocks(
    last: torch.Tensor,
    outputs: Sequence[tuple[torch.Tensor, list[int], int, bool]],
) -> torch.Tensor:
    """Append a feature block for each layer output (n, ...) to a vector (n, d).

    An output comes with the dimensions of its positions, a number of tokens (n, T, d)
    that are none, and whether the first of them is the class token. A block is mean and
    standard deviation over the positions, behind the class token, or the output itself
    where there are none. Its norm is that of `last` / sqrt(2), so `last` counts twice
    in distances.
    """
    norm = torch.linalg.vector_norm(last, dim=1, keepdim=True) * 0.5**0.5
    blocks = [last]
    for x, dims, n_prefix, has_class_token in outputs:
        if dims:
            class_token = [x[:, 0]] if has_class_token else []
            x = x[:, n_prefix:] if n_prefix else x
            mean = x.mean(dims, keepdim=True)
            # x.std() takes 20 times as long, a fifth of the pretrained network's time.
            variance = (x - mean).square().mean(dims)
            varies = variance > 0  # the root of 0 has an infinite slope
            spread = torch.where(varies, variance, 1).sqrt() * varies
            x = torch.cat([*class_token, mean.flatten(1), spread], dim=1)
        blocks.append(normalize(x) * norm)
    return torch.cat(blocks, dim=1)


class JoinedNetworks(nn.Module):
    """Networks whose last layers are one, which reads the inputs of all of them.

    `networks` are of :func:`multilayer_network`, each with its last layer's name. The
    scores are the mean of theirs. A probe counts the first block twice; the first block
    of each other network comes as two, each divided by sqrt(2), so that all networks
    have the same share and distances stay what they are.
    """

    def __init__(self, networks: Sequence[tuple[nn.Module, str]]) -> None:
        super().__init__()
        heads = []
        for network, name in networks:
            head = network.get_submodule(name)
            assert isinstance(head, BlockLinear)
            heads.append(head)
            set_submodule(network, name, nn.Identity())
        self.members = nn.ModuleList(network for network, _ in networks)
        self.first_widths = [head.block_widths[0] for head in heads]
        widths = heads[0].block_widths
        for head in heads[1:]:
            widths = widths + head.block_widths[:1] + head.block_widths
        last = BlockLinear(widths, heads[0].out_features)
        with torch.no_grad():
            weights = [head.weight / len(heads) for head in heads]
            last.weight.copy_(self._join(weights))
            last.bias.copy_(torch.stack([head.bias for head in heads]).mean(0))
        self.name = next((n for _, n in networks if n == NEW_LAST_LAYER), "last_layer")
        self.add_module(self.name, last.requires_grad_(False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores of a batch."""
        rows = self._join([network(x) for network in self.members])
        return self.get_submodule(self.name)(rows)

    def _join(self, rows: list[torch.Tensor]) -> torch.Tensor:
        """Join rows (n, d) of the networks."""
        joined = rows[:1]
        for row, width in zip(rows[1:], self.first_widths[1:], strict=True):
            first = row[:, :width] * 0.5**0.5
            joined += [first, first, row[:, width:]]
        return torch.cat(joined, dim=1)
