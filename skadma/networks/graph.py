"""Traced networks: their weighted layers, where to cut them, and their subgraphs.

A layer's output is read as the *input of the next layer*: a weighted layer keeps its
input for the backward pass, so no in-place operation of a network that can be trained
overwrites it.
"""

from __future__ import annotations

import copy
import difflib
import inspect
import io
import math
import operator
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torchvision.ops
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .torch_state import NETWORK_LOCK

WEIGHTED = (nn.Conv2d, nn.Linear)

_RUNNING = nn.Module.__call__, nn.Module.__getattr__
_MULTIPLICATIONS = {operator.mul, operator.imul, torch.mul, "mul", "mul_"}


@dataclass(frozen=True)
class Layer:
    """One weighted layer of the main path.

    `node` is the call of its module. `output` is the node whose value the next weighted
    layer receives; for the last layer, the network's output.
    """

    name: str
    node: fx.Node
    output: fx.Node


class UntraceableError(ValueError):
    """A network whose layers torch.fx does not find."""


class UntracedNetwork(nn.Module):
    """A network as a single layer, into which torch.fx does not look.

    For TorchScript, control flow by values, and the networks of transformers.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features of a batch."""
        features = self.module(x)
        if not isinstance(features, torch.Tensor):
            raise UntraceableError(
                f"{type(self.module).__name__} returns {type(features).__name__} "
                "instead of one tensor of features (n, d). Wrap it in a module whose "
                "forward picks one."
            )
        return features

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        if isinstance(self.module, torch.jit.ScriptModule):  # it does not pickle
            file = io.BytesIO()
            torch.jit.save(self.module, file)
            state["_modules"] = {"module": file.getvalue()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        module = state["_modules"]["module"]
        if isinstance(module, bytes):
            script = torch.jit.load(io.BytesIO(module)).train(state["training"])
            state = {**state, "_modules": {"module": script}}
        self.__dict__.update(state)


def as_one_layer(module: nn.Module) -> nn.Sequential:
    """Wrap a network so that it is traced as a single layer, called `network`."""
    return nn.Sequential(OrderedDict(network=UntracedNetwork(module))).eval()


def shape_of_image(node: fx.Node) -> tuple[int, ...]:
    """Shape of a node's value for one image; () if it has no row for each image."""
    is_of_images = node.meta.get("rows") == 1
    shape: tuple[int, ...] = node.meta["shape"] if is_of_images else ()
    return shape


class NetworkGraph:
    """The traced graph of a network that returns one tensor of scores.

    `example` is a batch that the network takes. `training` is the mode in which it is
    traced; its modules keep the modes they have. ValueError if it cannot be traced,
    does not return a single tensor, or has no weighted layer.
    """

    def __init__(
        self, network: nn.Module, example: torch.Tensor, *, training: bool = False
    ) -> None:
        try:
            with NETWORK_LOCK, in_mode(network.modules(), training=training):
                # A branch on an option that nobody gives must not be followed.
                options = inspect.signature(network.forward).parameters.values()
                plain = (bool, int, float, str, type(None))
                defaults = {
                    p.name: p.default for p in options if isinstance(p.default, plain)
                }
                self.graph = _Tracer(example).trace(network, concrete_args=defaults)
        except Exception as error:
            raise UntraceableError(
                f"{type(network).__name__} cannot be traced by torch.fx "
                f"({type(error).__name__}: {error}). Its forward must not branch on "
                "tensor values; move such code into a submodule without Conv2d or "
                "Linear layers, or mark the function with torch.fx.wrap."
            ) from error
        self.input = next(n for n in self.graph.nodes if n.op == "placeholder")
        result = next(n for n in self.graph.nodes if n.op == "output").args[0]
        if not isinstance(result, fx.Node):
            raise ValueError(
                f"{type(network).__name__} returns {type(result).__name__}; skadma "
                "needs a network that returns one tensor of class scores."
            )
        self.output = result
        self._parametric = {
            name
            for name, module in network.named_modules()
            if next(module.parameters(recurse=False), None) is not None
        }
        self.layers = self._find_layers(network)

    def _find_layers(self, network: nn.Module) -> list[Layer]:
        """Weighted layers on the path with most of them, from input to output.

        The path with most weighted layers is what the literature counts (18 in
        ResNet-18, 121 in DenseNet-121): shortcut projections lie on shorter paths.
        Among parallel paths of equal length the one with more weights is taken. Where a
        tensor is multiplied by a gate computed from itself (squeeze-excite, self-gating
        activations), the path goes through the tensor, not the gate.
        """
        needed = ancestors([self.output])
        best: dict[fx.Node, tuple[list[fx.Node], int]] = {}  # layers, their weights
        for node in self.graph.nodes:
            if node not in needed:
                continue
            inputs = node.all_input_nodes
            if node.target in _MULTIPLICATIONS and len(inputs) == 2:
                first, second = inputs
                if first in ancestors([second]):
                    inputs = [first]
                elif second in ancestors([first]):
                    inputs = [second]
            before = [best[n] for n in inputs if n in best]
            if node is not self.input and not before:
                continue  # a constant: no path from the image leads here
            path, size = max(before, key=lambda b: (len(b[0]), b[1]), default=([], 0))
            module = weighted_module(network, node)
            if module is not None:
                path, size = [*path, node], size + module.weight.numel()
            elif _calls_untraced(network, node):
                path = [*path, node]
            best[node] = path, size
        path, _ = best.get(self.output, ([], 0))
        if not path:
            raise UntraceableError(
                f"{type(network).__name__} has no Conv2d or Linear layer that its "
                "output depends on, so there is nothing to adapt."
            )
        outputs = [node.all_input_nodes[0] for node in path[1:]] + [self.output]
        return [
            Layer(str(n.target), n, out) for n, out in zip(path, outputs, strict=True)
        ]

    def position(self, address: int | str) -> int:
        """Position (from 0) of a layer given by position or by name.

        `address` is a position, negative from the end, or the name of a layer or of a
        block; a block stands for its last layer of the main path. If there is no such
        layer, the ValueError lists what there is.
        """
        n = len(self.layers)
        if isinstance(address, str):
            inside = [
                i
                for i, layer in enumerate(self.layers)
                if layer.name == address or layer.name.startswith(address + ".")
            ]
            if inside:
                return inside[-1]
            names = [layer.name for layer in self.layers]
            near = difflib.get_close_matches(address, names, n=3) or names[-4:]
            raise ValueError(
                f"There is no layer {address!r} on the main path. Did you mean one of "
                f"{near}? layers() lists all of them."
            )
        if isinstance(address, bool) or not hasattr(address, "__index__"):
            raise ValueError(
                f"A layer is addressed by int position or by name, got {address!r} of "
                f"type {type(address).__name__}."
            )
        position = operator.index(address)
        if not -n <= position < n:
            raise ValueError(
                f"Layer {position} is out of range: the network has {n} weighted "
                f"layers, {-n} to {n - 1}."
            )
        return position % n

    def modules_of_first(self, n_layers: int) -> set[str]:
        """Names of the modules and parameters that feed the first layers' output.

        The norm and the activation behind a layer belong to it, and so do shortcut
        projections that are already added in.
        """
        if n_layers == 0:
            return set()
        nodes = ancestors([self.layers[n_layers - 1].output])
        return {str(n.target) for n in nodes if n.op in ("call_module", "get_attr")}

    @cached_property
    def _cuts(self) -> list[fx.Node]:
        """Nodes past which nothing computed before them is used, in order.

        The value of such a node is read by a module with parameters, so no in-place
        operation overwrites it.
        """
        order = {node: i for i, node in enumerate(self.graph.nodes)}
        cuts, reach = [], -1
        for node in order:
            if node.op == "get_attr":
                continue  # a parameter, which both subgraphs can have
            is_kept = any(
                user.op == "call_module" and user.target in self._parametric
                for user in node.users
            )
            if reach <= order[node] and is_kept:
                cuts.append(node)
            reach = max([reach, *(order[user] for user in node.users)])
        return cuts

    def cut_before(self, position: int) -> fx.Node:
        """Find the deepest single-tensor crossing at or before a layer's output.

        Position -1 stands for the image itself.
        """
        if position < 0:
            return self.input
        inside = ancestors([self.layers[position].output])
        return next((n for n in reversed(self._cuts) if n in inside), self.input)

    def extract(
        self, network: nn.Module, ends: Sequence[fx.Node], start: fx.Node | None = None
    ) -> fx.GraphModule:
        """Build the subgraph from `start` (default: the input) to `ends`."""
        return extract_subgraph(self.graph, network, ends, start or self.input)


class _Tracer(fx.Tracer):
    """Traces down to the weighted layers; a module without any stays opaque.

    Norms, activations, pooling and their data-dependent control flow are therefore not
    traced. Where a network branches on the shape of a tensor, the branch of the example
    is followed.
    """

    def __init__(self, example: torch.Tensor) -> None:
        modules = (math, torchvision.ops)
        super().__init__(autowrap_modules=modules)  # type: ignore[arg-type]
        self.example = example

    def to_bool(self, obj: fx.Proxy) -> bool:
        assert isinstance(self.root, nn.Module)
        device = next(self.root.parameters(), self.example).device
        with torch.no_grad(), in_mode(self.root.modules()), _modules_run():
            subgraph = extract_subgraph(self.graph, self.root, [obj.node])
            (value,) = subgraph(self.example.to(device))
        if isinstance(value, bool):  # of shapes; comparing values gives a tensor
            return value
        return super().to_bool(obj)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            isinstance(m, (*WEIGHTED, UntracedNetwork))
            or not any(isinstance(child, WEIGHTED) for child in m.modules())
            or super().is_leaf_module(m, module_qualified_name)
        )


def weighted_module(network: nn.Module, node: fx.Node) -> nn.Conv2d | nn.Linear | None:
    """Return the weighted layer that a node calls, or None."""
    if node.op != "call_module":
        return None
    module = network.get_submodule(str(node.target))
    return module if isinstance(module, WEIGHTED) else None


def _calls_untraced(network: nn.Module, node: fx.Node) -> bool:
    return node.op == "call_module" and isinstance(
        network.get_submodule(str(node.target)), UntracedNetwork
    )


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


def extract_subgraph(
    graph: fx.Graph,
    network: nn.Module,
    ends: Sequence[fx.Node],
    start: fx.Node | None = None,
) -> fx.GraphModule:
    """Build the subgraph that maps `start`'s value to a tuple with one value per end.

    It has the semantics of the mode in which the graph was traced, and shares the
    modules of `network`: the traced one, or one with modules of the same names. Without
    `start` it maps the graph's input. ValueError if an end is not computed from `start`
    alone.
    """
    needed = ancestors(ends, start)
    if start is not None and any(node.op == "placeholder" for node in needed):
        raise ValueError(
            f"The outputs asked for are not all computed from {start.name!r}: one of "
            "them lies before it."
        )
    subgraph = fx.Graph()
    copies = {} if start is None else {start: subgraph.placeholder("x")}
    for node in graph.nodes:
        if node in needed:
            copies[node] = subgraph.node_copy(node, copies.__getitem__)
    subgraph.output(tuple(copies[end] for end in ends))
    return fx.GraphModule(network, subgraph)


def fold_batch_norms(subgraph: fx.GraphModule) -> fx.GraphModule:
    """Scale convolutions' weights by the batch norms that follow them, in place.

    In eval mode a batch norm is a scaling and a shift, which costs a pass over memory
    of its own; here, a fifth of a network's time. Results differ by rounding only.
    `subgraph` has eval semantics. It gets new convolutions, so the network that it was
    extracted from stays as it is. It is returned.
    """
    for node, name, norm in foldable_batch_norms(subgraph):
        conv = subgraph.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        scaling = norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, *scaling)
        folded = copy.copy(conv)
        folded._parameters = {"weight": weight, "bias": bias}
        set_submodule(subgraph, name, folded.requires_grad_(False))
        activation = getattr(norm, "act", None)
        if isinstance(activation, nn.Module):
            set_submodule(subgraph, str(node.target), activation)
        else:
            node.replace_all_uses_with(node.all_input_nodes[0])
            subgraph.graph.erase_node(node)
    subgraph.delete_all_unused_submodules()
    subgraph.recompile()
    return subgraph


def foldable_batch_norms(subgraph: fx.GraphModule) -> list[tuple[fx.Node, str, Any]]:
    """List the batch norms that can be folded into the convolution before them.

    Each as the norm's node, the convolution's name and the norm.
    """
    n_calls = Counter(n.target for n in subgraph.graph.nodes if n.op == "call_module")
    found = []
    for node in subgraph.graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if (
            not isinstance(before, fx.Node)
            or before.op != "call_module"
            or len(before.users) > 1
            or n_calls[node.target] > 1
            or n_calls[before.target] > 1
        ):
            continue
        conv = subgraph.get_submodule(str(before.target))
        norm = subgraph.get_submodule(node.target)
        if (
            isinstance(conv, nn.Conv2d)
            and isinstance(norm, nn.BatchNorm2d)
            and norm.running_mean is not None
            and norm.running_var is not None
            # timm's has an activation, and DropBlock, which eval mode leaves out.
            and type(norm).__name__ in ("BatchNorm2d", "BatchNormAct2d")
        ):
            found.append((node, str(before.target), norm))
    return found


def set_submodule(network: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in place of the one of that name."""
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


@contextmanager
def _modules_run() -> Iterator[None]:
    """Let modules run as usual while a trace, which records calls, is under way."""
    recording = nn.Module.__call__, nn.Module.__getattr__
    nn.Module.__call__, nn.Module.__getattr__ = _RUNNING  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__call__, nn.Module.__getattr__ = recording  # type: ignore[method-assign]


@contextmanager
def in_mode(modules: Iterable[nn.Module], *, training: bool = False) -> Iterator[None]:
    """Switch modules to a mode, each for itself, and back to the mode they had."""
    changed = [module for module in modules if module.training != training]
    for module in changed:
        module.training = training
    try:
        yield
    finally:
        for module in changed:
            module.training = not training
