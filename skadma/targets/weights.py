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
    """Check the weights of images: one per label, finite, not negative, one above 0."""
    if sample_weight is None:
        return None
    weights = _check_sample_weight(
        sample_weight, y, dtype=np.float64, ensure_non_negative=True
    )
    if not weights.any():
        raise ValueError(
            "sample_weight is zero for every image, so there is nothing to train on. "
            "Give at least one image a weight above 0."
        )
    return weights


def loss_weights(
    y: np.ndarray,
    classes: np.ndarray,
    weights: np.ndarray | None,
    class_weight: Mapping[Any, float] | str | None,
) -> np.ndarray | None:
    """Multiply sample weights and class weights, and scale them to the mean 1.

    Returns None where all are equal: the loss is then the plain mean. `weights` are
    above 0.
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
        joint = joint * weights_of_classes(y, classes, joint, class_weight)
    if (joint == joint[0]).all():
        return None
    return joint / joint.mean()


def weights_of_classes(
    y: np.ndarray,
    classes: np.ndarray,
    weights: np.ndarray,
    class_weight: Mapping[Any, float] | str,
) -> np.ndarray:
    """Return the weight of each label's class, (n,); `weights` are those of labels.

    ValueError if all are 0.
    """
    if isinstance(class_weight, str):
        classes = np.unique(y)  # "balanced" is for the classes that have labels
    else:
        wrong = {k: v for k, v in class_weight.items() if not 0 <= v < np.inf}
        if wrong:
            raise ValueError(
                f"class_weight must be numbers from 0, got {wrong}: leave a class out "
                "for weight 1."
            )
        class_weight = dict(class_weight)
    found = compute_class_weight(
        class_weight, classes=classes, y=y, sample_weight=weights
    )
    of_labels: np.ndarray = found[np.searchsorted(classes, y)]
    if not of_labels.any():
        raise ValueError(
            f"class_weight={class_weight!r} is zero for every class in y, so there is "
            "nothing to train on."
        )
    return of_labels
