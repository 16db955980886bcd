"""A strategy of ours as one of scikit-activeml's; needs scikit-activeml."""

from __future__ import annotations

from typing import Any

import numpy as np
from skactiveml.base import SingleAnnotatorPoolQueryStrategy, SkactivemlClassifier
from skactiveml.utils import (
    MISSING_LABEL,
    check_equal_missing_label,
    check_type,
    is_labeled,
)
from sklearn.base import clone

from .base import QueryStrategy, Request, ScoringStrategy


class SkadmaQueryStrategy(SingleAnnotatorPoolQueryStrategy):
    """A strategy of ours as one of scikit-activeml's; see :func:`to_skactiveml`."""

    def __init__(
        self,
        strategy: QueryStrategy,
        missing_label: Any = MISSING_LABEL,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        super().__init__(missing_label=missing_label, random_state=random_state)
        self.strategy = strategy

    def query(
        self,
        X: np.ndarray,
        y: np.ndarray,
        clf: SkactivemlClassifier,
        fit_clf: bool = True,
        candidates: np.ndarray | None = None,
        batch_size: int = 1,
        return_utilities: bool = False,
    ) -> Any:
        """Choose candidates to label next, as scikit-activeml's strategies do.

        With `fit_clf` a clone of `clf` is fitted first; for sample weights fit it
        beforehand. The utilities of strategies that choose a batch as a whole are 1
        for the chosen candidate and 0 for the others.
        """
        X, y, candidates, batch_size, return_utilities = self._validate_data(
            X, y, candidates, batch_size, return_utilities, reset=True
        )
        check_type(self.strategy, "strategy", QueryStrategy)
        check_type(clf, "clf", SkactivemlClassifier)
        check_type(fit_clf, "fit_clf", bool)
        check_equal_missing_label(clf.missing_label, self.missing_label_)
        X_pool, mapping = self._transform_candidates(candidates, X, y)
        if fit_clf:
            clf = clone(clf).fit(X, y)
        # Inside SklearnClassifier, fitted if there are labels:
        is_fitted = getattr(clf, "is_fitted_", False)
        inner = clf.estimator_ if is_fitted else getattr(clf, "estimator", clf)
        labeled = is_labeled(y, self.missing_label_)
        strategy = clone(self.strategy)
        strategy.set_params(random_state=int(self.random_state_.randint(2**31 - 1)))
        request = Request(
            inner, X_pool, batch_size, X_labeled=X[labeled], y_labeled=y[labeled]
        )
        if isinstance(strategy, ScoringStrategy):
            row = strategy.score(inner, X_pool, iteration=request.iteration).total
            chosen = strategy._take_best(request, row)
            utilities = np.tile(row, (batch_size, 1))
        else:
            chosen = strategy._choose(request)[0]
            utilities = np.zeros((batch_size, len(X_pool)))
            utilities[np.arange(batch_size), chosen] = 1
        for k in range(batch_size):
            utilities[k, chosen[:k]] = np.nan
        if mapping is not None:
            every = np.full((batch_size, len(X)), np.nan)
            every[:, mapping] = utilities
            chosen, utilities = mapping[chosen], every
        return (chosen, utilities) if return_utilities else chosen
