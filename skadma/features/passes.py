"""One pass over images that yields all that anybody wants to know of them."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from ..images.forms import UnreadableImageError
from ..images.patches import Window
from .extractor import FeatureExtractor, to_device

_TAIL_BATCHES = 4
"""Batches that go through the tail together: its maps are smaller."""

_SUMMARY_ROWS = 128
"""Images of which a summary is made at once: matrix products want more than that."""

_MANY = 1000
"""Of fewer images, what the adapted network says is not kept: to name the network by
its weights would take more than about a hundredth of a prediction."""

_ROWS = 16
"""What is kept is computed for so many images at a time, see `extractor`."""

_LOADED = 4
"""Images that a thread looks up or decodes in one go."""

_FEW = 8
"""Predictions for fewer images are spared that, and keep nothing."""


@dataclass(frozen=True)
class OutputBatch:
    """What a scan says of one batch of images.

    Attributes
    ----------
    indices : ndarray of int, shape (b,)
        Positions of the images in X. Unreadable ones are missing.
    adapted : dict of int to torch.Tensor of shape (b, d)
        Flattened outputs of layers of the network being adapted, by position; without
        those that only the summary needs, if it was known.
    source : dict of int to torch.Tensor of shape (b, d)
        The same of M0; empty if a summary was asked for and was known.
    summary : torch.Tensor of shape (b, m) or None
        The summary, if one was asked for.
    """

    indices: np.ndarray
    adapted: dict[int, torch.Tensor]
    source: dict[int, torch.Tensor]
    summary: torch.Tensor | None


def iter_outputs(
    dataset: Dataset,
    extractor: FeatureExtractor,
    batch_size: int,
    *,
    skip_unreadable: bool = False,
    progress: str | None = None,
) -> Iterator[OutputBatch]:
    """Map a extractor over a dataset, batch by batch, in order.

    What is kept of an image has to be the same to the bit, whatever the other images
    of its batch: see `extractor._run`.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Yields one tensor per image.
    extractor : FeatureExtractor
    batch_size : int
    skip_unreadable : bool
        Leave out images that cannot be decoded, with one warning at the end,
        instead of raising.
    progress : str, optional
        Label of a progress bar; none without it.

    Yields
    ------
    OutputBatch

    Raises
    ------
    UnreadableImageError
        For an image that cannot be decoded, unless `skip_unreadable`.
    """
    rows = _ROWS if _is_many(dataset) or extractor.positions[1] else None
    n_tail = n_together = batch_size * (_TAIL_BATCHES if extractor.has_prefix else 1)
    if extractor.summary:
        n_together *= math.ceil(_SUMMARY_ROWS / n_tail)
    network = extractor.adapted_name if len(dataset) >= _MANY else None  # type: ignore[arg-type]
    for items in _readable(dataset, extractor, n_together, skip_unreadable, progress):
        yield _recalled(items, extractor, network) or _scan_batch(
            items, extractor, batch_size, rows, n_tail, network
        )


def iter_patch_outputs(
    dataset: Dataset,
    extractor: FeatureExtractor,
    batch_size: int,
    windows: Sequence[Window],
    *,
    skip_unreadable: bool = False,
    progress: str | None = None,
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Scan parts of the images, cut out of what crosses the extractor's cut.

    Parameters
    ----------
    dataset, extractor, batch_size, skip_unreadable, progress
        The extractor is asked for one layer of the adapted network.
    windows : sequence of Window
        The same for every image.

    Yields
    ------
    indices : ndarray of int, shape (b,)
    outputs : torch.Tensor of shape (b, n_windows, d)
    """
    rows = _ROWS if _is_many(dataset) else None
    n_together = batch_size * (_TAIL_BATCHES if extractor.has_prefix else 1)
    for items in _readable(dataset, extractor, n_together, skip_unreadable, progress):
        x = _cut_values(items, extractor, batch_size, rows)
        yield _indices(items), extractor.outputs_of_windows(x, windows)


def _is_many(dataset: Dataset) -> bool:
    return len(dataset) >= _FEW  # type: ignore[arg-type]


def _readable(
    dataset: Dataset,
    extractor: FeatureExtractor,
    n_together: int,
    skip_unreadable: bool,
    progress: str | None,
) -> Iterator[list[_Item]]:
    """Batches of the images that can be decoded; a warning at the end of others."""
    n: int = len(dataset)  # type: ignore[arg-type]
    unreadable: list[str] = []
    batches = _batches(dataset, extractor, n_together, skip_unreadable)
    with tqdm(total=n, desc=progress, disable=progress is None, unit=" images") as bar:
        for items in batches:
            bar.update(len(items))
            unreadable.extend(item.error for item in items if item.error)
            items = [item for item in items if not item.error]
            if items:
                yield items
    if unreadable:
        warn_unreadable(unreadable)


def _indices(items: list[_Item]) -> np.ndarray:
    return np.array([item.index for item in items], dtype=np.intp)


def _recalled(
    items: list[_Item], extractor: FeatureExtractor, network: str | None
) -> OutputBatch | None:
    """What the same network said of the same batch, if that is still known."""
    if network is None or extractor.cache is None:
        return None
    found = extractor.cache.recent.get(_name(items, network))
    known = [] if extractor.summary_key else _known(items, extractor)
    if found is None or known is None:
        return None
    (adapted, summary), device = found, extractor.device
    return OutputBatch(
        _indices(items),
        {p: values.to(device, copy=True) for p, values in adapted.items()},
        extractor.vectors(known),
        None if summary is None else summary.to(device, copy=True),
    )


def _remember(
    items: list[_Item], extractor: FeatureExtractor, network: str, batch: OutputBatch
) -> None:
    """Keep what the adapted network says of a batch for an equal network.

    By the batch, not by the image as of M0: so it does not matter that an image's
    rounding depends on the other images that go through the tail with it.
    """
    adapted = {
        p: batch.adapted[p].to("cpu", copy=True) for p in extractor.cached_layers
    }
    summary = None if batch.summary is None else batch.summary.to("cpu", copy=True)
    kept = [*adapted.values(), *([] if summary is None else [summary])]
    extractor.cache.recent.keep(  # type: ignore[union-attr]
        _name(items, network), (adapted, summary), sum(values.nbytes for values in kept)
    )


def _name(items: list[_Item], network: str) -> str:
    described = network + "".join(item.key for item in items)
    return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()


def _known(
    items: list[_Item], extractor: FeatureExtractor
) -> list[torch.Tensor] | None:
    """What M0 says of a batch; None where that is not known of all its images."""
    if not all(len(item.known) == len(extractor.required_keys) for item in items):
        return None
    columns = zip(*(item.known for item in items), strict=True)
    return [torch.from_numpy(np.stack(c)).to(extractor.device) for c in columns]


def _scan_batch(
    items: list[_Item],
    extractor: FeatureExtractor,
    batch_size: int,
    rows: int | None,
    n_tail: int,
    network: str | None,
) -> OutputBatch:
    x = _cut_values(items, extractor, batch_size, rows)
    known = _known(items, extractor) or None
    adapted, source, summaries = extractor(x, known, rows, n_tail)
    if known is None and rows:
        for space in extractor.summaries:
            _keep([item.key for item in items], summaries[space], extractor, space)
    summary = summaries[extractor.summary_key] if extractor.summary_key else None
    batch = OutputBatch(_indices(items), adapted, source, summary)
    if network is not None and all(item.key for item in items):
        _remember(items, extractor, network, batch)
    return batch


def frozen_outputs(
    dataset: Dataset, extractor: FeatureExtractor, batch_size: int, limit: int
) -> np.ndarray | None:
    """What crosses the cut for every image of a data set, to train a tail on.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Yields one tensor per image.
    extractor : FeatureExtractor
    batch_size : int
    limit : int
        Bytes.

    Returns
    -------
    ndarray of float32, shape (n, ...), or None
        None where it would be larger than `limit`.
    """
    found: np.ndarray | None = None
    n: int = len(dataset)  # type: ignore[arg-type]
    for items in _batches(dataset, extractor, batch_size, skip_unreadable=False):
        values = _cut_values(items, extractor, batch_size, _ROWS).cpu().numpy()
        if found is None:
            if values[0].nbytes * n > limit:
                return None
            found = np.empty((n, *values.shape[1:]), values.dtype)
        found[items[0].index : items[-1].index + 1] = values
    return found


def warn_unreadable(errors: Sequence[str]) -> None:
    """Say once how many images are left out, and why the first one is."""
    warnings.warn(
        f"{len(errors)} unreadable image(s) left out, the first: {errors[0]}",
        UserWarning,
        stacklevel=3,
    )


# --- batches --------------------------------------------------------------------------


@dataclass
class _Item:
    """An image of a batch, with what is known of it."""

    index: int
    key: str = ""
    cut_key: str = ""
    image: torch.Tensor | None = None
    cut_value: np.ndarray | None = None
    known: list[np.ndarray] = field(default_factory=list)
    error: str = ""


def _batches(
    dataset: Dataset,
    extractor: FeatureExtractor,
    batch_size: int,
    skip_unreadable: bool,
) -> Iterator[list[_Item]]:
    """Batches of items in order, prepared in threads while the network runs."""

    def load(i: int) -> _Item:
        return _load(dataset, extractor, i, skip_unreadable)

    n: int = len(dataset)  # type: ignore[arg-type]
    if not getattr(dataset, "concurrent", False):
        for start in range(0, n, batch_size):
            yield [load(i) for i in range(start, min(start + batch_size, n))]
        return
    ahead: deque[list[Future[list[_Item]]]] = deque()
    pool = ThreadPoolExecutor(torch.get_num_threads())

    def load_some(indices: range) -> list[_Item]:
        return [load(i) for i in indices]

    def wait() -> list[_Item]:
        return [item for future in ahead.popleft() for item in future.result()]

    try:
        for start in range(0, n, batch_size):
            indices = range(start, min(start + batch_size, n))
            some = (indices[i : i + _LOADED] for i in range(0, len(indices), _LOADED))
            ahead.append([pool.submit(load_some, part) for part in some])
            if len(ahead) > 2:
                yield wait()
        while ahead:
            yield wait()
    finally:
        pool.shutdown(cancel_futures=True)


def _load(
    dataset: Dataset, extractor: FeatureExtractor, i: int, skip_unreadable: bool
) -> _Item:
    """Look an image up, and decode it only where what is wanted is not known."""
    item = _Item(i)
    cache = extractor.cache
    try:
        if cache is None or not hasattr(dataset, "keyed"):
            item.image = dataset[i]
            return item
        item.key, load = dataset.keyed(i)
        found = [cache.get(space, item.key) for space in extractor.required_keys]
        item.known = [value for value in found if value is not None]
        if extractor.has_prefix or getattr(dataset, "from_files", False):
            item.cut_key = item.key
            item.cut_value = cache.get(extractor.space, item.key)
        if item.cut_value is None:
            item.image = load()
    except UnreadableImageError as error:
        if not skip_unreadable:
            raise
        item.error = str(error)
    return item


def _cut_values(
    items: list[_Item], extractor: FeatureExtractor, batch_size: int, rows: int | None
) -> torch.Tensor:
    """Outputs of the frozen part: those known, and the others computed and kept."""
    new = [item for item in items if item.cut_value is None]
    values = None
    if new:
        images = torch.stack([item.image for item in new if item.image is not None])
        values = torch.cat(
            [extractor.frozen_outputs(b, rows) for b in images.split(batch_size)]
        )
        if rows:
            _keep([item.cut_key for item in new], values, extractor, extractor.space)
        if len(new) == len(items):
            return values
    known = [item.cut_value for item in items if item.cut_value is not None]
    stacked = to_device(torch.from_numpy(np.stack(known)), extractor.device)
    if values is None:
        return stacked
    both = torch.cat([stacked, values])
    order = sorted(range(len(items)), key=lambda i: items[i].cut_value is None)
    return both[np.argsort(order)]


def _keep(
    keys: list[str], rows: torch.Tensor, extractor: FeatureExtractor, space: str
) -> None:
    if extractor.cache is None or not any(keys):
        return
    for key, row in zip(keys, rows.cpu().numpy(), strict=True):
        extractor.cache.put(space, key, row.copy())
