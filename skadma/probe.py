"""The last layer alone, fitted to its optimum: a logistic regression."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from .backbones.heads import ProbeHead

PROBE_C = 100.0
"""Inverse strength of the L2 penalty, for rows of length 1."""

_UNSEEN = 10.0
"""How far a class without labels scores below the others' mean."""


def fit_head(
    head: ProbeHead,
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray | None = None,
) -> None:
    """Centre a head on features and fit it to them.

    Parameters
    ----------
    head : ProbeHead
    features : ndarray of shape (n, d), float32
    targets : ndarray of int, shape (n,), or of 0 and 1, shape (n, n_classes)
        Class numbers, or which labels a row has: a regression for each then.
    weights : ndarray of shape (n,), optional
        How much each row counts; of mean 1.
    """
    with torch.no_grad():
        mean = np.average(features, axis=0, weights=weights).astype(np.float32)
        head.centre.copy_(torch.from_numpy(mean))
        rows = head.prepare(torch.from_numpy(features).to(head.centre.device))
        coef, intercept = fit_probe(
            rows.cpu().numpy().astype(np.float64), targets, head.out_features, weights
        )
        head.weight.copy_(torch.from_numpy(coef))
        head.bias.copy_(torch.from_numpy(intercept))


def fit_probe(
    rows: np.ndarray,
    targets: np.ndarray,
    n_classes: int,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit weights and biases by logistic regression, C = 100.

    Parameters
    ----------
    rows : ndarray of shape (n, d), float64
    targets, weights
        See :func:`fit_head`.
    n_classes : int
        Those without labels score 10 below the mean of the others.

    Returns
    -------
    coef : ndarray of shape (n_classes, d)
    intercept : ndarray of shape (n_classes,)
    """
    # The optimum lies in the span of the rows: n numbers instead of d.
    inside, basis = _in_span(rows)
    if targets.ndim == 1:
        coef, intercept = _fit(inside, targets, n_classes, weights)
    else:
        found = [_fit(inside, column > 0.5, 2, weights) for column in targets.T]
        coef = np.stack([w[1] - w[0] for w, _ in found])
        intercept = np.stack([b[1] - b[0] for _, b in found])
    return np.linalg.multi_dot([coef, *basis]), intercept


def _in_span(rows: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Find coordinates of the rows in a basis of their span, and that basis.

    It is the factors' product. By eigenvectors of the rows' products with each other,
    of which an SVD of the rows takes ten times as long.
    """
    wide = rows.shape[0] < rows.shape[1]
    squares, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    kept = squares > 1e-12 * squares[-1]
    kept[-1] = True  # all rows are 0: a regression on nothing
    vectors = vectors[:, kept]
    if not wide:
        return rows @ vectors, [vectors.T]
    lengths = np.sqrt(np.maximum(squares[kept], np.finfo(float).tiny))
    return vectors * lengths, [(vectors / lengths).T, rows]


def _fit(
    rows: np.ndarray, y: np.ndarray, n_classes: int, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of all classes, of mean 0 over those that have labels."""
    seen = np.unique(y).astype(int)
    coef, intercept = np.zeros((n_classes, rows.shape[1])), np.zeros(n_classes)
    intercept[np.setdiff1d(np.arange(n_classes), seen)] = -_UNSEEN
    if len(seen) < 2:
        return coef, intercept
    model = LogisticRegression(C=PROBE_C, max_iter=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # close enough by then
        model.fit(rows, y, weights)
    if len(seen) == 2:
        coef[seen] = np.stack([-model.coef_[0], model.coef_[0]]) / 2
        intercept[seen] = np.array([-1, 1]) * model.intercept_[0] / 2
    else:
        coef[seen], intercept[seen] = model.coef_, model.intercept_
    return coef, intercept
