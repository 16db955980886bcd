"""Make the file of source centres that ``skadma demo`` uses.

The centres are of ``efficientnet_lite0`` with its ImageNet weights at 128 x 128
pixels: for every fourth ImageNet class (0, 4, ..., 996) one photograph of the class,
which as the only one given is the member nearest to the class mean (Eq. 1-2). What
is kept of it is not the photograph but the network's output after its sixth stage
(the layer ``blocks.5``, 192 x 4 x 4 numbers), from which every later layer follows.

    python benchmarks/make_demo_centers.py FOLDER

FOLDER has one folder per class, in the order of the classes (as sorted), with images
in it; for the file in the package: the public imagenet-sample-images, one per class.
"""

import sys
from pathlib import Path

from skadma import SourceCenters
from skadma.demo import BACKBONE, CENTERS, IMAGE_SIZE, CNNClassifier

LAYER = "blocks.5"
STEP = 4


def main(folder: str) -> None:
    """Write the file into the package."""
    folders = sorted(path for path in Path(folder).iterdir() if path.is_dir())
    if len(folders) != 1000:
        sys.exit(f"{folder} has {len(folders)} class folders instead of 1000.")
    files, classes = [], []
    for number in range(0, 1000, STEP):
        mine = sorted(folders[number].glob("*.jpg"))
        files.extend(mine)
        classes.extend([number] * len(mine))
    clf = CNNClassifier(BACKBONE, image_size=IMAGE_SIZE)
    centers = SourceCenters.from_dataset(clf, files, classes, layer=LAYER, verbose=True)
    top1 = (clf.source_proba(files).argmax(1) == classes).mean()
    path = Path(__file__).parents[1] / "skadma" / "data" / CENTERS
    path.parent.mkdir(exist_ok=True)
    centers.save(path)
    print(f"{centers!r}\n{path}: {path.stat().st_size / 1e6:.1f} MB")
    print(f"M0's top-1 accuracy on the photographs at {IMAGE_SIZE} px: {top1:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
