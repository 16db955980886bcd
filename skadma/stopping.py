"""Stopping rules for simulations by ActiveLearner."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.metrics import check_scoring, cohen_kappa_score

from .evaluation import Estimate, audit_sample, estimate
from .images.selection import take

__all__ = [
    "AllOf",
    "AnyOf",
    "EstimatedScore",
    "LabelBudget",
    "StablePredictions",
    "StoppingRule",
    "TargetScore",
]


class StoppingRule(BaseEstimator, ABC):
    """Base of the rules for ``ActiveLearner(stopping=...)``.

    Rules combine: ``a | b`` stops when either does, ``a & b`` when both do.
    """

    def start(self, n_images: int) -> np.ndarray:
        """Reset the rule before the first round, and reserve images.

        Parameters
        ----------
        n_images : int
            Number of images that the learner was given.

        Returns
        -------
        ndarray of int
            Indices of images that are never queried nor trained with. In
            ``learner.y_``, the rule may read their labels and those of the images in
            ``learner.labeled_``.
        """
        return np.array([], dtype=int)

    @abstractmethod
    def should_stop(self, learner: Any) -> bool:
        """Tell whether to stop; called once after each round.

        Parameters
        ----------
        learner : ActiveLearner

        Returns
        -------
        bool
        """

    def __or__(self, other: StoppingRule) -> AnyOf:
        return AnyOf([self, other])

    def __and__(self, other: StoppingRule) -> AllOf:
        return AllOf([self, other])


class _Combination(StoppingRule):
    _combine: Callable[[list[bool]], bool]

    def __init__(self, rules: Sequence[StoppingRule]) -> None:
        self.rules = rules

    def start(self, n_images: int) -> np.ndarray:
        """Reserve the images that any of the rules reserves."""
        return np.unique(np.concatenate([r.start(n_images) for r in self.rules]))

    def should_stop(self, learner: Any) -> bool:
        """Ask all rules, as some compare with the round before."""
        return self._combine([rule.should_stop(learner) for rule in self.rules])


class AnyOf(_Combination):
    """Stop when one of several rules does.

    Parameters
    ----------
    rules : sequence of StoppingRule
    """

    _combine = staticmethod(any)


class AllOf(_Combination):
    """Stop when all of several rules do.

    Parameters
    ----------
    rules : sequence of StoppingRule
    """

    _combine = staticmethod(all)


class LabelBudget(StoppingRule):
    """Stop at a number of labels.

    Parameters
    ----------
    n_labels : int
    """

    def __init__(self, n_labels: int) -> None:
        self.n_labels = n_labels

    def should_stop(self, learner: Any) -> bool:
        """Tell whether there are that many labels."""
        return int(learner.labeled_.sum()) >= self.n_labels


class TargetScore(StoppingRule):
    """Stop at a score on a labelled test set.

    Parameters
    ----------
    target : float
    X : images
    y : array-like of shape (n,)
    scoring : str or callable, optional
        As in scikit-learn; accuracy if None.
    """

    def __init__(
        self,
        target: float,
        X: Any,
        y: ArrayLike,
        scoring: str | Callable[..., Any] | None = None,
    ) -> None:
        self.target = target
        self.X = X
        self.y = y
        self.scoring = scoring

    def should_stop(self, learner: Any) -> bool:
        """Tell whether the learner reaches the score."""
        score = check_scoring(learner, self.scoring)(learner, self.X, self.y)
        return bool(score >= self.target)


class StablePredictions(StoppingRule):
    """Stop when predictions no longer change [1]_.

    After each round, Cohen's kappa is computed between this and the previous round's
    predictions on a stop set, which needs no labels. The rule stops when its mean over
    `window` rounds reaches `threshold`.

    Parameters
    ----------
    X : images
        The stop set; 2,000 in the paper.
    threshold : float, default=0.99
    window : int, default=3

    Attributes
    ----------
    agreements_ : list of float
        Kappa of each round with the one before it.

    References
    ----------
    .. [1] Bloodgood & Vijay-Shanker, A Method for Stopping Active Learning Based on
       Stabilizing Predictions and the Need for User-Adjustable Stopping, CoNLL 2009.
    """

    def __init__(self, X: Any, threshold: float = 0.99, window: int = 3) -> None:
        self.X = X
        self.threshold = threshold
        self.window = window

    def start(self, n_images: int) -> np.ndarray:
        """Forget the rounds of another simulation."""
        self.agreements_: list[float] = []
        self._before: np.ndarray | None = None
        return super().start(n_images)

    def should_stop(self, learner: Any) -> bool:
        """Tell whether predictions are stable."""
        now = learner.predict(self.X)
        if self._before is not None:
            same = np.array_equal(now, self._before)
            # Kappa is 0 / 0 where both rounds predict one class throughout.
            kappa = 1.0 if same else float(cohen_kappa_score(self._before, now))
            self.agreements_.append(kappa)
        self._before = now
        recent = self.agreements_[-self.window :]
        return len(recent) == self.window and float(np.mean(recent)) >= self.threshold


class EstimatedScore(StoppingRule):
    """Stop when a lower bound of the accuracy, from reserved labels, is high enough.

    Before the first round, `n_labels` images are drawn at random. They are never
    queried nor trained with; their labels are the cost of the rule, on top of
    ``learner.labeled_``. After each round the accuracy on images like those of the pool
    is estimated from them; the rule stops when the lower bound reaches `target`.

    The same labels are used after each round, so the probability to stop too early at
    some round is a little above 1 - `confidence`; docs/evaluation.md has measurements.

    Parameters
    ----------
    target : float
        An accuracy, above 0 and below 1.
    confidence : float, default=0.9
        Of the lower bound; above 0.5 and below 1.
    n_labels : int, default=100
        For a target of 0.95, a model has to be right on 99 of 100 images, and on a
        smaller share of more images.
    random_state : int or None, default=None
        Seeds the draw of images.

    Attributes
    ----------
    audit_ : skadma.evaluation.Audit
        The images drawn.
    estimates_ : list of skadma.evaluation.Estimate
        One per round; `low` is the lower bound.
    """

    def __init__(
        self,
        target: float,
        confidence: float = 0.9,
        n_labels: int = 100,
        random_state: int | None = None,
    ) -> None:
        self.target = target
        self.confidence = confidence
        self.n_labels = n_labels
        self.random_state = random_state

    def start(self, n_images: int) -> np.ndarray:
        """Check that `n_labels` can show the target, and draw the images."""
        if not (0 < self.target < 1 and 0.5 < self.confidence < 1):
            raise ValueError(
                f"target={self.target} must be between 0 and 1, and confidence="
                f"{self.confidence} between 0.5 and 1."
            )
        # The bound of a model without a mistake is (1 - confidence) ** (1 / n_labels).
        least = math.ceil(math.log(1 - self.confidence) / math.log(self.target))
        if self.n_labels < least:
            raise ValueError(
                f"With n_labels={self.n_labels} no model can be shown to reach "
                f"{self.target} with confidence {self.confidence}, not even one that "
                f"makes no mistake. At least {least} are needed."
            )
        if self.n_labels >= n_images:
            raise ValueError(
                f"EstimatedScore sets {self.n_labels} images apart, but there are only "
                f"{n_images}. Lower n_labels, or take another rule."
            )
        self.estimates_: list[Estimate] = []
        self.audit_ = audit_sample(
            np.full((n_images, 2), 0.5),
            self.n_labels,
            method="random",
            random_state=self.random_state,
        )
        return self.audit_.indices

    def should_stop(self, learner: Any) -> bool:
        """Tell whether the lower bound reaches the target."""
        drawn = self.audit_.indices
        found = estimate(
            self.audit_,
            learner.predict(take(learner.X_, drawn)),
            learner.y_[drawn],
            classes=learner.classes_,
            confidence=2 * self.confidence - 1,  # one-sided: of `low` alone
            finite=False,
        )
        self.estimates_.append(found)
        return found.low >= self.target
