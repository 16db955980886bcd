"""A campaign of two people, for the tests of second looks."""

import numpy as np
import pytest
from PIL import Image

from skadma import Campaign
from skadma.strategies import RandomSampling

from .conftest import TinyCNN, tiny_classifier

CLASSES = ["blue", "green", "red"]
N = 48


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    rng = np.random.default_rng(0)
    for i in range(N):
        pixels = rng.integers(0, 90, (32, 32, 3))
        pixels[:, :, i % 3] += 120
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02}.png")
    return folder


def truth(path):
    return ["red", "green", "blue"][int(path[:2]) % 3]


def names(*numbers):
    return [f"{i:02}.png" for i in numbers]


@pytest.fixture
def people(pool, tmp_path):
    """The same campaign, opened by two people."""
    folder = tmp_path / "c"
    Campaign.create(
        folder, pool, CLASSES, tiny_classifier(random_state=None), RandomSampling()
    ).close()
    opened = [
        Campaign.open(folder, backbone=TinyCNN, who=who) for who in ("eva", "max")
    ]
    yield opened
    for campaign in opened:
        campaign.close()


def teach(campaign, *numbers, **others):
    given = {path: truth(path) for path in names(*numbers)}
    campaign.teach({**given, **others}, train=False)
