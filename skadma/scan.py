"""One pass over images that yields all that anybody wants to know of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from .backbones import AdaptedNetwork, Normalize, SourceNetwork
from .images import UnreadableImageError


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
    point where a single tensor crosses, then each network's own tail goes on.

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
    device : torch.device
    start : int, optional
        Batches are not images but outputs of this layer of M0.
    """

    def __init__(
        self,
        source: SourceNetwork,
        adapted: AdaptedNetwork | None,
        layers: Sequence[int],
        source_layers: Sequence[int],
        device: torch.device,
        start: int | None = None,
    ) -> None:
        graph = source.graph
        self.device = device
        self.positions = list(layers), list(source_layers)
        self.normalize = Normalize(source.preprocessing).to(device)
        begin = graph.input if start is None else graph.layers[start].output
        networks = [
            source.module if adapted is None else adapted.network,
            source.module,
        ]
        for network in networks:
            network.to(device)
        self._networks = networks
        cut, self._prefix = begin, None
        if all(self.positions) and start is None:
            deepest = len(graph.layers) if adapted is None else adapted.n_frozen
            cut = graph.cut_before(min([deepest - 1, *layers, *source_layers]))
            self._prefix = graph.extract(source.module, [cut])
        self._tails = [
            graph.extract(network, [graph.layers[p].output for p in positions], cut)
            for network, positions in zip(networks, self.positions, strict=True)
        ]

    @torch.inference_mode()
    def __call__(self, batch: torch.Tensor) -> tuple[dict, dict]:
        """Outputs of the adapted network's layers and of M0's, by position."""
        x = self.normalize(batch.to(self.device))
        with _evaluating(self._networks):
            if self._prefix is not None:
                (x,) = self._prefix(x)
            adapted, source = (
                {p: o.flatten(1) for p, o in zip(positions, tail(x), strict=True)}
                for tail, positions in zip(self._tails, self.positions, strict=True)
            )
        return adapted, source


@contextmanager
def _evaluating(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Switch networks to eval mode and each module back to what it was in."""
    training = [m for net in networks for m in net.modules() if m.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


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
    loader = DataLoader(
        _Indexed(dataset, skip_unreadable), batch_size=batch_size, collate_fn=_collate
    )
    unreadable: list[str] = []
    for indices, batch, errors in tqdm(loader, desc=progress, disable=progress is None):
        unreadable.extend(errors)
        if len(indices):
            adapted, source = scanner(batch)
            yield ScanBatch(indices, adapted, source)
    if unreadable:
        warn_unreadable(unreadable)


def warn_unreadable(errors: Sequence[str]) -> None:
    """Say once how many images are left out, and why the first one is."""
    warnings.warn(
        f"{len(errors)} unreadable image(s) left out, the first: {errors[0]}",
        UserWarning,
        stacklevel=3,
    )


class _Indexed(Dataset):
    """A dataset whose items come with their index, or with what went wrong."""

    def __init__(self, dataset: Dataset, skip_unreadable: bool) -> None:
        self.dataset = dataset
        self.skip_unreadable = skip_unreadable

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, i: int) -> tuple[int, torch.Tensor | None, str]:
        try:
            return i, self.dataset[i], ""
        except UnreadableImageError as error:
            if not self.skip_unreadable:
                raise
            return i, None, str(error)


def _collate(
    items: list[tuple[int, torch.Tensor | None, str]],
) -> tuple[np.ndarray, torch.Tensor | None, list[str]]:
    good = [(i, tensor) for i, tensor, _ in items if tensor is not None]
    errors = [error for _, tensor, error in items if tensor is None]
    batch = torch.stack([tensor for _, tensor in good]) if good else None
    return np.array([i for i, _ in good], dtype=np.intp), batch, errors
