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
from itertools import pairwise
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
    as_one_layer,
    fold_batch_norms,
)
from .heads import (
    NEW_LAST_LAYER,
    JoinedNetworks,
    WithLastLayer,
    get_head,
    multilayer_network,
    replace_head,
    why_no_features,
    why_no_scores,
)
from .registry import Backbone, build_backbone, load_into
from .torch_state import NETWORK_LOCK, seeded_torch, torch_defaults

_WHOLE = "network.module."
"""Prefix of the names of weights of a network that is not traced."""

_MULTILAYER = "layers/"
"""Prefix of the names of networks whose last layer reads several layers."""

_JOIN = "+"
"""Between the names of networks that share such a last layer."""

_IMAGE_SIZES = (*range(16, 257, 16), 288, 299, 320, 384, 448, 512)
"""Sizes that are tried to tell which one a network takes."""

_PAPER_FROZEN_LAYERS = {"alexnet": 2, "vgg16": 7, "resnet18": 8}
"""Section 5 of the paper: weighted layers that fine-tuning leaves alone."""

_N_SUBGRAPHS = 9
"""How many subgraphs for inference a network keeps."""

_N_LOADED = 2
_LOADED: OrderedDict[tuple[Any, ...] | None, PretrainedNetwork] = OrderedDict()
"""The last networks loaded by name, by all that they depend on."""

_NOT_PICKLED = ("graph", "_subgraphs", "_on_device")


class PretrainedNetwork:
    """A network with the weights of the source task, and its traced graph.

    `example` is an input, for networks whose input is not images. `engine` runs its
    layers for inference.

    Attributes
    ----------
    name : str
    module : torch.nn.Module
        On the CPU, in eval mode and without gradients. Shared by estimators and never
        changed, not even moved to another device.
    graph : NetworkGraph
        Its nodes have the shape of their value for one image as ``meta["shape"]``.
    preprocessing : Preprocessing
    class_names : tuple of str or None
    example : torch.Tensor
        An input of the right shape.
    n_classes : int
        K, the number of source classes; 0 of a network that gives features.
    engine : Engine
    """

    _untraceable = "it is used as a whole"

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
        self._trace()
        self._find_last_layer(backbone.source_classes)
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

    def _trace(self) -> None:
        """Trace the module, or take it as one layer."""
        try:
            try:
                self.graph = NetworkGraph(self.module, self.example)
            except UntraceableError as error:
                if not any(True for _ in self.module.parameters()):
                    raise
                self._untraceable = str(error)
                self.module = as_one_layer(self.module)
                self.graph = NetworkGraph(self.module, self.example)
            shapes = _Shapes(fx.GraphModule(self.module, self.graph.graph))
            with NETWORK_LOCK, torch_defaults(), torch.no_grad():
                shapes.run(self.example)
        except Exception:
            self._check_takes_example()  # if it fails, this is why
            raise

    def _find_last_layer(self, source_classes: bool | str) -> None:
        """Give the module a last layer if it has no classifier."""
        network, layer = (self.module, self.graph), self.graph.layers[-1].name
        if layer == NEW_LAST_LAYER:
            return
        if self.is_untraced:
            why = f"nothing is known, since {self._untraceable}"
        else:
            why = "you say so" if source_classes is False else why_no_scores(*network)
        if not why:
            return
        shape, reason = self.graph.output.meta.get("shape", ()), ""
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
        self.module = WithLastLayer(self.module, shape[0]).eval()
        self._trace()

    @property
    def is_untraced(self) -> bool:
        """Whether the network is one layer, since torch.fx cannot trace it."""
        return any(isinstance(m, UntracedNetwork) for m in self.module.children())

    def __getstate__(self) -> dict[str, Any]:
        # A graph does not pickle; tracing again takes milliseconds.
        return {k: v for k, v in self.__dict__.items() if k not in _NOT_PICKLED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._trace()
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

        advice = ""
        for smaller, size in pairwise((0, *_IMAGE_SIZES)):
            if works(size):
                least = bisect_left(range(size), True, smaller + 1, key=works)
                advice = f" The least image_size that works is {least}."
                break
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

        It maps the value of the node `start` (None: the network's input) to those of
        `ends`. Where the network is on another device, a copy is moved.
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
            folded = fold_batch_norms(subgraph)
            self._subgraphs[key] = self.engine.compile(folded, device)
        return self._subgraphs[key]

    def check_source_classes(self, wanted: str) -> None:
        """Raise ValueError that `wanted` needs source classes if there are none."""
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
        return [layer.output.meta["shape"] for layer in self.graph.layers]

    def deepest_map(self, n_layers: int, n_windows: int) -> tuple[int, tuple[int, int]]:
        """Find the deepest feature map of the first layers that has enough windows.

        Returns how many layers it lies behind, 0 for the image itself, and its height
        and width.
        """
        for n in range(n_layers, 0, -1):
            shape = self.graph.cut_before(n - 1).meta["shape"]
            if len(shape) == 3 and n_distinct(*shape[1:]) >= n_windows:
                return n, (shape[1], shape[2])
        return 0, (self.example.shape[2], self.example.shape[3])


class _Shapes(fx.Interpreter):
    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            n.meta["shape"] = tuple(value.shape[1:])
            n.meta["rows"] = len(value) if value.ndim else 0
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

    For `backbone`, `weights`, `image_size` and `source_classes` see
    :class:`skadma.CNNClassifier`, for `example` and `engine`
    :class:`PretrainedNetwork`. With `reduced`, large JPEG files are decoded at a
    fraction of their size.
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
    names: list[Any] = [backbone]
    is_multilayer = isinstance(backbone, str) and backbone.startswith(_MULTILAYER)
    if isinstance(backbone, str) and is_multilayer:
        names = backbone.removeprefix(_MULTILAYER).split(_JOIN)
    if len(names) > 1 and weights not in (None, "DEFAULT"):
        raise ValueError(
            f"weights={weights!r} are of one network, and {backbone!r} has "
            f"{len(names)}: take 'DEFAULT' or None."
        )
    members: list[tuple[nn.Module, str]] = []
    for name in names:
        built = build_backbone(name, weights, image_size)
        if source_classes != "auto":
            built = replace(built, source_classes=source_classes)
        if not is_multilayer:
            return built
        network = PretrainedNetwork(built)
        module = multilayer_network(network.name, network.module, network.graph)
        if not members:
            first, n_classes = built, network.n_classes
            image_size = built.preprocessing.image_size
        own, wanted = built.preprocessing, first.preprocessing
        if (own.mean, own.std) != (wanted.mean, wanted.std):
            raise ValueError(
                f"{backbone!r}: {name!r} takes pixels of mean {own.mean} and deviation "
                f"{own.std}, and {names[0]!r} of {wanted.mean} and {wanted.std}. Join "
                "networks that take the same."
            )
        if network.n_classes != n_classes:
            raise ValueError(
                f"{backbone!r}: {name!r} has {network.n_classes} source classes, and "
                f"{names[0]!r} {n_classes}. source_classes=False joins their features."
            )
        members.append((module, network.graph.layers[-1].name))
    joined = JoinedNetworks(members) if len(members) > 1 else module
    return replace(first, name=str(backbone), module=joined, state_dict=None)


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


def count_frozen_layers(source: PretrainedNetwork, n_frozen_layers: int | str) -> int:
    """Number of frozen layers for "paper" or a number, negative from the end.

    "paper" is what Section 5 of the paper freezes. Of other networks it is 4/9 of the
    layers, the share that is frozen there of VGG-16 and ResNet-18, but not the last.
    """
    n = len(source.graph.layers)
    is_joined = isinstance(source.module, JoinedNetworks)
    if n_frozen_layers == "paper":
        usual = n if is_joined else round(4 * n / 9)
        return min(_PAPER_FROZEN_LAYERS.get(source.name, usual), n - 1)
    frozen = int(n_frozen_layers)
    if not -n <= frozen < n:
        raise ValueError(
            f"n_frozen_layers={frozen}, but {source.name} has {n} weighted layers, "
            f"of which 0 to {n - 1} can be frozen (negative: all but the last)."
        )
    if (source.is_untraced or is_joined) and frozen % n != n - 1:
        why = "joins networks" if is_joined else "cannot be traced"
        raise ValueError(
            f"n_frozen_layers={frozen}, but {source.name} {why}, so it is "
            "used as a whole: only its new last layer is trained. Take "
            "n_frozen_layers=-1, or a single network that torch.fx can trace."
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
        a, b, c, d, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
        return "\n".join(
            f"{i:>{a}}  {j:>{b}}  {name:{c}}  {shape:{d}}  {frozen}".rstrip()
            for i, j, name, shape, frozen in rows
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
