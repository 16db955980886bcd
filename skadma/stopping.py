"""When to stop asking for labels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.metrics import check_scoring, cohen_kappa_score

from .evaluation import Audit, Estimate, audit_sample, estimate
from .images.dataset import take

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

    Rules combine: ``a | b`` stops where either does, ``a & b`` where both do.
    """

    def start(self) -> None:  # noqa: B027
        """Forget what was seen of another run."""

    def reserve(self, n_images: int) -> np.ndarray:
        """Choose images that are never queried nor trained with; asked after ``start``.

        Parameters
        ----------
        n_images : int
            How many the learner was given.

        Returns
        -------
        ndarray of int
            Indices. The rule may read their labels in ``learner.y_``, and no others
            than these and those in ``learner.labeled_``.
        """
        return np.array([], dtype=int)

    @abstractmethod
    def should_stop(self, learner: Any) -> bool:
        """Tell whether the learner has enough labels; asked once after each round.

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
    def __init__(self, rules: Sequence[StoppingRule]) -> None:
        self.rules = rules

    def start(self) -> None:
        for rule in self.rules:
            rule.start()

    def reserve(self, n_images: int) -> np.ndarray:
        """Choose what any of the rules does."""
        return np.unique(np.concatenate([r.reserve(n_images) for r in self.rules]))

    def _answers(self, learner: Any) -> list[bool]:
        # All are asked, as some compare with the round before.
        return [rule.should_stop(learner) for rule in self.rules]


class AnyOf(_Combination):
    """Stop where one of several rules does.

    Parameters
    ----------
    rules : sequence of StoppingRule
    """

    def should_stop(self, learner: Any) -> bool:
        """Tell whether one of the rules says so."""
        return any(self._answers(learner))


class AllOf(_Combination):
    """Stop where all of several rules do.

    Parameters
    ----------
    rules : sequence of StoppingRule
    """

    def should_stop(self, learner: Any) -> bool:
        """Tell whether all rules say so."""
        return all(self._answers(learner))


class LabelBudget(StoppingRule):
    """Stop at a number of labels.

    Parameters
    ----------
    n_labels : int
    """

    def __init__(self, n_labels: int) -> None:
        self.n_labels = n_labels

    def should_stop(self, learner: Any) -> bool:
        """Tell whether the labels are spent."""
        return int(learner.labeled_.sum()) >= self.n_labels


class TargetScore(StoppingRule):
    """Stop at a score on labelled images that are set apart.

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
        scoring: str | Callable | None = None,
    ) -> None:
        self.target = target
        self.X = X
        self.y = y
        self.scoring = scoring

    def should_stop(self, learner: Any) -> bool:
        """Tell whether the learner scores that high."""
        score = check_scoring(learner, self.scoring)(learner, self.X, self.y)
        return bool(score >= self.target)


class StablePredictions(StoppingRule):
    """Stop where predictions no longer change [1]_.

    After each round Cohen's kappa is taken between the present and the previous
    round's predictions on a stop set, which needs no labels. Stops where the mean over
    `window` rounds reaches `threshold`.

    Parameters
    ----------
    X : images
        The stop set; the paper takes 2,000.
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

    def start(self) -> None:
        """Forget the predictions of another run."""
        self.agreements_: list[float] = []
        self._before: np.ndarray | None = None

    def should_stop(self, learner: Any) -> bool:
        """Tell whether predictions have settled."""
        now = learner.predict(self.X)
        if self._before is not None:
            same = np.array_equal(now, self._before)
            # Kappa is 0 / 0 where both rounds predict one class throughout.
            self.agreements_.append(
                1.0 if same else float(cohen_kappa_score(self._before, now))
            )
        self._before = now
        recent = self.agreements_[-self.window :]
        return len(recent) == self.window and float(np.mean(recent)) >= self.threshold


class EstimatedScore(StoppingRule):
    """Stop where the accuracy is shown to be high enough, by labels set apart.

    Before the first round, `n_labels` images are drawn by chance. Their labels are
    asked for, but they are never queried nor trained with: they are what the rule
    costs, on top of ``learner.labeled_``. After each round the accuracy on images like
    those of the pool is estimated from them; the rule stops where the lower bound
    reaches `target`.

    The same labels are looked at after each round, so the chance to stop too early
    somewhere is a little above 1 - `confidence`; docs/evaluation.md has it measured.

    Parameters
    ----------
    target : float
        An accuracy, above 0 and below 1.
    confidence : float, default=0.9
        That the accuracy is at least the lower bound; above 0.5 and below 1.
    n_labels : int, default=100
        At 0.95, 100 labels show what is right in 99 of them; more labels show it with
        less to spare.
    random_state : int or None, default=None
        Draws the images.

    Attributes
    ----------
    audit_ : skadma.evaluation.Audit
        What was drawn.
    estimates_ : list of skadma.evaluation.Estimate
        One per round; `low` is the bound.
    """

    audit_: Audit
    estimates_: list[Estimate]

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

    def start(self) -> None:
        """Forget the estimates of another run, and check what is asked for."""
        if not (0 < self.target < 1 and 0.5 < self.confidence < 1):
            raise ValueError(
                f"target={self.target} must be between 0 and 1, and confidence="
                f"{self.confidence} between 0.5 and 1."
            )
        # Even a model without a mistake has this bound: (1 - confidence) ** (1 / n).
        least = math.ceil(math.log(1 - self.confidence) / math.log(self.target))
        if self.n_labels < least:
            raise ValueError(
                f"With n_labels={self.n_labels} no model can be shown to reach "
                f"{self.target} with confidence {self.confidence}, not even one that "
                f"makes no mistake. At least {least} are needed."
            )
        self.estimates_ = []

    def reserve(self, n_images: int) -> np.ndarray:
        """Draw the images that are set apart."""
        if self.n_labels >= n_images:
            raise ValueError(
                f"EstimatedScore sets {self.n_labels} images apart, but there are only "
                f"{n_images}. Lower n_labels, or take another rule."
            )
        self.audit_ = audit_sample(
            np.full((n_images, 2), 0.5),
            self.n_labels,
            method="random",
            random_state=self.random_state,
        )
        return self.audit_.indices

    def should_stop(self, learner: Any) -> bool:
        """Tell whether the lower bound of the accuracy has reached the target."""
        drawn = self.audit_.indices
        found = estimate(
            self.audit_,
            learner.predict(take(learner.X_, drawn)),
            learner.y_[drawn],
            classes=learner.classes_,
            confidence=2 * self.confidence - 1,  # the upper bound is not asked for
            finite=False,
        )
        self.estimates_.append(found)
        return found.low >= self.target
