"""One pass over images that yields all that anybody wants to know of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from .backbones import AdaptedNetwork, Normalize, SourceNetwork
from .backbones.graph import evaluating
from .cache import Cache
from .images import ImageDataset, UnreadableImageError


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
        The same of M0.
    """

    indices: np.ndarray
    adapted: dict[int, torch.Tensor]
    source: dict[int, torch.Tensor]


class Scanner:
    """Runs M0 and the adapted network over batches; what they share runs once.

    Both networks begin with the same frozen layers. These run up to the deepest
    point where a single tensor crosses, the *cut*; then each network's own tail goes
    on. What the frozen part makes of an image is looked up in a cache first, and so
    are M0's scores.

    Parameters
    ----------
    source : SourceNetwork
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
    """

    def __init__(
        self,
        source: SourceNetwork,
        adapted: AdaptedNetwork | None,
        layers: Sequence[int],
        source_layers: Sequence[int],
        *,
        n_frozen: int,
        device: torch.device,
        cache: Cache | None = None,
        start: int | None = None,
    ) -> None:
        graph = source.graph
        self.device = device
        self.positions = list(layers), list(source_layers)
        self.normalize = Normalize(source.preprocessing).to(device)
        self._networks = [
            source.module if adapted is None else adapted.network,
            source.module,
        ]
        for network in self._networks:
            network.to(device)
        cut = graph.input if start is None else graph.layers[start].output
        self._prefix = None
        if start is None:
            cut = graph.cut_before(min([n_frozen - 1, *layers, *source_layers]))
            self._prefix = graph.extract(source.module, [cut])
        self._tails = [
            graph.extract(network, [graph.layers[p].output for p in positions], cut)
            for network, positions in zip(self._networks, self.positions, strict=True)
        ]
        self.cache = cache if cut is not graph.input and start is None else None
        self.space = self.source_space = ""
        if self.cache is not None:
            self.space = f"{source.space}-{device.type}-{cut.name}"
            if self.positions[1] == [len(graph.layers) - 1]:
                self.source_space = f"{source.space}-{device.type}-scores"

    @torch.inference_mode()
    def frozen_outputs(self, batch: torch.Tensor) -> torch.Tensor:
        """What crosses the cut, for a batch of images."""
        if self._prefix is None:
            return batch.to(self.device)
        single = len(batch) == 1
        if single:
            # Kernels for one image round differently. Two or more agree to the bit,
            # so an entry does not depend on the batch that it was computed in.
            batch = torch.cat([batch, batch])
        x = self.normalize(batch.to(self.device))
        with evaluating(self._networks):
            (x,) = self._prefix(x)
        return x[:1] if single else x

    @torch.inference_mode()
    def __call__(
        self, x: torch.Tensor, source_scores: torch.Tensor | None = None
    ) -> tuple[dict[int, torch.Tensor], dict[int, torch.Tensor]]:
        """Outputs of the adapted network's layers and of M0's, by position.

        Parameters
        ----------
        x : torch.Tensor
            What crosses the cut.
        source_scores : torch.Tensor, optional
            M0's scores, where they are known already.
        """
        with evaluating(self._networks):
            outputs = [self._tails[0](x)]
            if source_scores is None:
                outputs.append(self._tails[1](x))
            else:
                outputs.append((source_scores,))
        adapted, source = (
            {p: o.flatten(1) for p, o in zip(positions, values, strict=True)}
            for positions, values in zip(self.positions, outputs, strict=True)
        )
        return adapted, source


def scan(
    dataset: Dataset,
    scanner: Scanner,
    batch_size: int,
    *,
    skip_unreadable: bool = False,
    progress: str | None = None,
) -> Iterator[ScanBatch]:
    """Map a scanner over a dataset, batch by batch, in order.

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
    unreadable: list[str] = []
    loader = _load(dataset, scanner, batch_size, skip_unreadable)
    for items in tqdm(loader, desc=progress, disable=progress is None):
        unreadable.extend(item.error for item in items if item.error)
        items = [item for item in items if not item.error]
        if items:
            x = _cut_values(items, scanner)
            adapted, source = scanner(x, _known_scores(items, scanner))
            _keep_scores(items, source, scanner)
            indices = np.array([item.index for item in items], dtype=np.intp)
            yield ScanBatch(indices, adapted, source)
    if unreadable:
        warn_unreadable(unreadable)


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
    found: list[np.ndarray] = []
    for items in _load(dataset, scanner, batch_size, skip_unreadable=False):
        found.append(_cut_values(items, scanner).cpu().numpy())
        n = len(dataset)  # type: ignore[arg-type]
        if found[0][:1].nbytes * n > limit:
            return None
    return np.concatenate(found)


def _load(
    dataset: Dataset, scanner: Scanner, batch_size: int, skip_unreadable: bool
) -> DataLoader:
    return DataLoader(
        _Indexed(dataset, scanner, skip_unreadable),
        batch_size=batch_size,
        collate_fn=list,
        # Or each pass would draw a seed from torch's global generator.
        generator=torch.Generator(),
    )


def _cut_values(items: list[_Item], scanner: Scanner) -> torch.Tensor:
    """Outputs of the frozen part: those known, and the others computed and kept."""
    new = [item for item in items if item.cut_value is None]
    if new:
        images = torch.stack([item.image for item in new if item.image is not None])
        values = scanner.frozen_outputs(images)
        if len(new) == len(items) and scanner.cache is None:
            return values
        for item, value in zip(new, values.cpu().numpy(), strict=True):
            item.cut_value = value.copy()
            if scanner.cache is not None and item.key:
                scanner.cache.put(scanner.space, item.key, item.cut_value)
    stacked = np.stack([item.cut_value for item in items if item.cut_value is not None])
    return torch.from_numpy(stacked).to(scanner.device)


def _known_scores(items: list[_Item], scanner: Scanner) -> torch.Tensor | None:
    scores = [item.source_scores for item in items]
    if any(row is None for row in scores):
        return None
    return torch.from_numpy(np.stack(scores)).to(scanner.device)  # type: ignore[arg-type]


def _keep_scores(
    items: list[_Item], source: dict[int, torch.Tensor], scanner: Scanner
) -> None:
    if not scanner.source_space or scanner.cache is None:
        return
    (scores,) = source.values()
    for item, row in zip(items, scores.cpu().numpy(), strict=True):
        if item.source_scores is None and item.key:
            scanner.cache.put(scanner.source_space, item.key, row.copy())


def warn_unreadable(errors: Sequence[str]) -> None:
    """Say once how many images are left out, and why the first one is."""
    warnings.warn(
        f"{len(errors)} unreadable image(s) left out, the first: {errors[0]}",
        UserWarning,
        stacklevel=3,
    )


@dataclass
class _Item:
    """An image of a batch, with what is known of it."""

    index: int
    key: str = ""
    image: torch.Tensor | None = None
    cut_value: np.ndarray | None = None
    source_scores: np.ndarray | None = None
    error: str = ""


class _Indexed(Dataset):
    """Items of a data set with their index, decoded only where nothing is known."""

    def __init__(
        self, dataset: Dataset, scanner: Scanner, skip_unreadable: bool
    ) -> None:
        self.dataset = dataset
        self.scanner = scanner
        self.skip_unreadable = skip_unreadable

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, i: int) -> _Item:
        item = _Item(i)
        cache, scanner = self.scanner.cache, self.scanner
        try:
            if cache is None or not isinstance(self.dataset, ImageDataset):
                item.image = self.dataset[i]
                return item
            item.key, load = self.dataset.keyed(i)
            item.cut_value = cache.get(scanner.space, item.key)
            if scanner.source_space:
                item.source_scores = cache.get(scanner.source_space, item.key)
            if item.cut_value is None:
                item.image = load()
        except UnreadableImageError as error:
            if not self.skip_unreadable:
                raise
            item.error = str(error)
        return item
