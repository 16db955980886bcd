"""Every loader, fed with files that no program of ours wrote.

Whatever is in them, a loader gives a result or one of its own errors: it runs nothing,
does not crash, and does not use memory without bound. Each case is a file that was
changed in a few places, cut, or joined from parts. A short run by default;
``SKADMA_FUZZ=100000 pytest tests/test_fuzz.py`` for a long one.
"""

import contextlib
import io
import json
import os
import pickle
import shutil
import struct
import tempfile

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from skadma import Campaign, SourceCenters
from skadma.features.cache import DiskCache
from skadma.images.decoding import UnreadableImageError, from_file
from skadma.labelling.campaign import CampaignError
from skadma.labelling.campaign.image_index import check_path
from skadma.labelling.campaign.labels_csv import read_labels
from skadma.labelling.campaign.settings import build_estimator, build_strategy
from skadma.networks.registry import read_state_dict
from skadma.persistence.network_file import read_network
from skadma.persistence.params import ModelError
from skadma.strategies import RandomSampling

from .conftest import TinyCNN, tiny_classifier

N = int(os.environ.get("SKADMA_FUZZ", "60"))
fuzz = settings(
    max_examples=N,
    deadline=None,
    database=None,
    derandomize=N <= 1000,  # the short form is the same in each run
    suppress_health_check=list(HealthCheck),
)
pytestmark = pytest.mark.filterwarnings("ignore")


def changed(*seeds):
    """Files near the given ones: bytes replaced, a piece cut out, put in or doubled."""

    @st.composite
    def draw_one(draw):
        data = bytearray(draw(st.sampled_from(seeds)))
        for _ in range(draw(st.integers(1, 4))):
            at = draw(st.integers(0, max(len(data) - 1, 0)))
            # Headers decide how the rest is read.
            at = draw(st.sampled_from([at, at % 300, at % 32]))
            n = draw(st.integers(0, 40))
            how = draw(st.sampled_from(["set", "cut", "put", "end", "double", "huge"]))
            if how == "set":
                new = draw(st.binary(min_size=1, max_size=8))
                data[at : at + len(new)] = new
            elif how == "cut":
                del data[at : at + n]
            elif how == "put":
                data[at:at] = draw(st.binary(max_size=40))
            elif how == "end":
                del data[at:]
            elif how == "double":
                data[at:at] = data[at : at + n]
            else:
                data[at : at + 8] = struct.pack("<q", draw(st.integers(-1, 2**62)))
        return bytes(data)

    return st.one_of(draw_one(), st.binary(max_size=200))


def saved(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


# --- weights, centres, models, cache ------------------------------------------------

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}
WEIGHTS = (
    saved(lambda f: torch.save(TENSORS, f)),
    saved(lambda f: torch.save(TENSORS, f, _use_new_zipfile_serialization=False)),
    saved(lambda f: torch.save({"state_dict": TENSORS, 1: [2]}, f)),
    pickle.dumps({"a": [1, 2, (3,)]}, protocol=2),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@fuzz
@given(data=changed(*WEIGHTS))
def test_weights(folder, data):
    path = folder / "weights.pth"
    path.write_bytes(data)
    try:
        found = read_state_dict(path)
    except ValueError:
        return
    assert all(isinstance(value, torch.Tensor) for value in found.values())


@fuzz
@given(data=changed(safetensors.numpy.save({k: v.numpy() for k, v in TENSORS.items()})))
def test_weights_in_safetensors(folder, data):
    path = folder / "weights.safetensors"
    path.write_bytes(data)
    try:
        found = read_state_dict(path)
    except ValueError:
        return
    assert all(isinstance(value, torch.Tensor) for value in found.values())


PLAIN = {
    "format": "skadma-centers-1",
    "network": "n",
    "fingerprint": "f",
    "image_size": "4",
    "layer": "null",
    "class_names": "null",
}


def centers_file():
    metadata = dict(PLAIN, class_names='["a", "b"]')
    arrays = {"inputs": np.zeros((2, 3, 4, 4), np.uint8), "classes": np.arange(2)}
    return safetensors.numpy.save(arrays, metadata)


@fuzz
@given(data=changed(centers_file()))
def test_centres(folder, data):
    check_centres(folder, data)


def check_centres(folder, data):
    path = folder / "centers.safetensors"
    path.write_bytes(data)
    try:
        found = SourceCenters.load(path)
    except ValueError:
        return
    assert len(found.classes) == len(found.inputs) == len(found)


VALUES = st.one_of(
    st.sampled_from(["null", "[]", "{}", "0", "-1", "[1]", '"a"', "1e99", "[" * 9999]),
    st.text(max_size=20),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
ARRAYS = st.builds(
    lambda shape, dtype: np.zeros(shape, dtype),
    st.lists(st.integers(0, 3), max_size=4),
    st.sampled_from([np.uint8, np.float16, np.float32, np.float64, np.int64, np.bool_]),
)


@fuzz
@given(metadata=st.dictionaries(
    st.sampled_from(["network", "fingerprint", "image_size", "layer", "class_names"]),
    VALUES), inputs=ARRAYS, classes=ARRAYS)  # fmt: skip
def test_centres_of_other_values(folder, metadata, inputs, classes):
    metadata = {**PLAIN, **metadata}
    check_centres(
        folder, safetensors.numpy.save({"inputs": inputs, "classes": classes}, metadata)
    )


ENTRY = np.arange(12, dtype=np.float32).reshape(3, 4)


def entry_file(folder):
    cache = DiskCache(folder)
    cache.put("space", "key", ENTRY)
    return cache, cache._path("space", "key")


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    return entry_file(tmp_path_factory.mktemp("entry"))


with tempfile.TemporaryDirectory() as somewhere:
    WRITTEN = entry_file(somewhere)[1].read_bytes()


@fuzz
@given(data=changed(WRITTEN))
def test_cache(entry, data):
    cache, path = entry
    path.write_bytes(data)
    found = cache.get("space", "key")
    if found is not None:  # as it was written
        np.testing.assert_array_equal(found, ENTRY)
        assert found.dtype == ENTRY.dtype


@pytest.fixture(scope="module")
def campaign_folder(pictures, tmp_path_factory):
    X, _ = pictures
    base = tmp_path_factory.mktemp("fuzzed")
    (base / "pool").mkdir()
    for i in range(4):
        Image.fromarray(X[i]).save(base / "pool" / f"{i}.png")
    with Campaign.create(
        base / "c", base / "pool", ["a", "b"], tiny_classifier(), RandomSampling(),
        n_instances=2,
    ) as campaign:  # fmt: skip
        campaign.teach({"0.png": "a", "1.png": "b"})
        campaign.query()
        campaign.undo()
        campaign.teach({"0.png": "a", "1.png": "b"})
    return base / "c"


def check_model(folder, data):
    path = folder / "model.safetensors"
    path.write_bytes(data)
    clf = tiny_classifier()
    try:
        read_network(clf, path)
    except ModelError:
        return
    assert clf.predict_proba(np.zeros((1, 32, 32, 3), np.uint8)).shape[0] == 1


@pytest.fixture(scope="module")
def model(campaign_folder):
    (path, *_) = (campaign_folder / "models").iterdir()
    return path.read_bytes()


@fuzz
@given(data=st.data())
def test_models(model, folder, data):
    check_model(folder, data.draw(changed(model)))


@fuzz
@given(data=st.data())
def test_models_of_other_values(model, folder, data):
    (length,) = struct.unpack("<Q", model[:8])
    metadata = json.loads(model[8 : 8 + length])["__metadata__"]
    key = data.draw(st.sampled_from(sorted(metadata)))
    if key == "random_state" and data.draw(st.booleans()):
        state = json.loads(metadata[key])
        part = data.draw(st.sampled_from(sorted(state)))
        inside = isinstance(state[part], dict) and data.draw(st.booleans())
        where = state[part] if inside else state
        where[data.draw(st.sampled_from(sorted(where)))] = data.draw(JSON)
        metadata[key] = json.dumps(state)
    else:
        metadata[key] = data.draw(VALUES)
    tensors = safetensors.numpy.load(model)
    check_model(folder, safetensors.numpy.save(tensors, metadata))


# --- campaigns, label files, images ---------------------------------------------------


@fuzz
@given(data=st.data())
def test_campaigns(campaign_folder, folder, data):
    copy = folder / "c"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    whole = (campaign_folder / "campaign.sqlite").read_bytes()
    (copy / "campaign.sqlite").write_bytes(data.draw(changed(whole)))
    if data.draw(st.booleans()):
        (copy / "campaign.sqlite-wal").write_bytes(data.draw(st.binary(max_size=99)))
    pool = campaign_folder.parent / "pool"
    try:
        with Campaign.open(copy, pool=pool, backbone=TinyCNN, wait=1) as campaign:
            campaign.status()
            list(campaign.decisions())
            campaign.log()
            campaign.teach({"2.png": "a"}, train=False)
    except CampaignError:
        return
    with Campaign.open(copy, pool=pool, backbone=TinyCNN) as campaign:
        assert {p: d.mark for p, d, _ in campaign.decisions()}["2.png"] == "a"


LABELS = (
    b'path,label\na.png,x\n"b,1.png",y\n',
    b"path,label,sha256\na.png,x,00ff\nb.png\n",
    "\ufeffpath;label\r\nü.png;?skip\r\n".encode(),
)


@fuzz
@given(data=changed(*LABELS))
def test_label_files(folder, data):
    path = folder / "labels.csv"
    path.write_bytes(data)
    try:
        rows = read_labels(path)
    except CampaignError:
        return
    assert all(bool(row.label) != bool(row.problem) for row in rows)


@fuzz
@given(path=st.text(st.sampled_from("a./\\:\0~ü "), max_size=12))
def test_paths_stay_inside(folder, path):
    try:
        check_path(path)
    except ValueError:
        return
    inside = (folder / path).resolve()
    assert inside == folder.resolve() or folder.resolve() in inside.parents


PLAIN_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
)
KEYS = ("class", "params", "backbone", "optimizer", "lr", "x")


@fuzz
@given(value=PLAIN_VALUES, key=st.sampled_from(KEYS))
def test_settings(folder, value, key):
    estimator = {"backbone": "resnet18", "optimizer": "SGD", "criterion": "NLLLoss"}
    strategy = {"class": "MarginSampling", "params": {}}
    with contextlib.suppress(CampaignError):
        build_estimator({**estimator, key: value}, None, folder)
    with contextlib.suppress(CampaignError):
        build_strategy({**strategy, key: value}, folder)


def image_files():
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    )
    files = []
    for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "ICO"):
        exif = {"exif": Image.Exif()} if kind in ("JPEG", "PNG", "WEBP") else {}
        if exif:
            exif["exif"][0x0112] = 6
        files.append(saved(lambda f, k=kind, e=exif: picture.save(f, k, **e)))
    return files


@fuzz
@given(data=changed(*image_files()))
def test_images(folder, data):
    path = folder / "image.png"
    path.write_bytes(data)
    try:
        from_file(str(path), str(path))
    except UnreadableImageError as error:
        assert "image.png" in str(error)
