"""Layer outputs of the pretrained and the adapted network, batch by batch."""

from __future__ import annotations

import copy
import ctypes
import hashlib
import math
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional
from torch.utils.data import Dataset

from .._utils.processes import progress_bar
from ..images.forms import UnreadableImageError
from ..images.patches import Window
from ..networks import AdaptedNetwork, Normalize, PretrainedNetwork
from ..networks.graph import in_mode
from ..networks.pretrained import describe_modules, fingerprint
from ..networks.torch_state import NETWORK_LOCK, torch_defaults
from .cache import Cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's settings."""

_KEPT_BYTES, _MAPPED_BYTES = 256 << 20, 32 << 20
"""Freed bytes that the process keeps, and the block size from which it returns them."""

_BATCHES_BEHIND_CUT = 4
"""Batches that pass through the layers behind the cut together: maps are smaller."""

_DERIVED_ROWS = 128
"""Images for which derived outputs are computed at once, in larger matrix products."""

_MIN_NAMED = 1000
"""For fewer images the adapted network's outputs are not cached: hashing its weights
would take more than about a hundredth of the prediction."""

_ROWS = 16
"""Cached rows are computed for this many images at a time, see `_run`."""

_MIN_CACHED = 8
"""Below this number of images batches are not padded and nothing is cached."""

_LOADED = 4
"""Images that a thread looks up or decodes in one task."""

NONE_READABLE = "None of the labelled images can be decoded."

_PATCHES = 64
"""Patches that pass through the network together; more leave the processor's caches."""


@dataclass(frozen=True)
class DerivedOutput:
    """A row per image that is computed from layer outputs, and cached.

    `compute` makes a tensor (b, m) of the outputs (b, d) of the adapted network's
    layers and of the pretrained network's, each a dict by position. `name` tells it
    from all other derived outputs. `layers` are those of the adapted network that
    nothing else needs: none if the row depends on the pretrained network alone.
    """

    name: str
    compute: Callable[[dict[int, torch.Tensor], dict[int, torch.Tensor]], torch.Tensor]
    layers: tuple[int, ...] = ()


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
    position. Missing are layers that only a derived output needs, and all of `source`,
    where the derived output was in the cache. `derived` is (b, m) if one was asked for.
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
    cut_key: str = ""
    image: torch.Tensor | None = None
    cut_row: np.ndarray | None = None
    cached: list[np.ndarray] = field(default_factory=list)
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
        cache: Cache | None = None,
        derived: DerivedOutput | None = None,
    ) -> None:
        _keep_freed_memory()
        self.device = device
        self.cache = cache
        self.layers, self.source_layers = list(layers), list(source_layers)
        self.derived = derived
        self._normalize = Normalize(source.preprocessing).to(device)
        graph = source.graph
        cut = graph.cut_before(min([n_frozen - 1, *layers, *source_layers]))
        self._frozen = None
        if cut is not graph.input:
            self._frozen = source.inference_subgraph([cut], None, device)
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
        self._name_cached(source, cut, adapted)

    def _name_cached(
        self, source: PretrainedNetwork, cut: fx.Node, adapted: AdaptedNetwork | None
    ) -> None:
        """Decide what the cache keeps, and in which namespaces."""
        derived = self.derived

        shapes = source.output_shapes
        vectors = {p for p, shape in enumerate(shapes) if len(shape) == 1}
        # Vectors are small enough to be cached, maps are not.
        self._vectors = [p for p in self.source_layers if p in vectors]
        from_source_alone = derived is not None and not derived.layers
        kept = [derived] if derived is not None and from_source_alone else []
        kept += [concatenated_outputs([p]) for p in self._vectors]
        namespace = f"{source.namespace}-{self.device.type}"
        self._kept = {f"{namespace}-{one.name}": one for one in kept}
        self._derived_key = None if derived is None else f"{namespace}-{derived.name}"
        # With these the pretrained network need not run behind the cut.
        self._required_keys = list(self._kept)
        if from_source_alone and self._derived_key:
            self._required_keys = [self._derived_key]
        elif len(self._vectors) < len(self.source_layers):
            self._required_keys = []
        self._cut_namespace = f"{namespace}-{cut.name}"
        only_derived = () if derived is None else derived.layers
        self._cached_layers = [p for p in self.layers if p not in only_derived]
        self._caches_adapted = (
            self.cache is not None
            and adapted is not None
            and bool(self.layers)
            and vectors.issuperset(self._cached_layers)
            and (
                not self.source_layers
                or derived is not None
                or bool(self._required_keys)
            )
        )

    @cached_property
    def _adapted_name(self) -> str | None:
        """Hash of all that the adapted network's outputs depend on beside the images.

        None where its outputs are not cached.
        """
        if not self._caches_adapted:
            return None
        subgraph = self._behind_cut
        assert isinstance(subgraph, fx.GraphModule)  # an engine runs the other alone
        # The number of threads may change how sums are rounded.
        settings = (
            self._cut_namespace,
            self._derived_key,
            (self.layers, self.source_layers),
            torch.get_num_threads(),
        )
        modules = describe_modules(subgraph)
        described = f"{settings}{subgraph.graph}{modules}{fingerprint(subgraph)}"
        return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()

    # --- passes over a data set -----------------------------------------------------

    def iter_outputs(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        *,
        skip_unreadable: bool = False,
        progress: str | None = None,
    ) -> Iterator[OutputBatch]:
        """Yield the outputs for a data set of tensors, batch by batch, in order.

        Raises UnreadableImageError for an image that cannot be decoded; with
        `skip_unreadable` these are left out, with one warning at the end. `progress`
        is the label of a progress bar.
        """
        n: int = len(dataset)  # type: ignore[arg-type]
        rows = _ROWS if n >= _MIN_CACHED or self.source_layers else None
        n_behind = n_together = batch_size
        if self._frozen is not None:
            n_behind = n_together = batch_size * _BATCHES_BEHIND_CUT
        if self.derived:
            n_together *= math.ceil(_DERIVED_ROWS / n_behind)
        name = self._adapted_name if n >= _MIN_NAMED else None
        for items in self._readable(dataset, n_together, skip_unreadable, progress):
            batch = self._recall(items, name)
            if batch is None:
                x = self._cut_rows(items, batch_size, rows)
                batch = self._compute(items, x, rows, n_behind)
                if name is not None and all(item.key for item in items):
                    self._remember(items, name, batch)
            yield batch

    def iter_patch_outputs(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        windows: Sequence[Window],
        *,
        skip_unreadable: bool = False,
        progress: str | None = None,
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield indices (b,) and the adapted network's outputs (b, n_windows, d).

        The windows are cut out of what crosses the cut. The extractor has one layer.
        """
        n: int = len(dataset)  # type: ignore[arg-type]
        rows = _ROWS if n >= _MIN_CACHED else None
        n_together = batch_size * (1 if self._frozen is None else _BATCHES_BEHIND_CUT)
        for items in self._readable(dataset, n_together, skip_unreadable, progress):
            x = self._cut_rows(items, batch_size, rows)
            yield _indices(items), self._outputs_of_windows(x, windows)

    def frozen_outputs(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        limit: int,
        *,
        skip_unreadable: bool,
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """What crosses the cut, (m, ...), of the images with indices (m,).

        None where it would exceed `limit` bytes, or no image can be decoded.
        """
        found: np.ndarray | None = None
        indices: list[int] = []
        n: int = len(dataset)  # type: ignore[arg-type]
        for items in self._readable(dataset, batch_size, skip_unreadable, None):
            values = self._cut_rows(items, batch_size, _ROWS).cpu().numpy()
            if found is None:
                if values[0].nbytes * n > limit:
                    return None
                found = np.empty((n, *values.shape[1:]), values.dtype)
            found[len(indices) : len(indices) + len(items)] = values
            indices.extend(item.index for item in items)
        return None if found is None else (np.array(indices), found[: len(indices)])

    # --- batches --------------------------------------------------------------------

    def _readable(
        self,
        dataset: Dataset[Any],
        n_together: int,
        skip_unreadable: bool,
        progress: str | None,
    ) -> Iterator[list[_Item]]:
        """Batches of the images that can be decoded; a warning at the end of others."""
        n: int = len(dataset)  # type: ignore[arg-type]
        unreadable: list[str] = []
        batches = self._batches(dataset, n_together, skip_unreadable)
        bar = None
        if progress is not None:
            bar = progress_bar(total=n, desc=progress, unit=" images")
        with bar or nullcontext():
            for items in batches:
                if bar is not None:
                    bar.update(len(items))
                unreadable.extend(item.error for item in items if item.error)
                items = [item for item in items if not item.error]
                if items:
                    yield items
        if unreadable:
            warn_unreadable(unreadable)

    def _batches(
        self, dataset: Dataset[Any], batch_size: int, skip_unreadable: bool
    ) -> Iterator[list[_Item]]:
        """Batches in order, loaded by threads while the network runs."""
        n: int = len(dataset)  # type: ignore[arg-type]

        def load(indices: range) -> list[_Item]:
            return [self._load(dataset, i, skip_unreadable) for i in indices]

        starts = range(0, n, batch_size)
        if not getattr(dataset, "concurrent", False):
            for start in starts:
                yield load(range(start, min(start + batch_size, n)))
            return
        ahead: deque[list[Future[list[_Item]]]] = deque()
        pool = ThreadPoolExecutor(torch.get_num_threads())
        try:
            for start in starts:
                end = min(start + batch_size, n)
                some = [
                    range(i, min(i + _LOADED, end)) for i in range(start, end, _LOADED)
                ]
                ahead.append([pool.submit(load, indices) for indices in some])
                if len(ahead) > 2:
                    yield [item for task in ahead.popleft() for item in task.result()]
            while ahead:
                yield [item for task in ahead.popleft() for item in task.result()]
        finally:
            pool.shutdown(cancel_futures=True)

    def _load(self, dataset: Dataset[Any], i: int, skip_unreadable: bool) -> _Item:
        """Look an image up, and decode it only where the cache lacks what is wanted."""
        item = _Item(i)
        cache = self.cache
        try:
            if cache is None or not hasattr(dataset, "keyed"):
                item.image = dataset[i]
                return item
            item.key, decode = dataset.keyed(i)
            found = [cache.get(key, item.key) for key in self._required_keys]
            item.cached = [value for value in found if value is not None]
            if self._frozen is not None or getattr(dataset, "from_files", False):
                item.cut_key = item.key
                item.cut_row = cache.get(self._cut_namespace, item.key)
            if item.cut_row is None:
                item.image = decode()
        except UnreadableImageError as error:
            if not skip_unreadable:
                raise
            item.error = error.reason
        return item

    # --- computing and caching ------------------------------------------------------

    def _cut_rows(
        self, items: list[_Item], batch_size: int, rows: int | None
    ) -> torch.Tensor:
        """What crosses the cut: cached rows, and the others computed and cached."""
        new = [item for item in items if item.cut_row is None]
        values = None
        if new:
            images = torch.stack([item.image for item in new if item.image is not None])
            values = torch.cat(
                [self._run_frozen(b, rows) for b in images.split(batch_size)]
            )
            if rows:
                self._put([item.cut_key for item in new], values, self._cut_namespace)
            if len(new) == len(items):
                return values
        known = [item.cut_row for item in items if item.cut_row is not None]
        stacked = _to_device(torch.from_numpy(np.stack(known)), self.device)
        if values is None:
            return stacked
        both = torch.cat([stacked, values])
        order = sorted(range(len(items)), key=lambda i: items[i].cut_row is None)
        return both[np.argsort(order)]

    @torch.inference_mode()
    def _run_frozen(self, images: torch.Tensor, rows: int | None) -> torch.Tensor:
        images = _to_device(images, self.device)
        if self._frozen is None:
            return images
        with NETWORK_LOCK, torch_defaults(), in_mode(self._modules):
            (x,) = _run(self._frozen, self._normalize(images), rows)
        return x

    @torch.inference_mode()
    def _compute(
        self, items: list[_Item], x: torch.Tensor, rows: int | None, n_behind: int
    ) -> OutputBatch:
        """Run what lies behind the cut, on up to `n_behind` images at a time."""
        cached = self._cached(items) or None
        source: dict[int, torch.Tensor] = {}
        computed: dict[str, torch.Tensor] = {}
        with torch_defaults():
            with NETWORK_LOCK, in_mode(self._modules):
                if self._frozen is None:
                    x = self._normalize(x)
                adapted = self._outputs(x, n_behind)
                if cached is None and self.source_layers:
                    outputs = _run(self._source_behind_cut, x, rows)
                    flat = [output.flatten(1) for output in outputs]
                    source = dict(zip(self.source_layers, flat, strict=True))
            # Without the lock: what is derived may load a network for the centres.
            if cached is None:
                computed = {
                    k: one.compute(adapted, source) for k, one in self._kept.items()
                }
                for key, values in computed.items() if rows else ():
                    self._put([item.key for item in items], values, key)
            elif self._required_keys == [self._derived_key]:
                computed = {self._required_keys[0]: cached[0]}
            else:
                source = self._vectors_by_position(cached)
            if self.derived and self.derived.layers and self._derived_key:
                computed[self._derived_key] = self.derived.compute(adapted, source)
        derived = computed[self._derived_key] if self._derived_key else None
        return OutputBatch(_indices(items), adapted, source, derived)

    def _outputs(self, x: torch.Tensor, n: int | None) -> dict[int, torch.Tensor]:
        """The adapted network's outputs, flattened, by position."""
        if not self.layers:
            return {}
        outputs = _run(self._behind_cut, x, n, fill=False)
        flat = [output.flatten(1) for output in outputs]
        return dict(zip(self.layers, flat, strict=True))

    def _cached(self, items: list[_Item]) -> list[torch.Tensor] | None:
        """A batch's rows of the required keys; None where some are not cached."""
        if not all(len(item.cached) == len(self._required_keys) for item in items):
            return None
        columns = zip(*(item.cached for item in items), strict=True)
        return [torch.from_numpy(np.stack(c)).to(self.device) for c in columns]

    def _vectors_by_position(self, rows: list[torch.Tensor]) -> dict[int, torch.Tensor]:
        return dict(zip(self._vectors, rows, strict=bool(rows)))

    def _put(self, keys: list[str], rows: torch.Tensor, namespace: str) -> None:
        if self.cache is None or not any(keys):
            return
        for key, row in zip(keys, rows.cpu().numpy(), strict=True):
            self.cache.put(namespace, key, row.copy())

    def _recall(self, items: list[_Item], name: str | None) -> OutputBatch | None:
        """What an equal adapted network gave for the same batch, if it is cached."""
        if name is None or self.cache is None:
            return None
        found = self.cache.recent.get(_batch_key(items, name))
        cached = [] if self._derived_key else self._cached(items)
        if found is None or cached is None:
            return None
        adapted, derived = found
        return OutputBatch(
            _indices(items),
            {p: values.to(self.device, copy=True) for p, values in adapted.items()},
            self._vectors_by_position(cached),
            None if derived is None else derived.to(self.device, copy=True),
        )

    def _remember(self, items: list[_Item], name: str, batch: OutputBatch) -> None:
        """Cache the adapted network's outputs of a whole batch.

        By the batch, not by the image: an image's rounding depends on the other images
        that pass through these layers with it.
        """
        adapted = {
            p: batch.adapted[p].to("cpu", copy=True) for p in self._cached_layers
        }
        derived = None if batch.derived is None else batch.derived.to("cpu", copy=True)
        kept = [*adapted.values(), *([] if derived is None else [derived])]
        self.cache.recent.put(  # type: ignore[union-attr]
            _batch_key(items, name),
            (adapted, derived),
            sum(values.nbytes for values in kept),
        )

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
            except (RuntimeError, AssertionError):  # layers of a fixed number of inputs
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


def _batch_key(items: list[_Item], name: str) -> str:
    described = name + "".join(item.key for item in items)
    return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()


def _run(
    subgraph: Callable[[torch.Tensor], Sequence[torch.Tensor]],
    x: torch.Tensor,
    rows: int | None,
    fill: bool = True,
) -> Sequence[torch.Tensor]:
    """Run a subgraph, on a CPU on `rows` rows at a time.

    The kernels of matrix products and convolutions, and so their rounding, depend on
    the number of rows. With `fill` the last row is repeated where rows are missing: an
    image then has the same outputs, to the bit, in any batch (tests/test_cache.py).
    """
    # Engines other than torch lay batches out themselves.
    layout = _channels_last if isinstance(subgraph, nn.Module) else nn.Identity()
    if rows is None or x.device.type != "cpu" or (not fill and len(x) <= rows):
        return subgraph(layout(x))
    found = []
    for some in x.split(rows):
        missing = rows - len(some)
        if fill and missing:
            some = torch.cat([some, some[-1:].expand(missing, *some.shape[1:])])
        found.append(subgraph(layout(some)))
    return [torch.cat(outputs)[: len(x)] for outputs in zip(*found, strict=True)]


def _channels_last(batch: torch.Tensor) -> torch.Tensor:
    """Lay maps out channels-last, in which convolutions run 1.2 to 1.8 times as fast.

    Not in training: there, torch 2.15 crashed in the backward pass of a convolution of
    three images in this layout on an AMD EPYC.
    """
    if batch.ndim != 4:
        return batch
    return batch.contiguous(memory_format=torch.channels_last)


def _to_device(batch: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a batch to a device; to CUDA without waiting for it."""
    if device.type == "cuda":
        return batch.pin_memory().to(device, non_blocking=True)
    return batch.to(device)


@lru_cache
def _keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next layer's output.

    By default it may return large blocks after each layer and fetch them again page by
    page, which took a third of a pass. Settings of the user's environment win.
    """
    if sys.platform == "linux" and not any(k.startswith("MALLOC_") for k in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other libraries lack it
        if mallopt is not None:
            mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
            mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
