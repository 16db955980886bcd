"""Speed and memory, as ratios against a named alternative in the same run.

    python benchmarks/speed.py FOLDER [--only NAME ...] [--json FILE]

FOLDER has one subfolder per ImageNet class, in the order of the classes, with at least
one photograph each (the public imagenet-sample-images will do): the source centres.
The pool is elpv-dataset's photographs of solar cells. EfficientNet-Lite0 comes with its
ImageNet weights, ResNet-18 with random ones, which take the same time.

Prints a table and writes the numbers as JSON. About an hour on 2 cores, most of
it for the runs with the cache off and for the 100,000 files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

import numpy as np
import scipy.stats
import sklearn
import speed_parts
import torch
from PIL import Image
from sklearn.model_selection import GridSearchCV
from speed_parts import Measure, pool_at, seconds
from speed_queries import measure_patches, measure_query

from skadma import ActiveLearner, CNNClassifier
from skadma.bench.demo import demo_centers, demo_classifier, load_elpv
from skadma.features.cache import MemoryCache
from skadma.features.cnn_adapter import CNNAdapter
from skadma.strategies import ADMA
from skadma.strategies.adma import distinctiveness, kendall_tau

# --- Kendall's tau --------------------------------------------------------------------


def scipy_tau(a: torch.Tensor, b: torch.Tensor, variant: str = "b") -> torch.Tensor:
    """Compute tau as everybody does: a loop over SciPy's."""
    rows = zip(a.cpu().numpy(), b.cpu().numpy(), strict=True)
    return torch.tensor(
        [scipy.stats.kendalltau(x, y, variant=variant).statistic for x, y in rows],
        dtype=torch.float64,
    )


def measure_kendall(folder: Path) -> Iterator[Measure]:
    """Time tau against a loop of SciPy's."""
    generator = torch.Generator().manual_seed(0)
    for n, n_values in ((20_000, 10), (4_000, 100), (512, 1000), (32, 10_000)):
        a = torch.randn(n, n_values, generator=generator, dtype=torch.float64)
        b = a + torch.randn(n, n_values, generator=generator, dtype=torch.float64)
        torch.testing.assert_close(kendall_tau(a[:9], b[:9]), scipy_tau(a[:9], b[:9]))
        ours = seconds(kendall_tau, a, b, repeat=9)
        some = min(n, 512)
        theirs = seconds(scipy_tau, a[:some], b[:some], repeat=3) * n / some
        yield Measure(
            f"scipy.stats.kendalltau in a loop / kendall_tau, ({n}, {n_values})",
            theirs / ours,
            {1000: ">= 40, aim 60", 10_000: ">= 15, aim 20"}.get(n_values, ""),
            "instructions: two sorts, and a count of what is out of order; the "
            f"inputs are read at {2 * a.numel() * 8 / ours / 1e9:.1f} GB/s",
            {"ours_s": ours, "scipy_s": theirs},
        )


# --- runs -----------------------------------------------------------------------------


@contextmanager
def slow_tau() -> Iterator[None]:
    """Put a loop over SciPy's in place of kendall_tau."""
    with patch.object(
        sys.modules[distinctiveness.__module__], "kendall_tau", scipy_tau
    ):
        yield


def measure_run(folder: Path) -> Iterator[Measure]:
    """Time ten rounds against the same with the cache off and a loop for tau."""
    X, y = load_elpv()
    centers = demo_centers()

    def run(memory: object) -> ActiveLearner:
        clf = demo_classifier(0).set_params(memory=memory)
        learner = ActiveLearner(
            clf, ADMA(centers), n_rounds=10, n_instances=10, random_state=0
        )
        return learner.fit(X, y)

    begin = speed_parts.clock()
    fast = run(MemoryCache())
    ours = speed_parts.clock() - begin
    begin = speed_parts.clock()
    with slow_tau():
        slow = run(False)
    theirs = speed_parts.clock() - begin
    for mine, other in zip(fast.queried_indices_, slow.queried_indices_, strict=True):
        np.testing.assert_array_equal(mine, other)
    yield Measure(
        f"10 rounds of 10 labels, {len(X)} images: cache off and SciPy's tau / on",
        theirs / ours,
        ">= 6, aim 10",
        "one full pass over the pool and the same training on both sides; the same "
        "images were queried",
        {"ours_s": ours, "off_s": theirs},
    )


def measure_grid(folder: Path) -> Iterator[Measure]:
    """Time a grid search against the same with the cache off."""
    X, y = load_elpv()
    centers = demo_centers()
    grid = {
        "strategy__trade_off": [0.05, 0.1, 0.2, 0.4],
        "strategy__layer_a": [-4, -5, (-4, -5)],
    }

    def search(memory: object) -> GridSearchCV:
        clf = demo_classifier(0).set_params(memory=memory, max_epochs=5)
        learner = ActiveLearner(
            clf, ADMA(centers), n_rounds=3, n_instances=10, random_state=0
        )
        return GridSearchCV(learner, grid, cv=3, refit=False).fit(X, y)

    begin = speed_parts.clock()
    fast = search(MemoryCache())
    ours = speed_parts.clock() - begin
    begin = speed_parts.clock()
    slow = search(False)
    theirs = speed_parts.clock() - begin
    np.testing.assert_array_equal(
        fast.cv_results_["mean_test_score"], slow.cv_results_["mean_test_score"]
    )
    yield Measure(
        "GridSearchCV, 4 lambdas x 3 layer choices x 3 folds, "
        f"{len(X)} images: cache off / on",
        theirs / ours,
        ">= 10, aim 15",
        "36 times training and scoring the tail; same scores",
        {"ours_s": ours, "off_s": theirs},
    )


def measure_training(folder: Path) -> Iterator[Measure]:
    """Time training from kept outputs against a plain loop over the same tensors."""
    X, y = (values[:100] for values in load_elpv())
    for n_frozen in ("paper", -5, -2):
        clf = demo_classifier(0).set_params(
            memory=MemoryCache(), n_frozen_layers=n_frozen
        )
        clf.fit(X, y)
        plain = plain_training(clf, X, np.unique(y, return_inverse=True)[1])
        plain()
        theirs = seconds(plain, repeat=3)
        ours = seconds(clf.fit, X, y, repeat=3)
        yield Measure(
            f"fit of 100 images from kept outputs / plain loop, {n_frozen=}",
            ours / theirs,
            "<= 1.1",
            "the tail forward and backward; skorch, its history and the look-up of "
            "what is kept come on top",
            {"ours_s": ours, "plain_s": theirs},
        )


def plain_training(clf: CNNClassifier, X: np.ndarray, y: np.ndarray) -> Callable:
    """Make a function that trains as `clf` does, by a loop over tensors at hand."""
    source, dataset = CNNAdapter(clf).open(X)
    kept, cut = clf._training_inputs(source, dataset, clf.n_frozen_)
    inputs, targets = torch.from_numpy(kept.X), torch.from_numpy(y)

    def run() -> None:
        network = clf._new_network(source, 2, clf.n_frozen_)
        new = [f"{name}." for name in network.new_modules]
        groups: tuple[list, list] = [], []
        for name, parameter in network.named_parameters():
            groups[name.startswith(tuple(new))].append(parameter)
        rates = zip(groups, (clf.lr, clf.head_lr), strict=True)
        optimizer = clf.optimizer([{"params": p, "lr": rate} for p, rate in rates])
        with network.starting_at(cut):
            network.train()
            for _ in range(clf.max_epochs):
                for some in torch.randperm(len(inputs)).split(clf.batch_size):
                    optimizer.zero_grad()
                    loss = clf.criterion()(network(inputs[some]), targets[some])
                    loss.backward()
                    optimizer.step()

    return run


def measure_augment(folder: Path) -> Iterator[Measure]:
    """Time training with augmentation against training the tail alone."""
    X, y = (values[:200] for values in load_elpv())
    clf = demo_classifier(0).set_params(memory=MemoryCache())
    clf.fit(X, y)
    ours = seconds(clf.fit, X, y)
    theirs = seconds(clf.set_params(augment="crop_flip").fit, X, y)
    yield Measure(
        "fit of 200 images with augment='crop_flip' / from kept outputs",
        theirs / ours,
        "",
        "the whole network runs in each epoch instead of its tail",
        {"ours_s": ours, "augmented_s": theirs},
    )


# --- memory ---------------------------------------------------------------------------

_SCORE_FOLDER = """
import re, sys
from pathlib import Path
import numpy as np
from skadma import CNNClassifier, SourceCenters
from skadma.strategies import ADMA
paths = sorted(map(str, Path(sys.argv[1]).iterdir()))
clf = CNNClassifier("efficientnet_lite0", image_size=64, memory=False)
centers = SourceCenters.from_dataset(clf, paths[:250], np.arange(250))
scores = ADMA(centers).score(clf, paths)
assert np.isfinite(scores.total).all() and len(scores.total) == len(paths)
# Not getrusage: its peak is that of the parent at the fork, if that was larger.
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def measure_memory(folder: Path) -> Iterator[Measure]:
    """Measure the peak memory of scoring many files against a tenth of them."""
    X = pool_at(64)
    with tempfile.TemporaryDirectory() as root:
        peaks, spent = {}, {}
        for n in (10_000, 100_000):
            pool = Path(root, str(n))
            pool.mkdir()
            for i in range(n):  # each one file of its own with its own pixels
                pixels = np.roll(X[i % len(X)], i // len(X), axis=1)
                Image.fromarray(pixels).save(pool / f"{i:06}.jpg", quality=85)
            begin = time.perf_counter()
            found = subprocess.run(
                [sys.executable, "-c", _SCORE_FOLDER, str(pool)],
                check=True,
                capture_output=True,
                text=True,
            )
            spent[n] = time.perf_counter() - begin
            peaks[n] = int(found.stdout.split()[-1]) * 1024
    small, large = peaks.values()
    yield Measure(
        "peak memory of scoring 100,000 image files of 64 x 64 / 10,000",
        large / small,
        "<= 1.2, aim 1.05",
        f"{(large - small) / 90_000:.0f} bytes an image more (the path, three scores); "
        "memory=False, as a cache in the process grows to its limit",
        {
            "peak_10000_bytes": small,
            "peak_100000_bytes": large,
            "images_per_second": 100_000 / spent[100_000],
        },
    )


MEASURES = {
    "kendall": measure_kendall,
    "query": measure_query,
    "patches": measure_patches,
    "run": measure_run,
    "grid": measure_grid,
    "training": measure_training,
    "augment": measure_augment,
    "memory": measure_memory,
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="one subfolder per ImageNet class")
    parser.add_argument("--only", nargs="+", choices=MEASURES, default=list(MEASURES))
    parser.add_argument("--json", type=Path, default=Path("speed.json"))
    parser.add_argument(
        "--cpu",
        action="store_true",
        help="one thread, and the processor's seconds, where other work runs",
    )
    options = parser.parse_args()
    if options.cpu:
        speed_parts.clock = time.process_time
        torch.set_num_threads(1)
    if len(sorted(options.folder.glob("*/"))) != 1000:
        parser.error(f"{options.folder} does not have 1000 class folders")
    found: list[Measure] = []
    print("| measure | ratio | bar | what bounds it |\n|---|---|---|---|")
    for name in options.only:
        for measure in MEASURES[name](options.folder):
            print(
                f"| {measure.name} | {measure.value:.3g} | {measure.bar} | "
                f"{measure.bound} |",
                flush=True,
            )
            found.append(measure)
            machine = {
                "processor": platform.processor() or platform.machine(),
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "scipy": scipy.__version__,
                "scikit-learn": sklearn.__version__,
            }
            measures = [asdict(m) for m in found]
            text = json.dumps({"machine": machine, "measures": measures}, indent=2)
            options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
