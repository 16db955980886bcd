"""A campaign of three colours, for its tests."""

import pytest
from PIL import Image

from skadma import Campaign, CNNClassifier
from skadma.strategies import MarginSampling

from .conftest import TinyCNN, tiny_classifier

CLASSES = ["blue", "green", "red"]
SQUEEZE = CNNClassifier("squeezenet1_1", weights=None, image_size=32, max_epochs=1)


@pytest.fixture(scope="module")
def painted(tmp_path_factory, pictures):
    """A folder of 24 pictures, and their labels by path."""
    folder = tmp_path_factory.mktemp("painted")
    X, y = pictures
    (folder / "a b").mkdir()
    labels = {}
    for i in range(24):
        name = f"{'a b/' if i % 2 else ''}{i:02} ü.png"
        Image.fromarray(X[i]).save(folder / name)
        labels[name] = CLASSES[y[i]]
    return folder, labels


@pytest.fixture
def pool(painted, tmp_path):
    """A copy of it that may be changed."""
    folder = tmp_path / "pool"
    folder.mkdir()
    (folder / "a b").mkdir()
    for name in painted[1]:
        (folder / name).write_bytes((painted[0] / name).read_bytes())
    return folder


def create(folder, pool, strategy=None, **params):
    estimator = params.pop("estimator", tiny_classifier(random_state=None))
    return Campaign.create(
        folder, pool, CLASSES, estimator, strategy or MarginSampling(),
        **{"n_instances": 4, **params},
    )  # fmt: skip


def reopen(campaign):
    campaign.close()
    return Campaign.open(campaign.folder, backbone=TinyCNN)


def bits(campaign):
    return [t.numpy().tobytes() for t in
            campaign.estimator().net_.module_.state_dict().values()]  # fmt: skip


def marks(campaign):
    return {path: decision.mark for path, decision, _ in campaign.decisions()}


@pytest.fixture
def campaign(pool, tmp_path):
    with create(tmp_path / "campaign", pool) as campaign:
        yield campaign


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path
