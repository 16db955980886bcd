"""Estimate a model's accuracy, recall and confusion from an audit's labels."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest, hypergeom

from .._utils.intervals import wilson_interval
from ..targets.labels import as_labels, plain_labels, unlabelled_mask
from ._audit import Audit
from ._checks import class_numbers


class Share(NamedTuple):
    """A share with its interval; NaN, from 0 to 1, where there is no label.

    Attributes
    ----------
    value, low, high : float
    n_labels : int
        How many of the audit's labels it is from.
    """

    value: float
    low: float
    high: float
    n_labels: int


@dataclass(frozen=True)
class Estimate:
    """How good a model is on a population of images; ``print`` shows it.

    Attributes
    ----------
    value : float
        The accuracy.
    low, high : float
        Its interval.
    confidence : float
        Of the intervals.
    n_labels : int
        Answers it is from.
    n_population : int
        How many images it is about.
    method : str
        How they were drawn.
    classes : ndarray of shape (n_classes,)
    recall : dict of object to Share
        By class: of the images of a class, how many the model finds.
    confusion : ndarray of shape (n_classes, n_classes)
        How many images of the population are of a class (row) and taken for one
        (column).
    """

    value: float
    low: float
    high: float
    confidence: float
    n_labels: int
    n_population: int
    method: str
    classes: np.ndarray
    recall: dict[Any, Share]
    confusion: np.ndarray

    def _labels_for(self, half_width: float) -> int:
        """Estimate how many labels in all would make the interval that narrow."""
        share = smoothed(self.value, self.n_labels)
        now = max((self.high - self.low) / 2, 1e-12)
        if now <= half_width:
            return self.n_labels
        # With few labels the interval does not yet shrink as the square root.
        by_root = self.n_labels * (now / half_width) ** 2
        by_share = 4 * share * (1 - share) / half_width**2
        wanted = by_root if self.n_labels >= 20 else by_share
        return min(self.n_population, math.ceil(wanted))

    def __str__(self) -> str:
        percent = f"{100 * self.confidence:g} %"
        lines = [
            f"accuracy     {_shown(self.value, self.low, self.high)} on "
            f"{self.n_population} images, from {self.n_labels} labels ({self.method}; "
            f"{percent} intervals)"
        ]
        for name, share in self.recall.items():
            lines.append(
                f"recall       {_shown(*share[:3])} of {name!s}, from "
                f"{share.n_labels} labels"
            )
        width = max(8, *(len(str(name)) for name in self.classes))
        lines.append("confusion    images of a class (row) taken for one (column):")
        head = "".join(f"{name!s:>{width + 2}}" for name in self.classes)
        lines.append(" " * (width + 2) + head)
        for name, row in zip(self.classes, self.confusion, strict=True):
            cells = "".join(f"{count:>{width + 2}.0f}" for count in row)
            lines.append(f"  {name!s:<{width}}{cells}")
        if self.high - self.low > 0.1 and self.n_labels < self.n_population:
            lines.append(
                f"The interval is wide: about {self._labels_for(0.05)} labels in all "
                "would make it +- 5 percentage points. Draw and label some more."
            )
        few = [str(k) for k, share in self.recall.items() if share.n_labels < 5]
        if few:
            lines.append(
                f"Fewer than 5 of the labels are of {', '.join(few)}: their recall is "
                "hardly known."
            )
        return "\n".join(lines)


def estimate(
    audit: Audit | Sequence[Audit],
    predicted: ArrayLike,
    y: ArrayLike,
    *,
    classes: ArrayLike | None = None,
    confidence: float = 0.95,
    finite: bool = True,
) -> Estimate:
    """Estimate accuracy, recall and confusion on a population from an audit.

    The estimate is about what can be labelled: images without an answer stand for
    those like them, which are left out.

    Parameters
    ----------
    audit : Audit or sequence of Audit
        From :func:`audit_sample`. Several, drawn one after the other, are averaged by
        their numbers of labels.
    predicted : array-like of shape (n,)
        What the model takes the audit's images for, in its order (one audit after
        the other). It need not be the model by which they were drawn.
    y : array-like of shape (n,)
        Their true labels; -1 (None, NaN) where there is no answer. The model must not
        have been trained with them.
    classes : array-like, optional
        All labels of the task; those in `y` and `predicted` if None.
    confidence : float, default=0.95
        Of the intervals, between 0 and 1. Random audits have Clopper and Pearson's,
        hypergeometric for accuracy [1]_: its coverage is at least `confidence`, and it
        is somewhat wide. Other audits have Wilson's on the number of labels of a random
        sample with the same variance [2]_: its coverage is `confidence` on average.
    finite : bool, default=True
        The population is all that is asked about. False: it is a sample of images to
        come, or the model was trained with other images of it since.

    Returns
    -------
    Estimate

    Raises
    ------
    ValueError
        If nothing is answered, or the lengths differ.

    References
    ----------
    .. [1] Clopper & Pearson, The Use of Confidence or Fiducial Limits, Biometrika 1934.
    .. [2] Korn & Graubard, Confidence Intervals for Proportions with Small Expected
       Number of Positive Counts, Survey Methodology 1998.

    Examples
    --------
    >>> import numpy as np
    >>> from skadma.evaluation import audit_sample, estimate
    >>> y = np.repeat([0, 1], 500)
    >>> predicted = np.where(np.arange(1000) % 10 == 0, 1 - y, y)
    >>> audit = audit_sample(np.eye(2)[predicted], 100, method="random", random_state=0)
    >>> found = estimate(audit, predicted[audit.indices], y[audit.indices])
    >>> bool(found.low <= 0.9 <= found.high)
    True
    """
    audits = [audit] if isinstance(audit, Audit) else list(audit)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}; it must be between 0 and 1.")
    names, guessed, truth = _numbered(predicted, y, classes)
    n = sum(map(len, audits))
    if not len(guessed) == len(truth) == n:
        raise ValueError(
            f"The audit has {n} images, but there are {len(guessed)} predictions and "
            f"{len(truth)} y. y has None where an image has no answer."
        )
    answered = truth >= 0
    if not answered.any():
        raise ValueError(
            f"None of the {n} images of the audit has a label yet. Label some of them."
        )
    weights, value, n_effective = _combined(audits, guessed != truth, answered, finite)
    n_answered, n_population = int(answered.sum()), max(a.n_population for a in audits)
    exact = not any(np.any(a.strata) for a in audits)
    if exact:
        n_right = int((guessed == truth)[answered].sum())
        low, high = exact_interval(
            n_right, n_answered, confidence, n_population if finite else None
        )
    else:
        low, high = wilson_interval(value, n_effective, confidence)
    found = weights * answered
    shares = np.zeros((len(names), len(names)))
    np.add.at(shares, (truth[answered], guessed[answered]), found[answered])
    recall = {
        name: _recall(found[truth == k], guessed[truth == k] == k, confidence, exact)
        for k, name in enumerate(names.tolist())
    }
    return Estimate(
        value,
        low,
        high,
        confidence,
        n_answered,
        n_population,
        "+".join(dict.fromkeys(a.method for a in audits)),
        names,
        recall,
        shares / shares.sum() * n_population,
    )


def _numbered(
    predicted: ArrayLike, y: ArrayLike, classes: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the classes and, as their numbers, predictions and labels (-1: none)."""
    guessed, labels = as_labels(predicted), as_labels(y)
    every = guessed if classes is None else classes
    missing = unlabelled_mask(labels, every)
    known = plain_labels(labels[~missing])
    if classes is None:
        classes = np.union1d(guessed, known) if len(known) else np.unique(guessed)
    names = np.asarray(classes)
    truth = np.full(len(labels), -1)
    truth[~missing] = class_numbers(known, len(names), names)[1]
    return names, class_numbers(guessed, len(names), names)[1], truth


def _combined(
    audits: list[Audit], wrong: np.ndarray, answered: np.ndarray, finite: bool
) -> tuple[np.ndarray, float, float]:
    """Return all weights, the accuracy, and the effective number of labels."""
    ends = np.cumsum([len(a) for a in audits])[:-1]
    each = zip(audits, np.split(wrong, ends), np.split(answered, ends), strict=True)
    n = int(answered.sum())
    error = variance = 0.0
    weights = []
    for audit, mine, known in each:
        fraction = known.sum() / n
        weights.append(fraction * population_weights(audit))
        if known.any():
            share, spread = share_of_mistakes(audit, mine, known, finite)
            error += fraction * share
            variance += fraction**2 * spread
    rate = smoothed(error, n)
    effective = rate * (1 - rate) / variance if variance > 0 else math.inf
    return np.concatenate(weights), 1 - error, effective


def _recall(
    weights: np.ndarray, right: np.ndarray, confidence: float, exact: bool
) -> Share:
    n = len(right)
    if n == 0 or weights.sum() <= 0:
        return Share(math.nan, 0.0, 1.0, n)
    value = float(np.clip(weights @ right / weights.sum(), 0, 1))
    if exact:
        return Share(value, *exact_interval(int(right.sum()), n, confidence), n)
    # Kish's effective number. Mistakes are drawn more often, and weigh less, than it
    # supposes, which is on the safe side.
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    return Share(value, *wilson_interval(value, effective, confidence), n)


def _shown(value: float, low: float, high: float) -> str:
    if math.isnan(value):
        return "   ?   (0.0 to 100.0 %)"
    return f"{100 * value:5.1f} % ({100 * low:.1f} to {100 * high:.1f} %)"


# --- variances and intervals ---------------------------------------------------------


def population_weights(audit: Audit) -> np.ndarray:
    """Return the share of the population that each drawn image stands for."""
    shares = audit.stratum_sizes / audit.n_population
    _, members, counts = np.unique(
        audit.strata, return_inverse=True, return_counts=True
    )
    return shares / counts[members]


def share_of_mistakes(
    audit: Audit, wrong: np.ndarray, answered: np.ndarray, finite: bool
) -> tuple[float, float]:
    """Estimate the share of mistakes in the population, and the estimate's variance.

    Images that are not `answered` stand for those like them: the estimate is about the
    others. `finite`: the population is all that the estimate is about, not a sample of
    more. The variance is a little more than that of the draws, which is 0 where no
    mistake was seen.
    """
    _, first, members = np.unique(audit.strata, return_index=True, return_inverse=True)
    drawn = np.bincount(members)
    counts = np.bincount(members, answered)
    mistakes = np.bincount(members, wrong & answered)
    sizes = audit.stratum_sizes[first]
    # A stratum counts by the images of it that can be answered.
    shares = sizes * counts / drawn
    shares /= shares.sum()
    known = counts > 0
    shares, counts = shares[known], counts[known]
    mistakes, sizes = mistakes[known], sizes[known]
    share = float(shares @ (mistakes / counts))
    rate = smoothed(share, int(counts.sum()))
    # In each stratum one label more, half of it at the overall rate and half at 1/2;
    # with fewer than five strata more, so that together they are not below `rate`.
    extra = max(1, 5 / len(counts))
    rates = (mistakes + extra * (rate + 0.5) / 2) / (counts + extra)
    if len(counts) == 1:
        rates = np.array([rate])
    left = 1 - counts / sizes
    spread = shares**2 * left * rates * (1 - rates) / counts
    # At most the variance with as many labels everywhere as where they are fewest.
    most = rate * (1 - rate) / (counts / shares).min()
    variance = min(float(spread.sum()), most)
    if not finite:
        variance += rate * (1 - rate) / audit.n_population
    return share, variance


def smoothed(share: float, n: int) -> float:
    """Return Laplace's estimate of a share: with one mistake and one success more."""
    return (share * n + 1) / (n + 2)


def exact_interval(
    n_right: int, n: int, confidence: float, n_population: int | None = None
) -> tuple[float, float]:
    """Return Clopper and Pearson's interval of a share, from a random sample.

    Its coverage is never below the confidence. `n_population`: the sample was drawn
    from so many without replacement and the share is theirs; then the hypergeometric
    distribution is inverted, which SciPy does not offer.
    """
    if n_population is None:
        found = binomtest(n_right, n).proportion_ci(confidence, method="exact")
        return float(found.low), float(found.high)
    tail = (1 - confidence) / 2
    least, most = n_right, n_population - (n - n_right)

    def enough(total: int) -> bool:
        return bool(hypergeom.sf(n_right - 1, n_population, total, n) > tail)

    def too_many(total: int) -> bool:
        return not hypergeom.cdf(n_right, n_population, total, n) > tail

    totals = range(least, most + 1)
    first = least + bisect_left(totals, True, hi=len(totals) - 1, key=enough)
    last = least - 1 + bisect_left(totals, True, lo=1, key=too_many)
    return first / n_population, last / n_population
