"""Speed and memory, as ratios against a named alternative in the same run.

    python benchmarks/bench_speed.py FOLDER [--only NAME ...] [--json FILE]

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
import pickle
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from unittest.mock import patch

import numpy as np
import scipy.stats
import sklearn
import torch
from demo_network import demo_centers, demo_classifier
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch.utils.data import DataLoader, TensorDataset

from skadma import ActiveLearner, CNNClassifier, SourceCenters
from skadma.bench.datasets import load_elpv
from skadma.features.adapter import cnn_adapter
from skadma.features.cache import MemoryCache
from skadma.images.dataset import ImageDataset
from skadma.networks.adapted import Normalize
from skadma.strategies import (
    ADMA,
    AIFT,
    MarginSampling,
    QueryStrategy,
    UncertaintyHerding,
)
from skadma.strategies.adma import distinctiveness, kendall_tau
from skadma.training.finetune import training_inputs

SIDE = 128
clock = time.perf_counter
"""`--cpu` takes time.process_time instead."""


@dataclass
class Measure:
    """A line of the table."""

    name: str
    value: float
    bound: str
    parts: dict[str, float] = field(default_factory=dict)


def seconds(function: Callable, *args: object, repeat: int = 1) -> float:
    """Return the least of some runs' seconds."""
    found = []
    for _ in range(repeat):
        begin = clock()
        function(*args)
        found.append(clock() - begin)
    return min(found)


def pool_at(side: int) -> np.ndarray:
    """Make the pool's photographs (n, side, side, 3): decoded and resized."""
    X, _ = load_elpv()
    resized = [np.asarray(Image.fromarray(x).resize((side, side))) for x in X]
    return np.stack(resized)[..., None].repeat(3, axis=-1)


def source_images(folder: Path) -> tuple[list[Path], list[int]]:
    """List the photographs and their ImageNet classes."""
    folders = sorted(folder.glob("*/"))
    paths = [path for one in folders for path in sorted(one.iterdir())]
    return paths, [folders.index(path.parent) for path in paths]


def forward_pass(clf: CNNClassifier, X: np.ndarray) -> Callable[[], None]:
    """Make a function that runs the network plainly over decoded images."""
    source = clf.source_network()
    dataset = ImageDataset(X, source.preprocessing)
    images = torch.stack([dataset[i] for i in range(len(dataset))])
    normalize = Normalize(source.preprocessing)
    loader = DataLoader(TensorDataset(images), batch_size=32)

    def run() -> None:
        with torch.inference_mode():
            for (batch,) in loader:
                source.module(normalize(batch))

    return run


def measure_query(folder: Path) -> Iterator[Measure]:
    """Time queries against a plain forward pass over the same images."""
    sources, classes = source_images(folder)
    fastest = {"engine": "openvino", "precision": "bfloat16"}
    for backbone, weights, n_frozen, sizes, engine in (
        ("efficientnet_lite0", "DEFAULT", "paper", (1399, 280), {}),
        ("efficientnet_lite0", "DEFAULT", "paper", (1399, 280), fastest),
        ("resnet18", None, "paper", (1399,), {}),
        ("resnet18", None, "paper", (1399,), fastest),
        ("resnet18", None, -4, (1399,), {}),
    ):
        clf = CNNClassifier(
            backbone,
            weights=weights,
            n_frozen_layers=n_frozen,
            image_size=SIDE,
            max_epochs=1,
            random_state=0,
            **engine,
        )
        centers = SourceCenters.from_dataset(clf, sources, classes)
        X = pool_at(clf.source_network().preprocessing.resize_size)
        for n in sizes:
            yield from time_queries(clf, ADMA(centers), X[:n])
            yield from time_queries(clf, UncertaintyHerding(), X[:n])


def time_queries(
    clf: CNNClassifier, strategy: QueryStrategy, X: np.ndarray
) -> Iterator[Measure]:
    """Time the first and the second round, from nothing that is kept."""
    forward = forward_pass(clf, X)
    forward()
    plain = seconds(forward, repeat=2)
    strategy = pickle.loads(pickle.dumps(strategy))  # knows no centre any more
    clf = clone(clf).set_params(memory=MemoryCache())

    def query() -> None:
        strategy.query(clf, X, 20, X_labeled=X[:20])

    def predict() -> None:
        clf.predict_proba(X)

    cold = seconds(query)
    clf.fit(X[:20], np.arange(20) % 2)
    again = seconds(query, repeat=3)
    trainable = seconds(predict, repeat=3)
    name = (
        f"{type(strategy).__name__}, {len(X)} images, {clf.backbone}, "
        f"n_frozen_layers={clf.n_frozen_layers!r}"
    )
    if clf.engine != "torch":
        name += f", {clf.engine} in {clf.precision}"
    parts = {"forward_s": plain, "cold_s": cold, "next_s": again, "tail_s": trainable}
    centers = " and of 1000 centres" if isinstance(strategy, ADMA) else ""
    yield Measure(
        f"cold query / forward pass, {name}",
        cold / plain,
        f"convolutions of the pool{centers}; a forward pass takes "
        f"{1e3 * plain / len(X):.1f} ms an image",
        parts,
    )
    yield Measure(
        f"next round's query / forward pass, {name}",
        again / plain,
        f"a pass of the trainable layers is {trainable / plain:.3f} of a forward pass",
        parts,
    )
    yield Measure(
        f"next round's query / a pass of the trainable layers, {name}",
        again / trainable,
        "a pass, and 2 K d float64 operations an image for distances"
        if centers
        else "a pass, and n^2 d operations for the choice",
        parts,
    )


def measure_patches(folder: Path) -> Iterator[Measure]:
    """Time AIFT's 16 patches against a margin query, cold and in the next round."""
    X = pool_at(SIDE)[:128]
    for image_size in (SIDE, 224):
        clf = CNNClassifier(
            "efficientnet_lite0", image_size=image_size, max_epochs=1, random_state=0
        )
        clf.fit(X[:20], np.arange(20) % 2)
        memory = {kind: MemoryCache() for kind in (MarginSampling, AIFT)}
        spent: dict[type, list[float]] = {kind: [] for kind in memory}
        for _ in range(4):  # in turn: other work slows both alike
            for kind, cache in memory.items():
                clf.set_params(memory=cache)
                query = kind(random_state=0).query
                spent[kind].append(seconds(query, clf, X, 20))
        for phase, some in (("cold", slice(0, 1)), ("next round", slice(1, None))):
            margin, aift = (min(spent[kind][some]) for kind in (MarginSampling, AIFT))
            yield Measure(
                f"AIFT with 16 patches / margin, {phase}, {image_size} pixels",
                aift / margin,
                "16 windows of a quarter of the map, through the trainable layers",
                {"aift_s": aift, "margin_s": margin},
            )


# --- Kendall's tau --------------------------------------------------------------------


def scipy_tau(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Compute tau as everybody does: a loop over SciPy's."""
    rows = zip(a.cpu().numpy(), b.cpu().numpy(), strict=True)
    return torch.tensor(
        [scipy.stats.kendalltau(x, y).statistic for x, y in rows],
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

    begin = clock()
    fast = run(MemoryCache())
    ours = clock() - begin
    begin = clock()
    with slow_tau():
        slow = run(False)
    theirs = clock() - begin
    for mine, other in zip(fast.queried_indices_, slow.queried_indices_, strict=True):
        np.testing.assert_array_equal(mine, other)
    yield Measure(
        f"10 rounds of 10 labels, {len(X)} images: cache off and SciPy's tau / on",
        theirs / ours,
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

    begin = clock()
    fast = search(MemoryCache())
    ours = clock() - begin
    begin = clock()
    slow = search(False)
    theirs = clock() - begin
    np.testing.assert_array_equal(
        fast.cv_results_["mean_test_score"], slow.cv_results_["mean_test_score"]
    )
    yield Measure(
        "GridSearchCV, 4 lambdas x 3 layer choices x 3 folds, "
        f"{len(X)} images: cache off / on",
        theirs / ours,
        "36 times training and scoring; same scores",
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
            "a pass forward and backward; skorch, its history and the look-up of "
            "what is kept come on top",
            {"ours_s": ours, "plain_s": theirs},
        )


def plain_training(clf: CNNClassifier, X: np.ndarray, y: np.ndarray) -> Callable:
    """Make a function that trains as `clf` does, by a loop over tensors at hand."""
    adapter = cnn_adapter(clf)
    source, dataset = adapter.open(X)
    device, batch_size = adapter.device, adapter.batch_size
    _, kept, cut = training_inputs(
        source, dataset, clf.n_frozen_, None, device, clf.memory, batch_size, False
    )
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
    """Time training with augmentation against training from cached outputs."""
    X, y = (values[:200] for values in load_elpv())
    clf = demo_classifier(0).set_params(memory=MemoryCache())
    clf.fit(X, y)
    ours = seconds(clf.fit, X, y)
    theirs = seconds(clf.set_params(augment="crop_flip").fit, X, y)
    yield Measure(
        "fit of 200 images with augment='crop_flip' / from kept outputs",
        theirs / ours,
        "",
        "the whole network runs in each epoch, not the trainable layers only",
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
                [sys.executable, "-P", "-c", _SCORE_FOLDER, str(pool)],
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
    global clock
    if options.cpu:
        clock = time.process_time
        torch.set_num_threads(1)
    if len(sorted(options.folder.glob("*/"))) != 1000:
        parser.error(f"{options.folder} does not have 1000 class folders")
    found: list[Measure] = []
    print("| measure | ratio | what bounds it |\n|---|---|---|")
    for name in options.only:
        for measure in MEASURES[name](options.folder):
            print(
                f"| {measure.name} | {measure.value:.3g} | {measure.bound} |",
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
