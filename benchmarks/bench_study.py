"""What to expect: the default beside today's practice and other packages, 16 sets.

    python benchmarks/make_image_sets.py DIR
    pip install scikit-activeml==1.0.1 && pip install --no-deps modAL-python==0.4.2.1
    python benchmarks/bench_study.py DIR CELLS.csv [--ways NAME ...] [--seeds N ...]
    python benchmarks/bench_study.py DIR CELLS.csv --report OUT

EfficientNet-Lite0 at 128 px; its outputs are computed once and kept in DIR/features.
SKADMA_DATA names the folder of the data sets that no package has. Pools of up to 1,500
images, the other images (400 or more) to test on, batches of 20 to 160 labels, of 40
to 320, of 80 to 640. CELLS.csv gets the curves, and a run that was stopped goes on.
--report writes OUT/study.csv (a line per set, way and seed), OUT/study.md (the tables)
and OUT/study.svg (the critical-difference picture); where there is no CELLS.csv it
reads OUT/study.csv. --check compares what is computed here with what the packages' own
objects choose.

The probe and most rules depend on the rows' products with each other only, so that a
label costs milliseconds. Where a package's own code takes longer than the same choice
by products (Badge, MaxHerding, ranked batch), the choice is made by products.
"""

from __future__ import annotations

import argparse
import csv
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import elpv_dataset.utils as elpv_dataset
import numpy as np
import pandas as pd
import torch
from bench_defaults import GIVEN, MADE, PACKAGED, labels_needed, read_features
from scipy.special import softmax
from scipy.stats import rankdata, studentized_range
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.utils.validation import check_is_fitted

from skadma.bench import compare
from skadma.bench.report import markdown_table
from skadma.networks.heads import ProbeHead
from skadma.strategies._uncertainty_herding import herd_by_distances, herding_distances
from skadma.training.probe import fit_probe
from skadma.training.probe_head import fit_head

SETS = (*PACKAGED, "elpv4", *MADE, "trash", "trash-tail", "blood-cells")
assert set(GIVEN) < set(SETS)
TAIL = {"paper": 500, "glass": 320, "plastic": 205, "metal": 131, "cardboard": 84,
        "trash": 54}  # fmt: skip
N_POOL, LEAST_TEST, MOST_TEST = 1500, 400, 1000
BATCHES = [20] * 8 + [40] * 4 + [80] * 4
BUDGETS = (20, 40, 80, 160, 320, 640)
SHORT = tuple(range(20, 161, 20))
TESTED = (*SHORT, 240, 320, 480, 640)
LEAST = 1e-4
"""Probabilities count as at least this in the log loss."""
DEFAULT, RANDOM, TODAY = (
    "skadma's default",
    "random, the same probe",
    "today's practice",
)
METRICS = ("accuracy", "recall", "auc", "log_loss")


# --- data -----------------------------------------------------------------------------


@dataclass
class Split:
    """Images of which the first `n_pool` are the pool, the others the test set."""

    name: str
    seed: int
    X: np.ndarray  # (n, d), what the last layer receives
    widths: np.ndarray  # of its blocks
    y: np.ndarray
    n_pool: int
    products: list[np.ndarray]  # (n, n_pool) for each block, centred on the pool
    squares: list[np.ndarray]  # (n,)
    distances: np.ndarray  # squared, of the pool, as UncertaintyHerding sees it

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return int(self.y.max()) + 1


def read(name: str, folder: Path) -> dict[str, np.ndarray]:
    """Read features and class numbers of a set."""
    source = {"elpv4": "elpv", "trash-tail": "trash"}.get(name, name)
    found = read_features(source, folder)
    if name == "elpv4":
        found["y"] = elpv_dataset.load_dataset()[1][found["rows"]].round(2)
    if name == "trash-tail":
        rng = np.random.default_rng(0)
        rows = [rng.permutation(np.flatnonzero(found["y"] == k))[:n]
                for k, n in TAIL.items()]  # fmt: skip
        some = np.sort(np.concatenate(rows))
        found |= {"X": found["X"][some], "y": found["y"][some]}
    found["y"] = np.unique(found["y"], return_inverse=True)[1]
    return found


def draw_rows(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the numbers of a pool's and a test set's images."""
    pool, rest = train_test_split(
        np.arange(len(y)), train_size=min(N_POOL, len(y) - LEAST_TEST), stratify=y,
        random_state=seed,
    )  # fmt: skip
    return pool, rest[:MOST_TEST]


def draw(name: str, folder: Path, seed: int) -> Split:
    """Draw a pool and a test set and compute products of their features."""
    found = read(name, folder)
    y = found["y"]
    pool, test = draw_rows(y, seed)
    rows = np.concatenate([pool, test])
    X, n = found["X"][rows], len(pool)
    blocks = np.split(
        X - X[:n].mean(axis=0), np.cumsum(found["block_widths"])[:-1], axis=1
    )
    return Split(
        name, seed, X, found["block_widths"], y[rows], n,
        products=[block @ block[:n].T for block in blocks],
        squares=[(block.astype(float) ** 2).sum(axis=1) for block in blocks],
        distances=herding_distances(X[:n]),
    )  # fmt: skip


# --- classifiers ----------------------------------------------------------------------


def probe_rows(split: Split, labeled: np.ndarray, n_blocks: int) -> np.ndarray:
    """Rows as ProbeHead prepares them, in coordinates of the labelled rows' span."""
    total = np.zeros((len(split.y), len(labeled)))
    for k in range(n_blocks):
        share = (1 + (k == 0)) / (n_blocks + 1) if n_blocks > 1 else 1.0
        some = split.products[k][:, labeled].astype(float)
        mean = some.mean(axis=1)
        middle = mean[labeled].mean()
        norms = np.sqrt(np.maximum(split.squares[k] - 2 * mean + middle, 1e-12))
        some = some - mean[:, None] - mean[labeled] + middle
        total += share * some / norms[:, None] / norms[labeled]
    squares, vectors = np.linalg.eigh(total[labeled])
    kept = squares > 1e-7 * squares[-1]
    kept[-1] = True
    return total @ (vectors[:, kept] / np.sqrt(np.maximum(squares[kept], 1e-12)))


def probe(split: Split, labeled: np.ndarray) -> np.ndarray:
    """Probabilities of all images by the probe on several layers."""
    rows = probe_rows(split, labeled, len(split.products))
    found = fit_probe(rows[labeled], split.y[labeled], split.n_classes)
    return softmax(rows @ found.coef.T + found.intercept, axis=1)


def regression(split: Split, labeled: np.ndarray) -> np.ndarray:
    """Probabilities by a logistic regression on the last layer's input.

    C is the best of 1, 10, 100 and 1,000 by accuracy in three folds, of equal ones the
    least log loss decides.
    """
    y, proba = split.y[labeled], np.zeros((len(split.y), split.n_classes))
    classes = np.unique(y)
    if len(classes) == 1:
        proba[:, classes] = 1
        return proba
    rows = probe_rows(split, labeled, 1)
    inside = rows[labeled]
    folds = StratifiedKFold(3, shuffle=True, random_state=split.seed)
    scores = {}
    with warnings.catch_warnings(action="ignore"):  # classes of fewer rows than folds
        parts = list(folds.split(inside, y))
        for c in (1, 10, 100, 1000):
            right = loss = 0.0
            for train, test in parts:
                one = LogisticRegression(C=c, max_iter=500)
                if len(np.unique(y[train])) < 2:
                    continue
                found = np.zeros((len(test), split.n_classes))
                model = one.fit(inside[train], y[train])
                found[:, model.classes_] = model.predict_proba(inside[test])
                right += (found.argmax(axis=1) == y[test]).sum()
                own = found[np.arange(len(test)), y[test]]
                loss -= np.log(np.maximum(own, LEAST)).sum()
            scores[c] = (right, -loss)
        best = max(scores, key=lambda c: scores[c])
        model = LogisticRegression(C=best, max_iter=500).fit(inside, y)
    proba[:, model.classes_] = model.predict_proba(rows)
    return proba


class Probe(ClassifierMixin, BaseEstimator):
    """The probe as an estimator of rows that are what the last layer receives."""

    def __init__(self, parts: tuple[int, ...]) -> None:
        self.parts = parts

    def fit(self, X: np.ndarray, y: np.ndarray) -> Probe:
        """Fit the head."""
        self.classes_, numbers = np.unique(y, return_inverse=True)
        self.head_ = ProbeHead(list(self.parts), len(self.classes_))
        fit_head(self.head_, X, numbers)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Class probabilities."""
        check_is_fitted(self)
        with torch.no_grad():
            return softmax(self.head_(torch.from_numpy(X)).numpy().astype(float), 1)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Most probable classes."""
        return self.classes_[self.predict_proba(X).argmax(1)]


# --- rules ----------------------------------------------------------------------------

Rule = Callable[[np.ndarray, np.ndarray | None, int], np.ndarray]
"""Labelled images, probabilities of all images (None at first), number -> images."""


def rest_of(split: Split, labeled: np.ndarray) -> np.ndarray:
    """The pool without the labelled images."""
    return np.setdiff1d(np.arange(split.n_pool), labeled)


def at_random(split: Split) -> Rule:
    """Random choice: the next of an order."""
    order = np.random.default_rng(split.seed).permutation(split.n_pool)
    return lambda labeled, proba, n: order[len(labeled) : len(labeled) + n]


def herding(split: Split) -> Rule:
    """UncertaintyHerding."""

    def choose(labeled: np.ndarray, proba: np.ndarray | None, n: int) -> np.ndarray:
        rest = rest_of(split, labeled)
        proba = None if proba is None else proba[rest]
        chosen, _ = herd_by_distances(split.distances, labeled, rest, proba, n, 0)
        return rest[chosen]

    return choose


def margins(proba: np.ndarray | None, n: int) -> np.ndarray:
    """One minus the difference of the two largest probabilities."""
    if proba is None:
        return np.ones(n)
    two = -np.partition(-proba[:n], 1, axis=1)[:, :2]
    return 1 - (two[:, 0] - two[:, 1])


def variance(split: Split, noise: float = 0.1) -> Rule:
    """Least posterior variance of a Gaussian process, weighted by the margins."""
    n_pool, m = split.n_pool, len(split.products)
    kernel = np.zeros((n_pool, n_pool), np.float32)
    for k, block in enumerate(split.products):
        norms = np.sqrt(split.squares[k][:n_pool]).astype(np.float32)
        kernel += (1 + (k == 0)) / (m + 1) * block[:n_pool] / norms[:, None] / norms

    def choose(labeled: np.ndarray, proba: np.ndarray | None, n: int) -> np.ndarray:
        uncertain = margins(proba, n_pool).astype(np.float32) + np.float32(1e-6)
        gone, chosen = np.zeros(n_pool, bool), []
        gone[labeled] = True
        for _ in range(n):
            gains = uncertain @ np.square(kernel) / (kernel.diagonal() + noise)
            gains[gone] = -1
            chosen.append(int(gains.argmax()))
            column = kernel[:, chosen[-1]] / np.sqrt(
                kernel[chosen[-1], chosen[-1]] + noise
            )
            np.subtract(kernel, np.outer(column, column), out=kernel)
            gone[chosen[-1]] = True
        return np.array(chosen)

    return choose


class KnownProbabilities(ClassifierMixin, BaseEstimator):
    """A classifier of rows that are numbers of images, by known probabilities.

    With a `head` that is fitted already, of rows of features.
    """

    def __init__(
        self, n_classes: int, proba: np.ndarray | None = None, head: Any = None
    ) -> None:
        self.n_classes, self.proba, self.head = n_classes, proba, head

    def fit(self, X: np.ndarray, y: np.ndarray) -> KnownProbabilities:
        """Fit nothing."""
        self.classes_ = np.arange(self.n_classes)
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Probabilities, equal ones before the first fit."""
        found = np.full((len(X), self.n_classes), 1 / self.n_classes)
        if self.head is not None:
            found[:] = 0
            found[:, self.head.classes_] = self.head.predict_proba(X)
        elif self.proba is not None:
            found = self.proba[X[:, 0].astype(int)]
        return found

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Most probable classes."""
        return self.predict_proba(X).argmax(axis=1)


def their_classifier(
    split: Split, X: np.ndarray, proba: np.ndarray | None, head: Any = None
) -> Any:
    """Make scikit-activeml's classifier of `KnownProbabilities`."""
    from skactiveml.classifier import SklearnClassifier

    model = KnownProbabilities(split.n_classes, proba, head)
    y = np.arange(len(X), dtype=float) % split.n_classes
    return SklearnClassifier(model, classes=np.arange(split.n_classes)).fit(X, y)


def partly(split: Split, labeled: np.ndarray) -> np.ndarray:
    """The pool's labels as floats, NaN where there is none."""
    y = np.full(split.n_pool, np.nan)
    y[labeled] = split.y[labeled]
    return y


def their_margin(split: Split) -> Rule:
    """scikit-activeml's UncertaintySampling, by margins."""
    from skactiveml.pool import UncertaintySampling

    asked = UncertaintySampling(method="margin_sampling", random_state=split.seed)
    numbers = np.arange(split.n_pool)[:, None]
    return lambda labeled, proba, n: asked.query(
        numbers, partly(split, labeled), clf=their_classifier(split, numbers, proba),
        fit_clf=False,
        batch_size=n,
    )  # fmt: skip


def raw_products(split: Split) -> np.ndarray:
    """Products of the pool's features, not centred."""
    X = split.X[: split.n_pool].astype(float)
    return X @ X.T


def their_badge(split: Split) -> Rule:
    """scikit-activeml's Badge, by products of the gradients."""
    from skactiveml.utils import check_random_state

    raw = raw_products(split)

    def choose(labeled: np.ndarray, proba: np.ndarray | None, n: int) -> np.ndarray:
        rest = rest_of(split, labeled)
        shares = np.full((len(rest), split.n_classes), 1 / split.n_classes)
        if proba is not None:
            shares = proba[rest]
        rng = check_random_state(split.seed, len(rest) + 1)  # as they seed it
        factors = shares - np.eye(split.n_classes)[shares.argmax(axis=1)]
        norms = (factors**2).sum(axis=1) * raw[rest, rest]
        nearest, chosen = norms, []
        for i in range(n):
            total = nearest.sum()
            if total == 0:
                nearest = np.ones(len(rest))
                nearest[chosen] = 0
                total = nearest.sum()
            if i == 0:
                k = int(nearest.argmax())
            else:
                k = int(rng.choice(len(rest), 1, replace=False, p=nearest / total)[0])
            chosen.append(k)
            product = (factors @ factors[k]) * raw[rest, rest[k]]
            squared = np.maximum(norms + norms[k] - 2 * product, 0)
            squared[k] = 0
            nearest = np.minimum(nearest, squared)  # at first that to the origin
        return rest[chosen]

    return choose


def rotated(split: Split) -> np.ndarray:
    """Rows with the same products as the pool's features, of fewer columns."""
    squares, vectors = np.linalg.eigh(raw_products(split))
    return (vectors * np.sqrt(np.maximum(squares, 0))).astype(np.float32)


def their_typiclust(split: Split) -> Rule:
    """scikit-activeml's TypiClust, on rotated rows."""
    from skactiveml.pool import TypiClust

    asked, rows = TypiClust(random_state=split.seed), rotated(split)
    return lambda labeled, proba, n: asked.query(
        rows, partly(split, labeled), batch_size=n
    )


def their_max_herding(split: Split) -> Rule:
    """scikit-activeml's MaxHerding, its kernel by products."""
    raw = raw_products(split)
    norms = np.sqrt(raw.diagonal())
    # exp(-|x - z|^2 / d) of rows of length 1, as their pairwise_kernels has it.
    kernel = np.exp(-(2 - 2 * raw / norms[:, None] / norms) / split.X.shape[1])

    def choose(labeled: np.ndarray, proba: np.ndarray | None, n: int) -> np.ndarray:
        rest = rest_of(split, labeled)
        near = kernel[np.ix_(rest, rest)]
        covered = np.zeros(len(rest))
        if len(labeled):
            covered = kernel[np.ix_(rest, labeled)].max(axis=1)
        chosen: list[int] = []
        bounds = np.maximum(near - covered, 0).mean(axis=1)
        for _ in range(n):  # gains fall only: an old one is a bound
            fresh = np.zeros(len(rest), bool)
            bounds[chosen] = -1
            while not fresh[k := int(bounds.argmax())]:
                some = np.argpartition(-bounds, 8)[:8]
                bounds[some] = np.maximum(near[some] - covered, 0).mean(axis=1)
                bounds[chosen] = -1
                fresh[some] = True
            chosen.append(k)
            covered = np.maximum(covered, near[k])
        return rest[chosen]

    return choose


def their_dropquery(split: Split) -> Rule:
    """scikit-activeml's DropQuery, step by step, with masks that are drawn faster."""
    rng = np.random.default_rng(split.seed)
    X, rows = split.X[: split.n_pool], rotated(split)
    parts = tuple(int(w) for w in split.widths)

    def choose(labeled: np.ndarray, proba: np.ndarray | None, n: int) -> np.ndarray:
        rest, changes = rest_of(split, labeled), 0.0
        if proba is not None:
            head = Probe(parts).fit(X[labeled], split.y[labeled])
            before = head.predict(X[rest])
            for _ in range(5):
                kept = rng.random((len(rest), X.shape[1]), np.float32) >= 0.75
                changes = changes + (head.predict(X[rest] * kept) != before) / 5
        changes = np.zeros(len(rest)) + changes
        most = max(int((changes > 0.5).sum()), n)
        candidates = rest[np.argsort(changes)[-most:]]
        model = KMeans(n, random_state=int(rng.integers(2**31)))
        far = model.fit_transform(rows[candidates])
        chosen: list[int] = []
        for k in range(n):
            far[chosen] = np.inf
            chosen.append(int(far[:, k].argmin()))
        return candidates[chosen]

    return choose


def their_ranked_batch(split: Split) -> Rule:
    """Ranked batch of modAL, by products of the features."""
    raw = raw_products(split)
    squares = raw.diagonal()

    def distances(k: int, rest: np.ndarray) -> np.ndarray:
        squared = squares[k] + squares[rest] - 2 * raw[k, rest]
        return np.sqrt(np.maximum(squared, 0))

    def choose(labeled: np.ndarray, proba: np.ndarray | None, n: int) -> np.ndarray:
        rest, chosen = rest_of(split, labeled), []
        doubt = np.ones(len(rest)) if proba is None else 1 - proba[rest].max(axis=1)
        if not len(labeled):
            every = squares[:, None] + squares - 2 * raw
            chosen = [int(np.sqrt(np.maximum(every, 0)).mean(axis=0).argmin())]
            nearest = distances(chosen[0], rest)
        else:
            nearest = np.min([distances(k, rest) for k in labeled], axis=0)
        known = max(len(labeled), 1)
        while len(chosen) < n:
            left = len(rest) - len(chosen)
            alpha = left / (left + known)
            scores = alpha * (1 - 1 / (1 + nearest)) + (1 - alpha) * doubt
            scores[chosen] = -1
            k = int(scores.argmax())
            chosen.append(k)
            known += 1
            nearest = np.minimum(nearest, distances(rest[k], rest))
        return rest[chosen]

    return choose


def refine(split: Split) -> Rule:
    """Rules on random subsets filter the pool, herding chooses last (Refine)."""
    rng = np.random.default_rng(split.seed)
    by_herding, raw = herding(split), split.distances

    def choose(labeled: np.ndarray, proba: np.ndarray | None, n: int) -> np.ndarray:
        if proba is None:
            return by_herding(labeled, None, n)
        rest = rest_of(split, labeled)
        logs = np.log(np.maximum(proba[rest], 1e-12))
        nearest = raw[np.ix_(rest, labeled)].min(axis=1)
        rules = [
            margins(proba, split.n_pool)[rest],
            -(proba[rest] * logs).sum(axis=1),
            1 - proba[rest].max(axis=1),
            nearest,
        ]
        kept = np.arange(len(rest))
        for _ in range(3):  # each round keeps what a rule ranks in the upper half
            votes: set[int] = set()
            for score in rules:
                some = rng.permutation(kept)[: max(len(kept) // 2, 2 * n)]
                best = some[np.argsort(-score[some])][: max(len(some) // 2, n)]
                votes.update(best.tolist())
            kept = np.array(sorted(votes))
            if len(kept) <= 4 * n:
                break
        pool = rest[kept]
        chosen, _ = herd_by_distances(raw, labeled, pool, proba[pool], n, 0)
        return pool[chosen]

    return choose


def rare_first(split: Split) -> Rule:
    """A first batch by the linear posterior variance, then UncertaintyHerding."""
    first, then = variance(split), herding(split)
    return lambda labeled, proba, n: (
        first(labeled, proba, n) if proba is None else then(labeled, proba, n)
    )


@dataclass(frozen=True)
class Way:
    """How labels are chosen and what is fitted."""

    rule: Callable[[Split], Rule]
    model: Callable[[Split, np.ndarray], np.ndarray] = probe
    batch: int = 20  # up to 160 labels, then as the others
    passive: bool = False  # chooses by no model, so fitted where it is tested only
    tested: tuple[int, ...] = TESTED


WAYS = {
    DEFAULT: Way(herding),
    RANDOM: Way(at_random, passive=True),
    TODAY: Way(at_random, regression, passive=True, tested=BUDGETS),
    "scikit-activeml, margin": Way(their_margin),
    "scikit-activeml, Badge": Way(their_badge),
    "scikit-activeml, TypiClust": Way(their_typiclust, passive=True),
    "scikit-activeml, MaxHerding": Way(their_max_herding, passive=True),
    "scikit-activeml, DropQuery": Way(their_dropquery),
    "modAL, ranked batch": Way(their_ranked_batch),
    "posterior variance": Way(variance),
}
PEERS = [way for way in WAYS if not way.startswith("posterior")]
IDEAS = {
    "batches of 10": Way(herding, batch=10),
    "batches of 5": Way(herding, batch=5),
    "Refine": Way(refine),
    "first batch by variance": Way(rare_first),
}


# --- simulation -----------------------------------------------------------------------


def class_measures(proba: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall of each class, and AUC of each against the rest; NaN without images."""
    n_of = np.bincount(y, minlength=proba.shape[1]).astype(float)
    n_of[(n_of == 0) | (n_of == len(y))] = np.nan
    right = np.bincount(y, proba.argmax(axis=1) == y, proba.shape[1])
    ranks = rankdata(proba, axis=0)
    sums = np.array([ranks[y == k, k].sum() for k in range(proba.shape[1])])
    return right / n_of, (sums - n_of * (n_of + 1) / 2) / n_of / (len(y) - n_of)


def measure(proba: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Accuracy, macro recall, one-vs-rest AUC and log loss."""
    recalls, areas = class_measures(proba, y)
    own = np.maximum(proba[np.arange(len(y)), y], LEAST)
    return {
        "accuracy": (proba.argmax(axis=1) == y).mean(),
        "recall": np.nanmean(recalls),
        "auc": np.nanmean(areas),
        "log_loss": -np.log(own).mean(),
    }


def simulate(split: Split, way: Way) -> list[dict[str, float]]:
    """Label the pool in batches, test at some numbers of labels."""
    rule, labeled, proba, rows = way.rule(split), np.zeros(0, int), None, []
    for size in BATCHES:
        for batch in [way.batch] * (20 // way.batch) if size == 20 else [size]:
            chosen = np.asarray(rule(labeled, proba, batch), int)
            labeled = np.concatenate([labeled, chosen])
            assert len(np.unique(labeled)) == len(labeled)
            if not way.passive or len(labeled) in way.tested:
                proba = way.model(split, labeled)
        if len(labeled) in way.tested:
            assert proba is not None
            found = measure(proba[split.n_pool :], split.y[split.n_pool :])
            found = {key: round(float(value), 5) for key, value in found.items()}
            rows.append({"n_labels": len(labeled), **found})
    return rows


def run(folder: Path, cells: Path, ways: list[str], sets: list[str],
        seeds: list[int]) -> None:  # fmt: skip
    """Run what is missing."""
    done: set[Any] = set()
    if cells.is_file():
        table = pd.read_csv(cells)
        done = set(zip(table["set"], table["way"], table["seed"], strict=True))
    for seed in seeds:
        for name in sets:
            missing = [way for way in ways if (name, way, seed) not in done]
            split = draw(name, folder, seed) if missing else None
            for way in missing:
                assert split is not None
                rows = simulate(split, (WAYS | IDEAS)[way])
                new = not cells.is_file()
                with cells.open("a", newline="") as file:
                    writer = csv.writer(file, lineterminator="\n")
                    if new:
                        writer.writerow(["set", "way", "seed", "n_labels", *METRICS])
                    key = (name, way, seed)
                    writer.writerows([*key, *row.values()] for row in rows)
            print(seed, name, flush=True)


# --- check ----------------------------------------------------------------------------


def check(folder: Path) -> None:
    """Compare choices and probabilities with those of the packages' own objects."""
    from modAL.batch import ranked_batch
    from skactiveml.pool import Badge, MaxHerding

    from skadma import ActiveLearner
    from skadma.strategies import UncertaintyHerding

    for name in ("blood-cells", "trash-tail"):
        split = draw(name, folder, 1)
        X, n = split.X[: split.n_pool], split.n_pool
        parts = tuple(int(w) for w in split.widths)
        learner = ActiveLearner(
            Probe(parts), UncertaintyHerding(), n_instances=20, n_rounds=8,
            classes=np.arange(split.n_classes), random_state=0,
        )  # fmt: skip
        rule, labeled, proba = herding(split), np.zeros(0, int), None
        same, off = [], []
        for record in learner.rounds(X, split.y[:n]):
            labeled = np.concatenate([labeled, rule(labeled, proba, 20)])
            proba = probe(split, labeled)
            same.append(set(record["indices"]) == set(labeled[-20:]))
            theirs = learner.estimator_.predict_proba(split.X)
            off.append(np.abs(theirs - proba[:, learner.estimator_.classes_]).max())
        print(name, "default, the same 20 images:", same, "off by", max(off))
        y = partly(split, labeled)
        head = Probe(parts).fit(X[labeled], split.y[labeled])
        clf = their_classifier(split, X, None, head)
        given: dict[str, Any] = {"batch_size": 40}
        chosen = Badge(random_state=1).query(X, y, clf=clf, fit_clf=False, **given)
        mine = their_badge(split)(labeled, proba, 40)
        print(name, "Badge", len(set(mine) & set(chosen)), "of 40")
        for some, gone in ((labeled, y), (labeled[:0], y * np.nan)):
            double = X.astype(float)
            chosen = MaxHerding(random_state=1).query(double, gone, **given)
            mine = their_max_herding(split)(some, proba, 40)
            print(name, "MaxHerding", len(set(mine) & set(chosen)), "of 40")
            rest = rest_of(split, some)
            doubt = 1 - proba[rest].max(axis=1) if len(some) else np.ones(n)
            training = X[some] if len(some) else None
            learner_like = SimpleNamespace(on_transformed=False, X_training=training)
            chosen, _ = ranked_batch(learner_like, X[rest], doubt, 40, "euclidean", 1)
            mine = their_ranked_batch(split)(some, proba if len(some) else None, 40)
            print(name, "ranked batch", len(set(mine) & set(rest[chosen])), "of 40")


def rare_classes(folder: Path) -> None:
    """Print what the default and random choice have of each class of elpv4."""
    splits = [draw("elpv4", folder, seed) for seed in (100, 101, 102)]
    for name, way in ((DEFAULT, herding), (RANDOM, at_random)):
        found: dict[int, list[Any]] = {20: [], 160: []}
        for split in splits:
            rule, labeled, proba = way(split), np.zeros(0, int), None
            for n in SHORT:
                labeled = np.concatenate([labeled, rule(labeled, proba, 20)])
                proba = probe(split, labeled)
                if n in found:
                    taken = np.bincount(split.y[labeled], minlength=4) / n
                    tested = proba[split.n_pool :], split.y[split.n_pool :]
                    found[n].append([taken, *class_measures(*tested)])
        for n, rows in found.items():
            print("elpv4", name, n, "labels: shares, recalls, AUC of the classes")
            print(np.mean(rows, axis=0).round(2))


# --- report ---------------------------------------------------------------------------


def summarise(cells: pd.DataFrame) -> pd.DataFrame:
    """Means over the six budgets, and the accuracy at each number of labels."""
    keys = ["set", "way", "seed"]
    some = cells[cells["n_labels"].isin(BUDGETS)]
    at = cells.pivot_table("accuracy", keys, "n_labels").add_prefix("at_")
    return some.groupby(keys)[list(METRICS)].mean().join(at).round(5).reset_index()


def curves(summary: pd.DataFrame) -> pd.DataFrame:
    """Accuracy by way and set (rows) and number of labels, means over seeds."""
    table = summary.drop(columns=["seed", *METRICS]).groupby(["way", "set"]).mean()
    return table.rename(columns=lambda name: int(name.removeprefix("at_")))


def shares(summary: pd.DataFrame, reference: str, n: int) -> pd.DataFrame:
    """Share of n labels with which a way has what the reference has with n.

    1 where it is not reached by then. Of the seeds that both have.
    """
    rows = {}
    for way, mine in summary.groupby("way"):
        both = summary[summary["way"] == reference].merge(
            mine[["set", "seed"]], on=["set", "seed"]
        )
        mine = mine.merge(both[["set", "seed"]], on=["set", "seed"])
        wanted, found = curves(both).loc[reference], curves(mine).loc[way]
        rows[way] = {
            name: min(labels_needed(curve.dropna(), wanted.loc[name, n]) / n, 1)
            if curve.max() >= wanted.loc[name, n] else 1.0
            for name, curve in found.iterrows()
        }  # fmt: skip
    return pd.DataFrame(rows).T


def tests(summary: pd.DataFrame, metric: str, against: str = DEFAULT) -> pd.DataFrame:
    """Pairs of set and seed, and means of sets, of each way against one."""
    names = {"set": "dataset", "way": "strategy"}
    table = summary.rename(columns=names).assign(
        network="", strategy_class="", n_labels=0
    )
    sign = -1 if metric == "log_loss" else 1
    table[metric] *= sign
    pairs = compare(table, against, metric).query("dataset == 'all'")
    pairs = pairs.set_index("strategy")[
        ["n_pairs", "difference", "wins", "losses", "p_holm"]
    ]
    # Seeds of one set share its images: the strict test has one pair for each set.
    base = table[table["strategy"] == against][["dataset", "seed", metric]]
    both = table.merge(base, on=["dataset", "seed"], suffixes=("", "_base"))
    both["gain"] = both[metric] - both[f"{metric}_base"]
    means = both.groupby(["strategy", "dataset"])["gain"].mean().reset_index()
    means = means.rename(columns={"gain": metric}).assign(
        seed=0, network="", strategy_class="", n_labels=0
    )
    sets = compare(means, against, metric).query("dataset == 'all'")
    sets = sets.set_index("strategy")[["n_pairs", "losses", "p_holm"]]
    sets = sets.add_suffix("_sets")
    return pairs.join(sets)


def gains(summary: pd.DataFrame, metric: str, against: str) -> pd.DataFrame:
    """Mean difference from one way by set (columns), over common seeds."""
    table = summary.pivot_table(metric, ["set", "seed"], "way")
    return table.sub(table[against], axis=0).groupby("set").mean().T


def ranks(summary: pd.DataFrame) -> tuple[pd.Series, float, int]:
    """Mean ranks over sets of the ways, the critical difference, number of sets.

    Each set's ranks are those of the mean accuracies over the seeds of all ways.
    """
    ways = [way for way in PEERS if way in set(summary["way"])]
    table = summary.pivot_table("accuracy", ["set", "seed"], "way")[ways].dropna()
    means = table.groupby("set").mean()
    found = means.rank(axis=1, ascending=False).mean()
    k, n = len(ways), len(means)
    quantile = studentized_range.ppf(0.95, k, np.inf) / np.sqrt(2)  # Nemenyi's test
    return found.sort_values(), float(quantile * np.sqrt(k * (k + 1) / (6 * n))), n


def draw_ranks(summary: pd.DataFrame, path: Path) -> None:
    """Draw the critical-difference picture (Demsar, JMLR 2006)."""
    import matplotlib.pyplot as plt

    found, critical, _ = ranks(summary)
    plt.rcParams.update({"svg.hashsalt": "skadma", "svg.fonttype": "path"})
    most, half = int(np.ceil(found.max())), (len(found) + 1) // 2
    figure, ax = plt.subplots(figsize=(9, 3.2))
    ax.set(xlim=(most + 3.2, -2.2), ylim=(-1.2 - half, 1.4))
    ax.set_axis_off()
    ax.plot([1, most], [0, 0], "k", lw=1)
    for tick in range(1, most + 1):
        ax.plot([tick, tick], [0, 0.12], "k", lw=1)
        ax.text(tick, 0.2, str(tick), ha="center", va="bottom")
    ax.plot([1, 1 + critical], [1, 1], "k", lw=2)
    ax.text(1 + critical / 2, 1.05, f"critical difference {critical:.2f}", ha="center",
            va="bottom")  # fmt: skip
    for i, (way, rank) in enumerate(found.items()):
        left = i >= half
        y = -1.2 - (len(found) - 1 - i if left else i)
        end = most + 0.3 if left else 0.6
        color = "#0b5cad" if way == DEFAULT else "black"
        ax.plot([rank, rank, end], [0, y, y], color=color, lw=1)
        ax.text(end + (0.1 if left else -0.1), y, f"{way}  {rank:.1f}", color=color,
                ha="right" if left else "left", va="center")  # fmt: skip
    values, y = found.to_numpy(), -0.2
    reached = -1
    for i, rank in enumerate(values):
        last = int(np.flatnonzero(values <= rank + critical).max())
        if last > i and last > reached:
            ax.plot([rank - 0.05, values[last] + 0.05], [y, y], "k", lw=4)
            y, reached = y - 0.2, last
    figure.savefig(path, metadata={"Date": None}, facecolor="white",
                   bbox_inches="tight")  # fmt: skip
    plt.close(figure)


def markdown(table: pd.DataFrame, corner: str = "") -> str:
    """Make a table in Markdown of texts."""
    rows = table.reset_index().to_numpy().tolist()
    return markdown_table([corner, *table.columns], rows)


def of_p(p: float) -> str:
    """Write a p value."""
    return "" if np.isnan(p) else "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def by_set(summary: pd.DataFrame) -> pd.DataFrame:
    """Make the first table: what the default has on each set, and where it loses."""
    rows, found = {}, curves(summary)
    shown = [way for way in PEERS if way in set(summary["way"]) and way != DEFAULT]
    apart = gains(summary, "accuracy", DEFAULT)
    aucs = gains(summary, "auc", RANDOM).loc[DEFAULT]
    over = gains(summary, "accuracy", RANDOM).loc[DEFAULT]
    needed = {n: shares(summary, TODAY, n).loc[DEFAULT] for n in (160, 640)}
    for name in [s for s in SETS if s in set(summary["set"])]:
        ahead = apart.loc[shown, name].sort_values(ascending=False)
        ahead = ahead[ahead > 0.0025]
        rows[name] = {
            **{
                f"{text}, {n}": 100 * found.loc[(way, name), n]
                for text, way in (("today's practice", TODAY), ("default", DEFAULT))
                for n in (160, 640)
            },
            "labels for today's 160": 160 * needed[160][name],
            "... 640": 640 * needed[640][name],
            "above random, accuracy": 100 * over[name],
            "AUC": 100 * aucs[name],
            "loses to": ", ".join(f"{way} ({100 * x:.1f})" for way, x in ahead.items()),
        }
    table = pd.DataFrame(rows).T
    table.loc["mean"] = table.drop(columns="loses to").mean()
    for column in table.columns[:-1]:
        digits = 0 if column.startswith(("labels", "...")) else 1
        table[column] = table[column].astype(float).map(f"{{:.{digits}f}}".format)
    for n, column in ((160, "labels for today's 160"), (640, "... 640")):
        table.loc["mean", column] = f"{100 * needed[n].mean():.0f} %"
    return table.fillna("")


def by_way(summary: pd.DataFrame) -> pd.DataFrame:
    """Make the table of ways: measures, labels needed.

    A way's mean is the default's plus their mean difference on the pairs of both.
    """
    rows = {}
    needed = {
        (name, n): shares(summary, way, n).mean(axis=1)
        for name, way in (("today's", TODAY), ("random's", RANDOM))
        for n in (160, 640)
    }
    columns = [*(f"at_{n}" for n in BUDGETS), *METRICS]
    base = summary[summary["way"] == DEFAULT].groupby("set")[columns].mean().mean()
    for way in [w for w in WAYS if w in set(summary["way"])]:
        apart = {c: gains(summary, c, DEFAULT).loc[way].mean() for c in columns}
        one = base + pd.Series(apart)
        rows[way] = {
            **{f"{n}": f"{100 * one[f'at_{n}']:.1f}" for n in BUDGETS},
            "mean": f"{100 * one['accuracy']:.1f}",
            "recall": f"{100 * one['recall']:.1f}",
            "AUC": f"{100 * one['auc']:.1f}",
            "log loss": f"{one['log_loss']:.3f}",
            **{
                f"{name} {n}": f"{100 * share[way]:.0f} %"
                for (name, n), share in needed.items()
            },
            "seeds": _range(summary[summary["way"] == way].groupby("set").size()),
        }
    return pd.DataFrame(rows).T


def _range(counts: pd.Series) -> str:
    least, most = counts.min(), counts.max()
    return f"{least}" if least == most else f"{least} to {most}"


def of_tests(summary: pd.DataFrame, against: str = DEFAULT) -> pd.DataFrame:
    """Make the table of tests: how far the default is ahead of the others."""
    columns = {}
    for metric, text in zip(METRICS, ("accuracy", "recall", "AUC", "log loss"),
                            strict=True):  # fmt: skip
        table = tests(summary, metric, against)
        scale, digits = (1, 3) if metric == "log_loss" else (100, 1)
        columns[text] = [f"{-scale * gain:.{digits}f}" for gain in table["difference"]]
        if metric in ("accuracy", "auc"):
            ahead = table["losses"].astype(int)
            pairs = table["n_pairs"].astype(int)
            columns[f"{text}: pairs"] = [
                f"{a} of {n}" for a, n in zip(ahead, pairs, strict=True)
            ]
            columns[f"{text}: p, pairs"] = table["p_holm"].map(of_p)
        ahead, of = table["losses_sets"].astype(int), table["n_pairs_sets"].astype(int)
        columns[f"{text}: sets"] = [
            f"{a} of {n}" for a, n in zip(ahead, of, strict=True)
        ]
        columns[f"{text}: p, sets"] = table["p_holm_sets"].map(of_p)
    return pd.DataFrame(columns, index=table.index).reindex(
        [way for way in WAYS | IDEAS if way in table.index]
    )


def goals(summary: pd.DataFrame) -> str:
    """Write the goals' numbers."""
    lines = []
    for n in (160, 640):
        share = shares(summary, TODAY, n).loc[DEFAULT]
        lines.append(f"labels for today's accuracy at {n}: {share.mean():.3f} of them")
    for metric in METRICS:
        table = tests(summary, metric, RANDOM).loc[DEFAULT]
        lines.append(f"{metric}: above random in {table.wins} of {table.n_pairs}, by "
                     f"{table.difference:.4f}")  # fmt: skip
        least = gains(summary, metric, RANDOM).loc[DEFAULT].sort_values()
        lines.append(f"  by set: {least.round(4).to_dict()}")
    found, critical, n = ranks(summary)
    lines.append(f"ranks on {n} sets: {found.round(2).to_dict()}, CD {critical:.2f}")
    return "\n".join(lines)


def report(summary: pd.DataFrame, out: Path) -> None:
    """Write the tables and the picture, of the ways that were run on all sets.

    Without today's practice: the tests against the default and against random labels.
    """
    n_sets = summary.groupby("way")["set"].transform("nunique")
    summary = summary[n_sets == summary["set"].nunique()]
    parts = [markdown(of_tests(summary, one), "way") for one in (DEFAULT, RANDOM)]
    if TODAY in set(summary["way"]):
        draw_ranks(summary, out / "study.svg")
        parts = [markdown(by_set(summary), "set"), markdown(by_way(summary), "way"),
                 parts[0], goals(summary)]  # fmt: skip
    (out / "study.md").write_text("\n\n".join(parts) + "\n", "utf-8")
    print("\n\n".join(parts))


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("cells", type=Path)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS | IDEAS)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(100, 110)))
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.check:
        check(options.folder)
        rare_classes(options.folder)
    elif options.report:
        path = options.report / "study.csv"
        if options.cells.is_file():
            summarise(pd.read_csv(options.cells)).to_csv(path, index=False)
        report(pd.read_csv(path), options.report)
    else:
        run(options.folder, options.cells, options.ways, options.sets, options.seeds)


if __name__ == "__main__":
    main()
