"""When to stop asking for labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.metrics import check_scoring, cohen_kappa_score

__all__ = [
    "AllOf",
    "AnyOf",
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
