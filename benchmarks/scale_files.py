"""Small files: what a campaign's commands take beside decoding and the network."""

from __future__ import annotations

import os
import subprocess
import sys
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
    subprocess.run([sys.executable, "-c", imports], check=True, env=environment)
    found["imports_seconds"] = perf_counter() - begin
    commands = {
        "start": ["start", str(pool), "--classes", "a", "b", "--set", size],
        "query": ["query", "-n", "20", "-o", str(work / "labels.csv")],
        "status": ["status"],
    }
    for name, command in commands.items():
        begin = perf_counter()
        subprocess.run(
            [sys.executable, "-c", _RUN, *command, "--campaign", campaign],
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
    from skadma.images.folder import image_files
    from skadma.images.forms import check_readable

    files = image_files(pool)
    begin = perf_counter()
    with ThreadPoolExecutor() as threads:
        for _ in threads.map(check_readable, files):
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
