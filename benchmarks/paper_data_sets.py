"""Readers of the ADMA paper's data sets, for ``"class": "paper_data_sets:voc2012"``.

`skadma bench` finds this file with ``PYTHONPATH=benchmarks``; docs/benchmarks.md has
the folders that the readers expect.
"""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from skadma.bench import LabelledImages
from skadma.images.folder import image_files

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep",
    "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Names of PASCAL VOC's classes."""

_Object = tuple[str, bool, float]


def _arrays(labelled: list[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return paths and labels of pairs of them."""
    X = np.array([path for path, _ in labelled], dtype=object)
    return X, np.array([label for _, label in labelled])


def voc2012(folder: Path) -> LabelledImages:
    """Read PASCAL VOC 2012 with one class per image: train list and val list.

    An image has the class of its largest object, by the area of its bounding box (the
    first of equals), among those that are not marked difficult; an image that has only
    difficult ones is left out. The official test set's labels are not public.
    """
    arrays: list[np.ndarray] = []
    for paths, objects in _voc_lists(folder):
        labelled = []
        for path, found in zip(paths, objects, strict=True):
            counted = [(area, name) for name, difficult, area in found if not difficult]
            if counted:
                labelled.append((path, max(counted, key=itemgetter(0))[1]))
        arrays += _arrays(labelled)
    return LabelledImages(*arrays)


def voc2012_multilabel(folder: Path) -> LabelledImages:
    """Read PASCAL VOC 2012 with a column for each class: train list and val list.

    A class of which an image has only objects that are marked difficult is absent in
    training and, as in VOC's own evaluation, not counted in the test.
    """
    arrays = []
    for paths, objects in _voc_lists(folder):
        y = np.zeros((len(paths), len(VOC_CLASSES)), dtype=int)
        for row, found in zip(y, objects, strict=True):
            for name, difficult, _ in sorted(found, key=lambda item: not item[1]):
                if name not in VOC_CLASSES:
                    raise ValueError(
                        f"There is an object {name!r} in the annotations, which is "
                        f"none of PASCAL VOC's classes {list(VOC_CLASSES)}."
                    )
                row[VOC_CLASSES.index(name)] = -1 if difficult else 1
        arrays += [np.array(paths, dtype=object), y]
    X, y, X_test, y_test = arrays
    return LabelledImages(X, np.maximum(y, 0), X_test, y_test, np.array(VOC_CLASSES))


def _voc_lists(folder: Path) -> list[tuple[list[str], list[list[_Object]]]]:
    """Return paths and objects of the images of the train and of the val list."""
    if (folder / "VOC2012").is_dir():
        folder = folder / "VOC2012"
    _need(
        folder,
        ["Annotations", "JPEGImages", "ImageSets/Main/train.txt",
         "ImageSets/Main/val.txt"],
        "VOCtrainval_11-May-2012.tar of PASCAL VOC 2012",
    )  # fmt: skip
    lists = []
    for name in ("train", "val"):
        stems = (folder / "ImageSets" / "Main" / f"{name}.txt").read_text().split()
        paths = [str(folder / "JPEGImages" / f"{stem}.jpg") for stem in stems]
        objects = [_objects(folder / "Annotations" / f"{stem}.xml") for stem in stems]
        lists.append((paths, objects))
    return lists


def _objects(annotation: Path) -> list[_Object]:
    """Return name, whether it is difficult, and area of each object."""
    objects = []
    for found in ElementTree.parse(annotation).iter("object"):
        box = found.find("bndbox")
        if box is None:
            continue
        left, top, right, bottom = (
            float(box.findtext(side, "0")) for side in ("xmin", "ymin", "xmax", "ymax")
        )
        name = found.findtext("name", "").strip()
        difficult = found.findtext("difficult", "0").strip() == "1"
        objects.append((name, difficult, (right - left) * (bottom - top)))
    return objects


def indoor67(folder: Path) -> LabelledImages:
    """Read MIT Indoor-67 with its official lists of 67 x 80 and 67 x 20 images.

    The paper splits all images 70/30: that is the data set ``folder`` with
    ``Images`` as its path.
    """
    lists = ["TrainImages.txt", "TestImages.txt"]
    _need(
        folder,
        ["Images", *lists],
        "indoorCVPR_09.tar of MIT Indoor Scene Recognition and its two lists",
    )
    arrays: list[np.ndarray] = []
    for name in lists:
        lines = map(str.strip, (folder / name).read_text().splitlines())
        found = [(str(folder / "Images" / s), s.split("/")[0]) for s in lines if s]
        arrays += _arrays(found)
    return LabelledImages(*arrays)


def inria_person(folder: Path) -> LabelledImages:
    """Read INRIA Person: whole images with and without a person, official split."""
    names = {"pos": "person", "neg": "no person"}
    _need(
        folder,
        [f"{half}/{sub}" for half in ("Train", "Test") for sub in names],
        "INRIAPerson.tar of the INRIA Person data set",
    )
    arrays: list[np.ndarray] = []
    for half in ("Train", "Test"):
        found = [
            (path, label)
            for sub, label in names.items()
            for path in image_files(folder / half / sub)
        ]
        arrays += _arrays(found)
    return LabelledImages(*arrays)


def _need(folder: Path, paths: list[str], source: str) -> None:
    missing = [path for path in paths if not (folder / path).exists()]
    if missing:
        raise FileNotFoundError(
            f"{str(folder)!r} has no {missing}. Unpack {source} there."
        )
