"""Measure a classifier's calibration, and build a temperature into its last layer."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold

from ._calibration import apply_temperature, expected_calibration_error, fit_temperature

N_LABELS = 60
"""The fewest labels that temperatures were measured with; docs/evaluation.md."""
_FOLDS = 5


def calibrated(
    estimator: Any,
    labels: Sequence[str],
    unseen: Callable[[], np.ndarray],
    how: str = "five folds",
) -> tuple[Any, str]:
    """Return a classifier with better probabilities, and a text for the model card.

    The classifier is fitted with these `labels`, one per image, and stays as it is: it
    is returned itself where there are too few labels, where a temperature does not help
    or, with a warning, where its network cannot have one. `unseen` computes out-of-fold
    probabilities of the labelled images, `how` says by what; it is not called with too
    few labels.
    """
    counts = [count for count in Counter(labels).values() if count >= 2]
    if sum(counts) < N_LABELS or len(counts) < 2:
        return estimator, (
            f"Not measured: there are too few labels. It takes {N_LABELS}, of two "
            f"classes with at least two each, and {sum(counts)} count. Take the "
            "probabilities for an order of the images, not for how often the model is "
            "right."
        )
    classes, proba = estimator.classes_.tolist(), unseen()
    known = ~np.isnan(proba).any(axis=1)
    table, given = proba[known], np.asarray(labels)[known]
    if len(table) < sum(counts):
        return estimator, "Not measured: some of its probabilities are no numbers."
    after = np.empty_like(table)
    for shown, held in KFold(_FOLDS, shuffle=True, random_state=0).split(table):
        found = fit_temperature(table[shown], given[shown], classes=classes)
        after[held] = apply_temperature(table[held], found)
    temperature = fit_temperature(table, given, classes=classes)
    error, error_after = (
        expected_calibration_error(p, given, classes=classes) for p in (table, after)
    )
    loss, loss_after = (log_loss(given, p, labels=classes) for p in (table, after))
    chosen, better = estimator, with_temperature(estimator, temperature)
    # By log loss: the calibration error of 60 labels is mostly chance.
    if not loss_after < loss:
        use = "It makes it no better: the probabilities are as the network gives them."
    elif not _is_scaled(better, estimator, temperature):
        warnings.warn(
            f"The model is not calibrated: a temperature of {temperature:.2f} "
            "makes its probabilities better, but behind its last layer the network "
            "changes scores in a way that cannot have one.",
            stacklevel=2,
        )
        use = (
            "It cannot be built into this network: the probabilities are as the "
            "network gives them."
        )
    else:
        chosen = better
        use = (
            "**The scores of this model are divided by the temperature already**, in "
            "its last layer: its probabilities are the calibrated ones."
        )
    return chosen, (
        f"By {len(given)} labels, each judged by a model that was trained without "
        f"it ({how}), the expected calibration error of the confidence (ten bins "
        f"with equally many images) is {error:.3f}. With a temperature of "
        f"{temperature:.2f} it is {error_after:.3f}, measured on labels that the "
        f"temperature was not set by, and the log loss is {loss_after:.3f} "
        f"instead of {loss:.3f}. {use} With so few labels, one that is never wrong "
        f"about its confidence has about {(10 / len(given)) ** 0.5 / 3:.3f}. The "
        "labelled images were chosen, mostly for being hard: on others the error may "
        "differ."
    )


def with_temperature(estimator: Any, temperature: float) -> Any:
    """Return a copy of a fitted classifier whose scores are divided by a temperature.

    The last layer's weights are divided, so ``predict_proba``, the saved model and the
    exported one give the same probabilities.
    """
    module = estimator.net_.module_
    tensors = dict(module.state_dict())
    # Not buffers, such as the centre that a probe's head subtracts from its input.
    head = module.network.get_submodule(module.head_name)
    for name, _ in head.named_parameters(prefix=f"network.{module.head_name}"):
        tensors[name] = tensors[name] / temperature
    return clone(estimator).restore(
        estimator.source_network_,
        tensors,
        estimator.classes_,
        estimator.n_frozen_,
        estimator.n_labels_,
        copy.deepcopy(estimator.random_state_),
        estimator.multilabel_,
    )


def _is_scaled(better: Any, before: Any, temperature: float) -> bool:
    """Compare scores on images of noise: layers behind the last may be not linear."""
    side = before.source_network_.preprocessing.image_size
    shape = (4, 3, side, side)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    # Not by probabilities, of which apply_temperature takes none to be below 1e-12.
    found, wanted = (clf.decision_function(noise) for clf in (better, before))
    if found.ndim == 2:  # a score that all classes share changes no probability
        found, wanted = (s - s.mean(axis=1, keepdims=True) for s in (found, wanted))
    return bool(np.allclose(found, wanted / temperature, rtol=1e-4, atol=1e-4))
