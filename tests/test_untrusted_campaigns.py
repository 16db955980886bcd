"""Campaign folders that somebody else has made or changed."""

# The fixtures that are imported are the arguments of the same name.
# ruff: noqa: F811

import json
import shutil
import sqlite3

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from skadma import Campaign, SourceCenters
from skadma.labelling.campaign import CampaignError
from skadma.labelling.campaign.event_log import EventLog
from skadma.strategies import ADMA

from .bombs import KINDS, bombs, target  # noqa: F401
from .conftest import TinyCNN, tiny_classifier
from .forged import change_log as change


@pytest.fixture(scope="module")
def made(pictures, tmp_path_factory):
    X, y = pictures
    tmp_path = tmp_path_factory.mktemp("made")
    (tmp_path / "pool").mkdir()
    for i in range(8):
        Image.fromarray(X[i]).save(tmp_path / "pool" / f"{i}.png")
    clf = tiny_classifier()
    strategy = ADMA(SourceCenters.from_dataset(clf, X, np.arange(24) % 5))
    campaign = Campaign.create(
        tmp_path / "c", tmp_path / "pool", ["a", "b"], clf, strategy, n_instances=3
    )
    with campaign:
        campaign.teach({"0.png": "a", "1.png": "b"})
        campaign.query()
    return tmp_path / "c"


@pytest.fixture
def campaign_folder(made, tmp_path):
    """A campaign to do harm to."""
    return shutil.copytree(made, tmp_path / "c")


def set_to(name, value):
    return "UPDATE settings SET value = ? WHERE name = ?", (json.dumps(value), name)


def refuse(folder, match, **options):
    with pytest.raises(CampaignError, match=match):
        Campaign.open(folder, **{"backbone": TinyCNN, **options}).query()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER more AFTER INSERT ON events BEGIN SELECT load_extension('x');"
        " END",
        "CREATE VIEW more AS SELECT 1",
        "CREATE TABLE more (x)",
        "PRAGMA application_id = 7",
        "PRAGMA user_version = 0",
        "DROP TABLE proposals",
    ],
)
def test_other_tables_and_triggers(statement, campaign_folder):
    connection = sqlite3.connect(campaign_folder / "campaign.sqlite")
    connection.execute(statement)
    connection.commit()
    connection.close()
    refuse(campaign_folder, "no intact campaign")


def test_a_newer_schema(campaign_folder):
    change(campaign_folder, "PRAGMA user_version = 99")
    refuse(campaign_folder, "upgrade skadma")


@pytest.mark.parametrize("path", ["../out.png", "/etc/passwd", "a/../../x", "", "a\0b"])
def test_paths_that_lead_out(path, campaign_folder):
    change(campaign_folder, ("UPDATE images SET path = ? WHERE id = 1", (path,)))
    refuse(campaign_folder, "leads out of the pool")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("strategy", {"class": "os.system", "params": {}}, "strategy is not known"),
        ("strategy", {"class": "ModALStrategy", "params": {}}, "not known"),
        ("strategy", {"class": "ADMA", "params": {"x": 1}}, "not known"),
        ("strategy", [1], "setting 'strategy'"),
        ("estimator", {"backbone": "timm/hf-hub:evil/model"}, "no network's name"),
        ("estimator", {"backbone": 7}, "no network's name"),
        ("estimator", {"backbone": "resnet18", "optimizer": "__builtins__",
                       "criterion": "Module"}, "optimizer .* is none"),
        ("estimator", {"backbone": "resnet18", "optimizer": "SGD",
                       "criterion": "utils"}, "criterion .* is none"),
        ("estimator", {"backbone": "resnet18", "optimizer": "SGD",
                       "criterion": "NLLLoss", "memory": "/tmp"}, "multiple|not known"),
        ("classes", None, "setting 'classes'"),
        ("classes", ["a"], "at least two"),
        ("n_instances", True, "setting 'n_instances'"),
    ],
)  # fmt: skip
def test_settings_name_nothing_that_runs(name, value, message, campaign_folder):
    change(campaign_folder, set_to(name, value))
    refuse(campaign_folder, message)


def test_settings_that_are_missing(campaign_folder):
    change(campaign_folder, "DELETE FROM settings WHERE name = 'classes'")
    refuse(campaign_folder, "cannot be opened")


def test_a_callable_network_is_not_imported_by_name(campaign_folder):
    refuse(campaign_folder, "Give it", backbone=None)


@pytest.mark.parametrize("what", ["centers.safetensors", "models"])
@pytest.mark.parametrize("kind", KINDS)
def test_tensors_of_a_campaign(kind, what, campaign_folder, target):
    path = campaign_folder / what
    if path.is_dir():
        (path,) = path.iterdir()
    path.write_bytes(bombs(target)[kind])
    if what == "models":  # it has no such digest, so it is not even opened
        with pytest.warns(UserWarning, match="damaged or changed"):
            Campaign.open(campaign_folder, backbone=TinyCNN).estimator()
    else:
        refuse(campaign_folder, "not a file of centres")


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_with_a_forged_digest(kind, campaign_folder, target):
    from skadma._utils.atomic import file_digest

    (path,) = (campaign_folder / "models").iterdir()
    path.write_bytes(bombs(target)[kind])
    detail = {"key": path.stem, "sha256": file_digest(path)}
    change(
        campaign_folder,
        ("UPDATE events SET detail = ? WHERE kind = 'train'", (json.dumps(detail),)),
    )
    with pytest.raises(CampaignError, match="is no model of it"):
        Campaign.open(campaign_folder, backbone=TinyCNN).estimator()


def test_a_model_of_another_network(campaign_folder):
    from skadma._utils.atomic import file_digest

    (path,) = (campaign_folder / "models").iterdir()
    for tensors in ({}, {"stem.weight": np.zeros(3, np.float32)}):
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
        safetensors.numpy.save_file(tensors, path, metadata=metadata)
        detail = {"key": path.stem, "sha256": file_digest(path)}
        change(
            campaign_folder,
            ("UPDATE events SET detail = ? WHERE kind = 'train'",
             (json.dumps(detail),)),
        )  # fmt: skip
        with pytest.raises(CampaignError, match="do not fit"):
            Campaign.open(campaign_folder, backbone=TinyCNN).estimator()


def test_a_key_that_leads_out(campaign_folder, tmp_path):
    """Models are found under the name computed here, whatever the log says."""
    detail = {"key": "../../escaped", "sha256": "0" * 64}
    change(
        campaign_folder,
        ("UPDATE events SET detail = ? WHERE kind = 'train'", (json.dumps(detail),)),
    )
    with Campaign.open(campaign_folder, backbone=TinyCNN) as campaign:
        campaign.estimator()
    assert not list(tmp_path.glob("escaped*"))


def test_a_damaged_database(campaign_folder, tmp_path):
    whole = (campaign_folder / "campaign.sqlite").read_bytes()
    zeros = bytes(len(whole) - 4096)
    damaged = [b"no database", whole[:5000], whole[:-4096], whole[:4096] + zeros]
    for number, data in enumerate(damaged):
        folder = tmp_path / f"damaged{number}"
        shutil.copytree(campaign_folder, folder)
        (folder / "campaign.sqlite").write_bytes(data)
        refuse(folder, "no intact campaign|cannot be read")
    with pytest.raises(CampaignError):
        EventLog(tmp_path / "damaged0" / "campaign.sqlite", create=True)
