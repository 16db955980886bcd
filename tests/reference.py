"""ADMA written literally and slowly from Eq. 1-11, to test the package against.

Loops, numpy and scipy only; nothing here comes from skadma. Eq. 10 is taken as it
has to be meant (see DESIGN.md, section 2), without the paper's minus.
"""

import math

import numpy as np
from scipy.stats import kendalltau


def center_indices(z, y):
    """Eq. 1-2: index of the member nearest to each class's mean, classes sorted."""
    indices = []
    for label in sorted(set(np.asarray(y).tolist())):
        members = [i for i in range(len(z)) if y[i] == label]
        mean = sum(np.asarray(z[i], dtype=float) for i in members) / len(members)
        best, best_distance = None, math.inf
        for i in members:
            distance = math.sqrt(
                sum((float(p) - q) ** 2 for p, q in zip(z[i], mean, strict=True))
            )
            if distance < best_distance:  # strictly: the first of equals stays
                best, best_distance = i, distance
        indices.append(best)
    return np.array(indices)


def squared_distance_vector(x, centers):
    """Eq. 4: S_x, the squared distances of one image to every centre."""
    return np.array(
        [
            sum((float(p) - float(q)) ** 2 for p, q in zip(x, c, strict=True))
            for c in centers
        ]
    )


def squared_distance_matrix(centers):
    """Eq. 3: S_C; column k belongs to c_k."""
    return np.stack([squared_distance_vector(c, centers) for c in centers], axis=1)


def pattern(s_a, s_b):
    """Eq. 5-6."""
    return np.array([p - q for p, q in zip(s_a, s_b, strict=True)])


def weights_predict(proba, classes):
    """Eq. 8 over the classes that have centres."""
    total = sum(proba[k] for k in classes)
    if total == 0:
        return np.array([1 / len(classes) for _ in classes])
    return np.array([proba[k] / total for k in classes])


def weights_distance(s_a):
    """Sec. 4.3: reciprocal distances that sum to 1."""
    at = [k for k, s in enumerate(s_a) if s == 0]
    if at:
        return np.array([1 / len(at) if k in at else 0.0 for k in range(len(s_a))])
    reciprocal = [1 / math.sqrt(s) for s in s_a]
    return np.array([r / sum(reciprocal) for r in reciprocal])


def approximated(weights, center_patterns):
    """Eq. 7; column k of `center_patterns` is the pattern of c_k."""
    return sum(w * center_patterns[:, k] for k, w in enumerate(weights))


def distinctiveness(s, s_hat):
    """Eq. 9; an undefined tau counts as 0."""
    tau = kendalltau(s, s_hat).statistic
    return (1 - (0.0 if math.isnan(tau) else tau)) / 2


def uncertainty(p, kind):
    """Eq. 10 for one image."""
    ordered = sorted((float(q) for q in p), reverse=True)
    if kind == "gini":
        return sum(q * (1 - q) for q in ordered)
    if kind == "entropy":
        return -sum(q * math.log(q) for q in ordered if q > 0)
    if kind == "margin":
        return 1 - (ordered[0] - ordered[1]) if len(ordered) > 1 else 0.0
    if kind == "least_confident":
        return 1 - ordered[0]
    raise ValueError(kind)


def score(d, u, trade_off, iteration):
    """Eq. 11 for one image."""
    weight = min(1.0, max(0.0, trade_off * iteration))
    return (1 - weight) * d + weight * u


def adma_parts(
    features_pool,
    features_centers,
    proba,
    source_proba,
    classes,
    *,
    layers_a,
    layer_b,
    weights="predict",
    uncertainty_kind="gini",
    trade_off,
    iteration,
):
    """All of Eq. 3-11 for a pool: dict of distinctiveness, uncertainty and total.

    `features_pool` and `features_centers` are dicts: layer -> (n, d), (K, d). With
    several layers in `layers_a` (ADMA-2, Sec. 4.2) the distinctiveness is how much the
    patterns from them differ from each other, in the mean over pairs.
    """
    layers = (*layers_a, layer_b)
    S_C = {layer: squared_distance_matrix(features_centers[layer]) for layer in layers}
    K = len(S_C[layer_b])
    center_patterns = {
        a: np.stack(
            [pattern(S_C[a][:, k], S_C[layer_b][:, k]) for k in range(K)], axis=1
        )
        for a in layers_a
    }
    d, u, total = [], [], []
    for i in range(len(proba)):
        s = {
            layer: squared_distance_vector(
                features_pool[layer][i], features_centers[layer]
            )
            for layer in layers
        }
        patterns, terms = [], []
        for a in layers_a:
            patterns.append(pattern(s[a], s[layer_b]))
        if len(patterns) == 1:
            if weights == "predict":
                alpha = weights_predict(source_proba[i], classes)
            else:
                alpha = weights_distance(s[layers_a[0]])
            s_hat = approximated(alpha, center_patterns[layers_a[0]])
            terms.append(distinctiveness(patterns[0], s_hat))
        for j in range(len(patterns)):
            for k in range(j):
                terms.append(distinctiveness(patterns[j], patterns[k]))
        d.append(sum(terms) / len(terms))
        u.append(uncertainty(proba[i], uncertainty_kind))
        total.append(score(d[-1], u[-1], trade_off, iteration))
    return {
        "distinctiveness": np.array(d),
        "uncertainty": np.array(u),
        "total": np.array(total),
    }


def probe_scores(X, y, weights, x, sharpness=None):
    """training="probe": scores of one row x, and the two factors that were found.

    Of the labelled rows each is left out in turn, and everything is computed anew
    from the others but the classes' shares and n.
    """
    n, classes = weights.sum(), np.unique(y)

    def discriminant(x, keep):
        means = []
        for c in classes:
            some = keep & (y == c)
            means.append((weights[some] @ X[some]) / weights[some].sum())
        S = 0.2 * np.eye(X.shape[1])
        for i in np.flatnonzero(keep):
            away = X[i] - means[np.searchsorted(classes, y[i])]
            S += weights[i] * np.outer(away, away)
        A = np.linalg.inv(S)
        return np.array([
            x @ A @ m - m @ A @ m / 2 + np.log(weights[y == c].sum() / n) / n
            for c, m in zip(classes, means, strict=True)
        ])  # fmt: skip

    def regression(x, keep):
        Z = np.column_stack([X[keep], np.ones(keep.sum())])
        penalty = 0.2 * np.eye(Z.shape[1])
        penalty[-1, -1] = 0
        V = np.diag(weights[keep])
        indicators = (y[keep, None] == classes).astype(float)
        W = np.linalg.solve(Z.T @ V @ Z + penalty, Z.T @ V @ indicators)
        return np.append(x, 1) @ W

    def best(scores, rows, most):
        left_out = [(i, scores(X[i], np.arange(len(X)) != i)) for i in rows]

        def loss(factor):
            total = 0.0
            for i, s in left_out:
                p = np.exp(factor * s) / np.exp(factor * s).sum()
                total -= weights[i] * np.log(p[np.searchsorted(classes, y[i])])
            return total

        tried = np.geomspace(0.01, most, 2000)
        return tried[np.argmin([loss(factor) for factor in tried])] if rows else 1.0

    if sharpness is None:
        several = [i for i in range(len(X)) if (y == y[i]).sum() > 1]
        sharpness = best(discriminant, several, n), best(regression, range(len(X)), 40)
    every = np.ones(len(X), dtype=bool)
    tau, T = sharpness
    return (tau * discriminant(x, every) + T * regression(x, every)) / 2, sharpness


def consensus(answers, proba, n_rounds=60):
    """Posterior of each class, and mean and 95 % interval of each person's share right.

    Who is right with the share s gives each wrong class with (1 - s) / (K - 1).
    """
    n, n_classes = len(proba), len(proba[0])
    shares = [(k + 0.5) / 200 for k in range(200)]
    people = range(len(answers[0]))

    def posterior(i, right, without=None):
        weights = []
        for k in range(n_classes):
            weight = proba[i][k]
            for j in people:
                if answers[i][j] == k and j != without:
                    weight *= right[j]
                elif answers[i][j] != -1 and j != without:
                    weight *= (1 - right[j]) / (n_classes - 1)
            weights.append(weight)
        return [weight / sum(weights) for weight in weights]

    right = [0.8 for _ in people]
    for _ in range(n_rounds):
        found = []
        for j in people:
            density = []
            for s in shares:
                likelihood = s**4
                for i in range(n):
                    if answers[i][j] != -1:
                        p = posterior(i, right, without=j)[answers[i][j]]
                        likelihood *= s * p + (1 - s) * (1 - p) / (n_classes - 1)
                density.append(likelihood)
            total, below = sum(density), 0
            mean = sum(s * d for s, d in zip(shares, density, strict=True)) / total
            quantiles = []
            for s, d in zip(shares, density, strict=True):
                below += d / total
                if len(quantiles) < 2 and below > (0.025, 0.975)[len(quantiles)]:
                    quantiles.append(s)
            found.append((mean, *quantiles))
        right = [mean for mean, *_ in found]
    return [posterior(i, right) for i in range(n)], found
