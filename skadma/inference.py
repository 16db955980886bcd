"""What the networks say of images: probabilities, scores, embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNetClassifier
from torch import nn

from .features.cnn_adapter import CNNAdapter
from .networks import PretrainedNetwork, load_pretrained, paper_frozen_layers
from .networks.engines import Engine
from .networks.pretrained import LayerTable, layer_table


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
    reduced_decoding: bool
    engine: str
    precision: str
    scan_batch_size: int | None
    on_bad_image: str
    memory: Any
    device: str
    verbose: int
    net_: NeuralNetClassifier
    source_network_: PretrainedNetwork
    n_frozen_: int
    classes_: np.ndarray
    multilabel_: bool

    def __skadma_adapter__(self) -> CNNAdapter:
        return CNNAdapter(self)

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
        view = CNNAdapter(self)
        (scores,) = view.collect(X, layers=[-1])[0].values()
        return view.proba_of(scores)

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
        view = CNNAdapter(self)
        for n, batches in view.iter_outputs_in_parts(parts, [-1]):
            proba = np.full((n, len(self.classes_)), np.nan)
            for batch in batches:
                (scores,) = batch.adapted.values()
                proba[batch.indices] = view.proba_of(scores.cpu().numpy())
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
        (scores,) = CNNAdapter(self).collect(X, layers=[-1])[0].values()
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
        view = CNNAdapter(self)
        if view.fitted:
            found, _ = view.collect(X, layers=asked)
        else:
            _, found = view.collect(X, source_layers=asked)
        return {layer: found[view.position(layer)] for layer in asked}

    def source_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the K source classes by M0, before and after ``fit``.

        Parameters
        ----------
        X : images

        Returns
        -------
        ndarray of shape (n, K), float64
        """
        (scores,) = CNNAdapter(self).collect(X, source_layers=[-1])[1].values()
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

    def source_network(self) -> PretrainedNetwork:
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

    def _resolve_frozen(self, source: PretrainedNetwork) -> int:
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

    def _load_source(self, rows: np.ndarray | None) -> PretrainedNetwork:
        example = None if rows is None else torch.from_numpy(rows)
        return load_pretrained(
            self.backbone,
            self.weights,
            self.image_size,
            example,
            reduced=self.reduced_decoding,
            engine=Engine(self.engine, self.precision),
        )

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
