"""Decoding of large photographs, with and without ``reduced_decoding``.

    python benchmarks/bench_decoding.py FOLDER WORK [--json FILE]

FOLDER has subfolders of JPEG files, one for each class. Photographs of 2, 5 and 12
megapixels are made of them once, in WORK: enlarged by Lanczos, with noise of a
deviation of 5 grey levels as a sensor has. EfficientNet-Lite0 at 128 x 128 pixels, to
which images are resized by way of 146, one thread; seconds are the processor's. 20 are
chosen after 20 labels. Prints a table and writes it as JSON. About 5 minutes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from PIL import Image

from skadma import CNNClassifier
from skadma.bench.datasets import class_folders
from skadma.centers import shipped_centers
from skadma.features.cache import MemoryCache
from skadma.images.dataset import ImageDataset
from skadma.strategies import ADMA, MarginSampling, UncertaintyHerding

SIZES = {0: 200, 2: 200, 5: 200, 12: 64}
"""Megapixels (0: as they are), and how many photographs."""


def photographs(paths: np.ndarray, megapixels: int, work: Path) -> list[str]:
    """Enlarge photographs, once."""
    if not megapixels:
        return list(paths)
    folder, rng = work / str(megapixels), np.random.default_rng(megapixels)
    folder.mkdir(parents=True, exist_ok=True)
    noise = rng.normal(0, 5, (512, 512, 3)).astype(np.float32)
    made = []
    for i, path in enumerate(paths):
        made.append(str(folder / f"{i:03}.jpg"))
        if Path(made[-1]).is_file():
            continue
        image = Image.open(path).convert("RGB")
        scale = (megapixels * 1e6 / (image.width * image.height)) ** 0.5
        size = round(image.width * scale), round(image.height * scale)
        pixels = np.asarray(image.resize(size, Image.Resampling.LANCZOS), np.float32)
        times = [-(-length // 512) for length in pixels.shape[:2]]
        moved = np.roll(noise, rng.integers(512, size=2), (0, 1))
        pixels = pixels + np.tile(moved, (*times, 1))[: size[1], : size[0]]
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        image.save(made[-1], quality=90)
    return made


def extract_pool_features(
    paths: list[str], y: np.ndarray, reduced: bool
) -> dict[str, Any]:
    """Time decoding and a first pass, and choose."""
    clf = CNNClassifier(
        "efficientnet_lite0",
        image_size=128,
        training="probe",
        reduced_decoding=reduced,
        memory=MemoryCache(),
        random_state=0,
    )
    dataset = ImageDataset(paths, clf.source_network().preprocessing)
    begin = process_time()
    pixels = torch.stack([dataset[i] for i in range(len(dataset))]).float()
    decoded = process_time()
    logits = clf.embed(paths, -1)[-1]
    scanned = process_time()
    known = np.r_[: len(y) : len(y) // 20][:20]
    rest = np.setdiff1d(np.arange(len(y)), known)
    labeled, pool = ([paths[i] for i in some] for some in (known, rest))
    clf.fit(labeled, y[known])
    given = {"X_labeled": labeled, "y_labeled": y[known]}
    asked = (
        UncertaintyHerding(random_state=0),
        MarginSampling(random_state=0),
        ADMA(shipped_centers(clf).subset(clf, 250), random_state=0),
    )
    return {
        "decode_ms": 1e3 * (decoded - begin) / len(y),
        "scan_ms": 1e3 * (scanned - decoded) / len(y),
        "pixels": pixels,
        "logits": logits,
        "chosen": [set(a.query(clf, pool, 20, **given)) for a in asked],
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--json", type=Path, default=Path("decoding.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    X, y = class_folders(options.folder)
    large = [i for i, path in enumerate(X) if min(Image.open(path).size) >= 300]
    drawn = np.random.default_rng(0).permutation(large)
    print(
        "| megapixels | photographs | decoding and resizing, ms | pass, ms | "
        "share of decoding | grey levels off | logits off, of their deviation | "
        "same of 20 (UncertaintyHerding, margin, ADMA) |\n" + "|---" * 8 + "|"
    )
    rows = []
    for megapixels, n in SIZES.items():
        some = drawn[:n]
        paths = photographs(X[some], megapixels, options.work)
        full, reduced = (
            extract_pool_features(paths, y[some], r) for r in (False, True)
        )
        off = float((full["pixels"] - reduced["pixels"]).abs().mean())
        logits = np.abs(full["logits"] - reduced["logits"]).mean()
        row = {
            "megapixels": megapixels,
            "n": n,
            "decode_ms": [full["decode_ms"], reduced["decode_ms"]],
            "scan_ms": [full["scan_ms"], reduced["scan_ms"]],
            "grey_levels_off": off,
            "logits_off": float(logits / full["logits"].std()),
            "same": [
                len(a & b)
                for a, b in zip(full["chosen"], reduced["chosen"], strict=True)
            ],
        }
        rows.append(row)
        decode, scan = row["decode_ms"], row["scan_ms"]
        share = [d / s for d, s in zip(decode, scan, strict=True)]
        print(
            f"| {megapixels or 'as they are'} | {n} | {decode[0]:.1f} → {decode[1]:.1f}"
            f" | {scan[0]:.1f} → {scan[1]:.1f} | {share[0]:.0%} → {share[1]:.0%} | "
            f"{off:.2f} | {row['logits_off']:.3f} | {row['same']} |",
            flush=True,
        )
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
