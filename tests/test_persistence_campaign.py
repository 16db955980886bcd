"""What a campaign hands on, and whose weights its models are made from."""

import json
import sqlite3

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from skadma import Campaign, CNNClassifier
from skadma.labelling.campaign.event_log import SCHEMA
from skadma.labelling.campaign.state import read_state
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


def test_a_campaign_from_before_goes_on(campaign):
    """Its models have names without the weights: they are made once more."""
    campaign.teach(LABELS)
    asked, before = campaign.query(), bits(campaign.estimator())
    key = campaign._trainer.model_keys(read_state(campaign._store))[-1]
    campaign.close()
    connection = sqlite3.connect(
        campaign.folder / "campaign.sqlite", isolation_level=None
    )
    triggers = [statement for statement in SCHEMA if "TRIGGER" in statement]
    for statement in triggers:
        connection.execute(f"DROP TRIGGER {statement.split()[2]}")
    for kind, change in (("train", lambda d: d.pop("weights")), ("query", dict)):
        ((event, detail),) = connection.execute(
            "SELECT id, detail FROM events WHERE kind = ?", (kind,)
        )
        detail = json.loads(detail)
        change(detail)
        detail["key"] = f"old-{kind}"
        connection.execute(
            "UPDATE events SET detail = ? WHERE id = ?", (json.dumps(detail), event)
        )
    for statement in triggers:
        connection.execute(statement)
    connection.close()
    (campaign.folder / "models" / f"{key}.safetensors").rename(
        campaign.folder / "models" / "old-train.safetensors"
    )
    with Campaign.open(campaign.folder) as again:
        assert again.query() == asked
        assert bits(again.estimator()) == before
        assert [e["kind"] for e in again.log()].count("train") == 2
