"""What a campaign hands on, and whose weights its models are made from."""

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from skadma import Campaign, CNNClassifier
from skadma.strategies import MarginSampling

CLASSES = ["blue", "red"]
LABELS = {f"{i}.png": CLASSES[i % 2] for i in range(4)}


@pytest.fixture
def pool(pictures, tmp_path):
    folder = tmp_path / "pool"
    folder.mkdir()
    for i in range(8):
        Image.fromarray(pictures[0][i]).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def weights(tmp_path):
    clf = CNNClassifier("squeezenet1_1", weights=None, image_size=32)
    path = tmp_path / "weights.safetensors"
    save_file(clf.source_network().module.state_dict(), path)
    return path


@pytest.fixture
def campaign(pool, weights, tmp_path):
    clf = CNNClassifier("squeezenet1_1", weights=weights, image_size=32, max_epochs=1)
    with Campaign.create(
        tmp_path / "c", pool, CLASSES, clf, MarginSampling(), n_instances=2
    ) as campaign:
        yield campaign


def bits(clf):
    return [t.numpy().tobytes() for t in clf.net_.module_.state_dict().values()]


# --- which weights ------------------------------------------------------------


def test_replaced_weights_make_another_model(campaign, weights):
    first = campaign.query()
    campaign.teach(LABELS)
    before, asked = bits(campaign.estimator()), campaign.query()
    # Older releases of safetensors map the file, which is about to be written over.
    old = {name: tensor.clone() for name, tensor in load_file(weights).items()}
    campaign.close()
    save_file({k: v + 0.01 * torch.ones_like(v) for k, v in old.items()}, weights)
    with Campaign.open(campaign.folder) as again:
        with pytest.warns(UserWarning, match="weights are others"):
            assert bits(again.estimator()) != before
        again.query()
        assert [e["kind"] for e in again.log()].count("query") == 3
    save_file(old, weights)
    with Campaign.open(campaign.folder) as again:
        assert bits(again.estimator()) == before  # still there, under its own name
        assert again.query() == asked
        again.undo()
        assert again.query() == first
        assert [e["kind"] for e in again.log()].count("train") == 2
