"""The finish line: accuracies that are forecast from a campaign's own labels.

    python benchmarks/bench_finish.py curves DIR CURVES.csv
    python benchmarks/bench_finish.py forecasts CURVES.csv OUT.csv
    python benchmarks/bench_finish.py report benchmarks/results/finish.csv

DIR is that of bench_defaults.py, with the features of EfficientNet-Lite0 on its sets.
`curves` labels pools of 1,000 images by UncertaintyHerding and at random, 300 labels of
each, five seeds. After each ten labels it writes what a campaign knows (the accuracy on
the labelled images, each by the probe without it; the probe's mean probability on the
others) and what it does not know: the accuracy on the others. `forecasts` writes how
often a forecast's interval has the truth, for each set with constants from the other
sets, and prints the constants from all sets, which are those of
skadma/evaluation/_forecast.py; `report` prints the tables of docs/evaluation.md.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path
from typing import Any

import bench_defaults as simulator
import numpy as np
import pandas as pd
from scipy.optimize import nnls
from scipy.special import logit, softmax

from skadma.bench.report import markdown_table
from skadma.evaluation import _forecast
from skadma.training.probe import fit_probe

SEEDS, MOST, STEP, N_POOL = 5, 300, 10, 1000
WAYS, MEASURED = ("herding", "random"), ["inside", "width", "error"]
LABELS, AHEAD = (30, 40, 60, 80, 100, 150, 200), (0, 20, 50, 100)


# --- curves ---------------------------------------------------------------------------


def curve(
    X: np.ndarray, widths: np.ndarray, y: np.ndarray, way: str, seed: int
) -> list[dict[str, Any]]:
    """Label a pool; after each step what is known, and what is true."""
    rng = np.random.default_rng(seed)
    some = rng.permutation(len(y))[:N_POOL]
    y = np.unique(y[some], return_inverse=True)[1]
    products = [simulator.block_products(X[some], widths, len(some))]
    herding = simulator.Herding(simulator.squared_distances(products, len(some)))
    order, labeled, proba, rows = rng.permutation(len(y)), np.zeros(0, int), None, []
    while len(labeled) < MOST:
        if way == "random":
            chosen = order[len(labeled) : len(labeled) + STEP]
        else:
            chosen = herding.choose(labeled, proba, STEP, len(labeled) + STEP)
        labeled = np.concatenate([labeled, np.asarray(chosen, int)])
        inside = simulator.probe_rows(products, labeled)
        found = fit_probe(inside[labeled], y[labeled], y.max() + 1)
        proba = softmax(inside @ found.coef.T + found.intercept, axis=1)
        rest = np.setdiff1d(np.arange(len(y)), labeled)
        rows.append({
            "way": way, "seed": seed, "n": len(labeled), "n_classes": y.max() + 1,
            "loo": (found.left_out.argmax(axis=1) == y[labeled]).mean(),
            "confidence": proba[rest].max(axis=1).mean(),
            "true": (proba[rest].argmax(axis=1) == y[rest]).mean(),
        })  # fmt: skip
    return rows


def write_curves(folder: Path, out: Path) -> None:
    """Write the curves of the sets that are not there yet."""
    parts = [pd.read_csv(out)] if out.exists() else []
    done = set(parts[0]["set"]) if parts else set()
    for name in sorted(set(simulator.SETS) - done):
        known = np.load(folder / "features" / f"{name}.npz")
        given = [known[key] for key in ("X", "block_widths", "y")]
        runs = product(WAYS, range(SEEDS))
        rows = [row for way, seed in runs for row in curve(*given, way, seed)]
        parts.append(pd.DataFrame(rows).assign(set=name))
        pd.concat(parts).round(4).to_csv(out, index=False)
        print(name, flush=True)


# --- forecasts ------------------------------------------------------------------------


def points(curves: pd.DataFrame) -> pd.DataFrame:
    """The moments of a forecast, with the accuracy that came out."""
    rows = []
    for (name, way, seed), mine in curves.groupby(["set", "way", "seed"]):
        at = mine.set_index("n")
        for n, more in product(LABELS, AHEAD):
            confidence = float(np.clip(at.loc[n, "confidence"], 0.005, 0.995))
            true = float(at.loc[n + more, "true"])
            rows.append((name, way, seed, n, more, confidence, true))
    names = ("set", "way", "seed", "n", "more", "confidence", "true")
    return pd.DataFrame(rows, columns=names)


def fit(found: pd.DataFrame) -> tuple[float, tuple[float, ...]]:
    """Find the constants GROWTH and SPREAD; every set counts as much."""
    growth = np.log1p(found["more"] / found["n"]).to_numpy()
    share = found["confidence"].to_numpy()
    wanted = logit(found["true"].clip(0.005, 0.995)).to_numpy() - logit(share)
    weight = share * (1 - share)  # a logit's variance is in inverse proportion to it
    grows = (weight * growth) @ wanted / ((weight * growth) @ growth)
    errors = np.sqrt(weight) * (wanted - grows * growth)
    parts = np.column_stack([np.ones(len(found)), growth**2])
    spread = nnls(parts, np.minimum(errors**2, 4))[0]
    width = np.quantile(np.abs(errors) / np.sqrt(parts @ spread), 0.8)
    return float(grows), tuple((width**2 * spread).tolist())


def forecasts(found: pd.DataFrame) -> pd.DataFrame:
    """Forecast each point, with constants from the other sets."""
    parts = []
    for name, mine in found.groupby("set"):
        others = found[(found["set"] != name) & (found["way"] == "herding")]
        _forecast.GROWTH, _forecast.SPREAD = fit(others)
        rows = []
        for row in mine.itertuples():
            proba = np.array([[row.confidence, 1 - row.confidence]])
            rows += _forecast.forecast_accuracy(proba, row.n, (row.more,))
        parts.append(mine.assign(
            value=[r.value for r in rows], low=[r.low for r in rows],
            high=[r.high for r in rows],
        ))  # fmt: skip
    out = pd.concat(parts)
    out["inside"] = (out["low"] <= out["true"]) & (out["true"] <= out["high"])
    out["width"], out["error"] = out["high"] - out["low"], (out["value"] - out["true"])
    return out


def write_forecasts(curves: Path, out: Path) -> None:
    """Write a line for each set, way, number of labels and of labels more."""
    found = points(pd.read_csv(curves))
    print("constants", fit(found[found["way"] == "herding"]))
    made = forecasts(found)
    made["error"] = made["error"].abs()
    summary = made.groupby(["set", "way", "n", "more"])[MEASURED].mean()
    summary.round(4).to_csv(out)
    report(out)


def report(summary: Path) -> None:
    """Print the tables, by set and by number of labels, and the means by way."""
    made = pd.read_csv(summary)
    for by in ("set", "n"):
        rows = []
        for name, mine in made[made["way"] == "herding"].groupby(by):
            at = mine.groupby("more")["inside"].mean()
            cells = [f"{100 * at[more]:.0f}" for more in AHEAD]
            sums = mine["inside"].mean(), mine["width"].mean(), mine["error"].mean()
            rows.append([str(name), *cells, *(f"{100 * each:.0f}" for each in sums)])
        ahead = [f"{more} more" if more else "now" for more in AHEAD]
        first = "data set" if by == "set" else "labels"
        print(markdown_table([first, *ahead, "all", "width", "error"], rows), "\n")
    print(made.groupby(["way", "more"])[MEASURED].mean().round(3))
    print(made.groupby("way")[MEASURED].mean().round(3))


if __name__ == "__main__":
    works = {"curves": write_curves, "forecasts": write_forecasts, "report": report}
    work, *paths = sys.argv[1:] or [""]
    if work not in works or len(paths) != (1 if work == "report" else 2):
        sys.exit(__doc__)
    works[work](*map(Path, paths))
