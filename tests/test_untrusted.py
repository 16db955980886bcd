"""Files from elsewhere run nothing, and reach nothing outside their folder."""

# The fixtures that are imported are the arguments of the same name.
# ruff: noqa: F811

import contextlib
import io
import os
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from skadma import Campaign, CNNClassifier, SourceCenters
from skadma.features.cache import DiskCache
from skadma.images.dataset import ImageDataset, Preprocessing
from skadma.labelling.campaign.image_index import scan_folder
from skadma.networks.registry import read_state_dict
from skadma.strategies import RandomSampling

from .bombs import KINDS, bombs, target  # noqa: F401
from .conftest import tiny_classifier


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
    found = scan_folder(pool, {})
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
