"""The linear probe: the last layer, fitted in closed form."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

PROBE_RIDGE = 0.2
"""What is added to the scatter within classes, and the penalty of the regression,
for rows of length 1."""

_UNSEEN = 10.0
"""How far a class without labels scores below the others' mean."""


class Probe(NamedTuple):
    """What :func:`fit_probe` finds."""

    coef: np.ndarray  # (n_classes, d)
    intercept: np.ndarray  # (n_classes,)
    # Scores (n, n_classes) of each row by the probe that is fitted to the other rows
    # with the same tau and T.
    left_out: np.ndarray
    sharpness: np.ndarray  # tau and T, (2,), or (n_classes, 2) where targets are 2-D


def fit_probe(
    rows: np.ndarray,
    targets: np.ndarray,
    n_classes: int,
    weights: np.ndarray | None = None,
) -> Probe:
    r"""Find the weights and biases of two analyses' mean.

    The scores of a row x are half the sum of a linear discriminant analysis's and of
    a ridge regression's. With m_k the mean of class k, p_k its share of the n rows and
    S the scatter of the rows around their classes' means,

    .. math:: s_k(x) = \tau \left(x^T A m_k - \tfrac12 m_k^T A m_k
              + \tfrac1n \log p_k\right), \qquad A = (S + 0.2 I)^{-1},

    and r(x) = T (W x + b), where W and b make the sum over rows of
    |W x_i + b - e_{y_i}|^2, plus 0.2 |W|^2, least.

    tau, at most n, and T, at most 40, make the log losses of the rows least, each
    scored without itself. (With tau = n the scores are those of normal distributions,
    which are far too sure where there are fewer rows than columns.) The regression
    separates many classes better, the analysis ranks rows better.

    `targets` are class numbers (n,), or 0 and 1 (n, n_classes): then a probe for each
    label. Classes without labels score 10 below the mean of the others. `weights` are
    (n,), or of the shape of `targets`.
    """
    # The optimum lies in the span of the rows: n numbers instead of d.
    inside, basis = _in_span(rows)
    weights = np.ones(len(rows)) if weights is None else weights
    if targets.ndim == 1:
        coef, *found = _fit(inside, targets, n_classes, weights)
    else:
        if weights.ndim == 1:
            weights = np.tile(weights[:, None], n_classes)
        labels = [
            _fit(inside, column > 0.5, 2, w)
            for column, w in zip(targets.T, weights.T, strict=True)
        ]
        coef = np.stack([label.coef[1] - label.coef[0] for label in labels])
        found = [
            np.stack([label.intercept[1] - label.intercept[0] for label in labels]),
            np.stack([label.left_out @ [-1, 1] for label in labels], axis=1),
            np.stack([label.sharpness for label in labels]),
        ]
    return Probe(np.linalg.multi_dot([coef, *basis]), *found)


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


def _fit(rows: np.ndarray, y: np.ndarray, n_classes: int, weights: np.ndarray) -> Probe:
    """Scores of all classes, of mean 0 over those that have labels."""
    coef, intercept = np.zeros((n_classes, rows.shape[1])), np.zeros(n_classes)
    sharpness, every = np.ones(2), rows
    used = weights > 0
    rows, weights = rows[used], weights[used]
    seen, y = np.unique(y[used].astype(int), return_inverse=True)
    intercept[np.setdiff1d(np.arange(n_classes), seen)] = -_UNSEEN
    scores = np.zeros((len(rows), len(seen)))
    if len(seen) > 1:
        one, other = _discriminant(rows, y, weights), _regression(rows, y, weights)
        w, b = (one.coef + other.coef) / 2, (one.intercept + other.intercept) / 2
        coef[seen], intercept[seen] = w - w.mean(axis=0), b - b.mean()
        scores = (one.left_out + other.left_out) / 2
        sharpness = np.concatenate([one.sharpness, other.sharpness])
    left_out = every @ coef.T + intercept  # what it is for rows of no weight
    # A class has no labels without the only row that it has.
    unseen = np.eye(len(seen), dtype=bool)[y] & (np.bincount(y) == 1)
    sums = np.where(unseen, 0, scores).sum(axis=1, keepdims=True)
    scores -= sums / np.maximum((~unseen).sum(axis=1, keepdims=True), 1)
    scores[unseen] = -_UNSEEN
    left_out[np.ix_(used, seen)] = scores
    return Probe(coef, intercept, left_out, sharpness)


def _discriminant(rows: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Probe:
    """Weights and biases of classes that all have rows."""
    member = weights[:, None] * np.eye(y.max() + 1)[y]
    counts = member.sum(axis=0)
    means = member.T @ rows / counts[:, None]
    within = rows - means[y]
    scatter = (within * weights[:, None]).T @ within
    scatter += PROBE_RIDGE * np.eye(rows.shape[1])
    solved = np.linalg.solve(scatter, np.concatenate([means, within]).T).T
    coef, solved = solved[: len(means)], solved[len(means) :]
    norms = (means * coef).sum(axis=1)
    prior = _prior(counts)
    # Without a row its class has another share.
    rest = _prior(np.maximum(counts - member, np.finfo(float).tiny))
    # A row that is left out moves its class's mean and takes a rank of the scatter.
    others = counts[y] - weights
    some = np.flatnonzero(others > 1e-9 * counts[y])
    left_out = rows @ coef.T - norms / 2 + rest  # of rows alone in their classes
    if not len(some):
        return Probe(coef, prior - norms / 2, left_out, np.ones(1))
    at, k = np.arange(len(some)), y[some]
    r = weights[some] / others[some]
    own, cross = (within * solved).sum(axis=1)[some], (rows * solved).sum(axis=1)[some]
    scale = r * counts[k] / (1 - r * counts[k] * own)
    scores, moved = rows[some] @ coef.T, within[some] @ coef.T
    squares = np.tile(norms, (len(some), 1))
    squares[at, k] += r**2 * own - 2 * r * moved[at, k]
    scores[at, k] -= r * cross
    moved[at, k] -= r * own
    scores += scale[:, None] * moved * (cross[:, None] - moved / 2)
    scores += prior - squares / 2
    tau = _sharpness(scores, k, weights[some], counts.sum())
    left_out[some] = scores - prior + rest[some]
    return Probe(tau * coef, tau * (prior - norms / 2), tau * left_out, np.array([tau]))


def _prior(counts: np.ndarray) -> np.ndarray:
    """Logarithms of the shares that classes have of n rows, over n."""
    n = counts.sum(axis=-1, keepdims=True)
    return np.log(counts / n) / n


def _regression(rows: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Probe:
    """Weights and biases of a ridge regression on the classes' indicators."""
    indicators = np.eye(y.max() + 1)[y]
    mean, shares = (np.average(a, axis=0, weights=weights) for a in (rows, indicators))
    centred = rows - mean
    weighted = weights[:, None] * centred
    system = weighted.T @ centred + PROBE_RIDGE * np.eye(rows.shape[1])
    solved = np.linalg.solve(system, weighted.T)
    coef = (solved @ indicators).T
    intercept = shares - coef @ mean
    # A row's share in its own prediction, without which it is scored.
    own = weights / weights.sum() + (centred * solved.T).sum(axis=1)
    residuals = indicators - rows @ coef.T - intercept
    rest = np.maximum(1 - own, np.finfo(float).eps)  # 0 beside a weight of 1e20
    left_out = indicators - residuals / rest[:, None]
    t = _sharpness(left_out, y, weights, 40.0)
    return Probe(t * coef, t * intercept, t * left_out, np.array([t]))


def _sharpness(
    scores: np.ndarray, y: np.ndarray, weights: np.ndarray, most: float
) -> float:
    """By what scores are multiplied so that their log loss is least."""

    def loss(log_tau: float) -> float:
        scaled = np.exp(log_tau) * scores
        logs = scaled[np.arange(len(y)), y] - logsumexp(scaled, axis=1)
        return -float(weights @ logs)

    found = minimize_scalar(loss, bounds=(np.log(0.01), np.log(most)), method="bounded")
    return float(np.exp(found.x))
