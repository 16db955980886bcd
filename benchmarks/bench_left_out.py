"""What leave-one-out scores of a probe say of its accuracy, and of wrong labels.

    python benchmarks/make_image_sets.py DIR
    python benchmarks/bench_left_out.py DIR [--sets NAME ...]
    python benchmarks/bench_left_out.py DIR --report

Labels are chosen by UncertaintyHerding from pools of 600 images, in rounds of 20, as in
a campaign. "loo" is the share of labels that the probe predicts without them; "by area"
the same with each label counted as often as there are images of the pool to which it is
the nearest; "confidence" the mean confidence in the rest of the pool, what `skadma
status` and the page tell; "corrected" that and the mean of right - confidence of the
labels. Intervals are Wilson's, of "confidence" for half as many labels. Each is
compared with the accuracy in 400 other images.

Then, with eight seeds, 200 labels are drawn at random and 5 % of them are made wrong:
how many of the ten most suspect labels are? By the probe's leave-one-out scores
("first": what campaigns do), by those of a second probe to which labels that the first
one doubts count less ("second"), and, to see what can be had at most, by those of a
probe that is told the true labels of these 200 images ("told 200") or of the whole pool
("told all"). Features are those of bench_defaults.py. --report prints the tables of
left_out.csv and wrong_labels.csv in benchmarks/results.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bench_defaults import SETS, read_features
from sklearn.base import clone

from skadma import ProbeClassifier
from skadma._utils.intervals import wilson_interval
from skadma.bench.report import markdown_table
from skadma.strategies._uncertainty_herding import herd_by_distances, herding_distances

RESULTS = Path(__file__).parent / "results" / "left_out.csv"
WRONG = RESULTS.with_name("wrong_labels.csv")
N_POOL, N_TEST, ROUND, N_LABELS = 600, 400, 20, 160
AT = (20, 40, 80, 160)
NAMES = {
    "loo": "share of labels that is predicted without them",
    "by area": "the same, each label counted by the images it is nearest to",
    "confidence": "mean confidence in the rest of the pool",
    "corrected": "the same, and the mean of right - confidence of the labels",
}


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="only print the tables")
    options = parser.parse_args()
    if options.report:
        print(report(pd.read_csv(options.out), pd.read_csv(WRONG)))
        return
    rows: list[dict[str, Any]] = []
    wrong: list[dict[str, Any]] = []
    for name in options.sets:
        stored = read_features(name, options.folder)
        wrong += [find_wrong(stored, {"set": name, "seed": seed}) for seed in range(8)]
        pd.DataFrame(wrong).to_csv(WRONG, index=False, float_format="%.4f")
        for seed in options.seeds:
            rows += measure(stored, {"set": name, "seed": seed})
        pd.DataFrame(rows).to_csv(options.out, index=False, float_format="%.4f")
        print(name, flush=True)
    print(report(pd.DataFrame(rows), pd.DataFrame(wrong)))


def report(results: pd.DataFrame, wrong: pd.DataFrame) -> str:
    """Errors of the estimates by number of labels; then precision at ten by set."""
    found = results[results["labels"].isin(AT)].copy()
    for way in NAMES:
        found[way] = 100 * (found[way] - found["accuracy"])
    groups = [some for _, some in found.groupby("labels")]
    rows = []
    for way, name in NAMES.items():
        bias = [some[way].mean() for some in groups]
        rows.append([f"{name}: bias", *(f"{b:+.1f}" for b in bias)])
    for way, name in NAMES.items():
        errors = [(some[way] ** 2).mean() ** 0.5 for some in groups]
        text = f"{name}: root mean square error"
        rows.append([text, *(f"{error:.1f}" for error in errors)])
    held = results[["covered by loo", "covered by confidence"]].mean()
    sets = wrong.drop(columns="seed").groupby("set").mean()
    sets.loc["mean"] = sets.mean()
    ways = ["accuracy", "first", "told 200", "told all", "second"]
    table = [
        [str(name), *(f"{100 * value:.0f}" for value in row)]
        for name, row in sets[ways].iterrows()
    ]
    head = ["data set", "accuracy", "wrong of ten", "told 200", "told all", "second"]
    return "\n\n".join((
        markdown_table(["labels", *map(str, AT)], rows),
        f"Intervals that have the accuracy: {held.round(3).to_dict()}",
        markdown_table(head, table),
    ))  # fmt: skip


def measure(
    stored: dict[str, np.ndarray], what: dict[str, Any]
) -> list[dict[str, Any]]:
    """Label a pool, and compare estimates with the test set."""
    rng = np.random.default_rng(what["seed"])
    order = rng.permutation(len(stored["y"]))
    n_pool = min(N_POOL, len(order) * 3 // 5)
    some, test = order[:n_pool], order[n_pool : n_pool + N_TEST]
    X, y = stored["X"][some], stored["y"][some]
    distances = herding_distances(X)
    classes = np.unique(stored["y"])
    widths = stored["block_widths"].tolist()
    probe = ProbeClassifier(block_widths=widths, classes=classes)
    labelled, rows = np.empty(0, dtype=int), []
    while len(labelled) < N_LABELS:
        pool = np.setdiff1d(np.arange(n_pool), labelled)
        proba = probe.predict_proba(X[pool]) if len(labelled) else None
        chosen, _ = herd_by_distances(distances, labelled, pool, proba, ROUND, 0)
        labelled = np.concatenate([labelled, pool[chosen]])
        probe.fit(X[labelled], y[labelled])
        rest = np.setdiff1d(np.arange(n_pool), labelled)
        right = probe.classes_[probe.loo_proba_.argmax(axis=1)] == y[labelled]
        nearest = distances[:, labelled].argmin(axis=1)
        area = np.bincount(nearest, minlength=len(labelled))
        sure = probe.loo_proba_.max(axis=1)
        confidence = probe.predict_proba(X[rest]).max(axis=1).mean()
        accuracy = probe.score(stored["X"][test], stored["y"][test])
        shares = {
            "loo": (right.mean(), len(right)),
            "confidence": (confidence, len(right) / 2),
        }
        intervals = {
            way: wilson_interval(*given, 0.95) for way, given in shares.items()
        }
        found = {
            "labels": len(labelled),
            "accuracy": accuracy,
            "loo": right.mean(),
            **{
                f"covered by {way}": float(low <= accuracy <= high)
                for way, (low, high) in intervals.items()
            },
            "by area": np.average(right, weights=area),
            "confidence": confidence,
            "corrected": confidence + (right - sure).mean(),
        }
        rows.append({**what, **found})
    return rows


def find_wrong(stored: dict[str, np.ndarray], what: dict[str, Any]) -> dict[str, Any]:
    """Make labels wrong, and look for them."""
    rng = np.random.default_rng([what["seed"], 5])
    order = rng.permutation(len(stored["y"]))[: min(N_POOL, len(stored["y"]) * 3 // 5)]
    X, y, classes = stored["X"][order], stored["y"][order], np.unique(stored["y"])
    n = min(200, len(y))
    given, flipped = y[:n].copy(), rng.choice(n, n // 20, replace=False)
    for i in flipped:
        given[i] = rng.choice(classes[classes != given[i]])
    probe = ProbeClassifier(block_widths=stored["block_widths"], classes=classes)
    first = clone(probe).fit(X[:n], given)
    probes = {
        "first": first,
        "second": fit_again(first, X[:n], given),
        "told 200": clone(probe).fit(X[:n], y[:n]),
        "told all": clone(probe).fit(X, y),
    }
    at = np.arange(n), np.searchsorted(classes, given)
    for name, fitted in probes.items():
        suspect = np.argsort(fitted.loo_proba_[at], kind="stable")[:10]
        what[name] = np.isin(suspect, flipped).mean()
    return {**what, "accuracy": (first.loo_proba_.argmax(axis=1) == at[1]).mean()}


def fit_again(
    probe: ProbeClassifier, rows: np.ndarray, labels: np.ndarray
) -> ProbeClassifier:
    """Fit a probe anew; a label counts as far as the one without it believes it.

    As if 40 % of the labels were drawn by chance: those that are wrong mislead less.
    """
    at = np.searchsorted(probe.classes_, labels)
    own = probe.loo_proba_[np.arange(len(at)), at]
    weights = 0.6 * own / (0.6 * own + 0.4 * (1 - own) / (len(probe.classes_) - 1))
    weights[np.bincount(at)[at] < 2] = 1  # without it there is no such class
    return clone(probe).fit(rows, labels, np.maximum(weights, 1e-3))


if __name__ == "__main__":
    main()
