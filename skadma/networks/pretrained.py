"""The network of the source task, M0: traced, with its weights, never trained."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from torch import fx, nn

from ..images.dataset import Preprocessing
from ..images.patches import n_distinct
from .engines import TORCH, Engine, Part
from .folding import fold_batch_norms
from .graph import ONE_AT_A_TIME, NetworkGraph
from .heads import PartsLinear, get_head
from .multilayer import LAYERED, layered_network
from .registry import Backbone, build_backbone, paper_frozen_layers
from .weights import describe_modules, fingerprint, load_into

_OF_THE_GRAPH = ("graph", "_parts", "_cut_shapes")


class PretrainedNetwork:
    """A network as it comes from the source task, and its traced graph.

    Parameters
    ----------
    backbone : Backbone
        The network as built.
    example : torch.Tensor of shape (1, ...), optional
        An input, for networks that take something else than images.
    engine : Engine, optional
        What runs its layers in a scan; torch in float32 by default.

    Attributes
    ----------
    name : str
    module : torch.nn.Module
        In eval mode and without gradients. Treated as read-only.
    graph : NetworkGraph
    preprocessing : Preprocessing
    class_names : tuple of str or None
    example : torch.Tensor
        An input of the right shape.
    n_classes : int
        K, the number of source classes.
    """

    engine = TORCH  # what a pickle from before there was another means

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
        self.example = torch.zeros(1, 3, size, size) if example is None else example
        self.module.eval()
        if any(
            isinstance(p, nn.UninitializedParameter) for p in self.module.parameters()
        ):
            with torch.no_grad():
                self.module(self.example)
        self.graph = NetworkGraph(self.module, self.example)
        self._parts: dict[tuple, Part] = {}
        head = self.graph.layers[-1].name
        if backbone.state_dict is not None:
            stored = backbone.state_dict.get(f"{head}.weight")
            if stored is not None:
                replace_head(self.module, head, stored.shape[0])
            load_into(self.module, backbone.state_dict, self.name)
        self.module.requires_grad_(False)
        self.n_classes = get_head(self.module, head).weight.shape[0]
        names = backbone.class_names
        self.class_names = names if names and len(names) == self.n_classes else None

    def __getstate__(self) -> dict:
        # A graph does not pickle; tracing again takes milliseconds.
        return {k: v for k, v in self.__dict__.items() if k not in _OF_THE_GRAPH}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.graph = NetworkGraph(self.module, self.example)
        self._parts = {}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights."""
        return fingerprint(self.module)

    @cached_property
    def space(self) -> str:
        """Name of what this network makes of images.

        It depends on weights, graph, preprocessing and engine.
        """
        modules = describe_modules(self.module)
        described = f"{self.fingerprint}{self.graph.graph}{modules}{self.preprocessing}"
        described += "reduced" * self.preprocessing.reduced + str(self.engine)
        return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()

    def part(
        self, ends: Sequence[fx.Node], start: fx.Node | None, device: torch.device
    ) -> Part:
        """Make a part of the network for inference, or fetch it from the last few.

        Parameters
        ----------
        ends, start
            See ``NetworkGraph.extract``.
        device : torch.device
        """
        key = (tuple(end.name for end in ends), start and start.name, device)
        if key not in self._parts:
            while len(self._parts) > 8:
                self._parts.pop(next(iter(self._parts)))
            part = fold_batch_norms(self.graph.extract(self.module, ends, start))
            self._parts[key] = self.engine.ready(part.to(device), device)
        return self._parts[key]

    @cached_property
    def output_shapes(self) -> list[tuple[int, ...]]:
        """Shape of each layer's output for one image."""
        return self._shapes([layer.output for layer in self.graph.layers])

    def _shapes(self, ends: Sequence[fx.Node]) -> list[tuple[int, ...]]:
        device = get_head(self.module, self.graph.layers[-1].name).weight.device
        with ONE_AT_A_TIME, torch.no_grad():
            part = self.graph.extract(self.module, ends)
            return [tuple(x.shape[1:]) for x in part(self.example.to(device))]

    def last_map(self, n_layers: int, n_windows: int) -> tuple[int, tuple[int, int]]:
        """Find the last map in the first layers that has room for so many windows.

        Parameters
        ----------
        n_layers : int
            How many layers from the start are looked at.
        n_windows : int

        Returns
        -------
        n_layers : int
            The network is to be cut behind these; 0: the image itself.
        shape : tuple of int
            H and W of the map.
        """
        for n in range(n_layers, 0, -1):
            shape = self._cut_shapes[self.graph.cut_before(n - 1)]
            if len(shape) == 3 and n_distinct(*shape[1:]) >= n_windows:
                return n, (shape[1], shape[2])
        return 0, (self.example.shape[2], self.example.shape[3])

    @cached_property
    def _cut_shapes(self) -> dict[fx.Node, tuple[int, ...]]:
        """Shape of what crosses each cut for one image."""
        graph = self.graph
        cuts = {graph.cut_before(n) for n in range(len(graph.layers))} - {graph.input}
        shapes = zip(cuts, self._shapes(list(cuts)), strict=True)
        return {graph.input: tuple(self.example.shape[1:]), **dict(shapes)}


def load_pretrained(
    backbone: str | Callable[[], nn.Module],
    weights: str | Path | None,
    image_size: int | None,
    example: torch.Tensor | None = None,
    reduced: bool = False,
    engine: Engine = TORCH,
) -> PretrainedNetwork:
    """Build M0, or fetch it from the last few that were built.

    What is random in it is the same in every call.

    Parameters
    ----------
    backbone, weights, image_size
        See :class:`skadma.CNNClassifier`.
    example : torch.Tensor, optional
        See :class:`PretrainedNetwork`.
    reduced : bool
        Whether large JPEG files are decoded at a part of their size.
    engine : Engine, optional
        See :class:`PretrainedNetwork`.
    """
    if isinstance(backbone, str):
        path = Path(weights) if weights is not None else None
        changed = path.stat().st_mtime_ns if path is not None and path.is_file() else 0
        return _load_named(backbone, weights, image_size, reduced, engine, changed)
    return _build(backbone, weights, image_size, reduced, engine, example)


def rebuild_source(
    backbone: str | Callable[[], nn.Module],
    *,
    name: str,
    state_dict: dict[str, torch.Tensor],
    preprocessing: Preprocessing,
    class_names: tuple[str, ...] | None,
    example: torch.Tensor,
    engine: Engine = TORCH,
) -> PretrainedNetwork:
    """Build M0 from weights that are at hand, without fetching its own.

    Parameters
    ----------
    backbone : str or callable
    name : str
        What the network is called.
    state_dict : dict of str to torch.Tensor
    preprocessing : Preprocessing
    class_names : tuple of str or None
    example : torch.Tensor of shape (1, ...)
        An input of the right shape.
    engine : Engine, optional
        See :class:`PretrainedNetwork`.

    Raises
    ------
    ValueError
        If the weights do not fit the backbone.
    """
    with ONE_AT_A_TIME, torch.random.fork_rng():
        torch.manual_seed(0)
        built = replace(
            _backbone(backbone, None, None),
            name=name,
            state_dict=state_dict,
            preprocessing=preprocessing,
            class_names=class_names,
        )
        return PretrainedNetwork(built, example, engine)


@lru_cache(maxsize=2)
def _load_named(
    backbone: str,
    weights: str | Path | None,
    image_size: int | None,
    reduced: bool,
    engine: Engine,
    changed: int,
) -> PretrainedNetwork:
    return _build(backbone, weights, image_size, reduced, engine, None)


def _build(
    backbone: str | Callable[[], nn.Module],
    weights: str | Path | None,
    image_size: int | None,
    reduced: bool,
    engine: Engine,
    example: torch.Tensor | None,
) -> PretrainedNetwork:
    with ONE_AT_A_TIME, torch.random.fork_rng():
        torch.manual_seed(0)
        built = _backbone(backbone, weights, image_size)
        preprocessing = replace(built.preprocessing, reduced=reduced)
        built = replace(built, preprocessing=preprocessing)
        return PretrainedNetwork(built, example, engine)


def _backbone(
    backbone: str | Callable[[], nn.Module],
    weights: str | Path | None,
    image_size: int | None,
) -> Backbone:
    """Build one; "layers/NAME" from the network of that name."""
    if not isinstance(backbone, str) or not backbone.startswith(LAYERED):
        return build_backbone(backbone, weights, image_size)
    inner = build_backbone(backbone.removeprefix(LAYERED), weights, image_size)
    module = layered_network(PretrainedNetwork(inner))
    return replace(inner, name=backbone, module=module, state_dict=None)


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
    elif isinstance(old, PartsLinear):
        head = old.resized(n_classes)
    else:
        head = nn.Linear(old.in_features, n_classes, bias=bias)
    head.train(old.training)
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, head.to(old.weight.device))


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
    return frozen % n
