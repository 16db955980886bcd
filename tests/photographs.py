"""Photographs and a fitted classifier, for the tests of feature stores."""

import numpy as np
import pytest
from PIL import Image

from .conftest import tiny_classifier


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """90 picture files of three classes, and their labels."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=90)
    paths = []
    for i, label in enumerate(y):
        pixels = rng.integers(0, 90, (32, 32, 3))
        pixels[..., label] += 120
        paths.append(str(folder / f"{i:03d}.png"))
        Image.fromarray(pixels.astype(np.uint8)).save(paths[-1])
    return paths, y


@pytest.fixture(scope="module")
def fitted(photographs):
    paths, y = photographs
    return tiny_classifier(memory=False).fit(paths[:20], y[:20])


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
