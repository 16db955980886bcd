"""What strategies and centres ask of an estimator that has a network to look into."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax

from ..images.dataset import n_images
from .extractor import DerivedOutput
from .passes import OutputBatch


class NetworkAdapter(ABC):
    """An estimator as the strategies see it that look into its network.

    An estimator of any package takes part by a method ``__skadma_adapter__()`` that
    returns one of these, for the network as it is at that moment. What is abstract here
    is enough for strategies that choose by features and probabilities; what raises
    TypeError here is for the few whose names stand beside it.

    Layers are numbered from 0 in the order in which they run. The last one's outputs
    are class scores.

    Parameters
    ----------
    estimator : object
        Whose network it is.
    """

    skips_unreadable = False
    # Whether images that cannot be decoded are left out instead of raising.
    source_name: str | None = None
    # The pretrained network M0, as SourceCenters name it; for ADMA.
    source_fingerprint: str | None = None
    # Hash of M0's weights; for ADMA.
    source_namespace: str | None = None
    # Hash of all that M0's outputs depend on; for ADMA.
    image_size: int | None = None
    # Side in pixels of the images that M0 sees; for ADMA.

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    @property
    @abstractmethod
    def fitted(self) -> bool:
        """Whether there is an adapted network beside M0."""

    @property
    @abstractmethod
    def n_layers(self) -> int:
        """How many layers there are."""

    @abstractmethod
    def position(self, layer: int | str) -> int:
        """Position from 0 of a layer that is given by name or, from the end, negative.

        Raises
        ------
        ValueError
            If there is no such layer.
        """

    @abstractmethod
    def iter_outputs(
        self,
        X: Any,
        layers: Sequence[int | str] = (),
        source_layers: Sequence[int | str] = (),
        *,
        summary: DerivedOutput | None = None,
        progress: str | None = None,
    ) -> Iterator[OutputBatch]:
        """Pass over images once, batch by batch, for outputs of both networks.

        Parameters
        ----------
        X : images
        layers : sequence of int or str
            Layers of the adapted network (of M0 before ``fit``); -1 is the scores.
        source_layers : sequence of int or str
            Layers of M0.
        summary : DerivedOutput, optional
            What to make of the layers. Whoever keeps it need not compute the layers
            that only it needs where it is known for a whole batch; whoever does not may
            ignore it.
        progress : str, optional
            Label of a progress bar.

        Returns
        -------
        iterator of OutputBatch
            In order. Images that cannot be decoded are missing.
        """

    @property
    def multilabel(self) -> bool:
        """Whether an image has any number of labels instead of one."""
        return bool(getattr(self.estimator, "multilabel_", False))

    @property
    def n_frozen(self) -> int:
        """How many layers both networks share; for ADMA with centres of outputs."""
        return 0

    def proba_of(self, scores: np.ndarray) -> np.ndarray:
        """Class probabilities of class scores.

        Parameters
        ----------
        scores : ndarray of shape (n, n_classes)
            The outputs of the adapted network's last layer.

        Returns
        -------
        ndarray of shape (n, n_classes), float64
        """
        scores = scores.astype(np.float64)
        return expit(scores) if self.multilabel else softmax(scores, axis=1)

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
            See :meth:`iter_outputs`.

        Returns
        -------
        adapted, source : dict of int to ndarray of shape (n, d), float32
            By position; NaN for images that cannot be decoded.
        """
        found: tuple[dict, dict] = {}, {}
        batches = self.iter_outputs(X, layers, source_layers, progress="images")
        n = n_images(X)
        for batch in batches:
            for into, outputs in zip(found, (batch.adapted, batch.source), strict=True):
                for layer, values in outputs.items():
                    rows = values.cpu().numpy()
                    if layer not in into:
                        into[layer] = np.full((n, rows.shape[1]), np.nan, rows.dtype)
                    into[layer][batch.indices] = rows
        if not any(found):  # not one could be decoded
            for into, asked in zip(found, (layers, source_layers), strict=True):
                for position in map(self.position, asked):
                    width = self.width(position, adapted=into is found[0])
                    into[position] = np.full((n, width), np.nan, np.float32)
        return found

    def width(self, position: int, *, adapted: bool) -> int:
        """Columns of a layer's outputs, where no image could be decoded to tell."""
        return 1

    def readable(self, X: Any) -> np.ndarray:
        """Tell which images can be decoded; all, where a bad one is an error anyway.

        Parameters
        ----------
        X : images

        Returns
        -------
        ndarray of bool, shape (n,)
        """
        return np.ones(n_images(X), dtype=bool)

    def iter_outputs_prepared(
        self,
        inputs: np.ndarray,
        layers: Sequence[int | str] = (),
        source_layers: Sequence[int | str] = (),
        *,
        start: int | None = None,
        summary: DerivedOutput | None = None,
        keep: bool = True,
    ) -> Iterator[OutputBatch]:
        """Scan what is already as a network takes it; for ADMA.

        Parameters
        ----------
        inputs : ndarray of shape (n, ...)
            uint8 images (n, 3, side, side) of the network's size, rows of a table for
            a network that takes them or, with `start`, outputs of that layer.
        layers, source_layers
            See :meth:`iter_outputs`.
        start : int, optional
            Position of the layer whose outputs `inputs` are.
        summary : DerivedOutput, optional
            See :meth:`iter_outputs`.
        keep : bool, default=True
            Whether outputs may be kept; not of what will not be seen again.

        Returns
        -------
        iterator of OutputBatch
        """
        raise self._cannot("iter_outputs_prepared")

    def iter_patch_outputs(
        self, X: Any, n_windows: int, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Scan parts of images for the adapted network's scores; for AIFT.

        Parameters
        ----------
        X : images
        n_windows : int
            Parts, the same of every image: random rectangles half as high and wide.
        rng : Generator

        Returns
        -------
        iterator of (indices, scores)
            Positions (b,) in X and scores (b, n_windows, n_classes).
        """
        raise self._cannot("iter_patch_outputs")

    def predict_features(self, features: np.ndarray, layer: int | str) -> np.ndarray:
        """Class probabilities of changed outputs of a layer; for DropQuery and BALD.

        Parameters
        ----------
        features : ndarray of shape (n, d)
        layer : int or str

        Returns
        -------
        ndarray of shape (n, n_classes), float64
        """
        raise self._cannot("predict_features")

    def _cannot(self, method: str) -> TypeError:
        return TypeError(
            f"This strategy needs {method!r} of the estimator's view, which that of "
            f"{type(self.estimator).__name__} does not have. Take another strategy, "
            "such as MarginSampling, CoreSet or UncertaintyHerding, or CNNClassifier."
        )


def get_adapter(estimator: Any) -> NetworkAdapter | None:
    """Return what an estimator shows of its network, or None where it shows nothing.

    Parameters
    ----------
    estimator : object
        A classifier, not a Pipeline around one.

    Returns
    -------
    NetworkAdapter or None
    """
    show = getattr(type(estimator), "__skadma_adapter__", None)
    return None if show is None else show(estimator)


def need_view(estimator: Any) -> NetworkAdapter:
    """Return what an estimator shows of its network.

    Parameters
    ----------
    estimator : object

    Returns
    -------
    NetworkAdapter

    Raises
    ------
    TypeError
        If it shows nothing.
    """
    view = get_adapter(estimator)
    if view is None:
        raise TypeError(
            f"Source centres are compared with what a network makes of images, but "
            f"{type(estimator).__name__} shows none. Take a CNNClassifier, or give the "
            "class a method __skadma_adapter__, see "
            "skadma.features.adapter.NetworkAdapter."
        )
    return view
