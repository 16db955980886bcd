"""Readers of the paper's data sets, in the layouts they are published in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ..image_forms import image_files
from .folders import LabelledImages, class_folders


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
        labels = [_largest_object(folder / "Annotations" / f"{s}.xml") for s in stems]
        kept = [(s, label) for s, label in zip(stems, labels, strict=True) if label]
        paths = [str(folder / "JPEGImages" / f"{s}.jpg") for s, _ in kept]
        parts += [np.array(paths, dtype=object), np.array([label for _, label in kept])]
    return LabelledImages(*parts)


def _largest_object(annotation: Path) -> str | None:
    largest, name = -1.0, None
    for found in ElementTree.parse(annotation).iter("object"):
        box = found.find("bndbox")
        if box is None or found.findtext("difficult", "0").strip() == "1":
            continue
        left, top, right, bottom = (
            float(box.findtext(side, "0")) for side in ("xmin", "ymin", "xmax", "ymax")
        )
        if (right - left) * (bottom - top) > largest:
            largest = (right - left) * (bottom - top)
            name = found.findtext("name", "").strip()
    return name


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
