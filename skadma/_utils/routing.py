"""What ActiveLearner passes on to the fit of the classifier inside."""

from __future__ import annotations

from typing import Any

from numpy.typing import ArrayLike
from sklearn.pipeline import Pipeline
from sklearn.utils import check_consistent_length
from sklearn.utils.metadata_routing import _routing_enabled, process_routing
from sklearn.utils.validation import has_fit_parameter


def fit_params(
    learner: Any,
    y: Any,
    sample_weight: ArrayLike | None,
    groups: ArrayLike | None,
    params: dict[str, Any],
) -> dict[str, Any]:
    """Find the parameters of the inner classifier's fit, for all images.

    With scikit-learn's metadata routing they are what the inner estimators request.
    Without it `sample_weight` goes to the classifier, also at the end of a Pipeline,
    and `params` as they are.

    Parameters
    ----------
    learner : ActiveLearner
    y : ndarray of shape (n, ...)
    sample_weight : array-like of shape (n,) or None
    groups : array-like of shape (n,) or None
    params : dict

    Returns
    -------
    dict

    Raises
    ------
    ValueError
        If the classifier takes no weights, or they are not one for each image.
    """
    given = {"sample_weight": sample_weight, "groups": groups}
    given = {name: value for name, value in given.items() if value is not None}
    if sample_weight is not None:
        check_consistent_length(sample_weight, y)
    if _routing_enabled():
        return dict(process_routing(learner, "fit", **given, **params).estimator.fit)
    if sample_weight is None:
        return params
    inner, prefix = learner.estimator, ""
    while isinstance(inner, Pipeline):
        name, inner = inner.steps[-1]
        prefix += f"{name}__"
    if not has_fit_parameter(inner, "sample_weight"):
        raise ValueError(
            f"{type(inner).__name__} takes no sample_weight in fit. Give none, or take "
            "a classifier that does."
        )
    return {f"{prefix}sample_weight": sample_weight, **params}
