"""What ADMA makes of the centres (Eq. 3-7)."""

from __future__ import annotations

import hashlib
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch

from ...centers import shipped_centers
from ...features.adapter import NetworkAdapter
from ...features.cache import LRUCache
from ...features.extractor import DerivedOutput
from . import (
    CenterDistances,
    approximated_pattern,
    distance_weights,
    distinctiveness,
    layer_scale,
    pairwise_distinctiveness,
    predict_weights,
    transformation_pattern,
)

if TYPE_CHECKING:
    from ._adma import ADMA

_LIMIT = 1024**3
"""Bytes of centres' features that a process keeps beside those last asked for."""


_OF_M0 = LRUCache(_LIMIT)
"""The centres under M0 (Algorithm 1, lines 8-11), which no round changes.

One for the process: rounds, folds and grid cells differ in none of it.
"""


class CenterPatterns:
    """The centres' side of Eq. 3-7 under one network, made once per query if at all."""

    def __init__(
        self,
        strategy: ADMA,
        clf: NetworkAdapter,
        layers_a: list[int],
        layer_b: int,
        initial: bool,
    ) -> None:
        given = strategy.centers
        self.centers = shipped_centers(clf.estimator) if given is None else given
        if len(self.centers) < 2:
            raise ValueError(
                f"ADMA ranks source classes, so it needs at least 2 centres; got "
                f"{len(self.centers)}."
            )
        self.layers_a, self.layer_b = layers_a, layer_b
        # ADMA-2 approximates nothing, so it needs no weights.
        self.by_prediction = strategy.weights == "predict" and len(layers_a) == 1
        self.rescale = strategy.rescale
        self.head = clf.n_layers - 1
        layers = sorted({*layers_a, layer_b})
        self.centers.check_fits(clf.estimator, layers, initial=initial)
        self._layers = layers
        self._outputs = partial(self.centers.outputs, clf.estimator, initial=initial)
        # The device is the classifier's; another estimator has none of its own.
        device = getattr(clf.estimator, "torch_device", lambda: "cpu")()
        self._name = f"{self.centers.digest}{clf.source_namespace}{device}"
        # Of a network that does not say what its outputs depend on, nothing is kept.
        self._is_kept = initial and clf.source_namespace is not None

    @cached_property
    def distances(self) -> dict[int, CenterDistances]:
        """What measures the distances to the centres, by layer."""
        known = {p: _OF_M0.get((self._name, p)) for p in self._layers if self._is_kept}
        found = {p: one for p, one in known.items() if one is not None}
        missing = [p for p in self._layers if p not in found]
        if missing:
            for p, outputs in self._outputs(missing).items():
                found[p] = CenterDistances(outputs)
                if self._is_kept:
                    _OF_M0.put((self._name, p), found[p], found[p].nbytes)
        return found

    @cached_property
    def _between(self) -> dict[int, torch.Tensor]:
        return {p: d.between for p, d in self.distances.items()}  # Eq. 3

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
        """Distinctiveness of a batch (Eq. 4-9, or Sec. 4.2), shape (b,)."""
        s_b = self.distances[self.layer_b](outputs[self.layer_b])  # Eq. 4
        s_a = {a: self.distances[a](outputs[a]) for a in self.layers_a}
        patterns = [self._pattern(s_a[a], s_b, a) for a in self.layers_a]
        if len(patterns) > 1:
            return pairwise_distinctiveness(patterns)
        weights = self._weights(source_scores, s_a[self.layers_a[0]])
        approximated = approximated_pattern(weights, self._center_patterns)
        return distinctiveness(patterns[0], approximated)

    def _weights(
        self, source_scores: torch.Tensor | None, s_a: torch.Tensor
    ) -> torch.Tensor:
        if not self.by_prediction:
            return distance_weights(s_a)
        assert source_scores is not None
        proba = torch.softmax(source_scores.double(), dim=1)
        classes = torch.as_tensor(self.centers.classes, device=proba.device)
        return predict_weights(proba, classes)  # Eq. 8

    def as_derived(self, *, of_m0: bool) -> DerivedOutput:
        """The comparison as something of a network that is worth keeping.

        Parameters
        ----------
        of_m0 : bool
            Whether M0 gives the images' features, or the network being adapted.
        """
        parts = (self.layers_a, self.layer_b, self.by_prediction, self.rescale)
        described = f"{self.centers.digest}{parts}".encode()
        name = hashlib.blake2b(described, digest_size=16).hexdigest()
        # 2: of several layers A, the patterns' disagreement alone.
        name = f"distinctiveness-2-{name}"
        if of_m0:
            return DerivedOutput(
                name, lambda _, m0: self.compare(m0, m0.get(self.head))[:, None]
            )
        return DerivedOutput(
            name,
            lambda adapted, m0: self.compare(adapted, m0.get(self.head))[:, None],
            layers=tuple(p for p in self._layers if p != self.head),
        )
