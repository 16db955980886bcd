"""Readers of the paper's data sets, in the layouts they are published in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ..images.folder import image_files
from .folders import LabelledImages, class_folders

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep",
    "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Names of PASCAL VOC's classes."""

_Object = tuple[str, bool, float]


def read_dogs_vs_cats(folder: Path) -> LabelledImages:
    """Read Kaggle's ``train/cat.0.jpg`` and so on, or a subfolder for each class.

    Parameters
    ----------
    folder : Path
        The one with ``train/`` in it, or with the classes' subfolders.

    Returns
    -------
    LabelledImages
        Without an official split: the labels of Kaggle's test set are not public.
    """
    train = folder / "train"
    paths = sorted(str(p) for p in train.glob("*.jpg")) if train.is_dir() else []
    if not paths:
        return LabelledImages(*class_folders(folder))
    y = np.array([Path(path).name.partition(".")[0] for path in paths])
    if set(y) != {"cat", "dog"}:
        raise ValueError(
            f"The photographs in {str(train)!r} must be called cat.<number>.jpg and "
            f"dog.<number>.jpg; found {sorted(set(y))[:5]}."
        )
    return LabelledImages(np.array(paths, dtype=object), y)


def read_voc2012(folder: Path) -> LabelledImages:
    """Read PASCAL VOC 2012: the train list to choose from, the val list to test on.

    VOC's images have several objects. As a task of one class per image, an image has
    the class of its largest object, by the area of its bounding box (the first of
    equals), among those that are not marked difficult; an image that has only
    difficult ones is left out. The official test set's labels are not public.

    Parameters
    ----------
    folder : Path
        ``VOCdevkit`` or the ``VOC2012`` in it, with ``Annotations``, ``ImageSets/Main``
        and ``JPEGImages``.

    Returns
    -------
    LabelledImages
    """
    parts = []
    for paths, objects in _voc_lists(folder):
        labels = [_largest(found) for found in objects]
        kept = [(path, label) for path, label in zip(paths, labels, strict=True)
                if label]  # fmt: skip
        parts += [np.array([path for path, _ in kept], dtype=object)]
        parts += [np.array([label for _, label in kept])]
    return LabelledImages(*parts)


def read_voc2012_multilabel(folder: Path) -> LabelledImages:
    """Read PASCAL VOC 2012 as the task that it is: which classes an image shows.

    The train list to choose from, the val list to test on. A class of which an image
    has only objects that are marked difficult is absent in training and, as in VOC's
    own evaluation, not counted in the test.

    Parameters
    ----------
    folder : Path
        See :func:`read_voc2012`.

    Returns
    -------
    LabelledImages
        With a column for each of the 20 classes.
    """
    parts = []
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
        parts += [np.array(paths, dtype=object), y]
    X, y, X_test, y_test = parts
    return LabelledImages(X, np.maximum(y, 0), X_test, y_test, np.array(VOC_CLASSES))


def _voc_lists(folder: Path) -> list[tuple[list[str], list[list[_Object]]]]:
    """Paths and objects of the images of the train and of the val list."""
    if (folder / "VOC2012").is_dir():
        folder = folder / "VOC2012"
    _need(
        folder,
        ["Annotations", "JPEGImages", "ImageSets/Main/train.txt",
         "ImageSets/Main/val.txt"],
        "VOCtrainval_11-May-2012.tar of PASCAL VOC 2012",
    )  # fmt: skip
    parts = []
    for name in ("train", "val"):
        stems = (folder / "ImageSets" / "Main" / f"{name}.txt").read_text().split()
        paths = [str(folder / "JPEGImages" / f"{stem}.jpg") for stem in stems]
        objects = [_objects(folder / "Annotations" / f"{stem}.xml") for stem in stems]
        parts.append((paths, objects))
    return parts


def _objects(annotation: Path) -> list[_Object]:
    """Name, whether it is difficult, and area of each object."""
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


def _largest(objects: list[_Object]) -> str | None:
    counted = [found for found in objects if not found[1]]
    return max(counted, key=lambda found: found[2])[0] if counted else None


def read_indoor67(folder: Path) -> LabelledImages:
    """Read MIT Indoor-67 with its official lists of 67 x 80 and 67 x 20 images.

    The paper splits all images 70/30: that is the data set ``folder`` with
    ``Images`` as its path.

    Parameters
    ----------
    folder : Path
        With ``Images/<class>/``, ``TrainImages.txt`` and ``TestImages.txt``.

    Returns
    -------
    LabelledImages
    """
    lists = ["TrainImages.txt", "TestImages.txt"]
    _need(
        folder,
        ["Images", *lists],
        "indoorCVPR_09.tar of MIT Indoor Scene Recognition and its two lists",
    )
    parts = []
    for name in lists:
        lines = [line.strip() for line in (folder / name).read_text().splitlines()]
        lines = [line for line in lines if line]
        paths = [str(folder / "Images" / line) for line in lines]
        parts += [np.array(paths, dtype=object)]
        parts += [np.array([line.partition("/")[0] for line in lines])]
    return LabelledImages(*parts)


def read_inria_person(folder: Path) -> LabelledImages:
    """Read INRIA Person: whole images with and without a person, official split.

    Parameters
    ----------
    folder : Path
        ``INRIAPerson``, with ``pos`` and ``neg`` in ``Train`` and in ``Test``.

    Returns
    -------
    LabelledImages
        Of the classes "no person" and "person".
    """
    names = {"pos": "person", "neg": "no person"}
    _need(
        folder,
        [f"{part}/{sub}" for part in ("Train", "Test") for sub in names],
        "INRIAPerson.tar of the INRIA Person data set",
    )
    parts = []
    for part in ("Train", "Test"):
        found = [
            (path, label)
            for sub, label in names.items()
            for path in image_files(folder / part / sub)
        ]
        parts += [np.array([path for path, _ in found], dtype=object)]
        parts += [np.array([label for _, label in found])]
    return LabelledImages(*parts)


def _need(folder: Path, parts: Iterable[str], source: str) -> None:
    missing = [part for part in parts if not (folder / part).exists()]
    if missing:
        raise FileNotFoundError(
            f"{str(folder)!r} has no {missing}. Unpack {source} there."
        )
