"""Read labelled images of the source task: arrays, mappings, folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length, column_or_1d

from ..images.dataset import n_images
from ..images.decoding import image_suffixes
from ..images.folder import images_by_class
from ..networks import PretrainedNetwork
from ..targets.labels import as_labels


def labeled_images(
    X: Any, y: ArrayLike | None, source: PretrainedNetwork
) -> tuple[Any, np.ndarray]:
    """Return images and, for each, the network's output that is its class, (n,).

    X and y are those of `SourceCenters.from_dataset` and `from_examples`.
    """
    if isinstance(X, Mapping):
        X, y = _from_mapping(X)
    elif isinstance(X, (str, Path)):
        X, targets, names = _from_folder(Path(X))
        y = _by_name(names, source)[targets]
    if y is None:
        raise ValueError(
            f"y is None, and X, a {type(X).__name__}, does not give the source classes "
            "of its images. Pass y, or a folder with one subfolder per class."
        )
    numbers = _class_numbers(y, source)
    check_consistent_length(range(n_images(X)), numbers)
    return X, numbers


def _class_numbers(y: ArrayLike, source: PretrainedNetwork) -> np.ndarray:
    """Convert numbers or class names to numbers of the network's outputs.

    Of a network without source classes, any labels tell the classes of the images.
    """
    labels = column_or_1d(as_labels(y))
    if not source.n_classes:
        return np.unique(labels, return_inverse=True)[1]
    if labels.dtype.kind in "iu":
        wrong = np.unique(labels[(labels < 0) | (labels >= source.n_classes)])
        if len(wrong):
            raise ValueError(
                f"y has the source classes {wrong[:5].tolist()}, but {source.name} has "
                f"the classes 0 to {source.n_classes - 1}."
            )
        return labels.astype(np.int64)
    if source.class_names is None:
        raise ValueError(
            f"y must hold the numbers of the network's outputs, 0 to "
            f"{source.n_classes - 1}: the class names of {source.name} are not known. "
            f"Got dtype {labels.dtype}."
        )
    numbers = {name: k for k, name in enumerate(source.class_names)}
    unknown = [k for k in np.unique(labels.astype(str)).tolist() if k not in numbers]
    if unknown:
        raise ValueError(
            f"y has source classes that {source.name} does not have: {unknown[:5]}. It "
            f"has {list(source.class_names[:3])}, ...; the numbers 0 to "
            f"{source.n_classes - 1} are taken as well."
        )
    return np.array([numbers[str(label)] for label in labels], dtype=np.int64)


def _from_mapping(examples: Mapping[Any, Any]) -> tuple[list[Any], np.ndarray]:
    images: list[Any] = []
    labels: list[Any] = []
    for label, some in examples.items():
        some = some if isinstance(some, (list, tuple)) else [some]
        images.extend(some)
        labels.extend([label] * len(some))
    return images, np.asarray(labels)


def _from_folder(folder: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """Return files, each one's position among the sorted class names, and the names."""
    if not folder.is_dir():
        raise ValueError(f"There is no folder {str(folder)!r}.")
    found = images_by_class(folder)
    files = [path for paths in found.values() for path in paths]
    if not files:
        raise ValueError(
            f"{str(folder)!r} has no images in subfolders. One subfolder per source "
            f"class is wanted, with files that end in {sorted(image_suffixes())}."
        )
    targets = np.repeat(np.arange(len(found)), [len(paths) for paths in found.values()])
    return files, targets, list(found)


def _by_name(names: Sequence[str], source: PretrainedNetwork) -> np.ndarray:
    """Return the network's output for each of a folder's classes."""
    known = {name: k for k, name in enumerate(source.class_names or ())}
    # ImageNet has a crane that flies and one that lifts: both are called "crane".
    meant = Counter(source.class_names or ())
    plain = [name.replace("_", " ") for name in names]
    for spelled in (names, plain):
        if all(meant[name] == 1 for name in spelled) and len({*spelled}) == len(names):
            return np.array([known[name] for name in spelled])
    if len(names) == source.n_classes or not source.n_classes:
        return np.arange(len(names))
    raise ValueError(
        f"The folder has {len(names)} classes ({list(names[:3])}, ...), "
        f"{source.name} has {source.n_classes}, and they do not go by the same names, "
        "or a name stands for two of them. "
        "Give all classes in the network's order, call them by its names, or pass y "
        "with the numbers of its outputs."
    )
