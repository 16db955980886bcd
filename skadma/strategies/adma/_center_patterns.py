"""Distinctiveness of images by the source centres' patterns (Eq. 3-9)."""

from __future__ import annotations

import hashlib
from functools import cached_property

import torch

from ...centers import SourceCenters
from ...features.adapter import NetworkAdapter
from ...features.cache import LRUCache
from ...features.extractor import DerivedOutput
from .formulas import (
    CenterDistances,
    approximated_pattern,
    distance_weights,
    distinctiveness,
    layer_scale,
    pairwise_distinctiveness,
    predict_weights,
    transformation_pattern,
)

_LIMIT = 1024**3
"""Bytes of centres' features that a process caches."""

_PRETRAINED = LRUCache(_LIMIT)
"""The centres under the pretrained network (Algorithm 1, lines 8-11).

They are the same in every round, fold and grid cell, so the process has one cache.
"""


class CenterPatterns:
    """The centres under one network, and the comparison of images with them.

    `layers_a` and `layer_b` are positions, `weights` is that of ADMA. With `initial`
    the centres' outputs are those of the pretrained network.
    """

    def __init__(
        self,
        centers: SourceCenters,
        adapter: NetworkAdapter,
        layers_a: list[int],
        layer_b: int,
        *,
        weights: str,
        rescale: bool,
        initial: bool,
    ) -> None:
        if len(centers) < 2:
            raise ValueError(
                f"ADMA ranks source classes, so it needs at least 2 centres; got "
                f"{len(centers)}."
            )
        self.centers = centers
        self.layers_a, self.layer_b = layers_a, layer_b
        self.layers = sorted({*layers_a, layer_b})
        # ADMA-2 approximates nothing, so it needs no weights.
        self.by_prediction = weights == "predict" and len(layers_a) == 1
        self.rescale = rescale
        self.head = adapter.n_layers - 1
        centers.check_fits(adapter.estimator, self.layers, initial=initial)
        self._adapter = adapter
        self._initial = initial

    @cached_property
    def distances(self) -> dict[int, CenterDistances]:
        """The distances to the centres, by layer."""
        estimator, namespace = self._adapter.estimator, self._adapter.source_namespace
        # Without a namespace it is unknown what the outputs depend on.
        cached = self._initial and namespace is not None
        # The device is the classifier's; another estimator has none of its own.
        device = getattr(estimator, "torch_device", lambda: "cpu")()
        name = f"{self.centers.digest}{namespace}{device}"
        found = {}
        for layer in self.layers if cached else ():
            if (known := _PRETRAINED.get((name, layer))) is not None:
                found[layer] = known
        missing = [layer for layer in self.layers if layer not in found]
        if missing:
            outputs = self.centers.outputs(estimator, missing, initial=self._initial)
            for layer, rows in outputs.items():
                found[layer] = CenterDistances(rows)
                if cached:
                    _PRETRAINED.put((name, layer), found[layer], found[layer].nbytes)
        return found

    @cached_property
    def _between(self) -> dict[int, torch.Tensor]:
        return {p: d.between_centers() for p, d in self.distances.items()}  # Eq. 3

    @cached_property
    def _center_patterns(self) -> torch.Tensor:
        """Column k is the pattern of centre k (Eq. 6)."""
        # Rows of the distances belong to the centres; Eq. 7 wants them as columns.
        (a,) = self.layers_a
        return self._pattern(self._between[a], self._between[self.layer_b], a).T

    @cached_property
    def _scales(self) -> dict[int, float]:
        return {p: layer_scale(s_c) for p, s_c in self._between.items()}

    def _pattern(
        self, s_a: torch.Tensor, s_b: torch.Tensor, layer: int
    ) -> torch.Tensor:
        rescale = None
        if self.rescale:
            rescale = self._scales[layer], self._scales[self.layer_b]
        return transformation_pattern(s_a, s_b, rescale=rescale)  # Eq. 5-6

    def compare(
        self, outputs: dict[int, torch.Tensor], source_scores: torch.Tensor | None
    ) -> torch.Tensor:
        """Distinctiveness of a batch by its layer outputs (Eq. 4-9), shape (b,).

        `source_scores` are needed for the weights "predict".
        """
        s_b = self.distances[self.layer_b](outputs[self.layer_b])  # Eq. 4
        s_a = {a: self.distances[a](outputs[a]) for a in self.layers_a}
        patterns = [self._pattern(s_a[a], s_b, a) for a in self.layers_a]
        if len(patterns) > 1:
            return pairwise_distinctiveness(patterns)
        if self.by_prediction:
            assert source_scores is not None
            proba = torch.softmax(source_scores.double(), dim=1)
            classes = torch.as_tensor(self.centers.classes, device=proba.device)
            weights = predict_weights(proba, classes)  # Eq. 8
        else:
            weights = distance_weights(s_a[self.layers_a[0]])
        approximated = approximated_pattern(weights, self._center_patterns)
        return distinctiveness(patterns[0], approximated)

    def derived_output(self, *, from_source: bool) -> DerivedOutput:
        """The distinctiveness as an output that can be cached beside the layers'.

        With `from_source` the images' features are the pretrained network's, else the
        adapted one's.
        """
        options = (self.layers_a, self.layer_b, self.by_prediction, self.rescale)
        described = f"{self.centers.digest}{options}".encode()
        digest = hashlib.blake2b(described, digest_size=16).hexdigest()

        def compute(
            adapted: dict[int, torch.Tensor], source: dict[int, torch.Tensor]
        ) -> torch.Tensor:
            outputs = source if from_source else adapted
            return self.compare(outputs, source.get(self.head))[:, None]

        layers = () if from_source else tuple(p for p in self.layers if p != self.head)
        return DerivedOutput(f"distinctiveness-{digest}", compute, layers)
