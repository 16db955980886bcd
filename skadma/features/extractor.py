"""Layer outputs of the pretrained and the adapted network, batch by batch."""

from __future__ import annotations

import copy
import ctypes
import math
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .._utils.processes import progress_bar
from ..images.dataset import ImageDataset, Rows
from ..images.decoding import UnreadableImageError
from ..images.patches import Window
from ..networks import PretrainedNetwork
from ..networks.adapted import AdaptedNetwork, Normalize
from ..networks.graph import in_mode
from ..networks.torch_state import NETWORK_LOCK, torch_defaults
from .cache import Cache

_BATCHES_BEHIND_CUT = 4
"""Batches that pass through the layers behind the cut together: maps are smaller."""

_DERIVED_ROWS = 128
"""Images for which derived outputs are computed at once, in larger matrix products."""

_ROWS = 16
"""Cached rows are computed for this many images at a time, see `_run`."""

_MIN_CACHED = 8
"""Below this number of images batches are not padded and nothing is cached."""

NONE_READABLE = "None of the labelled images can be decoded."

_PATCHES = 64
"""Patches that pass through the network together; more leave the processor's caches."""


@dataclass(frozen=True)
class DerivedOutput:
    """A row per image that is computed from layer outputs.

    `compute` makes a tensor (b, m) of the outputs (b, d) of the adapted network's
    layers and of the pretrained network's, each a dict by position. With `of_source`
    the row depends on the pretrained network alone, and is cached; `name` tells it from
    all other derived outputs.
    """

    name: str
    compute: Callable[[dict[int, torch.Tensor], dict[int, torch.Tensor]], torch.Tensor]
    of_source: bool = True


def concatenated_outputs(layers: Sequence[int]) -> DerivedOutput:
    """Derive the outputs of some of the pretrained network's layers, side by side."""
    return DerivedOutput(
        f"outputs-{list(layers)}",
        lambda _, outputs: torch.cat([outputs[p] for p in layers], dim=1),
    )


@dataclass(frozen=True)
class OutputBatch:
    """Layer outputs for one batch of images.

    `indices` (b,) are the images' positions in X, without those that cannot be decoded.
    `adapted` and `source` are flattened outputs (b, d) of the two networks' layers, by
    position. `derived` is (b, m) if one was asked for; `source` is empty where that was
    in the cache.
    """

    indices: np.ndarray
    adapted: dict[int, torch.Tensor]
    source: dict[int, torch.Tensor]
    derived: torch.Tensor | None


@dataclass
class _Item:
    """An image of a batch, with the rows that the cache has of it."""

    index: int
    key: str = ""
    image: torch.Tensor | None = None
    cut_row: np.ndarray | None = None
    source_rows: list[np.ndarray] = field(default_factory=list)
    error: str = ""


class FeatureExtractor:
    """Run batches through both networks and yield layer outputs.

    Both networks begin with the same `n_frozen` layers. These run once, up to the
    *cut*: the deepest point that a single tensor crosses. The layers behind it run for
    each network. The cache is looked up first, for what crosses the cut and for what
    depends on the pretrained network alone: its vector outputs and derived outputs.

    `layers` are wanted of the adapted network, in whose place the pretrained one is
    before the first fit, and `source_layers` of the pretrained one. `derived` is
    computed from the outputs of both.

    An image that cannot be decoded raises UnreadableImageError; with `skip_unreadable`
    it is left out, with one warning at the end of a pass. In the methods, `progress`
    is the label of a progress bar.
    """

    @torch_defaults()
    def __init__(
        self,
        source: PretrainedNetwork,
        adapted: AdaptedNetwork | None,
        layers: Sequence[int],
        source_layers: Sequence[int],
        *,
        n_frozen: int,
        device: torch.device,
        batch_size: int,
        skip_unreadable: bool = False,
        cache: Cache | None = None,
        derived: DerivedOutput | None = None,
    ) -> None:
        _keep_freed_memory()
        self.batch_size = batch_size
        self.skip_unreadable = skip_unreadable
        self.device = device
        self.cache = cache
        self.layers, self.source_layers = list(layers), list(source_layers)
        self.derived = derived
        self._normalize = Normalize(source.preprocessing).to(device)
        graph = source.graph
        cut = graph.cut_before(min([n_frozen - 1, *layers, *source_layers]))
        self._frozen, self._n_behind_cut = None, batch_size
        if cut is not graph.input:
            self._frozen = source.inference_subgraph([cut], None, device)
            self._n_behind_cut *= _BATCHES_BEHIND_CUT
        ends, source_ends = (
            [graph.layers[p].output for p in positions]
            for positions in (layers, source_layers)
        )
        if adapted is None:
            self._behind_cut = source.inference_subgraph(ends, cut, device)
        else:
            if any(tensor.device != device for tensor in adapted.parameters()):
                adapted = copy.deepcopy(adapted).to(device)  # the fitted one stays
            self._behind_cut = adapted.inference_subgraph(graph, ends, cut)
        self._source_behind_cut = source.inference_subgraph(source_ends, cut, device)
        # The pretrained network is shared, and always in eval mode.
        self._modules = [] if adapted is None else list(adapted.modules())
        self._enlarges_patches = False

        namespace = f"{source.namespace}-{self.device.type}"
        self._cut_namespace = f"{namespace}-{cut.name}"
        # Vectors are small enough to be cached, maps are not; what crosses the cut is.
        self._vectors = {
            p: f"{namespace}-{p}"
            for p in self.source_layers
            if len(source.output_shapes[p]) == 1 and graph.layers[p].output is not cut
        }
        self._derived_namespace = ""
        if derived is not None and derived.of_source:
            self._derived_namespace = f"{namespace}-{derived.name}"
        # With these the pretrained network need not run behind the cut.
        self._required: list[str] = []
        if self._derived_namespace:
            self._required = [self._derived_namespace]
        elif len(self._vectors) == len(self.source_layers):
            self._required = list(self._vectors.values())

    # --- passes over a data set -----------------------------------------------------

    def iter_outputs(
        self, dataset: ImageDataset | Rows, progress: str | None = None
    ) -> Iterator[OutputBatch]:
        """Yield the outputs for a data set of tensors, batch by batch, in order."""
        rows = _ROWS if len(dataset) >= _MIN_CACHED or self.source_layers else None
        n_together = self._n_behind_cut
        if self.derived:
            n_together *= math.ceil(_DERIVED_ROWS / n_together)
        for items in self._readable(dataset, n_together, progress):
            yield self._compute(items, self._cut_rows(dataset, items, rows), rows)

    def iter_patch_outputs(
        self,
        dataset: ImageDataset | Rows,
        windows: Sequence[Window],
        progress: str | None = None,
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield indices (b,) and the adapted network's outputs (b, n_windows, d).

        The windows are cut out of what crosses the cut. The extractor has one layer.
        """
        rows = _ROWS if len(dataset) >= _MIN_CACHED else None
        for items in self._readable(dataset, self._n_behind_cut, progress):
            x = self._cut_rows(dataset, items, rows)
            yield _indices(items), self._outputs_of_windows(x, windows)

    def frozen_outputs(
        self, dataset: ImageDataset | Rows, limit: int
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """What crosses the cut, (m, ...), of the images with indices (m,).

        None where it would exceed `limit` bytes, or no image can be decoded.
        """
        found: np.ndarray | None = None
        indices: list[int] = []
        n = len(dataset)
        for items in self._readable(dataset, self.batch_size):
            values = self._cut_rows(dataset, items, _ROWS).cpu().numpy()
            if found is None:
                if values[0].nbytes * n > limit:
                    return None
                found = np.empty((n, *values.shape[1:]), values.dtype)
            found[len(indices) : len(indices) + len(items)] = values
            indices.extend(item.index for item in items)
        return None if found is None else (np.array(indices), found[: len(indices)])

    # --- batches --------------------------------------------------------------------

    def _readable(
        self, dataset: ImageDataset | Rows, n_together: int, progress: str | None = None
    ) -> Iterator[list[_Item]]:
        """Batches of the images that can be decoded; a warning at the end of others."""
        unreadable: list[str] = []
        bar: Any = nullcontext()
        if progress is not None:
            bar = progress_bar(total=len(dataset), desc=progress, unit=" images")
        with bar as shown:
            for items in self._batches(dataset, n_together):
                if shown is not None:
                    shown.update(len(items))
                unreadable.extend(item.error for item in items if item.error)
                if items := [item for item in items if not item.error]:
                    yield items
        if unreadable:
            warn_unreadable(unreadable)

    def _batches(
        self, dataset: ImageDataset | Rows, n_together: int
    ) -> Iterator[list[_Item]]:
        """Batches in order, loaded by threads while the network runs."""
        load = partial(self._load, dataset)
        numbers = range(len(dataset))
        batches = (numbers[i : i + n_together] for i in numbers[::n_together])
        if not (isinstance(dataset, ImageDataset) and dataset.concurrent):
            yield from (list(map(load, batch)) for batch in batches)
            return
        ahead: deque[Iterator[_Item]] = deque()
        pool = ThreadPoolExecutor(torch.get_num_threads())
        try:
            for batch in batches:
                ahead.append(pool.map(load, batch))
                if len(ahead) > 2:
                    yield list(ahead.popleft())
            yield from map(list, ahead)
        finally:
            pool.shutdown(cancel_futures=True)

    def _load(self, dataset: ImageDataset | Rows, i: int) -> _Item:
        """Look an image up, and decode it only where the cache lacks what is wanted."""
        item = _Item(i)
        cache = self.cache
        try:
            if cache is None:
                item.image = dataset[i]
                return item
            item.key, decode = dataset.keyed(i)
            found = [cache.get(namespace, item.key) for namespace in self._required]
            item.source_rows = [row for row in found if row is not None]
            if self._caches_cut(dataset):
                item.cut_row = cache.get(self._cut_namespace, item.key)
            if item.cut_row is None:
                item.image = decode()
        except UnreadableImageError as error:
            if not self.skip_unreadable:
                raise
            item.error = error.reason
        return item

    def _caches_cut(self, dataset: ImageDataset | Rows) -> bool:
        """Whether what crosses the cut costs anything: decoding, or frozen layers."""
        return self._frozen is not None or (
            isinstance(dataset, ImageDataset) and dataset.from_files
        )

    # --- computing and caching ------------------------------------------------------

    def _cut_rows(
        self, dataset: ImageDataset | Rows, items: list[_Item], rows: int | None
    ) -> torch.Tensor:
        """What crosses the cut: cached rows, and the others computed and cached."""
        parts = []
        if known := [item.cut_row for item in items if item.cut_row is not None]:
            parts.append(torch.from_numpy(np.stack(known)).to(self.device))
        if new := [item for item in items if item.cut_row is None]:
            images = torch.stack([item.image for item in new if item.image is not None])
            computed = (
                self._run_frozen(b, rows) for b in images.split(self.batch_size)
            )
            parts.append(torch.cat(list(computed)))
            if rows and self._caches_cut(dataset):
                parts[-1] = self._kept(new, parts[-1], self._cut_namespace)
        if len(parts) == 1:
            return parts[0]
        order = np.argsort([item.cut_row is None for item in items], kind="stable")
        return torch.cat(parts)[np.argsort(order)]

    @torch.inference_mode()
    def _run_frozen(self, images: torch.Tensor, rows: int | None) -> torch.Tensor:
        images = images.to(self.device)
        if self._frozen is None:
            return images
        with NETWORK_LOCK, torch_defaults(), in_mode(self._modules):
            (x,) = _run(self._frozen, self._normalize(images), rows)
        return x

    @torch.inference_mode()
    def _compute(
        self, items: list[_Item], x: torch.Tensor, rows: int | None
    ) -> OutputBatch:
        """Run what lies behind the cut."""
        cached = self._cached(items)
        source: dict[int, torch.Tensor] = {}
        with torch_defaults():
            with NETWORK_LOCK, in_mode(self._modules):
                if self._frozen is None:
                    x = self._normalize(x)
                adapted = self._outputs(x, self._n_behind_cut)
                if not cached and self.source_layers:
                    outputs = _run(self._source_behind_cut, x, rows)
                    source = _by_position(self.source_layers, outputs)
            if rows and not cached:
                for p, namespace in self._vectors.items():
                    source[p] = self._kept(items, source[p], namespace)
            # Without the lock: what is derived may load a network for the centres.
            derived = None
            if cached and self._derived_namespace:
                (derived,) = cached
            else:
                if cached:
                    source = _by_position(self._vectors, cached)
                if self.derived is not None:
                    derived = self.derived.compute(adapted, source)
            if rows and not cached and derived is not None and self._derived_namespace:
                derived = self._kept(items, derived, self._derived_namespace)
        return OutputBatch(_indices(items), adapted, source, derived)

    def _outputs(self, x: torch.Tensor, n: int | None) -> dict[int, torch.Tensor]:
        """The adapted network's outputs, flattened, by position."""
        if not self.layers:
            return {}
        return _by_position(self.layers, _run(self._behind_cut, x, n, fill=False))

    def _cached(self, items: list[_Item]) -> list[torch.Tensor]:
        """What the cache has in place of the pretrained network, if of all items."""
        if not all(len(item.source_rows) == len(self._required) for item in items):
            return []
        columns = zip(*(item.source_rows for item in items), strict=True)
        return [torch.from_numpy(np.stack(c)).to(self.device) for c in columns]

    def _kept(
        self, items: list[_Item], rows: torch.Tensor, namespace: str
    ) -> torch.Tensor:
        """Put rows into the cache, if there is one; return them as it gives them."""
        if self.cache is not None:
            if self.cache.half:
                rows = rows.clamp(-65504, 65504).half().float()
            for item, row in zip(items, rows.cpu().numpy(), strict=True):
                self.cache.put(namespace, item.key, row.copy())
        return rows

    # --- patches --------------------------------------------------------------------

    @torch.inference_mode()
    def _outputs_of_windows(
        self, maps: torch.Tensor, windows: Sequence[Window]
    ) -> torch.Tensor:
        """Outputs (b, n_windows, d) for windows of maps (b, channels, H, W).

        Windows of one shape run together. A network that takes maps of one size only
        gets them enlarged to it.
        """
        shapes: dict[tuple[int, int], list[int]] = {}
        for i, window in enumerate(windows):
            shapes.setdefault((window.height, window.width), []).append(i)
        found: list[torch.Tensor] = [maps] * len(windows)
        full = maps.shape[-2:]
        with NETWORK_LOCK, torch_defaults(), in_mode(self._modules):
            if self._frozen is None:
                maps = self._normalize(maps)
            for of_shape in shapes.values():
                patches = torch.cat([windows[i].cut(maps) for i in of_shape])
                some = patches.split(_PATCHES)
                scores = torch.cat([self._outputs_of_patches(x, full) for x in some])
                for i, rows in zip(of_shape, scores.split(len(maps)), strict=True):
                    found[i] = rows
        return torch.stack(found, dim=1)

    def _outputs_of_patches(
        self, patches: torch.Tensor, full: torch.Size
    ) -> torch.Tensor:
        if not self._enlarges_patches:
            try:
                return self._outputs(patches, None)[self.layers[0]]
            except (RuntimeError, AssertionError, ValueError):  # of a fixed size
                self._enlarges_patches = True
        patches = functional.interpolate(patches, full, mode="bilinear")
        return self._outputs(patches, None)[self.layers[0]]


def warn_unreadable(errors: Sequence[str]) -> None:
    """Warn once of the images that are left out, with the first one's reason."""
    warnings.warn(
        f"{len(errors)} unreadable image(s) left out, the first: {errors[0]}",
        UserWarning,
        stacklevel=3,
    )


def _indices(items: list[_Item]) -> np.ndarray:
    return np.array([item.index for item in items], dtype=np.intp)


def _by_position(
    positions: Iterable[int], outputs: Sequence[torch.Tensor]
) -> dict[int, torch.Tensor]:
    flat = [output.flatten(1) for output in outputs]
    return dict(zip(positions, flat, strict=True))


def _run(
    subgraph: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    x: torch.Tensor,
    rows: int | None,
    fill: bool = True,
) -> Sequence[torch.Tensor]:
    """Run a subgraph, on a CPU on `rows` rows at a time.

    The kernels of matrix products and convolutions, and so their rounding, depend on
    the number of rows. With `fill` the last row is repeated where rows are missing: an
    image then has the same outputs, to the bit, in any batch (tests/test_cache.py);
    MKL's products depend on the place in the batch too on some processors.
    """
    # Convolutions run 1.2 to 1.8 times as fast channels-last. Other engines lay batches
    # out themselves. Not in training: there, torch 2.15 crashed in the backward pass of
    # a convolution of three images in this layout on an AMD EPYC.
    is_map = isinstance(subgraph, nn.Module) and x.ndim == 4
    layout = torch.channels_last if is_map else torch.preserve_format
    if rows is None or x.device.type != "cpu" or (not fill and len(x) <= rows):
        return subgraph(x.to(memory_format=layout))
    found = []
    for some in x.split(rows):
        missing = rows - len(some)
        if fill and missing:
            some = torch.cat([some, some[-1:].expand(missing, *some.shape[1:])])
        found.append(subgraph(some.to(memory_format=layout)))
    return [torch.cat(outputs)[: len(x)] for outputs in zip(*found, strict=True)]


@lru_cache
def _keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next layer's output.

    By default it may return large blocks after each layer and fetch them again page by
    page, which took a third of a pass. Settings of the user's environment win.
    """
    if sys.platform == "linux" and not any(k.startswith("MALLOC_") for k in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other libraries lack it
        if mallopt is not None:
            mallopt(-1, 256 << 20)  # M_TRIM_THRESHOLD: freed bytes that are kept
            mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD: blocks from this size are not
