"""Query by committee: where several estimators disagree."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from scipy.special import rel_entr
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from ..features.estimators import in_blocks, unwrap
from ..images.selection import n_images
from .base import Scores, ScoringStrategy


class QueryByCommittee(ScoringStrategy):
    r"""Choose where the members of an ensemble disagree [1]_.

    The committee is the estimator itself: any fitted ensemble with ``estimators_`` of
    classifiers, such as ``VotingClassifier`` over several CNNClassifiers,
    ``BaggingClassifier`` or a forest. The disagreement is the mean Kullback-Leibler
    divergence of the members' probabilities from their mean [2]_,
    :math:`\frac1C \sum_c \sum_k p_c(k) \log (p_c(k) / \bar p(k))`. Before the first
    fit all images have the same score.

    Parameters
    ----------
    random_state : int, RandomState instance or None, default=None
        Breaks ties.

    References
    ----------
    .. [1] Seung, Opper & Sompolinsky, Query by Committee, COLT 1992.
    .. [2] McCallum & Nigam, Employing EM and Pool-Based Active Learning for Text
       Classification, ICML 1998.
    """

    needs: ClassVar[str] = "an ensemble's probabilities"
    cost: ClassVar[str] = "1 pass of each member"
    memory: ClassVar[str] = "members n C"

    def score(self, estimator: Any, X_pool: Any, *, iteration: float = 0) -> Scores:
        """Score by disagreement; see :meth:`ScoringStrategy.score`."""
        estimator, X, _ = unwrap(estimator, X_pool)
        try:
            check_is_fitted(estimator)
        except NotFittedError:
            return Scores(np.ones(n_images(X)))
        scores = []
        for _, block in in_blocks(X):
            proba = member_proba(estimator, block)
            divergence = rel_entr(proba, proba.mean(axis=0)).sum(axis=2)
            scores.append(divergence.mean(axis=0))
        return Scores(np.concatenate(scores))


def member_proba(estimator: Any, X: Any) -> np.ndarray:
    """Class probabilities by each member of an ensemble, (n_members, n, n_classes)."""
    members = getattr(estimator, "estimators_", None)
    if members is None or not all(hasattr(m, "predict_proba") for m in members):
        raise TypeError(
            "QueryByCommittee needs a fitted ensemble whose members have "
            "predict_proba, such as VotingClassifier([('a', ...), ('b', ...)]); got "
            f"{estimator!r}."
        )
    columns = getattr(estimator, "estimators_features_", [None] * len(members))
    classes = np.arange(len(estimator.classes_))
    found = np.zeros((len(members), n_images(X), len(classes)))
    for c, (member, used) in enumerate(zip(members, columns, strict=True)):
        rows = X if used is None else np.asarray(X)[:, used]
        known = member.classes_
        if len(known) == len(classes):
            found[c] = member.predict_proba(rows)
        else:  # a bagged member may have missed a class
            found[c][:, known.astype(int)] = member.predict_proba(rows)
    return found
