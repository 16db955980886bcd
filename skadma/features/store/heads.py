"""Probabilities from what is stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, softmax
from torch import nn

from ...classifier import CNNClassifier


@dataclass(frozen=True)
class Proba:
    """Maps class scores to probabilities, as strategies take them.

    Attributes
    ----------
    multilabel : bool
    """

    multilabel: bool

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Map scores (n, C) to probabilities (n, C), or (n, C, 2)."""
        scores = scores.astype(np.float64)
        if not self.multilabel:
            return softmax(scores, axis=1)
        proba = expit(scores)
        return np.stack([1 - proba, proba], axis=2)


@dataclass(frozen=True)
class LinearHead:
    """Maps the last layer's inputs to probabilities.

    Attributes
    ----------
    weight : ndarray of shape (n_classes, d)
    bias : ndarray of shape (n_classes,)
    multilabel : bool
    """

    weight: np.ndarray
    bias: np.ndarray
    multilabel: bool

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Map features (n, d) to probabilities (n, C), or (n, C, 2)."""
        scores = features @ self.weight.T
        scores += self.bias
        return Proba(self.multilabel)(scores)


def linear_head(estimator: CNNClassifier) -> LinearHead | None:
    """Take the last layer out of a fitted classifier; None if it is no Linear one."""
    network = estimator.net_.module_
    module = network.network.get_submodule(network.head_name)
    if not isinstance(module, nn.Linear):
        return None
    weight = module.weight.detach().cpu().numpy()
    bias = np.zeros(len(weight), weight.dtype)
    if module.bias is not None:
        bias = module.bias.detach().cpu().numpy()
    return LinearHead(weight.copy(), bias.copy(), bool(estimator.multilabel_))
