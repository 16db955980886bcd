"""Files from elsewhere run nothing, and reach nothing outside their folder."""

import contextlib
import io
import json
import os
import pickle
import shutil
import sqlite3
import struct
import tarfile
import zipfile
import zlib

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from skadma import Campaign, CNNClassifier, SourceCenters
from skadma.backbones.weights import read_state_dict
from skadma.cache import DiskCache
from skadma.campaign import CampaignError
from skadma.campaign.pool import scan_pool
from skadma.campaign.store import SCHEMA, Store
from skadma.images import ImageDataset, Preprocessing
from skadma.strategies import ADMA, RandomSampling

from .conftest import TinyCNN, tiny_classifier


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.fixture
def target(tmp_path):
    """What must not come to be."""
    path = tmp_path / "was run"
    yield path
    assert not path.exists()


def bombs(target):
    """Files that run code where they are unpickled: pickles by all names."""
    plain = pickle.dumps({"a": Bomb(target)})
    zipped = io.BytesIO()
    torch.save({"a": Bomb(target)}, zipped)
    legacy = io.BytesIO()
    torch.save({"a": Bomb(target)}, legacy, _use_new_zipfile_serialization=False)
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            info.size = len(plain)
            archive.addfile(info, io.BytesIO(plain))
    array = io.BytesIO()
    np.save(array, np.array([Bomb(target)], dtype=object), allow_pickle=True)
    npz = io.BytesIO()
    np.savez(npz, np.array([Bomb(target)], dtype=object))
    return {
        "pickle": plain,
        "torch zip": zipped.getvalue(),
        "torch legacy": legacy.getvalue(),
        "torch tar": tarred.getvalue(),
        "npy": array.getvalue(),
        "npz": npz.getvalue(),
    }


KINDS = ["pickle", "torch zip", "torch legacy", "torch tar", "npy", "npz"]


def test_the_bombs_do_go_off(tmp_path):
    """Where they are loaded as they must not be; else the tests below show nothing."""
    for kind, data in bombs(tmp_path / "went off").items():
        if kind in ("pickle", "torch zip", "torch legacy"):
            if kind == "pickle":
                pickle.loads(data)
            else:
                torch.load(io.BytesIO(data), weights_only=False)
        elif kind in ("npy", "npz"):
            loaded = np.load(io.BytesIO(data), allow_pickle=True)
            _ = loaded["arr_0"] if kind == "npz" else loaded
        else:
            continue
        (tmp_path / "went off").rmdir()


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize("kind", KINDS)
def test_weights(kind, suffix, target, tmp_path):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(bombs(target)[kind])
    with pytest.raises(ValueError, match="Save them with"):
        read_state_dict(path)
    with pytest.raises(ValueError, match="Save them with"):
        CNNClassifier("squeezenet1_1", weights=path).layers()


@pytest.mark.parametrize("kind", KINDS)
def test_centres(kind, target, tmp_path):
    path = tmp_path / "centers.safetensors"
    path.write_bytes(bombs(target)[kind])
    with pytest.raises(ValueError, match=r"SourceCenters\.save"):
        SourceCenters.load(path)


@pytest.mark.parametrize("kind", KINDS)
def test_cache(kind, target, tmp_path):
    cache = DiskCache(tmp_path)
    cache.put("space", "key", np.ones(3, np.float32))
    (path,) = cache.folder.rglob("*.safetensors")
    path.write_bytes(bombs(target)[kind])
    assert cache.get("space", "key") is None


def test_names_in_an_archive_lead_nowhere(tmp_path):
    """torch reads its archives in memory; nothing is unpacked."""
    folder = tmp_path / "folder"
    folder.mkdir()
    torch.save({"a": torch.ones(2)}, tmp_path / "good.pth")
    with (
        zipfile.ZipFile(tmp_path / "good.pth") as good,
        zipfile.ZipFile(folder / "bad.pth", "w") as bad,
    ):
        for name in good.namelist():
            bad.writestr(name, good.read(name))
        bad.writestr("../../escaped", b"x")
        bad.writestr("/tmp/skadma-escaped", b"x")
    before = sorted(tmp_path.rglob("*"))
    with contextlib.suppress(ValueError):  # newer releases of torch refuse such names
        assert read_state_dict(folder / "bad.pth")["a"].tolist() == [1, 1]
    assert sorted(tmp_path.rglob("*")) == before
    assert not os.path.exists("/tmp/skadma-escaped")  # noqa: PTH110


# --- images -------------------------------------------------------------------


@pytest.fixture
def photo():
    """80 x 40, red on the left and blue on the right."""
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, :40, 0] = pixels[:, 40:, 2] = 255
    return Image.fromarray(pixels)


def read(path):
    return ImageDataset([str(path)], Preprocessing(40, 40))[0].numpy()


def bomb_png(side):
    """A PNG of side x side pixels that takes a few hundred kilobytes or less."""

    def chunk(kind, data):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


def test_bad_and_odd_files(photo, tmp_path):
    """Each kind of file that a pool may have, read or refused by name."""
    pool = tmp_path / "pool ü"
    (pool / "sub folder").mkdir(parents=True)
    photo.save(pool / "good.png")
    jpeg = io.BytesIO()
    photo.save(jpeg, "JPEG", quality=95)
    (pool / "named wrong.png").write_bytes(jpeg.getvalue())
    (pool / "truncated.jpg").write_bytes(jpeg.getvalue()[:-200])
    (pool / "empty.jpg").write_bytes(b"")
    (pool / "text.png").write_text("no image")
    (pool / "bomb.png").write_bytes(bomb_png(60_000))
    (pool / "notes.txt").write_text("not looked at")
    photo.convert("CMYK").save(pool / "cmyk.jpg", quality=95)
    photo.save(
        pool / "animated.gif", save_all=True,
        append_images=[Image.new("RGB", (80, 40), "green")],
    )  # fmt: skip
    grey = np.full((40, 80), 257 * 100, np.uint16)
    Image.fromarray(grey).save(pool / "sixteen.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    photo.rotate(90, expand=True).save(
        pool / "sub folder" / "turned ü.jpg", exif=exif, quality=95
    )
    (pool / "eps.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    if hasattr(os, "mkfifo"):
        os.mkfifo(pool / "pipe.png")  # opening it would wait for ever
    found = scan_pool(pool, {})
    problems = {path for path, content in found.items() if content.problem}
    assert problems == {"truncated.jpg", "empty.jpg", "text.png", "bomb.png", "eps.jpg"}
    assert "DecompressionBomb" in found["bomb.png"].problem
    assert "notes.txt" not in found
    assert "pipe.png" not in found
    upright = read(pool / "good.png").astype(int)
    for name in ("named wrong.png", "cmyk.jpg", "animated.gif",
                 "sub folder/turned ü.jpg"):  # fmt: skip
        difference = np.abs(read(pool / name).astype(int) - upright)
        assert np.median(difference) <= 3, name
    assert (read(pool / "sixteen.png") == 100).all()
    with Campaign.create(
        tmp_path / "c", pool, ["a", "b"], tiny_classifier(), RandomSampling()
    ) as campaign:
        status = campaign.status()
        assert set(status.unreadable) == problems
        assert len(campaign.query(99)) == 6
        # A person may see what we cannot read: the label is kept.
        campaign.teach({"truncated.jpg": "a", "good.png": "b"})
        assert campaign.status().unusable == 1
        assert campaign.estimator().n_labels_ == 1
        assert {p for p, _, _ in campaign.decisions()} == {"truncated.jpg", "good.png"}


def test_nothing_is_run_for_postscript(tmp_path, target, monkeypatch):
    """Pillow would start Ghostscript, for a file of any name."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "gs"
    program.write_text(f"#!/bin/sh\nmkdir -p '{target}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    path = tmp_path / "photo.jpg"
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )
    with contextlib.suppress(Exception), Image.open(path) as image:
        image.load()  # as it must not be done
    assert target.exists()
    target.rmdir()
    with pytest.raises(ValueError, match="cannot be read"):
        read(path)


# --- campaigns ----------------------------------------------------------------


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


def change(folder, *statements):
    """Change a campaign as no method of it does."""
    path = folder / "campaign.sqlite"
    connection = sqlite3.connect(path, isolation_level=None)
    triggers = [statement for statement in SCHEMA if "TRIGGER" in statement]
    for statement in triggers:
        connection.execute(f"DROP TRIGGER {statement.split()[2]}")
    for statement in statements:
        connection.execute(*([statement] if isinstance(statement, str) else statement))
    for statement in triggers:
        connection.execute(statement)
    connection.close()


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
    from skadma.files import file_digest

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
    from skadma.files import file_digest

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
        Store(tmp_path / "damaged0" / "campaign.sqlite", create=True)
