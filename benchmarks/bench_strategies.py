"""Time the choice of a batch against scikit-activeml's on the same features.

    pip install scikit-activeml && python benchmarks/bench_strategies.py [--json FILE]

5,000 features of 512 numbers, 100 classes, 200 labels, 100 to choose. Prints a table of
seconds, peak memory and ratios, and writes it as JSON. About 5 minutes on 2 cores.

Every strategy is measured that chooses by features or probabilities of a classifier of
rows, those without a counterpart alone. bench_speed.py times ADMA and AIFT, which need
a network.
"""

from __future__ import annotations

import argparse
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import skactiveml
from skactiveml.classifier import SklearnClassifier
from skactiveml.pool import (
    Badge,
    DropQuery,
    MaxHerding,
    ProbCover,
    TypiClust,
    UncertaintySampling,
)
from skactiveml.pool import CoreSet as TheirCoreSet
from skactiveml.pool import RandomSampling as TheirRandom
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression

from skadma import strategies

N, D, C, LABELED, BATCH = 5000, 512, 100, 200, 100


def data() -> tuple[np.ndarray, np.ndarray]:
    """Make features in clusters and of the type that networks give."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, C, N)
    centers = rng.normal(size=(C, D))
    features = centers[y] + 1.5 * rng.normal(size=(N, D))
    return features.astype(np.float32), y


def measured(function: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    """Return the answer, least seconds, and by a run of its own the peak in MB."""
    runs: list[float] = []
    while not runs or (len(runs) < 5 and runs[0] < 3):
        begin = perf_counter()
        answer = function()
        runs.append(perf_counter() - begin)
    seconds = min(runs)
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return answer, seconds, peak


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, default=Path("strategies_speed.json"))
    parser.add_argument("--only", nargs="+", help="names; other rows stay as they are")
    options = parser.parse_args()
    X, y = data()
    labeled, pool = X[:LABELED], X[LABELED:]
    clf = LogisticRegression(max_iter=50).fit(labeled, y[:LABELED])
    partly = np.full(N, np.nan)
    partly[:LABELED] = y[:LABELED]
    theirs = SklearnClassifier(
        LogisticRegression(max_iter=50), classes=np.arange(C)
    ).fit(X, partly)
    given = {"X": X, "y": partly, "batch_size": BATCH}
    with_clf = {**given, "clf": theirs, "fit_clf": False}
    pairs = [
        (strategies.BADGE, Badge(random_state=0), with_clf),
        (strategies.CoreSet, TheirCoreSet(random_state=0), given),
        (strategies.TypiClust, TypiClust(random_state=0), given),
        (strategies.ProbCover, ProbCover(random_state=0), given),
        (strategies.DropQuery, DropQuery(random_state=0), with_clf),
        # Theirs covers all alike, ours by uncertainty: not the same choice.
        (strategies.UncertaintyHerding, MaxHerding(random_state=0), given),
    ]
    pairs += [
        (ours, UncertaintySampling(method=method, random_state=0), with_clf)
        for ours, method in (
            (strategies.LeastConfident, "least_confident"),
            (strategies.MarginSampling, "margin_sampling"),
            (strategies.EntropySampling, "entropy"),
        )
    ]
    pairs.append((strategies.RandomSampling, TheirRandom(random_state=0), given))
    alone = (strategies.BALD, strategies.CEAL, strategies.ClusterMargin,
             strategies.QueryByCommittee)  # fmt: skip
    pairs += [(ours, None, {}) for ours in alone]
    members = [(str(c), LogisticRegression(C=c, max_iter=50)) for c in (0.1, 1, 10)]
    committee = VotingClassifier(members, voting="soft").fit(labeled, y[:LABELED])
    print("| strategy | skadma | scikit-activeml | ratio | same choice |")
    print("|---|---|---|---|---|")
    rows = []
    for ours, other, arguments in pairs:
        if options.only and ours.__name__ not in options.only:
            continue
        strategy = ours(random_state=0)
        asked = committee if ours is strategies.QueryByCommittee else clf
        mine, seconds, peak = measured(
            lambda strategy=strategy, asked=asked: strategy.query(
                asked, pool, BATCH, X_labeled=labeled, y_labeled=y[:LABELED]
            )
        )
        row = {"strategy": ours.__name__, "seconds": seconds, "peak_mb": peak}
        rows.append(row)
        if other is None:
            print(f"| {ours.__name__} | {seconds:.2f} s, {peak:.0f} MB | | | |")
            continue
        chosen, their_seconds, their_peak = measured(
            lambda other=other, arguments=arguments: other.query(**arguments)
        )
        same = len(set(mine + LABELED) & set(chosen))
        print(
            f"| {ours.__name__} | {seconds:.2f} s, {peak:.0f} MB | "
            f"{their_seconds:.2f} s, {their_peak:.0f} MB | "
            f"{their_seconds / seconds:.1f} | {same} of {BATCH} |",
            flush=True,
        )
        row |= {
            "their_seconds": their_seconds,
            "their_peak_mb": their_peak,
            "same": same,
        }
    if options.only and options.json.is_file():
        kept = json.loads(options.json.read_text())["rows"]
        known = {row["strategy"]: row for row in [*kept, *rows]}
        rows = [known[p[0].__name__] for p in pairs if p[0].__name__ in known]
    found = {"scikit-activeml": skactiveml.__version__, "rows": rows}
    options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
