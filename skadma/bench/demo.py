"""``skadma demo``: strategies side by side, on real photographs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .._utils.processes import progress_bar
from .cells import Workbench
from .config import load_cells
from .datasets import load_elpv
from .report import draw_curves

NETWORK = "EfficientNet-Lite0"
CONFIG = {"datasets": ["elpv"], "warm_start": False}
WAYS = [
    {
        "networks": {NETWORK: {"backbone": "layers/efficientnet_lite0"}},
        "strategies": {"UncertaintyHerding": {}, "random": {"class": "RandomSampling"}},
        "classifier": {"image_size": 128, "training": "probe"},
    },
    {  # as in the paper, but for its smaller number of trained layers
        "networks": {NETWORK: {"backbone": "efficientnet_lite0"}},
        "strategies": {"ADMA": {"n_centers": 250}},  # of 1,000 that the package ships
        "classifier": {"image_size": 128, "n_frozen_layers": -3, "max_epochs": 10},
    },
]
"""A linear probe on several layers, and a network that is fine-tuned."""
COLUMNS = ["accuracy", "auc", "query_seconds", "fit_seconds", "test_seconds"]


def run_demo(
    out: Path,
    *,
    n_rounds: int = 8,
    n_instances: int = 20,
    n_pool: int = 600,
    n_test: int = 400,
    seeds: Sequence[int] = (0, 1, 2),
) -> None:
    """Run the strategies, print the table, save curves and numbers in folder `out`.

    Each seed draws a pool and a test set of its own.
    """
    begin = time.perf_counter()
    _, y = load_elpv()
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.csv").touch()  # fails before minutes of work, not after
    share = (y == "sound").mean()
    print(
        f"{n_pool} photographs to choose from, {n_test} to test on, others for each "
        f"seed; {1 - share:.0%} are defective, so always saying 'sound' gives "
        f"{share:.3f} accuracy."
    )
    protocol = {"n_rounds": n_rounds, "n_instances": n_instances, "seeds": list(seeds)}
    sizes = {"pool_size": n_pool, "test_size": n_test}
    workbench = Workbench(None)
    rows = []
    cells = [
        cell
        for way in WAYS
        for cell in load_cells({**CONFIG, **way, **protocol, **sizes})
    ]
    for cell in progress_bar(cells, unit="run"):
        rows += workbench.run(cell)
    results = pd.DataFrame(rows).drop(columns="indices")
    results.to_csv(out / "results.csv", index=False)
    draw_curves(results).savefig(out / "curves.png", dpi=100)
    for groups in (["strategy", "n_labels"], ["strategy", "seed"]):
        means = results.groupby(groups)[COLUMNS].mean()
        print(f"\n{means.to_string(float_format='{:.3f}'.format)}\n")
    print(
        "This shows how a pretrained network and a pool of photographs lead to chosen\n"
        "labels and an adapted network, and what each step costs. It does not show\n"
        "which strategy is better: on one data set, seeds differ by as much as\n"
        "strategies. Others are in docs/label_efficiency.md. --seed N is another run.\n"
        f"{time.perf_counter() - begin:.0f} s in all. Curves: {out / 'curves.png'}, "
        f"numbers: {out / 'results.csv'}"
    )
