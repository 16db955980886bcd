"""The view of a CNNClassifier's network: scans of images by M0 and the adapted one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data
from torch import nn

from ..images.dataset import ImageDataset, Rows, n_images
from ..images.forms import is_table
from ..images.patches import random_windows
from ..networks import PretrainedNetwork
from .adapter import NetworkAdapter
from .cache import open_cache
from .extractor import DerivedOutput, FeatureExtractor
from .passes import OutputBatch, iter_outputs, iter_patch_outputs


class CNNAdapter(NetworkAdapter):
    """What a CNNClassifier shows of its network.

    Parameters
    ----------
    estimator : CNNClassifier
    network : torch.nn.Module, optional
        Runs in place of the adapted network.
    """

    def __init__(self, estimator: Any, network: nn.Module | None = None) -> None:
        super().__init__(estimator)
        self._network = network

    def with_network(self, network: nn.Module) -> CNNAdapter:
        """Return an adapter that runs `network` in place of the adapted network."""
        return CNNAdapter(self.estimator, network)

    @property
    def skips_unreadable(self) -> bool:  # type: ignore[override]
        """Whether images that cannot be decoded are left out instead of raising."""
        return self.estimator.on_bad_image == "skip"

    @property
    def fitted(self) -> bool:
        """Whether there is an adapted network beside M0."""
        return hasattr(self.estimator, "net_")

    @property
    def n_layers(self) -> int:
        """How many layers there are."""
        return len(self._source.graph.layers)

    @property
    def n_frozen(self) -> int:
        """How many layers both networks share, or will share."""
        return self.estimator.n_frozen

    @property
    def source_name(self) -> str:  # type: ignore[override]
        """The pretrained network M0."""
        return self._source.name

    @property
    def source_fingerprint(self) -> str:  # type: ignore[override]
        """Hash of M0's weights."""
        return self._source.fingerprint

    @property
    def source_namespace(self) -> str:  # type: ignore[override]
        """Hash of M0's weights, graph, modules and preprocessing."""
        return self._source.namespace

    @property
    def image_size(self) -> int:  # type: ignore[override]
        """Side in pixels of the images that M0 sees."""
        return self._source.preprocessing.image_size

    @property
    def _source(self) -> PretrainedNetwork:
        return self.estimator.source_network()

    def position(self, layer: int | str) -> int:
        """Position from 0 of a layer, see :meth:`NetworkAdapter.position`."""
        return self._source.graph.position(layer)

    # --- scans ----------------------------------------------------------------------

    def iter_outputs(
        self,
        X: Any,
        layers: Sequence[int | str] = (),
        source_layers: Sequence[int | str] = (),
        *,
        summary: DerivedOutput | None = None,
        progress: str | None = None,
    ) -> Iterator[OutputBatch]:
        """Pass over images once, see :meth:`NetworkAdapter.iter_outputs`.

        Never more than a batch is held. A summary is kept where the frozen layers'
        outputs are. The progress bar is shown if the estimator is `verbose`.
        """
        source, dataset = self.open(X)
        return self.iter_outputs_of(
            source, dataset, layers, source_layers, summary=summary, progress=progress
        )

    def iter_outputs_of(
        self,
        source: PretrainedNetwork,
        dataset: Any,
        layers: Sequence[int | str] = (),
        source_layers: Sequence[int | str] = (),
        *,
        summary: DerivedOutput | None = None,
        progress: str | None = None,
    ) -> Iterator[OutputBatch]:
        """Pass over what :meth:`open` returned."""
        extractor = self._scanner(source, layers, source_layers, summary=summary)
        return iter_outputs(
            dataset,
            extractor,
            self.estimator._scan_batch_size(),
            skip_unreadable=self.skips_unreadable,
            progress=progress if self.estimator.verbose else None,
        )

    def iter_outputs_in_parts(
        self, parts: Iterable[Any], layers: Sequence[int | str]
    ) -> Iterator[tuple[int, Iterator[OutputBatch]]]:
        """Scan images that come in parts, and keep nothing of them.

        Parameters
        ----------
        parts : iterable of images
            Not of a table's rows.
        layers : sequence of int or str
            Of the adapted network.

        Yields
        ------
        n : int
            Images of the part.
        batches : iterator of OutputBatch
        """
        source = self._source
        extractor = self._scanner(source, layers, (), keep=False)
        for part in parts:
            dataset = self.image_dataset(part, source)
            yield (
                len(dataset),
                iter_outputs(
                    dataset,
                    extractor,
                    self.estimator._scan_batch_size(),
                    skip_unreadable=self.skips_unreadable,
                ),
            )

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
        """Scan what is prepared, see :meth:`NetworkAdapter.iter_outputs_prepared`."""
        dtype = torch.uint8 if inputs.dtype == np.uint8 else torch.float32
        extractor = self._scanner(
            self._source,
            layers,
            source_layers,
            start=start,
            summary=summary,
            keep=keep,
        )
        return iter_outputs(
            Rows(inputs, dtype), extractor, self.estimator._scan_batch_size()
        )

    def iter_patch_outputs(
        self, X: Any, n_windows: int, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Scan parts of images, see :meth:`NetworkAdapter.iter_patch_outputs`.

        The parts are cut out of the maps that leave the frozen layers, so these run
        once for all parts, and not again in the next round. A part sees a little
        beyond its border, as far as the frozen layers' fields reach.

        Raises
        ------
        ValueError
            If `X` is a table.
        """
        source, dataset = self.open(X)
        if not isinstance(dataset, ImageDataset):
            raise ValueError("Patches are parts of images, but X is a table.")
        n_shared, shape = source.deepest_map(self.n_frozen, n_windows)
        extractor = self._scanner(source, [-1], [], n_shared=n_shared)
        return iter_patch_outputs(
            dataset,
            extractor,
            self.estimator._scan_batch_size(),
            random_windows(*shape, n_windows, rng),
            skip_unreadable=self.skips_unreadable,
            progress="patches" if self.estimator.verbose else None,
        )

    def _scanner(
        self,
        source: PretrainedNetwork,
        layers: Sequence[int | str],
        source_layers: Sequence[int | str],
        *,
        start: int | None = None,
        summary: DerivedOutput | None = None,
        keep: bool = True,
        n_shared: int | None = None,
    ) -> FeatureExtractor:
        estimator, network = self.estimator, self._network
        if n_shared is None:
            n_shared = (
                estimator.n_frozen_
                if self.fitted
                else estimator._resolve_frozen(source)
            )
        if network is None and self.fitted:
            network = estimator.net_.module_
        return FeatureExtractor(
            source,
            network,  # type: ignore[arg-type]
            list(dict.fromkeys(map(source.graph.position, layers))),
            list(dict.fromkeys(map(source.graph.position, source_layers))),
            n_frozen=n_shared,
            device=estimator.torch_device(),
            cache=open_cache(estimator.memory) if keep else None,
            start=start,
            summary=summary,
        )

    def width(self, position: int, *, adapted: bool) -> int:
        """Columns of a layer's outputs."""
        source = self._source
        width = math.prod(source.output_shapes[position])
        if position == len(source.graph.layers) - 1 and adapted:
            return len(getattr(self.estimator, "classes_", range(width)))
        return width

    def predict_features(self, features: np.ndarray, layer: int | str) -> np.ndarray:
        """Class probabilities of changed inputs of the last layer.

        Raises
        ------
        ValueError
            If `layer` is not the last but one, or the last one not Linear.
        """
        network = self.estimator.net_.module_
        module = network.network.get_submodule(network.head_name)
        if self.position(layer) != self.n_layers - 2 or not isinstance(
            module, nn.Linear
        ):
            raise ValueError(
                f"This strategy varies what the last layer gets, so it needs layer=-2 "
                f"and a network that ends in a Linear layer; got layer={layer!r} and "
                f"{type(module).__name__}."
            )
        with torch.inference_mode():
            rows = torch.from_numpy(features).to(module.weight)
            return softmax(module(rows).double().cpu().numpy(), axis=1)

    # --- images ---------------------------------------------------------------------

    def open(
        self, X: Any, *, reset: bool = False
    ) -> tuple[PretrainedNetwork, ImageDataset | Rows]:
        """M0 and the images as a data set of tensors for it.

        Parameters
        ----------
        X : images
        reset : bool, default=False
            Whether to begin anew, as a first fit does.
        """
        estimator = self.estimator
        fitted = self.fitted and not reset
        if self.takes_rows(X):
            if fitted or reset:
                X = validate_data(estimator, X, reset=reset, dtype=np.float32)
            else:
                X = check_array(X, dtype=np.float32, estimator=estimator)
            example = X[:1]
        else:
            example = None
        source = (
            estimator.source_network_ if fitted else estimator._load_source(example)
        )
        if example is not None:
            return source, Rows(X)
        return source, self.image_dataset(X, source)

    def image_dataset(
        self, X: Any, source: PretrainedNetwork | None = None
    ) -> ImageDataset:
        """Open images as the network takes them.

        Parameters
        ----------
        X : images
        source : PretrainedNetwork, optional
            M0, where it is at hand.

        Returns
        -------
        ImageDataset
        """
        source = source or self._source
        shape = self.estimator.image_shape
        return ImageDataset(X, source.preprocessing, image_shape=shape)

    def readable(self, X: Any) -> np.ndarray:
        """Tell which images can be decoded, see :meth:`NetworkAdapter.readable`."""
        if not self.skips_unreadable or self.takes_rows(X):
            return np.ones(n_images(X), dtype=bool)
        return self.image_dataset(X).readable()

    def takes_rows(self, X: Any) -> bool:
        """Tell whether `X` is a table for a callable's network, not images."""
        is_name = isinstance(self.estimator.backbone, str)
        return not is_name and self.estimator.image_shape is None and is_table(X)
