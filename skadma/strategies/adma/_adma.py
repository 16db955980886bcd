"""ADMA: distinctiveness under the network's change, and uncertainty."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from ...centers import SourceCenters
from ...features.adapter import NetworkAdapter
from ...features.estimators import find_cnn, in_blocks, proba_of_scores
from ...images.dataset import n_images, take
from .._coreset import k_center_greedy
from .._pool_features import extract_pool_features
from ..base import Request, Scores, ScoringStrategy
from . import UNCERTAINTIES, combined_score, uncertainty
from ._center_patterns import CenterPatterns

_ROUNDS = 11
"""Rounds that ``trade_off="auto"`` spans where the length of the run is not known."""


@dataclass(frozen=True)
class ADMAScores(Scores):
    """The parts of ADMA's score.

    Attributes
    ----------
    distinctiveness : ndarray of shape (n,), float64
        In [0, 1] (Eq. 9); NaN for images that cannot be decoded.
    uncertainty : ndarray of shape (n,), float64
        Of the present model (Eq. 10); 1 for every image before the first fit, when
        all are equally uncertain.
    total : ndarray of shape (n,), float64
        Eq. 11.
    """

    distinctiveness: np.ndarray
    uncertainty: np.ndarray


class ADMA(ScoringStrategy):
    """Active Deep Model Adaptation [1]_.

    The score of an image is high if the network transforms it, from layer A to layer B,
    in another way than images of the source task (distinctiveness) and, increasingly
    from round to round, if the present model is uncertain:

    ``(1 - lambda t) distinctiveness + lambda t uncertainty``, lambda t clipped to
    [0, 1] (Eq. 11).

    Parameters
    ----------
    centers : SourceCenters, optional
        The representatives of the source classes (Eq. 1-2). Without, those that the
        package ships for the network; for other networks the error says how to make
        them.
    trade_off : "auto" or float, default="auto"
        lambda. The paper gives none. ``"auto"`` spans the run: 1 / (rounds - 1), so
        that the first round (t = 0) goes by distinctiveness alone and the last by
        uncertainty alone. ActiveLearner knows how many rounds there are (`n_rounds`);
        where nobody does, as in a campaign, it is 0.1: ten rounds.
    layer_a : int, str or sequence of them, default=-4
        The earlier layer A. Several make ADMA-2 (Sec. 4.2): the distinctiveness is
        then the disagreement of the patterns from each of them to B with each other
        (the mean over pairs), and `weights` has no part in it.
    layer_b : int or str, default=-2
        The later layer B; -2 is the penultimate feature vector.
    weights : {"predict", "distance"}, default="predict"
        How an image is approximated by the centres: by M0's class probabilities
        (Eq. 8), or by the reciprocal distances to the centres at layer A (Sec. 4.3,
        "ADMA-distance").
    uncertainty : {"gini", "entropy", "margin", "least_confident"}, default="gini"
        Gini ``sum p (1 - p)`` is the printed Eq. 10 with its sign put right: as
        printed it falls as uncertainty rises.
    features : {"published", "current", "initial"}, default="published"
        Which network gives the representations. ``"published"``, as in Algorithm 1:
        the centres' are computed once, by M0 (lines 8-11), the images' in each round
        by the network being adapted (lines 13-18). ``"current"``: both by the network
        being adapted, so that distances are taken within one space. ``"initial"``:
        both by M0, once. docs/adma.md compares the three.
    rescale : bool, default=False
        Divide each layer's squared distances by their mean between centres. The
        published rule subtracts them as they are, so the layer with the larger
        numbers, mostly A, decides the pattern alone.
    shortlist : int, optional
        Spread the choice: of this many times as many images with the best scores,
        take those far from each other and from what has a label (k-center greedy at
        layer B). None: the best scores, as published, look-alikes among them.
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

    _parameter_constraints: dict = {
        "centers": [SourceCenters, None],
        "trade_off": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "weights": [StrOptions({"predict", "distance"})],
        "uncertainty": [StrOptions(set(UNCERTAINTIES))],
        "features": [StrOptions({"current", "published", "initial"})],
        "rescale": ["boolean"],
        "shortlist": [None, Interval(Integral, 1, None, closed="left")],
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
        rescale: bool = False,
        shortlist: int | None = None,
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
        self.rescale = rescale
        self.shortlist = shortlist

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
        estimator : CNNClassifier, Pipeline or modAL learner
            Fitted or (round 0) not.
        X_pool : images
        iteration : float, default=0
            The round t, from 0.
        n_rounds : int, optional
            Length of the run, where it is known, for ``trade_off="auto"``.

        Returns
        -------
        ADMAScores
        """
        self._validate_params()
        n = n_images(X_pool)
        clf, X_pool = find_cnn(estimator, X_pool, "ADMA")
        layers_a, layer_b = self._positions(clf)
        fitted = clf.fitted
        initial = self.features == "initial" or not fitted
        patterns = CenterPatterns(
            self, clf, layers_a, layer_b, initial or self.features == "published"
        )
        head = patterns.head
        taps = sorted({*layers_a, layer_b})
        scores = [head] if patterns.by_prediction else []
        derived = patterns.as_derived(of_m0=initial)
        distinctiveness = np.full(n, np.nan)
        uncertain = np.full(n, np.nan)
        for start, part in in_blocks(X_pool):
            for batch in clf.iter_outputs(
                part,
                ([] if initial else taps) + ([head] if fitted else []),
                (taps if initial else []) + scores,
                derived=derived,
                progress="scoring",
            ):
                if batch.derived is not None:
                    values = batch.derived[:, 0]
                else:  # another estimator's view may leave it to us
                    outputs = batch.source if initial else batch.adapted
                    values = patterns.compare(outputs, batch.source.get(head))
                indices = start + batch.indices
                distinctiveness[indices] = values.cpu().numpy()
                uncertain[indices] = 1.0
                if fitted:
                    uncertain[indices] = uncertainty(
                        proba_of_scores(clf, batch.adapted[head]), self.uncertainty
                    )
        trade_off = self._trade_off(n_rounds)
        total = combined_score(distinctiveness, uncertain, trade_off, iteration)
        return ADMAScores(
            total=total, distinctiveness=distinctiveness, uncertainty=uncertain
        )

    def _trade_off(self, n_rounds: int | None) -> float:
        if not isinstance(self.trade_off, str):
            return self.trade_off
        return 1 / max((n_rounds or _ROUNDS) - 1, 1)

    def _scores(self, request: Request) -> ADMAScores:
        return self.score(
            request.estimator,
            request.X_pool,
            iteration=request.iteration,
            n_rounds=request.n_rounds,
        )

    def _take(self, request: Request, order: np.ndarray) -> np.ndarray:
        if self.shortlist is None:
            return super()._take(request, order)
        n = request.n_instances
        best = order[: self.shortlist * n]
        some = copy.copy(request)
        some.X_pool = take(request.X_pool, best)
        initial = self.features == "initial"
        pool = extract_pool_features(some, self.layer_b, initial, use_proba=False)
        rng = np.random.default_rng([self._seed(), 3])
        return best[k_center_greedy(pool.features[:], pool.labeled, n, rng)[0]]

    def _positions(self, clf: NetworkAdapter) -> tuple[list[int], int]:
        asked = self.layer_a
        asked = [asked] if isinstance(asked, (int, np.integer, str)) else list(asked)
        layers_a = [clf.position(layer) for layer in asked]
        layer_b = clf.position(self.layer_b)
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
