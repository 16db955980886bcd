"""Whether `skadma finish` takes the better model, by labels that the probe chose.

    python benchmarks/bench_choice.py DIR OUT.csv [--sets NAME ...] [--others NAME ...]
    python benchmarks/bench_choice.py DIR benchmarks/results/choice.csv --report

DIR as in bench_defaults.py. Pools of 600 images are labelled by UncertaintyHerding with
the probe on several layers, or at random; with 100, 160 and 320 labels that probe and
another model are compared as `finish` compares them, and tested on 400 images. The
other is a probe on the last layer, or the last stage fine-tuned. OUT.csv gets a row per
comparison, and a run that was stopped goes on. --report prints the table only.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from bench_defaults import (
    SETS,
    STEP,
    Herding,
    Predict,
    Split,
    draw,
    fine_tune,
    probe,
    squared_distances,
)
from sklearn.utils import check_random_state

from skadma.bench.report import markdown_table
from skadma.evaluation._out_of_fold import _folds
from skadma.labelling.campaign.finish import prefer

N_LABELS, N_FOLDS = (100, 160, 320), 3
OTHERS = ("probe on the last layer", "last stage fine-tuned")


def choose_labels(split: Split, model: Predict, seed: int, herds: bool) -> np.ndarray:
    """Choose images in batches of 20, by UncertaintyHerding or at random."""
    if not herds:
        order = np.random.default_rng(seed).permutation(split.n_pool)
        return order[: N_LABELS[-1]]
    herding = Herding(squared_distances(split.products, split.n_pool))
    labeled, proba = np.zeros(0, int), None
    while len(labeled) < N_LABELS[-1]:
        chosen = herding.choose(labeled, proba, STEP, len(labeled) + STEP)
        labeled = np.concatenate([labeled, chosen])
        proba = model(labeled, split.y[labeled], split.y.max() + 1)
    return labeled


def out_of_fold(model: Predict, labeled: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Probabilities as `out_of_fold_proba` computes them, NaN of classes' only images.

    `y` are the classes of all images.
    """
    classes, members, counts = np.unique(
        y[labeled], return_inverse=True, return_counts=True
    )
    judged, fold = counts[members] >= 2, np.full(len(labeled), -1)
    fold[judged] = _folds(members[judged], N_FOLDS, check_random_state(0))
    proba = np.full((len(labeled), y.max() + 1), np.nan)
    for k in range(N_FOLDS):
        shown = labeled[fold != k]
        proba[fold == k] = model(shown, y[shown], y.max() + 1)[labeled[fold == k]]
    return proba


def report(results: pd.DataFrame) -> str:
    """How often the better one was taken, and points lost to the better one."""
    rows = []
    gain = 100 * (results["test_other"] - results["test_own"])
    data = results.assign(gain=gain)
    for (other, n), some in data.groupby(["other", "n_labels"], sort=False):
        better, worse = some[some["gain"] >= 1], some[some["gain"] <= -1]
        best = np.maximum(some["gain"], 0)
        lost = best - some["gain"] * some["taken"], best, best - some["gain"]
        rows.append([
            str(other), str(n), str(len(some)),
            *(str(m) for group in (better, worse)
              for m in (len(group), int(group["taken"].sum()))),
            *(f"{points.mean():.2f}" for points in lost),
        ])  # fmt: skip
    head = ["the other", "labels", "comparisons", "the other was better",
            "... and taken", "worse", "... but taken", "points lost",
            "always the campaign's", "always the other"]  # fmt: skip
    return markdown_table(head, rows)


def main() -> None:
    """Compare, write, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--others", nargs="+", default=OTHERS, choices=OTHERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[70])
    parser.add_argument("--report", action="store_true", help="only print the table")
    options = parser.parse_args()
    known = pd.read_csv(options.out) if options.out.is_file() else pd.DataFrame()
    done = (
        {tuple(c) for c in known[["set", "seed", "other"]].values} if len(known) else ()
    )
    for seed in [] if options.report else options.seeds:
        for name in options.sets:
            todo = [o for o in options.others if (name, seed, o) not in done]
            if not todo:
                continue
            split = draw(name, options.folder, seed, ("lite0",), OTHERS[1] in todo)
            own = probe(split.products)
            for other in todo:
                if other == OTHERS[0]:
                    model = probe([split.products[0][:1]])
                else:
                    assert split.stage is not None
                    model = fine_tune(split.stage, seed)
                rows = []
                for by in ("herding", "random"):
                    order = choose_labels(split, own, seed, by == "herding")
                    for n in N_LABELS:
                        labeled, y, test = order[:n], split.y, split.y[split.n_pool :]
                        found = [out_of_fold(way, labeled, y) for way in (own, model)]
                        known_rows = ~np.isnan(found).any(axis=(0, 2))
                        given = y[labeled][known_rows]
                        taken, _, scores = prefer(
                            *(f[known_rows] for f in found), given
                        )
                        accuracy = [
                            (p[split.n_pool :].argmax(axis=1) == test).mean()
                            for p in (
                                way(labeled, y[labeled], y.max() + 1)
                                for way in (own, model)
                            )
                        ]
                        rows.append({
                            "set": name, "seed": seed, "other": other, "chosen_by": by,
                            "n_labels": n, "folds_own": round(scores[0][0], 4),
                            "folds_other": round(scores[1][0], 4),
                            "test_own": round(accuracy[0], 4),
                            "test_other": round(accuracy[1], 4), "taken": taken,
                        })  # fmt: skip
                known = pd.concat([known, pd.DataFrame(rows)])
                known.to_csv(options.out, index=False)
    print(report(known))


if __name__ == "__main__":
    main()
