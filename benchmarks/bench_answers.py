"""What an answer costs until the next choice knows it, in a campaign with a probe.

    python benchmarks/bench_answers.py

Labels come one by one, and after each the images are chosen anew, as in the process
that `skadma label` starts for it: processor time, the memory of that process and what
is in the campaign's folder; then ``export-model``. Photographs of solar cells, cut in
four where they are too few (``pip install "skadma[demo,label]"``).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RESULTS = Path(__file__).parent / "results" / "answers.json"
CLASSES = ["defective", "sound"]


def main() -> None:
    """Measure each size in a process of its own, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--labels", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    what = (
        "compare choices with those by float32, among 1,000 images, and write nothing"
    )
    parser.add_argument("--halves", action="store_true", help=what)
    options = parser.parse_args()
    if options.halves:
        compare(1000, options.labels)
        return
    if options.one:
        print(json.dumps(measure(options.one, options.labels)))
        return
    found = {}
    for n in options.sizes:
        command = [sys.executable, __file__, "--one", str(n)]
        command += ["--labels", str(options.labels)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[str(n)] = json.loads(done.stdout.splitlines()[-1])
        print(n, json.dumps(found[str(n)], indent=1))
    options.out.write_text(json.dumps({"images": found}, indent=1) + "\n")


def measure(n: int, n_labels: int) -> dict[str, Any]:
    """Label `n_labels` of `n` images one by one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = write_photographs(folder / "photos", n)
        # What wrote the photographs is no part of the process that is measured.
        context = multiprocessing.get_context("spawn")
        for target, args in (start, (folder,)), (label, (folder, truth, n_labels)):
            process = context.Process(target=target, args=args)
            process.start()
            process.join()
        found = json.loads((folder / "found.json").read_text())
        photographs = sum(f.stat().st_size for f in (folder / "photos").iterdir())
        return {"photographs_mb": round(photographs / 1e6, 1), **found}


def compare(n: int, n_labels: int) -> None:
    """Label images that are chosen by float32; beside them those by half precision."""
    from skadma import Campaign
    from skadma.labelling.campaign.ledger import Mark, Operation
    from skadma.labelling.page.session import choose_batch

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = write_photographs(folder / "photos", n)
        start(folder)
        shutil.copytree(folder / "c", folder / "exact")
        campaigns = [Campaign.open(folder / which) for which in ("exact", "c")]
        campaigns[0]._trainer._estimator.memory.half = False
        ledgers = [campaign.ledger() for campaign in campaigns]
        same, off = [], 0.0
        for k in range(n_labels + 1):
            chosen = []
            for campaign in campaigns:
                while (batch := choose_batch(campaign, 40, []))["n_left"]:
                    pass
                chosen.append([p["sha256"] for p in batch["proposals"]])
            exact, half = (campaign._trainer._learnt.proba for campaign in campaigns)
            off = off if exact is None else max(off, float(abs(exact - half).max()))
            same.append(
                (chosen[0][0] == chosen[1][0], len({*chosen[0]} & {*chosen[1]}))
            )
            mark = Mark(chosen[0][0], truth[ledgers[0].path(chosen[0][0])])
            for ledger in ledgers:
                ledger.record([Operation(f"operation-{k:04}", [mark])], 0)
        first, of_40 = np.mean(same, axis=0)
        print(
            f"first image the same: {first:.1%}; of 40: {of_40:.2f}; off by {off:.1e}"
        )


def write_photographs(folder: Path, n: int) -> dict[str, str]:
    """Write `n` photographs of solar cells; whether each is defective, by name."""
    from skadma.bench.datasets import load_elpv

    folder.mkdir()
    X, y = load_elpv()
    order = np.random.default_rng(0).permutation(len(X))
    side = X.shape[1] // (1 if n <= len(X) else 2)
    truth: dict[str, str] = {}
    for corner in range(4):
        top, left = side * (corner // 2), side * (corner % 2)
        for i in order:
            if len(truth) == n:
                return truth
            path = f"{i:04}-{corner}.jpg"
            Image.fromarray(X[i][top : top + side, left : left + side]).save(
                folder / path
            )
            truth[path] = str(y[i])
    return truth


def start(folder: Path) -> None:
    """Start the campaign; images are small, which only the first choice depends on."""
    from skadma import Campaign, CNNClassifier
    from skadma.strategies import UncertaintyHerding

    clf = CNNClassifier("layers/efficientnet_lite0", image_size=64, training="probe")
    place = folder / "c", folder / "photos"
    Campaign.create(*place, CLASSES, clf, UncertaintyHerding()).close()


def label(folder: Path, truth: dict[str, str], n_labels: int) -> None:
    """Answer, and have images chosen after each answer."""
    from skadma import Campaign
    from skadma.labelling.campaign.ledger import Mark, Operation
    from skadma.labelling.page.session import choose_batch

    campaign = Campaign.open(folder / "c")
    ledger = campaign.ledger()
    began = time.process_time()
    batch = choose_batch(campaign, 40, [])
    first = time.process_time() - began
    while batch["n_left"]:
        batch = choose_batch(campaign, 40, [])
    seen = time.process_time() - began
    seconds = []
    for k in range(n_labels):
        sha256 = batch["proposals"][0]["sha256"]
        shown = [p["sha256"] for p in batch["proposals"][1:6]]
        mark = Mark(sha256, truth[ledger.path(sha256)])
        ledger.record([Operation(f"operation-{k:04}", [mark])], 0)
        began = time.process_time()
        batch = choose_batch(campaign, 45, shown)
        seconds.append(time.process_time() - began)
        assert len(batch["known"]) == k + 1
    memory = resident()
    began = time.process_time()
    campaign.export_model(folder / "model")
    export = time.process_time() - began
    campaign.close()
    size = sum(f.stat().st_size for f in (folder / "c").rglob("*") if f.is_file())
    found = {
        "first_choice_s": round(first, 1),
        "all_images_s": round(seen, 1),
        "answer_s": {
            "median": round(float(np.median(seconds)), 3),
            "95 %": round(float(np.quantile(seconds, 0.95)), 3),
            "last ten": round(float(np.mean(seconds[-10:])), 3),
        },
        "memory_mb": round(memory / 1e6),
        "folder_mb": round(size / 1e6, 1),
        "export_model_s": round(export, 1),
    }
    (folder / "found.json").write_text(json.dumps(found))


def resident() -> int:
    """Bytes of memory that this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
