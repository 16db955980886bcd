"""M0 and the adapted network over a batch; what they share runs once."""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import fx, nn
from torch.nn import functional

from ..images.patches import Window
from ..networks import AdaptedNetwork, Normalize, PretrainedNetwork
from ..networks.graph import ONE_AT_A_TIME, evaluating
from ..networks.pretrained import describe_modules, fingerprint
from .cache import Cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's settings."""

_KEPT, _MAPPED = 256 << 20, 32 << 20
"""Freed bytes that the process keeps, and from what size on blocks are given back."""

_PARTS = 64
"""Windows that go through the tail together; more leave the processor's caches."""


@dataclass(frozen=True)
class DerivedOutput:
    """Something that the networks say of an image, computed once and kept.

    Attributes
    ----------
    name : str
        Tells it from all other summaries, beside the networks.
    compute : callable
        Makes a tensor (b, m) of the adapted network's layer outputs (b, d), by
        position, and M0's.
    layers : tuple of int
        Those of the adapted network that nothing else needs. Empty if M0 alone says it.
    """

    name: str
    compute: Callable[[dict[int, torch.Tensor], dict[int, torch.Tensor]], torch.Tensor]
    layers: tuple[int, ...] = ()


def derived_outputs(layers: Sequence[int]) -> DerivedOutput:
    """The outputs of some of M0's layers, side by side."""
    return DerivedOutput(
        f"outputs-{list(layers)}",
        lambda _, outputs: torch.cat([outputs[p] for p in layers], dim=1),
    )


class FeatureExtractor:
    """Runs M0 and the adapted network over batches; what they share runs once.

    Both networks begin with the same frozen layers. These run up to the deepest
    point where a single tensor crosses, the *cut*; then each network's own tail goes
    on. What crosses the cut is looked up in a cache first, and so is what M0 says: the
    summary, and its layers' outputs where these are vectors.

    Parameters
    ----------
    source : PretrainedNetwork
    adapted : AdaptedNetwork or None
        None before the first fit.
    layers : sequence of int
        Positions of the adapted network's layers whose outputs are wanted; M0's
        before the first fit.
    source_layers : sequence of int
        The same of M0.
    n_frozen : int
        How many layers both networks share, or will share once one is fitted.
    device : torch.device
    cache : Cache or None
    start : int, optional
        Batches are not images but outputs of this layer of M0.
    summary : DerivedOutput, optional
        Made of the outputs of `layers` and `source_layers`.
    """

    def __init__(
        self,
        source: PretrainedNetwork,
        adapted: AdaptedNetwork | None,
        layers: Sequence[int],
        source_layers: Sequence[int],
        *,
        n_frozen: int,
        device: torch.device,
        cache: Cache | None = None,
        start: int | None = None,
        summary: DerivedOutput | None = None,
    ) -> None:
        graph = source.graph
        self.device = device
        _keep_freed()
        self.positions = list(layers), list(source_layers)
        self.summary = summary
        self.normalize = Normalize(source.preprocessing).to(device)
        if adapted is not None:
            tensors = [*adapted.parameters(), *adapted.buffers()]
            if any(tensor.device != device for tensor in tensors):
                adapted.to(device)
        # The pretrained network is shared, and always in eval mode.
        self._modules = [] if adapted is None else list(adapted.modules())
        cut = graph.input if start is None else graph.layers[start].output
        if start is None:
            cut = graph.cut_before(min([n_frozen - 1, *layers, *source_layers]))
        self._prefix = None
        if cut is not graph.input and start is None:
            self._prefix = source.inference_subgraph([cut], None, device)
        ends, source_ends = (
            [graph.layers[p].output for p in positions] for positions in self.positions
        )
        self._tails = [
            source.inference_subgraph(ends, cut, device)
            if adapted is None
            else adapted.inference_subgraph(graph, ends, cut),
            source.inference_subgraph(source_ends, cut, device),
        ]
        self._enlarges = False
        # Vectors are small enough to be kept, maps are not.
        self._vectors = [p for p in source_layers if len(source.output_shapes[p]) == 1]
        kept = [] if summary is None or summary.layers else [summary]
        of_m0 = bool(kept)
        kept += [derived_outputs([p]) for p in self._vectors]
        space = f"{source.namespace}-{device.type}"
        self.summaries = {f"{space}-{one.name}": one for one in kept}
        self.summary_key = None if summary is None else f"{space}-{summary.name}"
        # The part of them that makes M0's tail needless.
        self.required_keys = (
            [self.summary_key] if of_m0 and self.summary_key else list(self.summaries)
        )
        if not of_m0 and len(self._vectors) < len(source_layers):
            self.required_keys = []
        self.cache = cache
        self.space = f"{space}-{cut.name}"
        used_up = () if summary is None else summary.layers
        self.cached_layers = [p for p in layers if p not in used_up]
        # Again vectors only, and where M0's outputs are wanted, those that are kept.
        self._is_cached = (
            cache is not None
            and adapted is not None
            and all(len(source.output_shapes[p]) == 1 for p in self.cached_layers)
            and bool(layers)
            and (not source_layers or summary is not None or bool(self.required_keys))
        )

    @cached_property
    def adapted_name(self) -> str | None:
        """Name of all that the adapted network's outputs depend on beside the images.

        None where they are not to be kept for a network that is equal to the bit.
        """
        if not self._is_cached:
            return None
        tail = self._tails[0]
        assert isinstance(tail, fx.GraphModule)  # an engine runs M0 alone
        # The number of threads may change how sums are rounded.
        parts = self.space, self.summary_key, self.positions, torch.get_num_threads()
        modules = describe_modules(tail)
        described = f"{parts}{tail.graph}{modules}{fingerprint(tail)}"
        return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()

    @property
    def has_prefix(self) -> bool:
        """Whether anything runs before the cut."""
        return self._prefix is not None

    def vectors(self, known: list[torch.Tensor]) -> dict[int, torch.Tensor]:
        """M0's outputs that are known, by position."""
        return dict(zip(self._vectors, known, strict=bool(known)))

    @torch.inference_mode()
    def frozen_outputs(
        self, images: torch.Tensor, rows: int | None = None
    ) -> torch.Tensor:
        """What crosses the cut, for a batch of images.

        Parameters
        ----------
        images : torch.Tensor
        rows : int, optional
            Run so many at a time; all if None.
        """
        images = to_device(images, self.device)
        if self._prefix is None:
            return images
        with ONE_AT_A_TIME, evaluating(self._modules):
            (x,) = _run(self._prefix, self.normalize(images), rows)
        return x

    @torch.inference_mode()
    def __call__(
        self,
        x: torch.Tensor,
        known: list[torch.Tensor] | None = None,
        rows: int | None = None,
        n_tail: int | None = None,
    ) -> tuple[
        dict[int, torch.Tensor], dict[int, torch.Tensor], dict[str, torch.Tensor]
    ]:
        """Outputs of the adapted network's layers and of M0's, and M0's summaries.

        Parameters
        ----------
        x : torch.Tensor
            What crosses the cut.
        known : list of torch.Tensor, optional
            What `enough` names, where it is known already.
        rows : int, optional
            Run M0 on so many at a time; on all if None.
        n_tail : int, optional
            Run the adapted network on up to so many at a time; on all if None.
        """
        if self._prefix is None:
            x = self.normalize(x)
        with ONE_AT_A_TIME, evaluating(self._modules):
            adapted = self._outputs(0, x, n_tail, fill=False)
            if known is not None and self.required_keys == [self.summary_key]:
                return adapted, {}, {self.required_keys[0]: known[0]}
            if known is not None:
                source, new = self.vectors(known), {}
            else:
                source, new = self._outputs(1, x, rows), self.summaries
        computed = {s: one.compute(adapted, source) for s, one in new.items()}
        if self.summary and self.summary.layers and self.summary_key:
            computed[self.summary_key] = self.summary.compute(adapted, source)
        return adapted, source, computed

    @torch.inference_mode()
    def outputs_of_windows(
        self, maps: torch.Tensor, windows: Sequence[Window]
    ) -> torch.Tensor:
        """Outputs of the adapted network's layer for parts of what crosses the cut.

        Windows of one shape go through the tail together. A network that takes maps of
        one size only gets the windows enlarged to it.

        Parameters
        ----------
        maps : torch.Tensor of shape (b, channels, H, W)
        windows : sequence of Window

        Returns
        -------
        torch.Tensor of shape (b, n_windows, d)
        """
        if self._prefix is None:
            maps = self.normalize(maps)
        shapes: dict[tuple[int, int], list[int]] = {}
        for i, window in enumerate(windows):
            shapes.setdefault((window.height, window.width), []).append(i)
        found: list[torch.Tensor] = [maps] * len(windows)
        full = maps.shape[-2:]
        with ONE_AT_A_TIME, evaluating(self._modules):
            for of_shape in shapes.values():
                parts = torch.cat([windows[i].cut(maps) for i in of_shape])
                some = parts.split(_PARTS)
                scores = torch.cat([self._tail_of_part(x, full) for x in some])
                for i, rows in zip(of_shape, scores.split(len(maps)), strict=True):
                    found[i] = rows
        return torch.stack(found, dim=1)

    def _tail_of_part(self, parts: torch.Tensor, full: torch.Size) -> torch.Tensor:
        if not self._enlarges:
            try:
                return self._outputs(0, parts, None)[self.positions[0][0]]
            except (RuntimeError, AssertionError):  # layers of a fixed number of inputs
                self._enlarges = True
        parts = functional.interpolate(parts, full, mode="bilinear")
        return self._outputs(0, parts, None)[self.positions[0][0]]

    def _outputs(
        self, network: int, x: torch.Tensor, rows: int | None, fill: bool = True
    ) -> dict[int, torch.Tensor]:
        positions = self.positions[network]
        if not positions:
            return {}
        outputs = _run(self._tails[network], x, rows, fill)
        return {p: o.flatten(1) for p, o in zip(positions, outputs, strict=True)}


def _run(
    part: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    x: torch.Tensor,
    rows: int | None,
    fill: bool = True,
) -> Sequence[torch.Tensor]:
    """Run a part of a network, on a CPU on so many rows at a time.

    Where there are fewer, the last is repeated to `fill` the number.

    The kernels that a matrix product or a convolution takes there, and so its rounding,
    depend on the number of rows. With the same number always, a row has been found to
    come out the same in any batch (tests/test_cache.py).
    """
    # Other engines than torch lay batches out themselves.
    laid_out = _channels_last if isinstance(part, nn.Module) else nn.Identity()
    if rows is None or x.device.type != "cpu" or (not fill and len(x) <= rows):
        return part(laid_out(x))
    found = []
    for some in x.split(rows):
        missing = rows - len(some)
        if fill and missing:
            some = torch.cat([some, some[-1:].expand(missing, *some.shape[1:])])
        found.append(part(laid_out(some)))
    return [torch.cat(outputs)[: len(x)] for outputs in zip(*found, strict=True)]


@lru_cache
def _keep_freed() -> None:
    """Have glibc keep some of what is freed, for the next layer's output.

    Of itself it may give large blocks back after each layer and get them anew page by
    page, which was a third of a scan. Not where the user has set it.
    """
    if sys.platform == "linux" and not any(k.startswith("MALLOC_") for k in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other libraries lack it
        if mallopt is not None:
            mallopt(_M_TRIM_THRESHOLD, _KEPT)
            mallopt(_M_MMAP_THRESHOLD, _MAPPED)


def _channels_last(batch: torch.Tensor) -> torch.Tensor:
    """Lay a batch of maps out as convolutions are fastest, here by 1.2 to 1.8 times.

    Not in training: there, torch 2.15 crashed in the backward pass of a convolution of
    three images in this layout on an AMD EPYC.
    """
    if batch.ndim != 4:
        return batch
    return batch.contiguous(memory_format=torch.channels_last)


def to_device(batch: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Bring a batch to a device; to CUDA without waiting for it."""
    if device.type == "cuda":
        return batch.pin_memory().to(device, non_blocking=True)
    return batch.to(device)
