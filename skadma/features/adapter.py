"""What strategies and centres may ask of an estimator with a network."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax
from torch import nn

from ..images.dataset import ImageDataset, Rows, StoredImages, is_table, n_images
from ..images.decoding import Range
from ..images.patches import random_windows
from ..networks import PretrainedNetwork
from ..networks.pretrained import count_frozen_layers
from ..networks.torch_state import NETWORK_LOCK, torch_defaults
from .cache import open_cache
from .extractor import DerivedOutput, FeatureExtractor, OutputBatch


class NetworkAdapter(ABC):
    """Give strategies and centres the layer outputs of an estimator's network.

    An estimator of any package takes part by a method ``__skadma_adapter__()`` that
    returns one of these for its network as it is at that moment. The abstract methods
    suffice for strategies that choose by features and probabilities. Methods that
    raise TypeError here are needed by the strategies that their docstrings name.

    Layers are numbered from 0 in the order in which they run. The last one's outputs
    are class scores.
    """

    skips_unreadable: bool = False
    # Whether images that cannot be decoded are left out instead of raising.
    source_name: str | None = None
    # Name of the pretrained network, as SourceCenters store it; for ADMA.
    source_fingerprint: str | None = None
    # Hash of the pretrained network's weights; for ADMA.
    image_size: int | None = None
    # Side in pixels of the images that the pretrained network gets; for ADMA.

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    @property
    @abstractmethod
    def fitted(self) -> bool:
        """Whether there is an adapted network beside the pretrained one."""

    @property
    @abstractmethod
    def n_layers(self) -> int:
        """Number of layers."""

    @abstractmethod
    def position(self, layer: int | str) -> int:
        """Position from 0 of a layer given by name or by (negative) position.

        ValueError if there is no such layer.
        """

    @abstractmethod
    def iter_outputs(
        self,
        X: Any,
        layers: Sequence[int | str] = (),
        source_layers: Sequence[int | str] = (),
        *,
        derived: DerivedOutput | None = None,
        progress: str | None = None,
    ) -> Iterator[OutputBatch]:
        """Pass over images once and yield layer outputs of both networks, in order.

        `layers` are the adapted network's (the pretrained one's before ``fit``), -1 is
        the scores; `source_layers` the pretrained network's. `derived` is computed from
        them: an adapter that has it in a cache need not compute `source_layers`, one
        without a cache may ignore it. `progress` is the label of a progress bar. Images
        that cannot be decoded are missing.
        """

    def check_source_classes(self, wanted: str) -> None:  # noqa: B027
        """Raise ValueError if `wanted` needs source classes and there are none."""

    @property
    def multilabel(self) -> bool:
        """Whether an image has any number of labels instead of one."""
        return bool(getattr(self.estimator, "multilabel_", False))

    @property
    def n_frozen(self) -> int:
        """Number of layers that both networks share; for ADMA with kept centres."""
        return 0

    def proba_of(self, scores: np.ndarray) -> np.ndarray:
        """Class probabilities (n, n_classes), float64, of the last layer's outputs."""
        scores = scores.astype(np.float64)
        return expit(scores) if self.multilabel else softmax(scores, axis=1)

    def collect(
        self,
        X: Any,
        layers: Sequence[int | str] = (),
        source_layers: Sequence[int | str] = (),
    ) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
        """Whole arrays (n, d) of both networks' layer outputs, float32, by position.

        NaN for images that cannot be decoded. See :meth:`iter_outputs`.
        """
        found: tuple[dict[int, np.ndarray], dict[int, np.ndarray]] = {}, {}
        n = n_images(X)
        for batch in self.iter_outputs(X, layers, source_layers, progress="images"):
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
        """Which images can be decoded, bool (n,); all if a bad one raises anyway."""
        return np.ones(n_images(X), dtype=bool)

    def iter_outputs_prepared(
        self,
        inputs: np.ndarray,
        layers: Sequence[int | str] = (),
        source_layers: Sequence[int | str] = (),
        *,
        derived: DerivedOutput | None = None,
    ) -> Iterator[OutputBatch]:
        """Yield layer outputs of inputs that need no preparation; for ADMA.

        `inputs` are uint8 images (n, 3, side, side) of the network's size, or rows of
        a table for a network that takes them. See :meth:`iter_outputs`.
        """
        raise self._cannot("iter_outputs_prepared")

    def iter_patch_outputs(
        self, X: Any, n_windows: int, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield the adapted network's scores for patches of images; for AIFT.

        The patches are `n_windows` random rectangles half as high and wide as an
        image, the same of every image. Yields positions (b,) in X and scores
        (b, n_windows, n_classes).
        """
        raise self._cannot("iter_patch_outputs")

    def predict_features(self, features: np.ndarray, layer: int | str) -> np.ndarray:
        """Class probabilities, float64, of changed layer outputs (n, d).

        For DropQuery and BALD.
        """
        raise self._cannot("predict_features")

    def with_range_of(self, X: Any) -> NetworkAdapter:
        """Return an adapter that takes the range of values of `X`, unless it has one.

        So several passes before the first fit read their images alike.
        """
        return self

    def _cannot(self, method: str) -> TypeError:
        return TypeError(
            f"This strategy needs {method!r} of the estimator's adapter, which that of "
            f"{type(self.estimator).__name__} does not have. Take another strategy, "
            "such as MarginSampling, CoreSet or UncertaintyHerding, or CNNClassifier."
        )


@dataclass(eq=False, kw_only=True)
class CNNAdapter(NetworkAdapter):
    """The networks of a CNNClassifier, and how images are brought to them.

    `load` returns the pretrained network, given the first row of a table or None;
    `validate_rows` checks a table and returns it as float32. `adapted` and `n_classes`
    are None before the first fit. With `takes_tables` a 2-D X is a table for the
    network, not flattened images. The others are parameters of the classifier.
    """

    estimator: Any
    load: Callable[[np.ndarray | None], PretrainedNetwork]
    validate_rows: Callable[[Any], np.ndarray]
    adapted: Any
    n_frozen_layers: int | str
    n_classes: int | None
    device: torch.device
    batch_size: int
    memory: Any
    image_shape: Sequence[int] | None
    takes_tables: bool
    skips_unreadable: bool
    verbose: bool
    _source: PretrainedNetwork | None = None
    _finds_range: bool = True

    @property
    def source(self) -> PretrainedNetwork:
        """The pretrained network."""
        # Not a cached_property, which locks all adapters out until Python 3.12.
        if self._source is None:
            self._source = self.load(None)
        return self._source

    @property
    def fitted(self) -> bool:
        """Whether there is an adapted network beside the pretrained one."""
        return self.n_classes is not None

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.source.graph.layers)

    @property
    def n_frozen(self) -> int:
        """Number of layers that both networks share, or will share."""
        return count_frozen_layers(self.source, self.n_frozen_layers)

    source_name = property(lambda self: self.source.name)
    source_fingerprint = property(lambda self: self.source.fingerprint)
    image_size = property(lambda self: self.source.preprocessing.image_size)

    def check_source_classes(self, wanted: str) -> None:
        """Raise ValueError if `wanted` needs source classes and there are none."""
        self.source.check_source_classes(wanted)

    @property
    def value_range(self) -> Range | None:
        """What becomes black and white in images of more than 8 bits."""
        return self.source.preprocessing.value_range

    def position(self, layer: int | str) -> int:
        """Position from 0 of a layer, see :meth:`NetworkAdapter.position`."""
        return self.source.graph.position(layer)

    # --- passes over images ---------------------------------------------------------

    def iter_outputs(
        self,
        X: Any,
        layers: Sequence[int | str] = (),
        source_layers: Sequence[int | str] = (),
        *,
        derived: DerivedOutput | None = None,
        progress: str | None = None,
    ) -> Iterator[OutputBatch]:
        """Pass over images once, see :meth:`NetworkAdapter.iter_outputs`.

        No more than a few batches are held. Derived outputs are cached where the
        frozen layers' outputs are. The progress bar is shown if the estimator is
        `verbose`.
        """
        source, dataset = self.open(X)
        extractor = self._extractor(source, layers, source_layers, derived)
        return extractor.iter_outputs(dataset, progress if self.verbose else None)

    def iter_outputs_prepared(
        self,
        inputs: np.ndarray,
        layers: Sequence[int | str] = (),
        source_layers: Sequence[int | str] = (),
        *,
        derived: DerivedOutput | None = None,
    ) -> Iterator[OutputBatch]:
        """See :meth:`NetworkAdapter.iter_outputs_prepared`."""
        dtype = torch.uint8 if inputs.dtype == np.uint8 else torch.float32
        extractor = self._extractor(self.source, layers, source_layers, derived)
        return extractor.iter_outputs(Rows(inputs, dtype))

    def iter_patch_outputs(
        self, X: Any, n_windows: int, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Yield scores of patches, see :meth:`NetworkAdapter.iter_patch_outputs`.

        The patches are cut out of the maps that leave the frozen layers, so these run
        once for all patches, and not again in the next round. A patch depends on a
        little more than its rectangle, as far as the frozen layers' fields reach.
        ValueError if `X` is a table.
        """
        source, dataset = self.open(X)
        if not isinstance(dataset, ImageDataset):
            raise ValueError("Patches are parts of images, but X is a table.")
        n_shared, shape = source.deepest_map(self.n_frozen, n_windows)
        extractor = self._extractor(source, [-1], [], n_shared=n_shared)
        windows = random_windows(*shape, n_windows, rng)
        progress = "patches" if self.verbose else None
        return extractor.iter_patch_outputs(dataset, windows, progress)

    def _extractor(
        self,
        source: PretrainedNetwork,
        layers: Sequence[int | str],
        source_layers: Sequence[int | str],
        derived: DerivedOutput | None = None,
        n_shared: int | None = None,
    ) -> FeatureExtractor:
        if n_shared is None:
            n_shared = count_frozen_layers(source, self.n_frozen_layers)
        position = source.graph.position
        own = list(dict.fromkeys(map(position, layers)))
        of_source = list(dict.fromkeys(map(position, source_layers)))
        run_by_source = of_source if self.fitted else own + of_source
        if position(-1) in run_by_source:
            source.check_source_classes("an output of its last layer before fit")
        return FeatureExtractor(
            source,
            self.adapted,
            own,
            of_source,
            n_frozen=n_shared,
            device=self.device,
            batch_size=self.batch_size,
            skip_unreadable=self.skips_unreadable,
            cache=open_cache(self.memory),
            derived=derived,
        )

    def width(self, position: int, *, adapted: bool) -> int:
        """Columns of a layer's outputs."""
        if position == self.n_layers - 1 and adapted and self.n_classes is not None:
            return self.n_classes
        return math.prod(self.source.output_shapes[position])

    def predict_features(self, features: np.ndarray, layer: int | str) -> np.ndarray:
        """Class probabilities of changed inputs of the last layer.

        ValueError if `layer` is not the last but one, or the last one not Linear.
        """
        head = self.adapted.head
        if self.position(layer) != self.n_layers - 2 or not isinstance(head, nn.Linear):
            raise ValueError(
                f"This strategy varies the inputs of the last layer, so it needs "
                f"layer=-2 and a network that ends in a Linear layer; got "
                f"layer={layer!r} and {type(head).__name__}."
            )
        with NETWORK_LOCK, torch_defaults(), torch.inference_mode():
            rows = torch.from_numpy(features).to(head.weight)
            return softmax(head(rows).double().cpu().numpy(), axis=1)

    def with_value_range(self, value_range: Range | None) -> CNNAdapter:
        """Return an adapter for images of a range of values, which finds no other."""
        source = self.source.with_value_range(value_range)
        return replace(self, _source=source, _finds_range=False)

    def with_range_of(self, X: Any) -> CNNAdapter:
        """See :meth:`NetworkAdapter.with_range_of`."""
        if self.fitted or self.takes_rows(X):
            return self
        return self.with_value_range(self.open(X)[0].preprocessing.value_range)

    # --- images ---------------------------------------------------------------------

    def open(self, X: Any) -> tuple[PretrainedNetwork, ImageDataset | Rows]:
        """The pretrained network, and X as a data set of tensors for it."""
        if self.takes_rows(X):
            rows = self.validate_rows(X)
            return self.load(rows[:1]), Rows(rows)
        has_range = self.source.preprocessing.value_range is not None
        if self.fitted or has_range or not self._finds_range:
            return self.source, self.image_dataset(X)
        return with_found_range(self.source, X, self.image_shape)

    def image_dataset(self, X: Any) -> ImageDataset:
        """Images as a data set of uint8 tensors of the network's size."""
        preprocessing = self.source.preprocessing
        return ImageDataset(X, preprocessing, image_shape=self.image_shape)

    def readable(self, X: Any) -> np.ndarray:
        """Which images can be decoded, see :meth:`NetworkAdapter.readable`."""
        if not self.skips_unreadable or self.takes_rows(X):
            return np.ones(n_images(X), dtype=bool)
        return self.image_dataset(X).readable()

    def takes_rows(self, X: Any) -> bool:
        """Whether `X` is a table for the network, not images."""
        return self.takes_tables and is_table(X)


def with_found_range(
    source: PretrainedNetwork,
    X: Any,
    image_shape: Sequence[int] | None,
    trained: PretrainedNetwork | None = None,
    goes_on: bool = False,
) -> tuple[PretrainedNetwork, ImageDataset]:
    """Open images for a network that takes their range of values.

    Those of a feature store have its range, and a network that `goes_on` with its
    training keeps the one that it has. `trained` is the network of the last fit.
    """
    dataset = ImageDataset(X, source.preprocessing, image_shape=image_shape)
    if isinstance(X, StoredImages):
        found = X.value_range
    else:
        before = None if trained is None else trained.preprocessing
        found = dataset.find_value_range(before, goes_on)
    if not goes_on:
        source = source.with_value_range(found)
        dataset.preprocessing = source.preprocessing
    return source, dataset


def get_adapter(estimator: Any) -> NetworkAdapter | None:
    """Return the adapter of an estimator (not a Pipeline), or None if it has none."""
    make = getattr(type(estimator), "__skadma_adapter__", None)
    return None if make is None else make(estimator)


def need_adapter(estimator: Any) -> NetworkAdapter:
    """Return the adapter of an estimator; raise TypeError if it has none."""
    adapter = get_adapter(estimator)
    if adapter is None:
        raise TypeError(
            "This uses the layers of a network, so it needs a CNNClassifier (also at "
            f"the end of a Pipeline or inside modAL's learner); got {estimator!r}. "
            "Give its class a method __skadma_adapter__, or take MarginSampling, "
            "EntropySampling or LeastConfident."
        )
    return adapter


def cnn_adapter(estimator: Any) -> CNNAdapter:
    """Return the adapter of a CNNClassifier; raise TypeError for anything else."""
    adapter = get_adapter(estimator)
    if not isinstance(adapter, CNNAdapter):
        raise TypeError(f"This needs a CNNClassifier; got {estimator!r}.")
    return adapter
