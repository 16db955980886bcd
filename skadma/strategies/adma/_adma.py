"""ADMA: distinctiveness under the network's change, and uncertainty."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions

from ...centers import SourceCenters, shipped_centers
from ...features.estimators import (
    NetworkAdapter,
    find_adapter,
    in_blocks,
    proba_of_scores,
)
from ...features.extractor import DerivedOutput
from ...images.selection import n_images
from .._uncertainty import UNCERTAINTIES, uncertainty
from ..base import Request, Scores, ScoringStrategy
from .formulas import (
    CenterDistances,
    combined_score,
    distance_weights,
    distinctiveness,
    pairwise_distinctiveness,
    predict_weights,
)

_ROUNDS = 11
"""Rounds that ``trade_off="auto"`` spans where the length of the run is unknown."""


@dataclass(frozen=True)
class ADMAScores(Scores):
    """ADMA's score and its two terms.

    Attributes
    ----------
    total : ndarray of shape (n,), float64
        The score (Eq. 11); NaN for images that cannot be decoded.
    distinctiveness : ndarray of shape (n,), float64
        In [0, 1] (Eq. 9); NaN for images that cannot be decoded.
    uncertainty : ndarray of shape (n,), float64
        Of the present model (Eq. 10); 1 for every image before the first fit.
    """

    distinctiveness: np.ndarray
    uncertainty: np.ndarray


class ADMA(ScoringStrategy):
    """Active Deep Model Adaptation [1]_.

    The score of an image is high if the network transforms it, from layer A to layer B,
    in another way than images of the source task (distinctiveness) and, with a weight
    that grows from round to round, if the present model is uncertain:

    ``(1 - lambda t) distinctiveness + lambda t uncertainty``, lambda t clipped to
    [0, 1] (Eq. 11).

    Parameters
    ----------
    centers : SourceCenters, optional
        The representatives of the source classes (Eq. 1-2). If None, those that the
        package ships for the network.
    trade_off : "auto" or float, default="auto"
        lambda; the paper gives no value. ``"auto"`` spans the run, from distinctiveness
        alone to uncertainty alone: 1 / (rounds - 1), or 0.1 where the number of rounds
        is unknown, as in a campaign.
    layer_a : int, str or sequence of them, default=-4
        The earlier layer A. Several make ADMA-2 (Sec. 4.2): the distinctiveness is then
        the mean disagreement of their patterns, and `weights` is not used.
    layer_b : int or str, default=-2
        The later layer B; -2 is the penultimate feature vector.
    weights : {"predict", "distance"}, default="predict"
        How an image is approximated by the centres: by the pretrained network's class
        probabilities (Eq. 8), or by the reciprocal distances to the centres at layer A
        (Sec. 4.3, "ADMA-distance").
    uncertainty : {"gini", "entropy", "margin", "least_confident"}, default="gini"
        See `skadma.strategies.adma.uncertainty`.
    features : {"published", "current", "initial"}, default="published"
        Which network gives the features. ``"published"``, as in Algorithm 1: the
        centres' by the pretrained network, the images' by the one being adapted.
        ``"current"``: both by the one being adapted. ``"initial"``: both by the
        pretrained network. docs/adma.md compares the three.
    random_state : int, RandomState instance or None, default=None
        Breaks ties.

    References
    ----------
    .. [1] Huang, Zhao & Liu, Cost-Effective Training of Deep CNNs with Active Model
       Adaptation, KDD 2018, doi 10.1145/3219819.3220026.
    """

    needs: ClassVar[str] = "source centres, layers A and B, probabilities"
    cost: ClassVar[str] = "1 pass; n K (d_A + d_B) for distances"
    memory: ClassVar[str] = "K (d_A + d_B)"
    multilabel: ClassVar[bool] = True

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "centers": [SourceCenters, None],
        "trade_off": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "layer_a": [Integral, str, tuple, list],
        "layer_b": [Integral, str],
        "weights": [StrOptions({"predict", "distance"})],
        "uncertainty": [StrOptions(set(UNCERTAINTIES))],
        "features": [StrOptions({"current", "published", "initial"})],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        centers: SourceCenters | None = None,
        *,
        trade_off: float | str = "auto",
        layer_a: int | str | Sequence[int | str] = -4,
        layer_b: int | str = -2,
        weights: str = "predict",
        uncertainty: str = "gini",
        features: str = "published",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(random_state=random_state)
        self.centers = centers
        self.trade_off = trade_off
        self.layer_a = layer_a
        self.layer_b = layer_b
        self.weights = weights
        self.uncertainty = uncertainty
        self.features = features

    def score(
        self,
        estimator: Any,
        X_pool: Any,
        *,
        iteration: float = 0,
        n_rounds: int | None = None,
    ) -> ADMAScores:
        """Score each image of a pool in one pass over it.

        Parameters
        ----------
        estimator, X_pool, iteration
            See :meth:`ScoringStrategy.score`.
        n_rounds : int, optional
            Length of the run, where it is known, for ``trade_off="auto"``.

        Returns
        -------
        ADMAScores
        """
        self._validate_params()
        n = n_images(X_pool)
        adapter, X_pool = find_adapter(estimator, X_pool)
        layers_a, layer_b = self._positions(adapter)
        fitted = adapter.fitted
        from_source = self.features == "initial" or not fitted
        centers = self.centers
        patterns = CenterPatterns(
            shipped_centers(adapter.estimator) if centers is None else centers,
            adapter,
            layers_a,
            layer_b,
            weights=self.weights,
            initial=from_source or self.features == "published",
            from_source=from_source,
        )
        head = patterns.head
        adapted_layers = [] if from_source else list(patterns.layers)
        source_layers = list(patterns.layers) if from_source else []
        if fitted:
            adapted_layers.append(head)
        if patterns.by_prediction:
            adapter.check_source_classes("ADMA(weights='predict')")
            source_layers.append(head)
        derived = patterns.derived_output()
        distinctiveness = np.full(n, np.nan)
        uncertain = np.full(n, np.nan)
        for start, block in in_blocks(X_pool):
            for batch in adapter.iter_outputs(
                block,
                adapted_layers,
                source_layers,
                derived=derived,
                progress="scoring",
            ):
                values = batch.derived
                if values is None:  # an adapter need not compute derived outputs
                    values = derived.compute(batch.adapted, batch.source)
                indices = start + batch.indices
                distinctiveness[indices] = values[:, 0].cpu().numpy()
                uncertain[indices] = 1.0
                if fitted:
                    proba = proba_of_scores(adapter, batch.adapted[head])
                    uncertain[indices] = uncertainty(proba, self.uncertainty)
        trade_off = self.trade_off
        if isinstance(trade_off, str):
            trade_off = 1 / max((n_rounds or _ROUNDS) - 1, 1)
        total = combined_score(distinctiveness, uncertain, trade_off, iteration)
        return ADMAScores(
            total=total, distinctiveness=distinctiveness, uncertainty=uncertain
        )

    def _choose(self, request: Request) -> tuple[np.ndarray, np.ndarray]:
        total = self.score(
            request.estimator,
            request.X_pool,
            iteration=request.iteration,
            n_rounds=request.n_rounds,
        ).total
        chosen = self._take_best(request, total)
        return chosen, total[chosen]

    def _positions(self, adapter: NetworkAdapter) -> tuple[list[int], int]:
        given = self.layer_a
        given = [given] if isinstance(given, (int, np.integer, str)) else list(given)
        layers_a = [adapter.position(layer) for layer in given]
        layer_b = adapter.position(self.layer_b)
        if not layers_a or len(set(layers_a)) < len(layers_a):
            raise ValueError(
                f"layer_a={self.layer_a!r} must name one layer or several different "
                "ones."
            )
        if max(layers_a) >= layer_b:
            raise ValueError(
                f"layer_a={self.layer_a!r} (position {max(layers_a)}) must lie before "
                f"layer_b={self.layer_b!r} (position {layer_b})."
            )
        return layers_a, layer_b


class CenterPatterns:
    """The centres under one network, and the comparison of images with them (Eq. 3-9).

    `layers_a` and `layer_b` are positions. With `initial` the centres' outputs are
    those of the pretrained network, with `from_source` the images'.
    """

    def __init__(
        self,
        centers: SourceCenters,
        adapter: NetworkAdapter,
        layers_a: list[int],
        layer_b: int,
        *,
        weights: str,
        initial: bool,
        from_source: bool,
    ) -> None:
        if len(centers) < 2:
            raise ValueError(
                f"ADMA ranks source classes, so it needs at least 2 centres; got "
                f"{len(centers)}."
            )
        centers.check_fits(adapter.estimator)
        self.centers = centers
        self.layers_a, self.layer_b = layers_a, layer_b
        self.layers = sorted({*layers_a, layer_b})
        self.head = adapter.n_layers - 1
        # ADMA-2 approximates nothing, so it needs no weights.
        self.by_prediction = weights == "predict" and len(layers_a) == 1
        self._adapter = adapter
        self._initial = initial
        self._from_source = from_source

    @cached_property
    def distances(self) -> dict[int, CenterDistances]:
        """The distances to the centres, by layer."""
        outputs = self.centers.outputs(
            self._adapter.estimator, self.layers, initial=self._initial
        )
        return {layer: CenterDistances(rows) for layer, rows in outputs.items()}

    @cached_property
    def _center_patterns(self) -> torch.Tensor:
        """Row k is the pattern of centre k (Eq. 3 and 6)."""
        at_a, at_b = self.distances[self.layers_a[0]], self.distances[self.layer_b]
        return at_a.between_centers() - at_b.between_centers()

    def compute(
        self, adapted: dict[int, torch.Tensor], source: dict[int, torch.Tensor]
    ) -> torch.Tensor:
        """Distinctiveness of a batch by layer outputs (Eq. 4-9), shape (b, 1)."""
        outputs = source if self._from_source else adapted
        s_b = self.distances[self.layer_b](outputs[self.layer_b])  # Eq. 4
        s_a = {a: self.distances[a](outputs[a]) for a in self.layers_a}
        patterns = [s_a[a] - s_b for a in self.layers_a]  # Eq. 5
        if len(patterns) > 1:
            return pairwise_distinctiveness(patterns)[:, None]
        if self.by_prediction:
            proba = torch.softmax(source[self.head].double(), dim=1)
            classes = torch.as_tensor(self.centers.classes, device=proba.device)
            weights = predict_weights(proba, classes)  # Eq. 8
        else:
            weights = distance_weights(s_a[self.layers_a[0]])
        approximated = weights @ self._center_patterns  # Eq. 7
        return distinctiveness(patterns[0], approximated)[:, None]

    def derived_output(self) -> DerivedOutput:
        """The distinctiveness as an output that can be cached beside the layers'."""
        options = (self.layers_a, self.layer_b, self.by_prediction, self._initial)
        described = f"{self.centers.digest}{options}".encode()
        digest = hashlib.blake2b(described, digest_size=16).hexdigest()
        return DerivedOutput(
            f"distinctiveness-{digest}", self.compute, self._from_source
        )
