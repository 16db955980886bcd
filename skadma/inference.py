"""What the networks say of images: scores, embeddings, and scans for strategies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted, validate_data
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import Dataset

from .backbones import SourceNetwork, load_source, paper_frozen_layers
from .backbones.layer_table import LayerTable, layer_table
from .cache import open_cache
from .image_forms import is_table
from .images import ImageDataset, Rows, n_images
from .scan import ScanBatch, scan, scan_windows
from .scanner import Scanner, SourceSummary
from .windows import random_windows


class CNNInference(BaseEstimator):
    """The part of :class:`~skadma.CNNClassifier` that looks at images.

    M0 speaks before ``fit``, the adapted network (and M0 beside it) afterwards.
    """

    backbone: str | Callable[[], nn.Module]
    weights: str | Path | None
    n_frozen_layers: str | int
    training: str
    image_size: int | None
    image_shape: tuple[int, ...] | None
    scan_batch_size: int | None
    on_bad_image: str
    memory: Any
    device: str
    verbose: int
    net_: NeuralNetClassifier
    source_network_: SourceNetwork
    n_frozen_: int
    classes_: np.ndarray
    multilabel_: bool

    def predict_proba(self, X: Any) -> np.ndarray:
        """Class probabilities.

        Parameters
        ----------
        X : images

        Returns
        -------
        ndarray of shape (n, n_classes), float64
            In the order of ``classes_``. A row's sum is 1, except with several labels
            per image, of which each has a probability of its own. NaN for an image
            that cannot be decoded with ``on_bad_image="skip"``.
        """
        check_is_fitted(self)
        (scores,) = self.collect(X, layers=[-1])[0].values()
        return self.proba_of(scores)

    def proba_of(self, scores: np.ndarray) -> np.ndarray:
        """Class probabilities of class scores.

        Parameters
        ----------
        scores : ndarray of shape (n, n_classes)
            The outputs of layer -1 of the adapted network.

        Returns
        -------
        ndarray of shape (n, n_classes), float64
        """
        if self.multilabel_:
            return expit(scores.astype(np.float64))
        return _softmax(scores)

    def predict_proba_in_parts(self, parts: Iterable[Any]) -> Iterator[np.ndarray]:
        """Class probabilities of images that come in parts, without end if need be.

        Nothing is kept of them, neither in memory nor in the cache.

        Parameters
        ----------
        parts : iterable of images
            Not of a table's rows.

        Yields
        ------
        ndarray of shape (n, n_classes), float64
            As by :meth:`predict_proba`, of each part.
        """
        check_is_fitted(self)
        source = self.source_network()
        scanner = self._scanner(source, [-1], [], keep=False)
        for part in parts:
            dataset = self.image_dataset(part, source)
            proba = np.full((len(dataset), len(self.classes_)), np.nan)
            for batch in scan(
                dataset,
                scanner,
                self._scan_batch_size(),
                skip_unreadable=self.on_bad_image == "skip",
            ):
                (scores,) = batch.adapted.values()
                proba[batch.indices] = self.proba_of(scores.cpu().numpy())
            yield proba

    def decision_function(self, X: Any) -> np.ndarray:
        """Class scores: the network's logits.

        Parameters
        ----------
        X : images

        Returns
        -------
        ndarray of shape (n, n_classes), or (n,) for two classes, float32
            In the order of ``classes_``; with several labels per image above 0 where
            one is predicted, and always of the former shape. For two classes the
            second one's less the first one's, which is above 0 where the second is
            predicted. NaN for an image that cannot be decoded with
            ``on_bad_image="skip"``.
        """
        check_is_fitted(self)
        (scores,) = self.collect(X, layers=[-1])[0].values()
        if scores.shape[1] == 2 and not self.multilabel_:
            return scores[:, 1] - scores[:, 0]
        return scores

    def predict(self, X: Any) -> np.ndarray:
        """Most probable labels.

        Parameters
        ----------
        X : images

        Returns
        -------
        ndarray of shape (n,), or of int, shape (n, n_classes)
            The latter with several labels per image: 1 for each that is more probable
            than not.

        Raises
        ------
        ValueError
            If an image cannot be decoded: there is no label to give.
        """
        proba = self.predict_proba(X)
        bad = np.flatnonzero(np.isnan(proba[:, 0]))
        if len(bad):
            raise ValueError(
                f"The images {bad.tolist()} cannot be decoded or scored, so they have "
                "no label. Leave them out; predict_proba gives NaN for them."
            )
        if self.multilabel_:
            return (proba > 0.5).astype(int)
        return self.classes_[proba.argmax(axis=1)]

    def embed(
        self, X: Any, layers: int | str | Sequence[int | str] = (-4, -2)
    ) -> dict[int | str, np.ndarray]:
        """Outputs of layers: what the next weighted layer receives, flattened.

        Of the adapted network, or of M0 before ``fit``.

        Parameters
        ----------
        X : images
        layers : int, str or sequence of them, default=(-4, -2)
            Positions or names, see :meth:`layers`.

        Returns
        -------
        dict of layer to ndarray of shape (n, d), float32
            Keyed by the layers as they were given.
        """
        asked: list[int | str] = (
            [layers]  # type: ignore[list-item]
            if isinstance(layers, (Integral, str))
            else list(layers)  # type: ignore[arg-type]
        )
        network = 0 if hasattr(self, "net_") else 1
        found = self.collect(X, [] if network else asked, asked if network else [])[
            network
        ]
        position = self.source_network().graph.position
        return {layer: found[position(layer)] for layer in asked}

    def source_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the K source classes by M0, before and after ``fit``.

        Parameters
        ----------
        X : images

        Returns
        -------
        ndarray of shape (n, K), float64
        """
        (scores,) = self.collect(X, source_layers=[-1])[1].values()
        return _softmax(scores)

    def layers(self) -> LayerTable:
        """List the weighted layers: position, name, output shape, frozen or not.

        Returns
        -------
        LayerTable
            A list of rows; ``print`` shows it as a table.
        """
        source = self.source_network()
        n_classes = len(self.classes_) if hasattr(self, "net_") else source.n_classes
        return layer_table(source, self._resolve_frozen(source), n_classes)

    def source_network(self) -> SourceNetwork:
        """Return M0: as used in ``fit``, or built from the parameters before it."""
        if hasattr(self, "net_"):
            return self.source_network_
        return self._load_source(None)

    @property
    def n_frozen(self) -> int:
        """How many layers are frozen, or would be by ``fit``."""
        if hasattr(self, "net_"):
            return self.n_frozen_
        return self._resolve_frozen(self.source_network())

    def scan(
        self,
        X: Any,
        layers: Sequence[int | str] = (),
        source_layers: Sequence[int | str] = (),
        *,
        summary: SourceSummary | None = None,
        progress: str | None = None,
    ) -> Iterator[ScanBatch]:
        """Pass over images once, batch by batch, for outputs of both networks.

        What strategies are built on: never more than a batch is held.

        Parameters
        ----------
        X : images
        layers : sequence of int or str
            Layers of the adapted network (of M0 before ``fit``); -1 is the scores.
        source_layers : sequence of int or str
            Layers of M0.
        summary : SourceSummary, optional
            What to make of M0's layers. It is kept, and where it is known for a
            whole batch, M0's layers are not computed.
        progress : str, optional
            Label of a progress bar, shown if `verbose`.

        Returns
        -------
        iterator of ScanBatch
        """
        source, dataset = self._open(X, reset=False)
        return self._scan(
            source, dataset, layers, source_layers, progress, summary=summary
        )

    def _scan(
        self,
        source: SourceNetwork,
        dataset: Dataset,
        layers: Sequence[int | str],
        source_layers: Sequence[int | str],
        progress: str | None,
        **options: Any,
    ) -> Iterator[ScanBatch]:
        scanner = self._scanner(source, layers, source_layers, **options)
        return scan(
            dataset,
            scanner,
            self._scan_batch_size(),
            skip_unreadable=self.on_bad_image == "skip",
            progress=progress if self.verbose else None,
        )

    def scan_prepared(
        self,
        inputs: np.ndarray,
        layers: Sequence[int | str] = (),
        source_layers: Sequence[int | str] = (),
        *,
        start: int | None = None,
        summary: SourceSummary | None = None,
        keep: bool = True,
    ) -> Iterator[ScanBatch]:
        """Scan what is already as a network takes it.

        Parameters
        ----------
        inputs : ndarray of shape (n, ...)
            uint8 images (n, 3, side, side) of the network's size, rows of a table for
            a network that takes them or, with `start`, outputs of that layer.
        layers, source_layers
            See :meth:`scan`.
        start : int, optional
            Position of the layer whose outputs `inputs` are.
        summary : SourceSummary, optional
            See :meth:`scan`.
        keep : bool, default=True
            Whether the frozen layers' outputs go to the cache; not of what will not
            be seen again.

        Returns
        -------
        iterator of ScanBatch
        """
        dtype = torch.uint8 if inputs.dtype == np.uint8 else torch.float32
        scanner = self._scanner(
            self.source_network(),
            layers,
            source_layers,
            start=start,
            summary=summary,
            keep=keep,
        )
        return scan(Rows(inputs, dtype), scanner, self._scan_batch_size())

    def scan_windows(
        self, X: Any, n_windows: int, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Scan parts of images for the scores that the adapted network gives them.

        The parts are cut out of the maps that leave the frozen layers, so these run
        once for all parts, and not again in the next round. A part sees a little
        beyond its border, as far as the frozen layers' fields reach.

        Parameters
        ----------
        X : images
        n_windows : int
            Parts, the same of every image: random rectangles half as high and wide
            as the map.
        rng : Generator

        Returns
        -------
        iterator of (indices, scores)
            Positions (b,) in X and scores (b, n_windows, n_classes); images that
            cannot be decoded are missing with ``on_bad_image="skip"``.

        Raises
        ------
        ValueError
            If `X` is a table.
        """
        source, dataset = self._open(X, reset=False)
        if not isinstance(dataset, ImageDataset):
            raise ValueError("Patches are parts of images, but X is a table.")
        n_shared, shape = source.last_map(self.n_frozen, n_windows)
        scanner = self._scanner(source, [-1], [], n_shared=n_shared)
        return scan_windows(
            dataset,
            scanner,
            self._scan_batch_size(),
            random_windows(*shape, n_windows, rng),
            skip_unreadable=self.on_bad_image == "skip",
            progress="patches" if self.verbose else None,
        )

    def _scanner(
        self,
        source: SourceNetwork,
        layers: Sequence[int | str],
        source_layers: Sequence[int | str],
        *,
        start: int | None = None,
        summary: SourceSummary | None = None,
        keep: bool = True,
        network: nn.Module | None = None,
        n_shared: int | None = None,
    ) -> Scanner:
        if n_shared is None:
            fitted = hasattr(self, "net_")
            n_shared = self.n_frozen_ if fitted else self._resolve_frozen(source)
        if network is None and hasattr(self, "net_"):
            network = self.net_.module_
        return Scanner(
            source,
            network,  # type: ignore[arg-type]
            [source.graph.position(layer) for layer in layers],
            [source.graph.position(layer) for layer in source_layers],
            n_frozen=n_shared,
            device=self.torch_device(),
            cache=open_cache(self.memory) if keep else None,
            start=start,
            summary=summary,
        )

    def collect(
        self,
        X: Any,
        layers: Sequence[int | str] = (),
        source_layers: Sequence[int | str] = (),
    ) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
        """Scan images for whole arrays of layers' outputs.

        Parameters
        ----------
        X : images
        layers, source_layers
            See :meth:`scan`.

        Returns
        -------
        adapted, source : dict of int to ndarray of shape (n, d), float32
            By position; NaN for images that cannot be decoded.
        """
        found: tuple[dict, dict] = {}, {}
        source, dataset = self._open(X, reset=False)
        n = len(dataset)  # type: ignore[arg-type]
        for batch in self._scan(source, dataset, layers, source_layers, "images"):
            for into, outputs in zip(found, (batch.adapted, batch.source), strict=True):
                for layer, values in outputs.items():
                    rows = values.cpu().numpy()
                    if layer not in into:
                        into[layer] = np.full((n, rows.shape[1]), np.nan, rows.dtype)
                    into[layer][batch.indices] = rows
        if not any(found):  # not one could be decoded
            for into, asked in zip(found, (layers, source_layers), strict=True):
                for position in map(source.graph.position, asked):
                    width = math.prod(source.output_shapes[position])
                    if position == len(source.graph.layers) - 1 and into is found[0]:
                        width = len(getattr(self, "classes_", range(width)))
                    into[position] = np.full((n, width), np.nan, np.float32)
        return found

    def _resolve_frozen(self, source: SourceNetwork) -> int:
        n = len(source.graph.layers)
        if self.training == "probe":
            return n - 1
        if self.n_frozen_layers == "paper":
            return paper_frozen_layers(source.name, n)
        frozen = int(self.n_frozen_layers)
        if not -n <= frozen < n:
            raise ValueError(
                f"n_frozen_layers={frozen}, but {source.name} has {n} weighted layers, "
                f"of which 0 to {n - 1} can be frozen (negative: all but the last)."
            )
        return frozen % n

    def _open(self, X: Any, *, reset: bool) -> tuple[SourceNetwork, Dataset]:
        """M0 and the images as a data set of tensors for it."""
        fitted = hasattr(self, "net_") and not reset
        if self.takes_rows(X):
            options: dict = {"dtype": np.float32, "estimator": self}
            if fitted or reset:
                X = validate_data(self, X, reset=reset, dtype=np.float32)
            else:
                X = check_array(X, **options)
            source = self.source_network_ if fitted else self._load_source(X[:1])
            return source, Rows(X)
        source = self.source_network_ if fitted else self._load_source(None)
        return source, self.image_dataset(X, source)

    def image_dataset(
        self, X: Any, source: SourceNetwork | None = None
    ) -> ImageDataset:
        """Open images as the network takes them.

        Parameters
        ----------
        X : images
        source : SourceNetwork, optional
            M0, where it is at hand.

        Returns
        -------
        ImageDataset
        """
        source = source or self.source_network()
        return ImageDataset(X, source.preprocessing, image_shape=self.image_shape)

    def readable(self, X: Any) -> np.ndarray:
        """Tell which images can be decoded; all, where a bad one is an error anyway.

        Parameters
        ----------
        X : images

        Returns
        -------
        ndarray of bool, shape (n,)
        """
        if self.on_bad_image != "skip" or self.takes_rows(X):
            return np.ones(n_images(X), dtype=bool)
        return self.image_dataset(X).readable()

    def takes_rows(self, X: Any) -> bool:
        """Tell whether `X` is a table for a callable's network, not images."""
        is_name = isinstance(self.backbone, str)
        return not is_name and self.image_shape is None and is_table(X)

    def _load_source(self, rows: np.ndarray | None) -> SourceNetwork:
        example = None if rows is None else torch.from_numpy(rows)
        return load_source(self.backbone, self.weights, self.image_size, example)

    def _scan_batch_size(self) -> int:
        if self.scan_batch_size is not None:
            return self.scan_batch_size
        return 16 if self.torch_device().type == "cpu" else 256

    def torch_device(self) -> torch.device:
        """Return the device that `device` means here."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return torch.device(self.device)


def _softmax(scores: np.ndarray) -> np.ndarray:
    return softmax(scores.astype(np.float64), axis=1)
