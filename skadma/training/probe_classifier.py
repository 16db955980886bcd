"""ProbeClassifier: the linear probe as a classifier of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags, check_array, check_consistent_length
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from ..targets.labels import check_labels, encode, known_classes
from ..targets.weights import check_sample_weight, weights_of_classes
from .probe import fit_probe

_BLOCK = 128
"""Rows that are centred and scaled at once for prediction."""


class ProbeClassifier(ClassifierMixin, BaseEstimator):
    """A linear classifier of embeddings, fitted in closed form.

    Rows are centred on their mean and scaled to length 1. The scores are the mean of a
    linear discriminant analysis's and a ridge regression's. Each is multiplied by the
    factor that makes the log loss of the labelled rows least, each scored without
    itself, so there is nothing to tune. It is what
    ``CNNClassifier(training="probe")`` fits to its last layer's input. A row's length
    does not count, which suits embeddings and no tables of a few columns.

    With n rows of d numbers, fitting takes O(n d min(n, d)) operations and ten times
    the rows' memory.

    Parameters
    ----------
    block_widths : sequence of int, optional
        For rows that join several embeddings: how many columns each has, in order.
        Each is centred and scaled by itself, and the first counts twice. None: one
        block of all columns.
    classes : array-like, optional
        All labels there are, known beforehand: `y` may miss some. With several labels
        per row, names for the columns of `y`.
    class_weight : dict, "balanced" or None, default=None
        How much the rows of a class count. A dict from labels to weights; 1 for those
        that it leaves out. ``"balanced"``: in inverse proportion to the labels of each
        class. Multiplies `sample_weight`. With several labels per row each is a task
        of its own, with the classes 0 and 1.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted; with several per row, in the order of y's columns.
    multilabel_ : bool
        Whether a row has any number of labels instead of one.
    center_ : ndarray of shape (n_features,)
        The rows' mean.
    coef_ : ndarray of shape (n_classes, n_features)
        Weights of the centred and scaled rows.
    intercept_ : ndarray of shape (n_classes,)
    sharpness_ : ndarray of shape (2,) or (n_classes, 2)
        The factors of the analysis's and of the regression's scores; the latter shape
        with several labels per row.
    loo_proba_ : ndarray of shape (n, n_classes)
        Leave-one-out probabilities: those of each row of `X` by the classifier that is
        fitted to the other rows, with the same `center_`, `sharpness_` and weights.
        They are exact, and cost no further fit.
    n_labels_ : int
        Number of rows of a weight above 0.
    n_features_in_ : int
    feature_names_in_ : ndarray of shape (n_features,)
        Only where the columns of `X` have names.

    See Also
    --------
    CNNClassifier : The same on images, with a network before it.

    Notes
    -----
    Equal rows with the same label are one row of their joint weight, which is left out
    as a whole, so a row that is there twice does not look as if it had been predicted
    well. Weights are then scaled to the mean 1: their ratios matter. A class with a
    single row is unknown where that row is left out. Classes without labels score 10
    below the mean of the others. docs/training.md has the formulas and comparisons.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skadma import ProbeClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = ProbeClassifier().fit(X[::6], y[::6])
    >>> print(f"{clf.score(X, y):.2f}")
    0.93
    >>> print(f"{(clf.loo_proba_.argmax(1) == y[::6]).mean():.2f}")
    0.94
    """

    _parameter_constraints: dict[str, Any] = {
        "block_widths": [None, "array-like"],
        "classes": [None, "array-like"],
        "class_weight": [None, dict, StrOptions({"balanced"})],
    }

    def __init__(
        self,
        *,
        block_widths: Sequence[int] | None = None,
        classes: ArrayLike | None = None,
        class_weight: dict[Any, float] | str | None = None,
    ) -> None:
        self.block_widths = block_widths
        self.classes = classes
        self.class_weight = class_weight

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Fit the probe to labelled rows.

        Parameters
        ----------
        X : array-like of shape (n, n_features)
        y : array-like of shape (n,) or (n, n_labels)
            Labels; several per row as zeros and ones.
        sample_weight : array-like of shape (n,), optional
            How much each row counts: one of weight 2 as two equal rows, one of weight
            0 not at all.

        Returns
        -------
        self
        """
        self._validate_params()
        labels = check_labels(y, self, self.classes)
        rows = check_array(X, estimator=self)
        check_consistent_length(rows, labels)
        weights = check_sample_weight(sample_weight, labels)
        weights = np.ones(len(rows)) if weights is None else weights
        used = weights > 0
        labels, classes = labels[used], known_classes(labels[used], self.classes)
        first, inverse = _find_equal(rows[used], encode(labels, classes))
        distinct, labels = rows[used][first], labels[first]
        weights = np.bincount(inverse, weights[used])
        joint, multilabel = weights, labels.ndim == 2
        if self.class_weight is not None:
            tasks = labels.T if multilabel else labels[None]
            known = np.arange(2) if multilabel else classes
            factors = [
                weights_of_classes(task, known, weights, self.class_weight)
                for task in tasks
            ]
            joint = weights * np.array(factors)
            joint = joint.T if multilabel else joint[0]
        by = weights if multilabel else joint
        center = np.average(distinct, axis=0, weights=by)
        prepared, targets = self._prepare(distinct, center), encode(labels, classes)
        probe = fit_probe(prepared, targets, len(classes), joint / joint.mean(axis=0))
        validate_data(self, X, reset=True, skip_check_array=True)
        self.center_ = center
        self.coef_, self.intercept_ = probe.coef, probe.intercept
        self.sharpness_ = probe.sharpness
        self.classes_ = classes
        self.multilabel_ = multilabel
        self.n_labels_ = int(used.sum())
        scores = np.empty((len(rows), len(classes)))
        scores[used] = probe.left_out[inverse]
        scores[~used] = self._scores(rows[~used])  # in no fit
        self.loo_proba_ = self._proba_of(scores)
        return self

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Class scores.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_classes), or (n,) for two classes
            In the order of ``classes_``; with several labels per row above 0 where one
            is predicted, and always of the former shape. For two classes the second
            one's less the first one's.
        """
        scores = self._checked_scores(X)
        if scores.shape[1] == 2 and not self.multilabel_:
            return scores[:, 1] - scores[:, 0]
        return scores

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Class probabilities.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_classes)
            In the order of ``classes_``. A row's sum is 1, except with several labels
            per row, of which each has a probability of its own.
        """
        return self._proba_of(self._checked_scores(X))

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Most probable labels.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,), or of int, shape (n, n_classes)
            The latter with several labels per row: 1 for each that is more probable
            than not.
        """
        scores = self._checked_scores(X)
        if self.multilabel_:
            return (scores > 0).astype(int)
        return self.classes_[scores.argmax(axis=1)]

    def _checked_scores(self, X: ArrayLike) -> np.ndarray:
        check_is_fitted(self)
        return self._scores(validate_data(self, X, reset=False))

    def _scores(self, rows: np.ndarray) -> np.ndarray:
        """Scores (n, n_classes), in single precision for rows of it."""
        dtype = np.float32 if rows.dtype == np.float32 else np.float64
        center, coef = self.center_.astype(dtype), self.coef_.T.astype(dtype)
        scores = np.empty((len(rows), len(self.intercept_)))
        for start in range(0, len(rows), _BLOCK):  # which stays in the cache
            some = slice(start, start + _BLOCK)
            scores[some] = self._prepare(rows[some], center) @ coef
        return scores + self.intercept_

    def _proba_of(self, scores: np.ndarray) -> np.ndarray:
        return expit(scores) if self.multilabel_ else softmax(scores, axis=1)

    def _prepare(self, rows: np.ndarray, center: np.ndarray) -> np.ndarray:
        """Centre the blocks of rows and scale them, as `ProbeHead` does."""
        d = rows.shape[1]
        widths = np.array([d] if self.block_widths is None else self.block_widths)
        if widths.dtype.kind not in "iu" or widths.sum() != d or (widths < 1).any():
            raise ValueError(
                f"block_widths={widths.tolist()} must be whole numbers above 0 whose "
                f"sum is the number of columns of X, {d}."
            )
        prepared, squares = rows - center, np.ones(len(widths))
        squares[0] = 2
        blocks = np.split(prepared, np.cumsum(widths)[:-1], axis=1)  # views
        for block, square in zip(blocks, squares / (len(widths) + 1), strict=True):
            norms = np.sqrt(np.einsum("ij,ij->i", block, block))[:, None]
            block *= (np.sqrt(square) / np.maximum(norms, 1e-12)).astype(block.dtype)
        return prepared

    def __sklearn_tags__(self) -> Tags:
        """Return scikit-learn's description of what this estimator can do."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


def _find_equal(rows: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First row of each group of equal rows with the same label; each row's group.

    The groups are in the order of their digests, whatever the order of the rows.
    """
    digests = [
        blake2b(row.tobytes() + target.tobytes(), digest_size=16).digest()
        for row, target in zip(rows, targets, strict=True)
    ]
    keys = np.frombuffer(b"".join(digests), dtype="V16")
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first, inverse
