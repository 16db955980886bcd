"""What kind of source centres to use: how much they agree, cost, and save labels.

    python benchmarks/bench_centers.py OUT [--jobs 2] [--data DIR]
    python benchmarks/bench_centers.py benchmarks/results/centers --report

The kinds are those of configs/centers.json: one photograph per source class, the
synthesised ones that the package ships, each with 1000, 300 and 100 classes. On each
data set, with efficientnet_lite0 at 128 pixels:

- Spearman's rank correlation of the distinctiveness by the pretrained network
  with the one by 1000 photographs;
- seconds to make the centres, and to score the pool with them from cached outputs;
- area under the accuracy curve of ADMA, by `skadma bench`, beside random's.

Everything goes to OUT; a run that was stopped goes on. --report prints the table only.
About 25 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
from scipy.stats import spearmanr
from tqdm.auto import tqdm

from skadma import CNNClassifier
from skadma.bench import (
    area_under_curve,
    read_results,
    run_benchmark,
)
from skadma.bench.cells import read_centers
from skadma.bench.datasets import load_dataset, split_dataset
from skadma.bench.report import markdown_table
from skadma.strategies import ADMA

CONFIG = Path(__file__).parent / "configs" / "centers.json"
REFERENCE = "real 1000"


def network(config: dict[str, Any]) -> CNNClassifier:
    """The classifier that the benchmark uses."""
    (backbone,) = config["networks"]
    return CNNClassifier(backbone, **config["classifier"])


def agreement(config: dict[str, Any], data: Path) -> pd.DataFrame:
    """Rank correlations on one pool per data set, and seconds."""
    kinds = {k: v for k, v in config["strategies"].items() if v["class"] == "ADMA"}
    rows = []
    for dataset in tqdm(config["datasets"], desc="agreement"):
        images = load_dataset(dataset, None, data)
        X = split_dataset(images, 0, config["pool_size"], config["test_size"]).X
        clf = network(config)
        clf.source_proba(X)  # what all of them need
        found: dict[str, Any] = {}
        for name, kind in kinds.items():
            # A cache of its own, or the photographs would be known the second time.
            fresh = network(config).set_params(memory=False)
            begin = perf_counter()
            asked, n = kind.get("centers"), kind.get("n_centers")
            centers = read_centers(asked, n, fresh, data)
            made = perf_counter()
            found[name] = ADMA(centers).score(clf, X).distinctiveness
            rows.append(
                {
                    "dataset": dataset,
                    "centers": name,
                    "n_centers": len(centers),
                    "rank_correlation": spearmanr(found[name], found[REFERENCE])[0],
                    "seconds_to_make": made - begin,
                    "seconds_to_score": perf_counter() - made,
                }
            )
    return pd.DataFrame(rows)


def report(table: pd.DataFrame, results: pd.DataFrame) -> str:
    """One row per kind of centres."""
    areas = area_under_curve(results).groupby("dataset")
    mean, std = areas.mean(), areas.std()
    datasets = list(table["dataset"].unique())
    rows = []
    for name in ["random", *table["centers"].unique()]:
        mine = table[table["centers"] == name].set_index("dataset")
        rhos = mine["rank_correlation"].to_dict()
        row = [name.replace("real", "photographs").replace("ized", "ised")]
        row += [", ".join(f"{rhos[d]:.2f}" for d in datasets if d in rhos)]
        row += [f"{mean[name][d]:.3f} ± {std[name][d]:.3f}" for d in datasets]
        row += [f"{mean[name].mean():.3f}"]
        for what in ("seconds_to_make", "seconds_to_score"):
            row += [f"{mine[what].mean():.1f}" if len(mine) else ""]
        rows.append(row)
    first, *others = datasets
    head = ["centres", f"rank correlation: {', '.join(datasets)}", f"area: {first}",
            *others, "mean", "s to make", "s to score a pool"]  # fmt: skip
    return markdown_table(head, rows)


def main() -> None:
    """Run what is not done yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("SKADMA_DATA"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--report", action="store_true", help="only print the table")
    options = parser.parse_args()
    file = options.out / "agreement.csv"
    if options.report:
        print(report(pd.read_csv(file), read_results(options.out)))
        return
    if options.data is None:
        parser.error("say where the data are: --data, or SKADMA_DATA")
    config = json.loads(CONFIG.read_text("utf-8"))
    if not file.is_file():
        options.out.mkdir(parents=True, exist_ok=True)
        agreement(config, Path(options.data)).to_csv(file, index=False)
    run_benchmark(CONFIG, options.out, jobs=options.jobs, data=options.data)
    print(report(pd.read_csv(file), read_results(options.out)))


if __name__ == "__main__":
    main()
