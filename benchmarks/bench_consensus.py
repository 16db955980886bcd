"""Consensus of simulated people: majority, Dawid-Skene, CROWDLAB and a campaign's.

    python benchmarks/make_image_sets.py DIR
    python benchmarks/bench_consensus.py DIR [--sets NAME ...]
    python benchmarks/bench_consensus.py DIR --report

200 images are answered by people who are right with a known share, wrong ones uniformly
("uniform"), or in 70 % of the cases the next class ("confused"). The first answer of an
image holds; the probe of these is the model, its leave-one-out probabilities are known
of each image. "right": labels that are the true ones; "brier": squared error of their
probability; "quality": mean error of the people's share; "covered": 95 % intervals that
have it. CROWDLAB is cleanlab's, where it is installed. Features are those of
bench_defaults.py. --report prints the tables of benchmarks/results/consensus.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bench_defaults import SETS, read_features

from skadma import ProbeClassifier
from skadma.bench.report import markdown_table
from skadma.labelling.campaign.consensus import weigh_answers

RESULTS = Path(__file__).parent / "results" / "consensus.csv"
COLUMNS = ["right", "brier", "quality", "covered"]
PEOPLE = {
    "3 people, 1 or 2 answers": ([0.97, 0.88, 0.75], (0.7, 0.3, 0.0)),
    "3 people, 3 answers": ([0.97, 0.88, 0.75], (0.0, 0.0, 1.0)),
    "5 people, 2 answers": ([0.97, 0.92, 0.85, 0.75, 0.6], (0.0, 1.0, 0.0)),
}


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS[::2])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--report", action="store_true", help="only print the table")
    options = parser.parse_args()
    if options.report:
        print(report(pd.read_csv(RESULTS)))
        return
    rows: list[dict[str, Any]] = []
    for name in options.sets:
        stored = read_features(name, options.folder)
        for seed in options.seeds:
            for people in PEOPLE:
                for mistakes in ("uniform", "confused"):
                    what = {"set": name, "seed": seed, "people": people}
                    rows += measure(stored, {**what, "mistakes": mistakes})
        pd.DataFrame(rows).to_csv(RESULTS, index=False, float_format="%.4f")
        print(name, flush=True)
    print(report(pd.DataFrame(rows)))


def report(results: pd.DataFrame) -> str:
    """Means over all, a row for each way."""
    rows = []
    for way, some in results.groupby("way", sort=False):
        right, brier, quality, covered = some[COLUMNS].mean()
        held = "" if np.isnan(covered) else f"{100 * covered:.0f} %"
        cells = f"{100 * right:.1f}", f"{brier:.3f}", f"{quality:.3f}", held
        rows.append([str(way), *cells])
    head = ["", "labels right %", "squared error of their probability",
            "error of a person's share", "intervals that have it"]  # fmt: skip
    return markdown_table(head, rows)


def measure(
    stored: dict[str, np.ndarray], what: dict[str, Any]
) -> list[dict[str, Any]]:
    """Let people answer, and find the labels each way."""
    rng = np.random.default_rng([what["seed"], 7])
    shares, chances = PEOPLE[what["people"]]
    some = rng.permutation(len(stored["y"]))[:200]
    classes, true = np.unique(stored["y"], return_inverse=True)
    true, k, n = true[some], len(classes), len(some)
    answers, held = np.full((n, len(shares)), -1), np.empty(n, int)
    for i in range(n):
        who = rng.permutation(len(shares))[: rng.choice([1, 2, 3], p=chances)]
        for j in who:
            answers[i, j] = true[i]
            if rng.random() > shares[j]:
                confused = what["mistakes"] == "confused" and rng.random() < 0.7
                others = np.delete(np.arange(k), true[i])
                answers[i, j] = (true[i] + 1) % k if confused else rng.choice(others)
        held[i] = answers[i, who[0]]
    widths = stored["block_widths"]
    probe = ProbeClassifier(block_widths=widths, classes=np.arange(k))
    proba = probe.fit(stored["X"][some], held).loo_proba_
    rows = []

    def add(
        way: str, table: np.ndarray, right: Any, low: Any = 2, high: Any = 2
    ) -> None:
        label = table.argmax(axis=1)
        hit, sure = label == true, table.max(axis=1)
        covered = float(np.mean((low <= shares) & (shares <= high)))
        rows.append({
            **what, "way": way, "right": hit.mean(),
            "brier": ((sure - hit) ** 2).mean(),
            "quality": np.abs(right - shares).mean(),
            "covered": np.nan if np.isscalar(low) else covered,
        })  # fmt: skip

    shares = np.array(shares)
    votes = (answers[:, :, None] == np.arange(k)).sum(axis=1)
    share = votes / votes.sum(axis=1, keepdims=True) + 1e-6 * np.eye(k)[held]
    agree = [np.mean(a[a >= 0] == share.argmax(1)[a >= 0]) for a in answers.T]
    add("majority, first of equals", share, np.array(agree))
    add("Dawid-Skene", *dawid_skene(answers, votes, None))
    add("Dawid-Skene and model", *dawid_skene(answers, votes, proba))
    add("campaign", *weigh_answers(answers, proba))
    try:
        from cleanlab.multiannotator import get_label_quality_multiannotator as crowdlab
    except ImportError:
        return rows
    table = pd.DataFrame(np.where(answers >= 0, answers, np.nan)).astype("Int64")
    found = crowdlab(table, proba, verbose=False)
    best = found["label_quality"]["consensus_label"].to_numpy(int)
    sure = found["label_quality"]["consensus_quality_score"].to_numpy()
    stats = found["annotator_stats"]["annotator_quality"]
    add("CROWDLAB", np.eye(k)[best] * sure[:, None], stats[range(len(shares))].array)
    return rows


def dawid_skene(
    answers: np.ndarray, votes: np.ndarray, proba: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a matrix of confusions for each person, by turns with the labels."""
    k = votes.shape[1]
    found = (votes + 0.01) / (votes + 0.01).sum(axis=1, keepdims=True)
    for _ in range(50):
        prior = np.tile(found.mean(axis=0), (len(votes), 1)) if proba is None else proba
        logs, right = np.log(prior.clip(1e-6)), []
        for column in answers.T:
            some = np.flatnonzero(column >= 0)
            right.append(found[some, column[some]].mean())
            confusion = np.full((k, k), 1 / k) + np.eye(k)
            np.add.at(confusion.T, column[some], found[some])
            confusion /= confusion.sum(axis=1, keepdims=True)
            logs[some] += np.log(confusion[:, column[some]]).T
        found = np.exp(logs - logs.max(axis=1, keepdims=True))
        found /= found.sum(axis=1, keepdims=True)
    return found, np.array(right)


if __name__ == "__main__":
    main()
