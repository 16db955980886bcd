"""A campaign of painted squares, for the tests of what changes in it."""

import shutil

import numpy as np
import pytest
from PIL import Image

from skadma import Campaign
from skadma.labelling.campaign.class_names import read_class_names
from skadma.strategies import MarginSampling

from .conftest import tiny_classifier

CLASSES = ["blue", "green", "red"]


def paint(folder, numbers, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    for i in numbers:
        rng = np.random.default_rng([seed, i])
        pixels = rng.integers(0, 90, (32, 32, 3))
        pixels[:, :, i % 3] += 120
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02}.png")
    return folder


def truth(path):
    return ["red", "green", "blue"][int(path[-6:-4]) % 3]


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    return paint(tmp_path_factory.mktemp("painted") / "photos", range(12))


@pytest.fixture
def pool(painted, tmp_path):
    return shutil.copytree(painted, tmp_path / "photos")


def create(folder, pool, **options):
    return Campaign.create(
        folder, pool, CLASSES, tiny_classifier(random_state=None), MarginSampling(),
        **{"n_instances": 3, **options},
    )  # fmt: skip


@pytest.fixture
def campaign(pool, tmp_path):
    with create(tmp_path / "c", pool) as campaign:
        yield campaign


def label(campaign, *numbers):
    names = [f"{i:02}.png" for i in numbers]
    campaign.teach({name: truth(name) for name in names}, train=False)


def marks(campaign):
    return {path: decision.mark for path, decision, _ in campaign.decisions()}


def bits(campaign):
    state = campaign.estimator().net_.module_.state_dict()
    return [tensor.numpy().tobytes() for tensor in state.values()]


def everything(campaign):
    """All that must be again what it was."""
    return (
        campaign.classes,
        read_class_names(campaign._event_log).former,
        marks(campaign),
        campaign.query(),
        bits(campaign),
        campaign.candidates(),
        campaign.pools,
    )
