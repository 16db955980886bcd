"""What ActiveLearner has of the classifier inside it."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin
from sklearn.pipeline import Pipeline
from sklearn.utils import Tags, get_tags
from sklearn.utils.metadata_routing import UNUSED, MetadataRouter, MethodMapping
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .callbacks import CallbackSupportMixin


def _estimator_has(method: str) -> Any:
    def check(self: Wrapper) -> bool:
        getattr(getattr(self, "estimator_", self.estimator), method)
        return True

    return check


class Wrapper(CallbackSupportMixin, ClassifierMixin, MetaEstimatorMixin, BaseEstimator):
    """A classifier that predicts as the one does that it has adapted."""

    estimator: Any
    estimator_: Any

    # A classifier inside may ask for weights; the groups are the learner's own.
    __metadata_request__fit = {"sample_weight": UNUSED, "groups": True}  # noqa: RUF012

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimator_")

    def predict(self, X: Any) -> np.ndarray:
        """Predict labels with the adapted classifier."""
        check_is_fitted(self)
        return self.estimator_.predict(X)

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X: Any) -> np.ndarray:
        """Predict class probabilities with the adapted classifier."""
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    @available_if(_estimator_has("decision_function"))
    def decision_function(self, X: Any) -> np.ndarray:
        """Compute the adapted classifier's decision function."""
        check_is_fitted(self)
        return self.estimator_.decision_function(X)

    def get_metadata_routing(self) -> MetadataRouter:
        """Tell scikit-learn what is passed on to whom."""
        mapping = MethodMapping().add(caller="fit", callee="fit")
        router = MetadataRouter(owner=self).add_self_request(self)
        return router.add(estimator=self.estimator, method_mapping=mapping)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.input_tags = inner.input_tags
        tags.classifier_tags = inner.classifier_tags
        return tags


def last_step(estimator: Any) -> Any:
    """Find the classifier at the end of a Pipeline, or what is given."""
    return estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator


def seed_unseeded(estimator: Any, rng: np.random.RandomState) -> None:
    """Give every `random_state` that is None, nested ones too, a drawn seed."""
    params = estimator.get_params(deep=True)
    unseeded = {
        name: int(rng.randint(np.iinfo(np.int32).max))
        for name in sorted(params)
        if name.split("__")[-1] == "random_state" and params[name] is None
    }
    estimator.set_params(**unseeded)
