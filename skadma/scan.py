"""One pass over images that yields all that anybody wants to know of them."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from .image_forms import UnreadableImageError
from .scanner import Scanner, to_device
from .windows import Window

_TAIL_BATCHES = 4
"""Batches that go through the tail together: its maps are smaller."""

_ROWS = 16
"""What is kept is computed for so many images at a time, see `scanner`."""

_LOADED = 4
"""Images that a thread looks up or decodes in one go."""

_FEW = 8
"""Predictions for fewer images are spared that, and keep nothing."""


@dataclass(frozen=True)
class ScanBatch:
    """What a scan says of one batch of images.

    Attributes
    ----------
    indices : ndarray of int, shape (b,)
        Positions of the images in X. Unreadable ones are missing.
    adapted : dict of int to torch.Tensor of shape (b, d)
        Flattened outputs of layers of the network being adapted, by position.
    source : dict of int to torch.Tensor of shape (b, d)
        The same of M0; empty if a summary was asked for and was known.
    summary : torch.Tensor of shape (b, m) or None
        The summary, if one was asked for.
    """

    indices: np.ndarray
    adapted: dict[int, torch.Tensor]
    source: dict[int, torch.Tensor]
    summary: torch.Tensor | None


def scan(
    dataset: Dataset,
    scanner: Scanner,
    batch_size: int,
    *,
    skip_unreadable: bool = False,
    progress: str | None = None,
) -> Iterator[ScanBatch]:
    """Map a scanner over a dataset, batch by batch, in order.

    What is kept of an image has to be the same to the bit, whatever the other images
    of its batch: see `scanner._run`.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Yields one tensor per image.
    scanner : Scanner
    batch_size : int
    skip_unreadable : bool
        Leave out images that cannot be decoded, with one warning at the end,
        instead of raising.
    progress : str, optional
        Label of a progress bar; none without it.

    Yields
    ------
    ScanBatch

    Raises
    ------
    UnreadableImageError
        For an image that cannot be decoded, unless `skip_unreadable`.
    """
    rows = _ROWS if _is_many(dataset) or scanner.positions[1] else None
    for items in _readable(dataset, scanner, batch_size, skip_unreadable, progress):
        yield _scan_batch(items, scanner, batch_size, rows)


def scan_windows(
    dataset: Dataset,
    scanner: Scanner,
    batch_size: int,
    windows: Sequence[Window],
    *,
    skip_unreadable: bool = False,
    progress: str | None = None,
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Scan parts of the images, cut out of what crosses the scanner's cut.

    Parameters
    ----------
    dataset, scanner, batch_size, skip_unreadable, progress
        See :func:`scan`; the scanner is asked for one layer of the adapted network.
    windows : sequence of Window
        The same for every image.

    Yields
    ------
    indices : ndarray of int, shape (b,)
    outputs : torch.Tensor of shape (b, n_windows, d)
    """
    rows = _ROWS if _is_many(dataset) else None
    for items in _readable(dataset, scanner, batch_size, skip_unreadable, progress):
        x = _cut_values(items, scanner, batch_size, rows)
        yield _indices(items), scanner.outputs_of_windows(x, windows)


def _is_many(dataset: Dataset) -> bool:
    return len(dataset) >= _FEW  # type: ignore[arg-type]


def _readable(
    dataset: Dataset,
    scanner: Scanner,
    batch_size: int,
    skip_unreadable: bool,
    progress: str | None,
) -> Iterator[list[_Item]]:
    """Batches of the images that can be decoded; a warning at the end of others."""
    n: int = len(dataset)  # type: ignore[arg-type]
    unreadable: list[str] = []
    n_together = batch_size * (_TAIL_BATCHES if scanner.has_prefix else 1)
    batches = _batches(dataset, scanner, n_together, skip_unreadable)
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


def merged(batches: Iterator[ScanBatch], n_rows: int) -> Iterator[ScanBatch]:
    """Put batches together until they have that many rows.

    Matrix products want more rows at once than convolutions do.

    Parameters
    ----------
    batches : iterator of ScanBatch
    n_rows : int

    Yields
    ------
    ScanBatch
    """
    some: list[ScanBatch] = []
    for batch in batches:
        some.append(batch)
        if sum(len(b.indices) for b in some) >= n_rows:
            yield _merge(some)
            some = []
    if some:
        yield _merge(some)


def _merge(batches: list[ScanBatch]) -> ScanBatch:
    first = batches[0]
    return ScanBatch(
        np.concatenate([b.indices for b in batches]),
        {p: torch.cat([b.adapted[p] for b in batches]) for p in first.adapted},
        {p: torch.cat([b.source[p] for b in batches]) for p in first.source},
        None
        if first.summary is None
        else torch.cat([b.summary for b in batches if b.summary is not None]),
    )


def _scan_batch(
    items: list[_Item], scanner: Scanner, batch_size: int, rows: int | None
) -> ScanBatch:
    x = _cut_values(items, scanner, batch_size, rows)
    known = None
    if scanner.enough and all(len(item.known) == len(scanner.enough) for item in items):
        columns = zip(*(item.known for item in items), strict=True)
        known = [torch.from_numpy(np.stack(c)).to(scanner.device) for c in columns]
    adapted, source, summaries = scanner(x, known, rows)
    if known is None and rows:
        for space, values in summaries.items():
            _keep([item.key for item in items], values, scanner, space)
    summary = summaries[scanner.asked] if scanner.asked else None
    return ScanBatch(_indices(items), adapted, source, summary)


def frozen_outputs(
    dataset: Dataset, scanner: Scanner, batch_size: int, limit: int
) -> np.ndarray | None:
    """What crosses the cut for every image of a data set, to train a tail on.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Yields one tensor per image.
    scanner : Scanner
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
    for items in _batches(dataset, scanner, batch_size, skip_unreadable=False):
        values = _cut_values(items, scanner, batch_size, _ROWS).cpu().numpy()
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
    dataset: Dataset, scanner: Scanner, batch_size: int, skip_unreadable: bool
) -> Iterator[list[_Item]]:
    """Batches of items in order, prepared in threads while the network runs."""

    def load(i: int) -> _Item:
        return _load(dataset, scanner, i, skip_unreadable)

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


def _load(dataset: Dataset, scanner: Scanner, i: int, skip_unreadable: bool) -> _Item:
    """Look an image up, and decode it only where what is wanted is not known."""
    item = _Item(i)
    cache = scanner.cache
    try:
        if cache is None or not hasattr(dataset, "keyed"):
            item.image = dataset[i]
            return item
        item.key, load = dataset.keyed(i)
        found = [cache.get(space, item.key) for space in scanner.enough]
        item.known = [value for value in found if value is not None]
        if scanner.has_prefix or getattr(dataset, "from_files", False):
            item.cut_key = item.key
            item.cut_value = cache.get(scanner.space, item.key)
        if item.cut_value is None:
            item.image = load()
    except UnreadableImageError as error:
        if not skip_unreadable:
            raise
        item.error = str(error)
    return item


def _cut_values(
    items: list[_Item], scanner: Scanner, batch_size: int, rows: int | None
) -> torch.Tensor:
    """Outputs of the frozen part: those known, and the others computed and kept."""
    new = [item for item in items if item.cut_value is None]
    values = None
    if new:
        images = torch.stack([item.image for item in new if item.image is not None])
        values = torch.cat(
            [scanner.frozen_outputs(b, rows) for b in images.split(batch_size)]
        )
        if rows:
            _keep([item.cut_key for item in new], values, scanner, scanner.space)
        if len(new) == len(items):
            return values
    known = [item.cut_value for item in items if item.cut_value is not None]
    stacked = to_device(torch.from_numpy(np.stack(known)), scanner.device)
    if values is None:
        return stacked
    both = torch.cat([stacked, values])
    order = sorted(range(len(items)), key=lambda i: items[i].cut_value is None)
    return both[np.argsort(order)]


def _keep(keys: list[str], rows: torch.Tensor, scanner: Scanner, space: str) -> None:
    if scanner.cache is None or not any(keys):
        return
    for key, row in zip(keys, rows.cpu().numpy(), strict=True):
        scanner.cache.put(space, key, row.copy())
