"""Pools of any size: memory, time, coverage, workers, kills, and what else takes time.

    pip install "skadma[demo,dask]" && python benchmarks/bench_scale.py [--only PART]

Parts: herding, coverage, workers, kills, files. Each adds its numbers to
benchmarks/results/scale.json. Writes up to 6 GB into a temporary folder and removes
it; --work keeps what is there, so that `coverage` may be stopped and begun again.
SKADMA_DATA is the folder of the CIFAR-10 sample. About 40 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

ROOT = str(Path(__file__).parents[1])
PIXELS = 64
"""Edge of what the network gets; the files are of 32."""
_RUN = "from skadma.cli import main; raise SystemExit(main())"


def part_files(work: Path, n: int) -> dict[str, Any]:
    """``skadma start``, ``query``, ``status`` beside decoding and network alone."""
    pool = work / "pool"
    write_files(pool, n)
    campaign = str(work / "campaign")
    found: dict[str, Any] = {"files": n, "pixels": PIXELS}
    size = f"estimator__image_size={PIXELS}"
    environment = {**os.environ, "PYTHONPATH": ROOT}
    begin = perf_counter()
    imports = "import skadma.labelling.campaign, skadma.cli, skadma.strategies"
    subprocess.run([sys.executable, "-P", "-c", imports], check=True, env=environment)
    found["imports_seconds"] = perf_counter() - begin
    commands = {
        "start": ["start", str(pool), "--classes", "a", "b", "--set", size],
        "query": ["query", "-n", "20", "-o", str(work / "labels.csv")],
        "status": ["status"],
    }
    for name, command in commands.items():
        begin = perf_counter()
        subprocess.run(
            [sys.executable, "-P", "-c", _RUN, *command, "--campaign", campaign],
            check=True,
            cwd=work,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        found[f"{name}_seconds"] = perf_counter() - begin
    found |= least_seconds(pool)
    least = found["decode_seconds"]
    found["start_everything_else"] = 1 - least / found["start_seconds"]
    least = found["decode_and_network_seconds"]
    found["query_everything_else"] = 1 - least / found["query_seconds"]
    total = sum(found[f"{name}_seconds"] for name in commands)
    least = found["decode_seconds"] + found["decode_and_network_seconds"]
    found["everything_else"] = 1 - least / total
    total -= 3 * found["imports_seconds"]
    found["everything_else_but_imports"] = 1 - least / total
    return found


def write_files(pool: Path, n: int) -> None:
    """Write small JPEGs, a thousand in a folder."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(n):
        folder = pool / f"{i // 1000:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC)
        picture.save(folder / f"{i:06d}.jpg", quality=90)


def least_seconds(pool: Path) -> dict[str, float]:
    """Decoding alone as ``start`` does it; decoding and network as ``query`` does.

    The latter of every fourth file, times 4.
    """
    from concurrent.futures import ThreadPoolExecutor

    from skadma import CNNClassifier
    from skadma.images.decoding import from_file
    from skadma.images.folder import image_files

    files = image_files(pool)
    begin = perf_counter()
    with ThreadPoolExecutor() as threads:
        for _ in threads.map(from_file, files, files):
            pass
    decode = perf_counter() - begin
    clf = CNNClassifier("efficientnet_lite0", image_size=PIXELS, memory=False)
    clf.embed(files[:64], -2)
    begin = perf_counter()
    from skadma.features.adapter import get_adapter

    for _ in get_adapter(clf).iter_outputs(files[::4], source_layers=[-2]):
        pass
    both = (perf_counter() - begin) * len(files) / len(files[::4])
    return {"decode_seconds": decode, "decode_and_network_seconds": both}


RESULTS = Path(__file__).parent / "results" / "scale.json"
ROOT = str(Path(__file__).parents[1])


def peak_memory() -> int:
    """Bytes of this process at most so far, mapped pages of files included."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_process(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a new process, of which the peak memory is its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(function, args)


# --- a million rows -------------------------------------------------------------------


def network() -> Any:
    """A classifier of which only the last layer is trained, fitted on 20 pictures."""
    from skadma import CNNClassifier

    rng = np.random.default_rng(0)
    X = rng.integers(0, 255, (20, 64, 64, 3), dtype=np.uint8)
    clf = CNNClassifier(
        "efficientnet_lite0",
        image_size=64,
        n_frozen_layers=-1,
        max_epochs=1,
        random_state=0,
    )
    return clf.fit(X, np.arange(20) % 10)


def write_rows(folder: Path, n: int) -> None:
    """Write a store of n rows of 1,280 half-precision numbers.

    In 300 clusters of falling size (Zipf) with 64 common directions of falling
    variance and a little noise, cut at 0, as a network's features are; as if as many
    images had been through the network, of which there are no pictures.
    """
    from skadma.features.store.hashing import key_hashes
    from skadma.features.store.shards import (
        Manifest,
        add_images,
        shard_file,
        write_shard,
    )

    source = network().source_network()
    position = source.graph.position(-2)
    folder.mkdir(parents=True)
    keys = [f"row-{i}" for i in range(n)]
    manifest = Manifest(source.namespace, position, "float16", 4096)
    manifest = add_images(folder, manifest, keys, None)
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((300, 1280), dtype=np.float32)
    shares = 1 / np.arange(1, 301)
    shares /= shares.sum()
    directions = rng.standard_normal((64, 1280), dtype=np.float32)
    directions /= np.sqrt(1 + np.arange(64, dtype=np.float32))[:, None]
    start = 0
    for number, size in enumerate(manifest.sizes):
        rows = centers[rng.choice(300, size, p=shares)]
        rows += rng.standard_normal((size, 64), dtype=np.float32) @ directions
        rows += 0.3 * rng.standard_normal(rows.shape, dtype=np.float32)
        rows = np.maximum(rows, 0).astype(np.float16)
        name = f"source-{position:03d}"
        write_shard(shard_file(folder, name, number), {"rows": rows})
        content = {
            "sha256": np.zeros((size, 32), np.uint8),
            "hash": key_hashes(keys[start : start + size]),
            "readable": np.ones(size, bool),
            "state": np.zeros(size, np.uint64),
        }
        write_shard(shard_file(folder, "content", number), content)
        start += size


def read_and_multiply(folder: Path) -> dict[str, float]:
    """Read the store once, and multiply all rows once with 5,000 reference_points."""
    from skadma.features.store import FeatureStore

    store = FeatureStore.open(folder)
    rows = store.outputs(network(), proba=False).features
    begin = perf_counter()
    for start in range(0, len(rows), 1024):
        rows[start : start + 1024]
    read = perf_counter() - begin
    reference_points = rows[np.linspace(0, len(rows) - 1, 5000).astype(int)]
    some = rows[:1024]
    begin = perf_counter()
    for _ in range(0, len(rows), 1024):
        some @ reference_points.T
    return {"read": read, "product": perf_counter() - begin}


def herd(folder: Path, n: int) -> dict[str, float]:
    """Choose n by UncertaintyHerding."""
    from skadma.features.store import FeatureStore
    from skadma.strategies import UncertaintyHerding

    clf = network()
    store = FeatureStore.open(folder)
    before = peak_memory()
    begin = perf_counter()
    chosen = UncertaintyHerding(random_state=0).query(clf, store, n)
    seconds = perf_counter() - begin
    assert len(set(chosen.tolist())) == n
    return {"seconds": seconds, "peak": peak_memory(), "before": before}


def part_herding(work: Path, n: int) -> dict[str, Any]:
    """Memory and time of a batch of 100 out of a million rows."""
    folder = work / "rows"
    if not (folder / "content").exists():
        in_process(write_rows, folder, n)
    chosen = in_process(herd, folder, 100)
    least = in_process(read_and_multiply, folder)
    shutil.rmtree(folder)
    return {
        "rows": n,
        "peak_gib": chosen["peak"] / 2**30,
        "of_which_libraries_and_network_gib": chosen["before"] / 2**30,
        "seconds": chosen["seconds"],
        "one_read_seconds": least["read"],
        "one_product_seconds": least["product"],
        "ratio": chosen["seconds"] / (least["read"] + least["product"]),
    }


# --- coverage over 50 shards ----------------------------------------------------------


class Augmented:
    """Pictures of CIFAR-10 and of solar cells, cropped, flipped and with noise."""

    def __init__(self, n: int) -> None:
        from PIL import Image

        from skadma.bench.datasets import load_elpv

        folder = Path(os.environ["SKADMA_DATA"]) / "cifar10-sample"
        files = sorted(folder.rglob("*.jpg"))
        self.pictures = [np.asarray(Image.open(f).convert("RGB")) for f in files]
        cells, _ = load_elpv()
        for cell in cells:
            small = Image.fromarray(np.asarray(cell)).convert("RGB").resize((32, 32))
            self.pictures.append(np.asarray(small))
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> np.ndarray:
        if i >= self.n:
            raise IndexError(i)
        rng = np.random.default_rng(i)
        picture = self.pictures[i % len(self.pictures)]
        side = int(rng.integers(22, 33))
        top, left = rng.integers(0, 33 - side, 2)
        picture = picture[top : top + side, left : left + side]
        if rng.random() < 0.5:
            picture = picture[:, ::-1]
        noisy = picture + rng.normal(0, 6, picture.shape)
        return np.clip(noisy, 0, 255).astype(np.uint8)


def augmented(n: int) -> Any:
    """The pictures as a data set of torch, which is read one by one."""
    from torch.utils.data import Dataset

    class Pictures(Augmented, Dataset):
        pass

    return Pictures(n)


def part_coverage(work: Path, n: int) -> dict[str, Any]:
    """Coverage of RandGreeDi over 50 parts against greedy on all rows."""
    from skadma import CNNClassifier
    from skadma._utils.lazy_rows import row_by_row
    from skadma.features.store import FeatureStore
    from skadma.strategies import UncertaintyHerding
    from skadma.strategies._pool_features import extract_pool_features
    from skadma.strategies._uncertainty import row_uncertainty
    from skadma.strategies._uncertainty_herding import (
        Coverage,
        centered,
        mean_of_rows,
        share_distance,
    )

    X = augmented(n)
    clf = CNNClassifier(
        "efficientnet_lite0", image_size=32, n_frozen_layers=-1, random_state=0
    )
    clf.fit(
        np.stack([np.resize(X[i], (32, 32, 3)) for i in range(60)]), np.arange(60) % 6
    )
    store = FeatureStore.build(
        clf,
        X,
        work / "augmented",
        keys=[f"picture-{i}" for i in range(n)],
        verbose=True,
    )
    pool = extract_pool_features(clf, store, None, -2, initial=True)
    mean = mean_of_rows(pool.features).astype(np.float32)
    center = partial(centered, mean=mean, normalize=True)
    features = row_by_row(center, pool.features)
    uncertain = row_uncertainty(pool.proba, "margin")
    width = share_distance(features, 100, np.random.default_rng(0))

    def covered(chosen: np.ndarray) -> float:
        """All that is covered, of all rows."""
        cover = Coverage(features[chosen], np.ones(len(chosen)), width)
        total = 0.0
        for start in range(0, n, 1024):
            similarity = cover.similarity(features[start : start + 1024]).max(axis=1)
            total += float(similarity @ uncertain[start : start + 1024])
        return total

    found: dict[str, Any] = {"rows": n}
    for parts in (1, 50):
        store.partitions = parts
        begin = perf_counter()
        chosen = UncertaintyHerding(random_state=0).query(clf, store, 100)
        found[f"{parts}_parts_seconds"] = perf_counter() - begin
        found[f"{parts}_parts_coverage"] = covered(chosen)
    chosen = np.random.default_rng(0).choice(n, 100, replace=False)
    found["random_coverage"] = covered(chosen)
    found["ratio"] = found["50_parts_coverage"] / found["1_parts_coverage"]
    return found


# --- workers --------------------------------------------------------------------------


def part_workers(work: Path, n: int) -> dict[str, Any]:
    """Compute by two Dask workers against one process with two threads and with one."""
    import dask
    import torch
    from distributed import Client, LocalCluster
    from PIL import Image

    from skadma import CNNClassifier
    from skadma.bench.datasets import load_elpv
    from skadma.features.store import FeatureStore

    cells, _ = load_elpv()
    X = [str(work / f"{i}.png") for i in range(min(n, len(cells)))]
    for file, cell in zip(X, cells, strict=False):
        Image.fromarray(np.asarray(cell)).save(file)
    clf = CNNClassifier("efficientnet_lite0", image_size=128, random_state=0)
    found: dict[str, Any] = {"images": len(X), "pixels": 128}

    def seconds(name: str, executor: Any = None) -> float:
        begin = perf_counter()
        FeatureStore.build(clf, X, work / name, shard_rows=64, executor=executor)
        took = perf_counter() - begin
        shutil.rmtree(work / name)
        return took

    for threads in (1, 2):
        torch.set_num_threads(threads)
        FeatureStore.build(clf, X[:64], work / "warm", shard_rows=64)
        shutil.rmtree(work / "warm")
        found[f"serial_{threads}_threads_seconds"] = seconds("serial")
    # Dask's own setting makes its workers ask the system for each array anew, see
    # docs/scale.md.
    own = "distributed.nanny.pre-spawn-environ."
    memory = {"MALLOC_TRIM_THRESHOLD_": 2**31, "MALLOC_MMAP_THRESHOLD_": 2**30}
    with (
        dask.config.set({own + name: value for name, value in memory.items()}),
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        executor = client.get_executor()
        FeatureStore.build(
            clf, X[:256], work / "warm", shard_rows=32, executor=executor
        )
        shutil.rmtree(work / "warm")
        found["dask_2_workers_seconds"] = seconds("dask", executor)
    found["against_serial_on_2_cores"] = (
        found["serial_2_threads_seconds"] / found["dask_2_workers_seconds"]
    )
    found["against_one_core"] = (
        found["serial_1_threads_seconds"] / found["dask_2_workers_seconds"]
    )
    return found


# --- kills ----------------------------------------------------------------------------


def part_kills(work: Path, n: int) -> dict[str, Any]:
    """Run the tests that kill workers and builds; they count what is computed twice."""
    tests = [
        "tests/test_feature_store_building.py::"
        "test_killed_at_any_point_nothing_is_computed_twice",
        "tests/test_executors.py::test_a_killed_workers_shards_are_computed_again",
    ]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", *tests],
        cwd=ROOT,
        capture_output=True,
    )
    print(done.stdout.decode()[-500:])
    return {"passed": done.returncode == 0, "tests": tests}


PARTS: dict[str, tuple[Callable[[Path, int], dict[str, Any]], int]] = {
    "herding": (part_herding, 1_000_000),
    "coverage": (part_coverage, 100_000),
    "workers": (part_workers, 1536),
    "kills": (part_kills, 0),
    "files": (part_files, 60_000),
}


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rows", type=int, help="instead of the full size: a trial")
    parser.add_argument("--work", type=Path, help="folder to work in, kept")
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    for name in options.only:
        function, n = PARTS[name]
        work = options.work or Path(tempfile.mkdtemp(prefix="skadma-scale-"))
        work.mkdir(parents=True, exist_ok=True)
        try:
            found = function(work, options.rows or n)
        finally:
            if options.work is None:
                shutil.rmtree(work)
        print(name, json.dumps(found, indent=2), flush=True)
        known = json.loads(options.json.read_text()) if options.json.exists() else {}
        known[name] = {
            **found,
            "cores": os.cpu_count(),
            "machine": platform.processor() or platform.machine(),
        }
        options.json.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
