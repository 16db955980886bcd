"""How much each labelled image counts: sample weights and class weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import _check_sample_weight


def check_sample_weight(
    sample_weight: ArrayLike | None, y: np.ndarray
) -> np.ndarray | None:
    """Check the weights of images.

    Parameters
    ----------
    sample_weight : array-like of shape (n,), a number or None
    y : ndarray of shape (n, ...)

    Returns
    -------
    ndarray of shape (n,), float64, or None

    Raises
    ------
    ValueError
        If there are more or fewer than labels, or some are negative, NaN or infinite.
    """
    if sample_weight is None:
        return None
    return _check_sample_weight(
        sample_weight, y, dtype=np.float64, ensure_non_negative=True
    )


def loss_weights(
    y: np.ndarray,
    classes: np.ndarray,
    weights: np.ndarray | None,
    class_weight: Mapping[Any, float] | str | None,
) -> np.ndarray | None:
    r"""Join sample weights and class weights, and bring them to the mean 1.

    ``"balanced"`` is :math:`W / (C W_c)`, W the sum of the weights, :math:`W_c` that
    of a class and C the number of classes that have labels.

    Parameters
    ----------
    y : ndarray of shape (n,), or (n, n_labels) for several labels per image
    classes : ndarray
    weights : ndarray of shape (n,) or None
        Above 0.
    class_weight : dict, "balanced" or None

    Returns
    -------
    ndarray of shape (n,), float64, or None
        None where all are equal: the loss is then the plain mean.

    Raises
    ------
    ValueError
        If class weights are negative, for unknown classes, leave no weight, or come
        with several labels per image.
    """
    joint = np.ones(len(y)) if weights is None else weights
    if class_weight is not None:
        if y.ndim == 2:
            raise ValueError(
                "class_weight is for one label per image. With several, weigh what "
                "is there against what is not by "
                "net_params={'criterion__pos_weight': torch.tensor([...])}, or give "
                "sample_weight."
            )
        joint = joint * _of_classes(y, classes, joint, class_weight)
        if not joint.any():
            raise ValueError(
                f"class_weight={class_weight!r} is zero for every class in y, so "
                "there is nothing to train on."
            )
    if (joint == joint[0]).all():
        return None
    return joint / joint.mean()


def _of_classes(
    y: np.ndarray,
    classes: np.ndarray,
    weights: np.ndarray,
    class_weight: Mapping[Any, float] | str,
) -> np.ndarray:
    """The weight of each image's class."""
    if isinstance(class_weight, str):
        _, codes = np.unique(y, return_inverse=True)
        sums = np.bincount(codes, weights)
        return (weights.sum() / (len(sums) * sums))[codes]
    wrong = {k: v for k, v in class_weight.items() if not 0 <= v < np.inf}
    if wrong:
        raise ValueError(
            f"class_weight must be numbers from 0, got {wrong}: leave a class out for "
            "weight 1."
        )
    of_class = compute_class_weight(dict(class_weight), classes=classes, y=y)
    return of_class[np.searchsorted(classes, y)]
