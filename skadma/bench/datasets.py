"""Data sets by name: a pool to choose from and a test set to measure on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from operator import itemgetter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ..images.dataset import take
from ..images.folder import image_files, images_by_class

_TEST_SHARE = 0.3
"""Of a data set without an official split: the paper's 70/30."""


@dataclass(frozen=True)
class LabelledImages:
    """A data set as it is read; without an official split there is no test set.

    With several labels per image `y` has a column of 0 and 1 for each of `classes`, and
    `y_test` -1 where a label is not counted.
    """

    X: Any
    y: np.ndarray
    X_test: Any = None
    y_test: np.ndarray | None = None
    classes: np.ndarray | None = None


@dataclass(frozen=True)
class Split:
    """A data set as a benchmark uses it.

    Attributes
    ----------
    X_pool, X_test : images
    y_pool, y_test : ndarray of int
        Numbers of classes, or the matrices of label indicators.
    classes : ndarray
        The classes' names, by number.
    """

    X_pool: Any
    y_pool: np.ndarray
    X_test: Any
    y_test: np.ndarray
    classes: np.ndarray


def split_dataset(
    images: LabelledImages,
    seed: int,
    pool_size: int | None = None,
    test_size: int | None = None,
) -> Split:
    """Split into pool and test set, and thin both out.

    The official split where there is one, else 70/30. Whatever is drawn is drawn by
    the seed and keeps the classes' shares, with one label per image.

    Parameters
    ----------
    images : LabelledImages
    seed : int
    pool_size, test_size : int, optional
        At most that many images.

    Returns
    -------
    Split
    """
    if images.y_test is None:
        X, X_test, y, y_test = train_test_split(
            np.arange(len(images.y)),
            images.y,
            test_size=_TEST_SHARE,
            stratify=images.y,
            random_state=seed,
        )
        X, X_test = take(images.X, X), take(images.X, X_test)
    else:
        X, y, X_test, y_test = images.X, images.y, images.X_test, images.y_test
    pool, test = _thinned(y, pool_size, seed), _thinned(y_test, test_size, seed)
    classes = images.classes
    if classes is None:
        classes = np.unique(np.concatenate([y, y_test]))
        y, y_test = np.searchsorted(classes, y), np.searchsorted(classes, y_test)
    return Split(take(X, pool), y[pool], take(X_test, test), y_test[test], classes)


def _thinned(y: np.ndarray, size: int | None, seed: int) -> np.ndarray:
    """Draw the indices of at most `size` entries, sorted."""
    if size is None or size >= len(y):
        return np.arange(len(y))
    if y.ndim == 2:
        chosen = np.random.default_rng(seed).choice(len(y), size, replace=False)
        return np.sort(chosen)
    _, members, counts = np.unique(y, return_inverse=True, return_counts=True)
    # A class of one image cannot be stratified, nor can fewer images than classes.
    large = counts[members] >= 2
    stratify = y if large.all() and len(counts) <= min(size, len(y) - size) else None
    kept, _ = train_test_split(
        np.arange(len(y)), train_size=size, stratify=stratify, random_state=seed
    )
    return np.sort(kept)


def load_dataset(
    name: str, path: str | Path | None = None, root: str | Path | None = None
) -> LabelledImages:
    """Read a data set.

    Parameters
    ----------
    name : str
        One of `DATASETS`.
    path : str or Path, optional
        Its folder, in place of the usual one; relative to `root`.
    root : str or Path, optional
        The folder that holds the data sets.

    Returns
    -------
    LabelledImages

    Raises
    ------
    ValueError
        If there is no data set of that name, or its folder is not laid out as it
        should be.
    FileNotFoundError
        If its folder is not there.
    """
    if name not in DATASETS:
        raise ValueError(
            f"There is no data set {name!r}; there are {sorted(DATASETS)}. A folder "
            "with a subfolder for each class is read by {'class': 'folder', 'path': "
            "...}."
        )
    read, usual = DATASETS[name]
    if usual is None:
        if path is not None:
            raise ValueError(f"The data set {name!r} comes in a package: no path.")
        return read()
    return read(find_data(path or usual, root, f"The data set {name!r}"))


def find_data(path: str | Path, root: str | Path | None, what: str) -> Path:
    """Find a folder or file relative to the data's root; `what` is for messages."""
    if not str(path):
        raise FileNotFoundError(f"{what} has no usual folder: say where by 'path'.")
    found = Path(path)
    if not found.is_absolute() and root is None:
        raise FileNotFoundError(
            f"{what} is {str(path)!r} in the folder of all data: say where that is by "
            "--data or the environment variable SKADMA_DATA."
        )
    found = Path(root or "") / found
    if not found.exists():
        raise FileNotFoundError(f"{what} should be at {str(found)!r}: nothing there.")
    return found


# --- readers --------------------------------------------------------------------------


def class_folders(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of a folder's subfolders, and each one's subfolder's name."""
    found = {name: paths for name, paths in images_by_class(folder).items() if paths}
    if len(found) < 2:
        raise ValueError(
            f"{str(folder)!r} must hold a subfolder with images for each of at least "
            f"two classes; found {sorted(found)}."
        )
    return _arrays([(path, name) for name, paths in found.items() for path in paths])


def _arrays(labelled: list[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return paths and labels of pairs of them."""
    X = np.array([path for path, _ in labelled], dtype=object)
    return X, np.array([label for _, label in labelled])


def read_folder(folder: Path) -> LabelledImages:
    """Read class folders, or ``train`` and ``test`` that hold such."""
    train, test = folder / "train", folder / "test"
    if train.is_dir() and test.is_dir():
        return LabelledImages(*class_folders(train), *class_folders(test))
    return LabelledImages(*class_folders(folder))


def load_elpv() -> tuple[np.ndarray, np.ndarray]:
    """Read the photographs of solar cells, uint8 (2624, 300, 300), and their labels.

    "defective" where the experts' defect probability is at least 0.5, else "sound".
    """
    try:
        utils = import_module("elpv_dataset.utils")
    except ImportError as error:
        raise ImportError(
            "the demo needs the package elpv-dataset: pip install 'skadma[demo]'"
        ) from error
    X, probability, _ = utils.load_dataset()
    return X, np.where(probability >= 0.5, "defective", "sound")


def _digits() -> LabelledImages:
    X, y = load_digits(return_X_y=True)
    images = np.rint(X.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return LabelledImages(images, y)


VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep",
    "sofa", "train", "tvmonitor",
)  # fmt: skip
"""Names of PASCAL VOC's classes."""

_Object = tuple[str, bool, float]


def read_dogs_vs_cats(folder: Path) -> LabelledImages:
    """Read Kaggle's ``train/cat.0.jpg`` and so on, or a subfolder for each class.

    There is no official split: the labels of Kaggle's test set are not public.
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


def read_voc2012_multilabel(folder: Path) -> LabelledImages:
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


def read_indoor67(folder: Path) -> LabelledImages:
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


def read_inria_person(folder: Path) -> LabelledImages:
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


DATASETS: dict[str, tuple[Callable[..., LabelledImages], str | None]] = {
    "cifar10": (read_folder, "cifar10-sample"),
    "digits": (_digits, None),
    "dogs-vs-cats": (read_dogs_vs_cats, "dogs-vs-cats"),
    "elpv": (lambda: LabelledImages(*load_elpv()), None),
    "folder": (read_folder, ""),
    "indoor67": (read_indoor67, "indoor67"),
    "inria-person": (read_inria_person, "INRIAPerson"),
    "voc2012": (read_voc2012, "VOCdevkit"),
    "voc2012-multilabel": (read_voc2012_multilabel, "VOCdevkit"),
}
"""What reads a data set, and its usual folder (None: it comes in a package)."""
