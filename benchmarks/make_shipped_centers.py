"""Make a picture of source centres for the package, from a network alone.

    python benchmarks/make_shipped_centers.py [NETWORK] [--from FILE]

Synthesises an image for each of the network's classes at 128 x 128 pixels, or takes
them from a file that `skadma centers --synthesize` wrote, writes them as one JPEG
into skadma/data, and says how many of them the network, and another one, take for their
own class. About an hour on one core for efficientnet_lite0.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from skadma import CNNClassifier, SourceCenters
from skadma.centers import shipped_centers
from skadma.centers._synthesis import resized
from skadma.features.adapter import cnn_adapter

SIDE = 128
QUALITY = 80


def to_sheet(images: np.ndarray) -> Image.Image:
    """Lay images (k, 3, side, side) out in rows, the rest of the last row black."""
    k, _, side, _ = images.shape
    columns = math.isqrt(k - 1) + 1
    rows = -(-k // columns)
    sheet = np.zeros((rows * side, columns * side, 3), dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * side, i % columns * side
        sheet[top : top + side, left : left + side] = image.transpose(1, 2, 0)
    return Image.fromarray(sheet)


def recognised(images: np.ndarray, network: str, size: int) -> float:
    """Share of the images that a network takes for their own class."""
    clf = CNNClassifier(network, image_size=size, memory=False)
    batches = cnn_adapter(clf).iter_outputs_prepared(
        resized(images, size), source_layers=[-1]
    )
    scores = torch.cat([next(iter(batch.source.values())) for batch in batches])
    return float((scores.argmax(1).numpy() == np.arange(len(images))).mean())


def main() -> None:
    """Make, write, measure what was written."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("network", nargs="?", default="efficientnet_lite0")
    parser.add_argument("--from", dest="file", type=Path)
    parser.add_argument("--other", default="efficientnet_lite1")
    options = parser.parse_args()
    clf = CNNClassifier(options.network, image_size=SIDE)
    if options.file:
        centers = SourceCenters.load(options.file)
    else:
        centers = SourceCenters.synthesize(clf, verbose=True)
    about = {
        "fingerprint": centers.fingerprint,
        "n_classes": len(centers),
        "side": centers.image_size,
    }
    data = Path(__file__).parents[1] / "skadma" / "data"
    path = data / f"centers_{options.network}.jpg"
    sheet = to_sheet(centers.inputs)
    sheet.save(path, quality=QUALITY, optimize=True, comment=json.dumps(about))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    images = shipped_centers(clf).inputs
    for network in (options.network, options.other):
        for size in (96, 128, 160, 224):
            share = recognised(images, network, size)
            print(f"{network} at {size} pixels: {share:.3f}", flush=True)


if __name__ == "__main__":
    main()
