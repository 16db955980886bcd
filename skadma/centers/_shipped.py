"""Centres that the package ships as a picture, all of them synthesised."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from importlib.resources import as_file, files
from typing import Any

import numpy as np
from PIL import Image

from ..features.adapter import CNNAdapter, need_adapter
from ._synthesis import resized
from .centers import SourceCenters


def shipped_centers(estimator: Any) -> SourceCenters:
    """Read the centres that the package has for a network, at its image size.

    They were synthesised from the network itself (`SourceCenters.synthesize`) and are
    kept as a picture (benchmarks/make_shipped_centers.py), which is brought to the size
    that the estimator works at.

    Parameters
    ----------
    estimator : CNNClassifier

    Returns
    -------
    SourceCenters

    Raises
    ------
    ValueError
        If there are none for the network with these weights; the message describes how
        to make them.
    """
    adapter = need_adapter(estimator)
    if not isinstance(adapter, CNNAdapter):
        raise ValueError(
            f"ADMA compares with centres of the source classes, and the package has "
            f"none for {adapter.source_name!r}. Make them, SourceCenters(inputs, ...), "
            "and give them: ADMA(centers)."
        )
    adapter.check_source_classes("ADMA")
    source = adapter.source
    size = source.preprocessing.image_size
    found = _read(source.name, source.fingerprint, size, source.class_names)
    if found is None:
        raise ValueError(
            "ADMA compares with centres of the source classes, and the package has "
            f"none for {source.name} with these weights ({source.fingerprint}). Make "
            "them: with source images at hand SourceCenters.from_dataset(clf, folder), "
            "for which one image per class will do; without any "
            "SourceCenters.synthesize(clf, verbose=True), which takes minutes to "
            "hours. Then ADMA(centers). By command: skadma centers."
        )
    return found


def from_sheet(sheet: Image.Image, k: int, side: int) -> np.ndarray:
    """Cut a picture with rows of k images into these, (k, 3, side, side)."""
    columns = math.isqrt(k - 1) + 1
    pixels = np.asarray(sheet.convert("RGB")).transpose(2, 0, 1)
    rows = pixels.reshape(3, -1, side, columns, side)
    return rows.transpose(1, 3, 0, 2, 4).reshape(-1, 3, side, side)[:k].copy()


@lru_cache(maxsize=1)
def _read(
    network: str, fingerprint: str, image_size: int, names: tuple[str, ...] | None
) -> SourceCenters | None:
    file = files("skadma") / "data" / f"centers_{network.replace('/', '-')}.jpg"
    if not file.is_file():
        return None
    with as_file(file) as path, Image.open(path) as sheet:
        about = json.loads(sheet.info["comment"])
        if about["fingerprint"] != fingerprint:
            return None
        images = from_sheet(sheet, about["n_classes"], about["side"])
    return SourceCenters(
        inputs=resized(images, image_size),
        classes=np.arange(len(images)),
        network=network,
        fingerprint=fingerprint,
        image_size=image_size,
        class_names=names,
    )
