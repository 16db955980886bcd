"""The linear probe: the last layer, fitted in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from ..features.cache import open_cache
from ..features.extractor import NONE_READABLE, FeatureExtractor
from ..images.dataset import ImageDataset, Rows
from ..networks import PretrainedNetwork
from ..networks.heads import ProbeHead

PROBE_RIDGE = 0.2
"""What is added to the scatter within classes, and the penalty of the regression,
for rows of length 1."""

_UNSEEN = 10.0
"""How far a class without labels scores below the others' mean."""


def probe_inputs(
    source: PretrainedNetwork,
    dataset: ImageDataset | Rows,
    device: torch.device,
    memory: Any,
    batch_size: int,
    skip_unreadable: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (m,) of images that can be decoded; the last layer's inputs (m, d)."""
    last = len(source.graph.layers) - 1
    extractor = FeatureExtractor(
        source,
        None,
        [],
        [last - 1],
        n_frozen=last,
        device=device,
        cache=open_cache(memory),
    )
    batches = list(
        extractor.iter_outputs(dataset, batch_size, skip_unreadable=skip_unreadable)
    )
    if not batches:
        raise ValueError(NONE_READABLE)
    indices = np.concatenate([batch.indices for batch in batches])
    features = [batch.source[last - 1].cpu().numpy() for batch in batches]
    return indices, np.concatenate(features)


def fit_head(
    head: ProbeHead,
    features: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray | None = None,
) -> None:
    """Centre a head on features (n, d) and fit it to targets.

    Targets are class numbers (n,), or 0 and 1 (n, n_classes): then a probe for each
    label. `weights` (n,) are of mean 1.
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
    coef, intercept = np.zeros((n_classes, rows.shape[1])), np.zeros(n_classes)
    weights = np.ones(len(rows)) if weights is None else weights
    used = weights > 0
    rows, weights = rows[used], weights[used]
    seen, y = np.unique(y[used].astype(int), return_inverse=True)
    intercept[np.setdiff1d(np.arange(n_classes), seen)] = -_UNSEEN
    if len(seen) > 1:
        (w, b), (v, c) = _discriminant(rows, y, weights), _regression(rows, y, weights)
        w, b = (w + v) / 2, (b + c) / 2
        coef[seen], intercept[seen] = w - w.mean(axis=0), b - b.mean()
    return coef, intercept


def _discriminant(
    rows: np.ndarray, y: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
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
    prior = np.log(counts / counts.sum()) / counts.sum()
    # A row that is left out moves its class's mean and takes a rank of the scatter.
    others = counts[y] - weights
    some = np.flatnonzero(others > 1e-9 * counts[y])
    if not len(some):
        return coef, prior - norms / 2
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
    return tau * coef, tau * (prior - norms / 2)


def _regression(
    rows: np.ndarray, y: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
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
    left_out = indicators - residuals / (1 - own)[:, None]
    sharpness = _sharpness(left_out, y, weights, 40.0)
    return sharpness * coef, sharpness * intercept


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
