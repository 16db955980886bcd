"""The pretrained network: traced, with its weights, never trained; its layer table."""

from __future__ import annotations

import copy
import hashlib
import inspect
import io
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from ..images.dataset import Preprocessing
from ..images.patches import n_distinct
from .engines import TORCH, Engine, Subgraph
from .graph import (
    NetworkGraph,
    UntraceableError,
    UntracedNetwork,
    fold_batch_norms,
)
from .heads import (
    NEW_LAST_LAYER,
    WithLastLayer,
    get_head,
    multilayer_network,
    replace_head,
    why_no_features,
    why_no_scores,
)
from .registry import (
    Backbone,
    build_backbone,
    load_into,
)
from .torch_state import NETWORK_LOCK, seeded_torch, torch_defaults

_WHOLE = "network.module."
"""Prefix of the names of weights of a network that is not traced."""

_MULTILAYER = "layers/"
"""Prefix of the names of networks whose last layer reads several layers."""

_IMAGE_SIZES = (*range(16, 257, 16), 288, 299, 320, 384, 448, 512)
"""Sizes that are tried to tell which one a network takes."""

_PAPER_FROZEN_LAYERS = {"alexnet": 2, "vgg16": 7, "resnet18": 8}
"""Section 5 of the paper: weighted layers that fine-tuning leaves alone."""

_N_SUBGRAPHS = 9
"""How many subgraphs for inference a network keeps."""

_N_LOADED = 2
_LOADED: OrderedDict[tuple[Any, ...] | None, PretrainedNetwork] = OrderedDict()
"""The last networks loaded by name, by all that they depend on."""

_NOT_PICKLED = ("graph", "_subgraphs", "_on_device", "_shapes", "_folded")


class PretrainedNetwork:
    """A network with the weights of the source task, and its traced graph.

    Parameters
    ----------
    backbone : Backbone
        The network as built.
    example : torch.Tensor of shape (1, ...), optional
        An input, for networks whose input is not images.
    engine : Engine, optional
        Runs its layers for inference; torch in float32 by default.

    Attributes
    ----------
    name : str
    module : torch.nn.Module
        On the CPU, in eval mode and without gradients. Shared by estimators and never
        changed, not even moved to another device.
    graph : NetworkGraph
    preprocessing : Preprocessing
    class_names : tuple of str or None
    example : torch.Tensor
        An input of the right shape.
    n_classes : int
        K, the number of source classes; 0 of a network that gives features.
    engine : Engine
    """

    def __init__(
        self,
        backbone: Backbone,
        example: torch.Tensor | None = None,
        engine: Engine = TORCH,
    ) -> None:
        self.engine = engine
        self.name = backbone.name
        self.module = backbone.module
        self.preprocessing: Preprocessing = backbone.preprocessing
        size = self.preprocessing.image_size
        example = torch.zeros(1, 3, size, size) if example is None else example
        self.example = example.cpu()
        try:  # it may be built on a GPU, and is pickled for machines without one
            self.module.to("cpu").eval()
        except NotImplementedError as error:
            raise ValueError(
                f"{self.name} is on the meta device and has no weights: build it on "
                "the CPU."
            ) from error
        parameters = self.module.parameters()
        if any(isinstance(p, nn.UninitializedParameter) for p in parameters):
            self._check_takes_example()
        self._trace(backbone.source_classes)
        self._subgraphs: dict[tuple[Any, ...], Subgraph] = {}
        self._on_device: dict[torch.device, nn.Module] = {}
        head = self.graph.layers[-1].name
        if (state_dict := backbone.state_dict) is not None:
            if head == NEW_LAST_LAYER:
                own = self.module.state_dict()
                own = {k: v for k, v in own.items() if k.startswith(f"{head}.")}
                if self.is_untraced and f"{head}.weight" not in state_dict:
                    state_dict = {f"{_WHOLE}{k}": v for k, v in state_dict.items()}
                state_dict = own | state_dict
            elif f"{head}.weight" in state_dict:
                n_classes = state_dict[f"{head}.weight"].shape[0]
                replace_head(self.module, head, n_classes)
            load_into(self.module, state_dict, self.name)
        self.module.requires_grad_(False)
        self.n_classes: int = get_head(self.module, head).weight.shape[0]
        if head == NEW_LAST_LAYER:
            self.n_classes = 0
        names = backbone.class_names
        self.class_names = names if names and len(names) == self.n_classes else None

    def _trace(self, source_classes: bool | str) -> None:
        """Trace the module; give it a last layer if it has no classifier."""
        untraceable = ""
        try:
            try:
                if isinstance(self.module, UntracedNetwork):
                    raise UntraceableError(f"{self.name} is used as a whole")
                self.graph = NetworkGraph(self.module, self.example)
            except UntraceableError as error:
                if not any(True for _ in self.module.parameters()):
                    raise
                untraceable = f"nothing is known, since {error}"
                whole: OrderedDict[str, nn.Module] = OrderedDict(
                    network=self.module
                    if isinstance(self.module, UntracedNetwork)
                    else UntracedNetwork(self.module)
                )
                self.module = nn.Sequential(whole).eval()
                self.graph = NetworkGraph(self.module, self.example)
            shapes = self._find_shapes()
        except Exception:
            self._check_takes_example()  # if it fails, this is why
            raise
        network = self.module, self.graph, shapes
        if self.graph.layers[-1].name == NEW_LAST_LAYER:
            return
        why = untraceable or (
            "you say so" if source_classes is False else why_no_scores(*network)
        )
        if not why:
            return
        layer, shape = self.graph.layers[-1].name, shapes.get(self.graph.output, ())
        reason = ""
        if source_classes is True:
            reason = "source_classes=True"
        elif not shape or max(shape[1:], default=1) > 1:
            reason = f"its output for one image has the shape {shape} instead of (d,)"
        elif source_classes == "auto":
            with NETWORK_LOCK, torch_defaults():
                reason = why_no_features(*network, self.example)
        if reason:
            raise ValueError(
                f"{self.name} does not return class scores: behind its last weighted "
                f"layer, {layer!r} ({self.module.get_submodule(layer)}), {why}. Nor is "
                f"its output taken for features: {reason}. Give the network with its "
                "classifier, whose last layer skadma replaces, so that only pooling, "
                "flattening and dropout may follow it, or without it and with pooled "
                "outputs (n, d). source_classes=False takes any (n, d) for features."
            )
        self.module = WithLastLayer(self.module, shape[0])
        self.module.eval()
        self.graph = NetworkGraph(self.module, self.example)
        self._find_shapes()

    @property
    def is_untraced(self) -> bool:
        """Whether the network is one layer, since torch.fx cannot trace it."""
        return any(isinstance(m, UntracedNetwork) for m in self.module.children())

    def __getstate__(self) -> dict[str, Any]:
        # A graph does not pickle; tracing again takes milliseconds.
        return {k: v for k, v in self.__dict__.items() if k not in _NOT_PICKLED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.graph = NetworkGraph(self.module, self.example)
        self._find_shapes()
        self._subgraphs, self._on_device = {}, {}

    def _failure(self, example: torch.Tensor) -> Exception | None:
        # A traced network writes an error's place in its code.
        quiet = redirect_stderr(io.StringIO())
        with NETWORK_LOCK, torch_defaults(), torch.no_grad(), quiet:
            try:
                self.module(example)
            except Exception as error:  # of any type, the network may be anyone's
                return error
        return None

    def _check_takes_example(self) -> None:
        """Raise a ValueError that names a size that works, unless the example does."""
        error = self._failure(self.example)
        if error is None:
            return
        if isinstance(error, UntraceableError):  # it is about the output
            raise error
        cause = f"{type(error).__name__}: {error}"
        if self.example.ndim != 4:
            raise ValueError(
                f"{self.name} fails on a row of {self.example.shape[-1]} numbers "
                f"({cause})."
            ) from error

        def works(size: int) -> bool:
            return self._failure(torch.zeros(1, 3, size, size, device="cpu")) is None

        largest = next((size for size in _IMAGE_SIZES if works(size)), None)
        advice = ""
        if largest is not None:
            smaller = [0, *(size for size in _IMAGE_SIZES if size < largest)]
            least = bisect_left(range(largest), True, smaller[-1] + 1, key=works)
            advice = f" The least image_size that works is {least}."
        raise ValueError(
            f"{self.name} does not take images of image_size={self.example.shape[-1]} "
            f"({cause}).{advice}"
        ) from error

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights."""
        return fingerprint(self.module)

    @cached_property
    def namespace(self) -> str:
        """Hash of all that this network's outputs depend on beside the images.

        These are weights, graph, modules, preprocessing and engine. Cache entries are
        separate for each.
        """
        modules = describe_modules(self.module)
        described = f"{self.fingerprint}{self.graph.graph}{modules}{self.preprocessing}"
        described += "reduced" * self.preprocessing.reduced + f"{self.engine}"
        if self.preprocessing.value_range is not None:
            described += f"{self.preprocessing.value_range}"
        return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()

    def with_value_range(
        self, value_range: tuple[float, float] | None
    ) -> PretrainedNetwork:
        """Return the same network for images of another range of values."""
        if value_range == self.preprocessing.value_range:
            return self
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.__dict__.pop("namespace", None)
        other.preprocessing = replace(self.preprocessing, value_range=value_range)
        return other

    def inference_subgraph(
        self, ends: Sequence[fx.Node], start: fx.Node | None, device: torch.device
    ) -> Subgraph:
        """Make a subgraph for inference, or fetch it from the last few.

        Parameters
        ----------
        ends : sequence of torch.fx.Node
            Nodes of ``graph`` whose values it returns.
        start : torch.fx.Node or None
            The node whose value it gets; None for the network's input.
        device : torch.device
            The device that it runs on. Where the network is on another one, a copy is
            moved.

        Returns
        -------
        callable
            Maps a batch to a sequence with one tensor per end.
        """
        key = (tuple(end.name for end in ends), start and start.name, device)
        if key not in self._subgraphs:
            while len(self._subgraphs) >= _N_SUBGRAPHS:
                self._subgraphs.pop(next(iter(self._subgraphs)))
            if device not in self._on_device:
                tensors = self.module.state_dict().values()
                is_there = all(tensor.device == device for tensor in tensors)
                self._on_device[device] = (
                    self.module if is_there else copy.deepcopy(self.module).to(device)
                )
            subgraph = self.graph.extract(self._on_device[device], ends, start)
            subgraph = fold_batch_norms(subgraph)
            self._subgraphs[key] = (
                subgraph
                if self.engine == TORCH
                else self.engine.compile(subgraph, device)
            )
        return self._subgraphs[key]

    def _find_shapes(self) -> dict[fx.Node, tuple[int, ...]]:
        """Note the shape of each node's value for one image."""
        shapes = _Shapes(fx.GraphModule(self.module, self.graph.graph))
        with NETWORK_LOCK, torch_defaults(), torch.no_grad():
            shapes.run(self.example)
        self._shapes, self._folded = shapes.found, shapes.folded
        return shapes.found

    @property
    def image_shapes(self) -> dict[fx.Node, tuple[int, ...]]:
        """Shapes for one image of the tensors whose first dimension is the batch's."""
        return {n: s for n, s in self._shapes.items() if n not in self._folded}

    def check_source_classes(self, wanted: str) -> None:
        """Raise ValueError where something needs source classes and there are none.

        Parameters
        ----------
        wanted : str
            What needs them, for the message.
        """
        if not self.n_classes:
            raise ValueError(
                f"{self.name} gives features and has no scores of source classes, as "
                f"{wanted} needs. What works without: ADMA(weights='distance') with "
                "centres by SourceCenters.from_examples or from_dataset, and every "
                "strategy that chooses by features or probabilities."
            )

    @cached_property
    def output_shapes(self) -> list[tuple[int, ...]]:
        """Shape of each layer's output for one image."""
        return [self._shapes[layer.output] for layer in self.graph.layers]

    def deepest_map(self, n_layers: int, n_windows: int) -> tuple[int, tuple[int, int]]:
        """Find the deepest feature map of the first layers that has enough windows.

        Parameters
        ----------
        n_layers : int
            How many layers from the start are considered.
        n_windows : int
            How many distinct windows the map must have.

        Returns
        -------
        n_layers : int
            The network is to be cut behind these; 0: the image itself.
        shape : tuple of int
            H and W of the map.
        """
        for n in range(n_layers, 0, -1):
            shape = self._shapes[self.graph.cut_before(n - 1)]
            if len(shape) == 3 and n_distinct(*shape[1:]) >= n_windows:
                return n, (shape[1], shape[2])
        return 0, (self.example.shape[2], self.example.shape[3])


class _Shapes(fx.Interpreter):
    """Run a traced network and note the shape of each tensor for one image."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.found: dict[fx.Node, tuple[int, ...]] = {}
        self.folded: set[fx.Node] = set()
        """Tensors with more rows than images, such as windows."""

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.found[n] = tuple(value.shape[1:])
            if value.ndim and len(value) != 1:
                self.folded.add(n)
        return value


# --- loading --------------------------------------------------------------------------


def load_pretrained(
    backbone: str | Callable[[], nn.Module],
    weights: str | Path | None,
    image_size: int | None,
    example: torch.Tensor | None = None,
    reduced: bool = False,
    engine: Engine = TORCH,
    source_classes: bool | str = "auto",
) -> PretrainedNetwork:
    """Build a pretrained network, or fetch it from the last few that were built.

    Random weights are the same in every call.

    Parameters
    ----------
    backbone, weights, image_size, source_classes
        See :class:`skadma.CNNClassifier`.
    example : torch.Tensor, optional
        See :class:`PretrainedNetwork`.
    reduced : bool
        Whether large JPEG files are decoded at a fraction of their size.
    engine : Engine, optional
        See :class:`PretrainedNetwork`.
    """
    key: tuple[Any, ...] | None = None
    if isinstance(backbone, str):
        path = None if weights is None else Path(weights)
        changed = path.stat().st_mtime_ns if path and path.is_file() else 0
        key = (backbone, weights, image_size, reduced, engine, changed, source_classes)
    with suppress(KeyError):  # not under the lock: others build their networks
        _LOADED.move_to_end(key)
        return _LOADED[key]
    with torch_defaults(training=True), seeded_torch(0):
        if key in _LOADED:
            return _LOADED[key]
        built = _build(backbone, weights, image_size, source_classes)
        preprocessing = replace(built.preprocessing, reduced=reduced)
        built = replace(built, preprocessing=preprocessing)
        network = PretrainedNetwork(built, example, engine)
        if key is not None:
            _LOADED[key] = network
            if len(_LOADED) > _N_LOADED:
                _LOADED.popitem(last=False)
        return network


def _build(
    backbone: str | Callable[[], nn.Module],
    weights: str | Path | None,
    image_size: int | None,
    source_classes: bool | str,
) -> Backbone:
    is_multilayer = isinstance(backbone, str) and backbone.startswith(_MULTILAYER)
    inner = backbone.removeprefix(_MULTILAYER) if is_multilayer else backbone  # type: ignore[union-attr]
    built = build_backbone(inner, weights, image_size)
    if source_classes != "auto":
        built = replace(built, source_classes=source_classes)
    if not is_multilayer:
        return built
    network = PretrainedNetwork(built)
    module = multilayer_network(
        network.name, network.module, network.graph, network.image_shapes
    )
    return replace(built, name=str(backbone), module=module, state_dict=None)


def rebuild_pretrained(
    backbone: str | Callable[[], nn.Module],
    *,
    name: str,
    state_dict: dict[str, torch.Tensor],
    preprocessing: Preprocessing,
    class_names: tuple[str, ...] | None,
    example: torch.Tensor,
    engine: Engine = TORCH,
) -> PretrainedNetwork:
    """Build a pretrained network from weights at hand, without fetching its own.

    ValueError if they do not fit the backbone.
    """
    with torch_defaults(training=True), seeded_torch(0):
        has_classes = f"{NEW_LAST_LAYER}.weight" not in state_dict
        built = _build(backbone, None, preprocessing.image_size, has_classes)
        built = replace(
            built,
            name=name,
            state_dict=state_dict,
            preprocessing=preprocessing,
            class_names=class_names,
        )
        return PretrainedNetwork(built, example, engine)


# --- identity -------------------------------------------------------------------------


def fingerprint(module: nn.Module) -> str:
    """Hash a network's weights: equal for equal weights, 16 hex digits."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def describe_modules(network: nn.Module) -> str:
    """Describe a network's modules and their settings as text.

    A trace has the modules' names only; of two networks with the same names and weights
    one may have ReLUs where the other has another activation.
    """
    plain = (bool, int, float, str, tuple, type(None))
    every_module_has = vars(nn.Module())
    lines = []
    modules = list(network.named_modules())
    if isinstance(network, WithLastLayer):
        modules.append(("", network._network))
    for name, module in modules:
        settings = []
        if isinstance(module, torch.jit.ScriptModule):
            settings.append(("code", module.code))
        for key, value in vars(module).items():
            if key in every_module_has or isinstance(value, nn.Module):
                continue
            if isinstance(value, plain):
                settings.append((key, repr(value)))
            elif callable(value):
                settings.append((key, _describe_code(value)))
        lines.append(f"{name}: {_describe_code(type(module))} {sorted(settings)}")
    return "\n".join(lines)


def _describe_code(code: Any) -> str:
    """Name of a class or function, with its source unless a library defines it."""
    name = f"{getattr(code, '__module__', '')}.{getattr(code, '__qualname__', code)}"
    if name.startswith(("torch.", "torchvision.", "timm.", "transformers.")):
        return name
    try:
        return f"{name} {inspect.getsource(code)}"
    except (OSError, TypeError):  # typed in at a prompt, or written in C
        return name


def paper_frozen_layers(name: str, n_layers: int) -> int:
    """Return how many layers ``n_frozen_layers="paper"`` freezes.

    2, 7 and 8 for AlexNet, VGG-16 and ResNet-18, as in the paper's Section 5. For
    every other network 4/9 of its weighted layers, rounded: the share that the
    paper freezes of VGG-16 and ResNet-18. At least the last layer stays free.

    Parameters
    ----------
    name : str
        The backbone's name.
    n_layers : int
        How many weighted layers it has.
    """
    return min(_PAPER_FROZEN_LAYERS.get(name, round(4 * n_layers / 9)), n_layers - 1)


def count_frozen_layers(source: PretrainedNetwork, n_frozen_layers: int | str) -> int:
    """Number of frozen layers for "paper" or a number, negative from the end."""
    n = len(source.graph.layers)
    if n_frozen_layers == "paper":
        return paper_frozen_layers(source.name, n)
    frozen = int(n_frozen_layers)
    if not -n <= frozen < n:
        raise ValueError(
            f"n_frozen_layers={frozen}, but {source.name} has {n} weighted layers, "
            f"of which 0 to {n - 1} can be frozen (negative: all but the last)."
        )
    if source.is_untraced and frozen % n == 0:
        raise ValueError(
            f"n_frozen_layers={frozen}, but {source.name} cannot be traced, so it is "
            "used as a whole: only its new last layer is trained. Take "
            "n_frozen_layers=-1, or a network that torch.fx can trace."
        )
    return frozen % n


# --- the layer table ------------------------------------------------------------------


class LayerRow(NamedTuple):
    """One weighted layer.

    `position` counts from 0 on the main path, `name` is the module's, `output_shape` is
    that of what the next weighted layer receives, for one image, and fine-tuning leaves
    it as it is if it is `frozen`.
    """

    position: int
    name: str
    output_shape: tuple[int, ...]
    frozen: bool


class LayerTable(list[LayerRow]):
    """List of :class:`LayerRow`; ``print`` shows it as a table."""

    def __repr__(self) -> str:
        rows = [("position", "", "name", "output shape", "")]
        for row in self:
            shape = " x ".join(map(str, row.output_shape))
            position = str(row.position), str(row.position - len(self))
            rows.append((*position, row.name, shape, "frozen" if row.frozen else ""))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join(
                cell.rjust(width) if i < 2 else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        )

    __str__ = __repr__


def layer_table(source: PretrainedNetwork, n_frozen: int, n_classes: int) -> LayerTable:
    """Build the table of a network with `n_frozen` frozen layers and a new last one."""
    shapes = source.output_shapes[:-1] + [(n_classes,)]
    return LayerTable(
        LayerRow(i, layer.name, shape, i < n_frozen)
        for i, (layer, shape) in enumerate(
            zip(source.graph.layers, shapes, strict=True)
        )
    )
