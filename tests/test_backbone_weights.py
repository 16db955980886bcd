"""The weights of networks: random ones, files, downloads, older layouts."""

import copy
import os
import re
import socket
from collections import OrderedDict
from time import perf_counter

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from skadma import CNNClassifier
from skadma.features.cache import MemoryCache
from skadma.networks import available_backbones
from skadma.networks.registry import _unreachable

from .conftest import source, tiny_classifier


def test_random_weights_are_one_network():
    X = np.full((1, 32, 32), 7, np.uint8)
    proba = [tiny_classifier().source_proba(X) for _ in range(2)]
    np.testing.assert_array_equal(*proba)
    np.testing.assert_array_equal(
        tiny_classifier(random_state=1).source_proba(X), proba[0]
    )


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_local_weights(tmp_path, suffix):
    network = copy.deepcopy(source("squeezenet1_1", 64).module)
    network.classifier[1] = nn.Conv2d(512, 7, 1)
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(network.state_dict(), path)
    clf = CNNClassifier("squeezenet1_1", weights=path, image_size=64)
    X = np.full((2, 64, 64), 90, np.uint8)
    assert clf.source_proba(X).shape == (2, 7)
    loaded = clf.source_network().module.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in network.state_dict().items())


def test_weights_that_do_not_fit(tmp_path):
    X = np.zeros((1, 32, 32), np.uint8)
    path = tmp_path / "w.pth"
    torch.save(nn.Linear(2, 3).state_dict(), path)
    with pytest.raises(ValueError, match="do not fit resnet18.*missing.*unexpected"):
        CNNClassifier("resnet18", weights=path).embed(X)
    torch.save({"network": nn.Linear(2, 3)}, path)
    with pytest.raises(ValueError, match="holds no plain weights"):
        CNNClassifier("resnet18", weights=path).embed(X)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        CNNClassifier("resnet18", weights="nowhere.pth").embed(X)
    with pytest.raises(ValueError, match="IMAGENET1K_V1"):
        CNNClassifier("resnet18", weights="IMAGENET").embed(X)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_lite_networks_know_imagenet(number, data_dir):
    """Real weights, real preprocessing: top-1 far above what a slip leaves."""
    folders = sorted((data_dir / "source-imagenet-1k").iterdir())[::25]
    clf = CNNClassifier(f"efficientnet_lite{number}")
    proba = clf.source_proba([folder / "0.jpg" for folder in folders])
    assert proba.shape == (40, 1000)
    assert (proba.argmax(1) == [int(f.name[:4]) for f in folders]).mean() > 0.7
    assert clf.source_network().class_names[1] == "goldfish"


@pytest.mark.parametrize("name", ["densenet121", "resnet18", "googlenet"])
def test_weights_that_are_older_than_the_code(name, tmp_path):
    """As torchvision loads them: no counters, old names, auxiliary heads."""
    options = {"init_weights": False} if name == "googlenet" else {}
    theirs = torchvision.models.get_model(name, weights=None, **options)
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12]\.)", r"\1.\2", key): value
        for key, value in theirs.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    assert old.keys() != theirs.state_dict().keys()
    torch.save(old, tmp_path / "old.pth")
    clf = CNNClassifier(name, weights=str(tmp_path / "old.pth"), image_size=64)
    mine = clf.source_network().module.state_dict()
    for key, value in theirs.state_dict().items():
        assert key.startswith("aux") or torch.equal(mine[key], value)
    torch.save({**old, "other.weight": torch.zeros(1)}, tmp_path / "more.pth")
    clf = CNNClassifier(name, weights=str(tmp_path / "more.pth"), image_size=64)
    with pytest.raises(ValueError, match="1 unexpected"):
        clf.source_network()


class _RunsCode:
    def __reduce__(self):
        return os.mkdir, (os.environ["SKADMA_TEST_FOLDER"],)


def test_a_pickle_in_the_cache_of_downloads_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("SKADMA_TEST_FOLDER", str(tmp_path / "made"))
    entry = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    file = tmp_path / "hub" / "checkpoints" / entry.url.rsplit("/", 1)[1]
    file.parent.mkdir(parents=True)
    torch.save({"features": _RunsCode()}, file)
    with pytest.raises(ValueError, match="no plain weights"):
        CNNClassifier("squeezenet1_1").source_network()
    assert not (tmp_path / "made").exists()


def _damaged(content, kind):
    return {"half": content[: len(content) // 2], "empty": b"", "text": b"<html>"}[kind]


@pytest.mark.parametrize("kind", ["half", "empty", "text"])
def test_a_damaged_download_is_named_with_what_to_do(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    entry = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    file = tmp_path / "hub" / "checkpoints" / entry.url.rsplit("/", 1)[1]
    file.parent.mkdir(parents=True)
    torch.save(source("squeezenet1_1", 64).module.state_dict(), file)
    file.write_bytes(_damaged(file.read_bytes(), kind))
    expected = f"{re.escape(str(file))}.*incomplete.*Delete it"
    with pytest.raises(ValueError, match=f"(?s){expected}"):
        CNNClassifier("squeezenet1_1").source_network()


@pytest.mark.parametrize("kind", ["half", "empty", "text"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_damaged_file_is_named_with_what_to_do(kind, suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    save = save_file if suffix == ".safetensors" else torch.save
    save(nn.Linear(20, 30).state_dict(), path)
    path.write_bytes(_damaged(path.read_bytes(), kind))
    size = path.stat().st_size
    with pytest.raises(
        ValueError,
        match=f"(?s){re.escape(str(path))}.*of {size:,} bytes.*download it anew",
    ):
        CNNClassifier("squeezenet1_1", weights=path).source_network()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache, and an address at which nothing answers."""
    timm_hub = pytest.importorskip("timm.models._hub")
    if not timm_hub.has_hf_hub():  # of timm 1.0.9, with a newer huggingface_hub
        pytest.skip("timm cannot use the installed huggingface_hub")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return constants


@pytest.mark.parametrize("offline", [True, False])
def test_names_of_timm_without_a_connection(offline, hub, monkeypatch):
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", offline)
    start = perf_counter()
    with pytest.raises(OSError, match=r"timm/test_vit.*not in.*weights='.*safetensors"):
        CNNClassifier("timm/test_vit.r160_in1k").source_network()
    assert perf_counter() - start < 5
    assert offline == hub.HF_HUB_OFFLINE


@pytest.mark.parametrize("kind", [None, "half", "empty"])
def test_names_of_timm_come_from_the_cache_without_a_connection(
    kind, hub, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "skadma.networks.registry._unreachable", lambda _: "asked for a connection"
    )
    timm = pytest.importorskip("timm")
    folder = tmp_path / "models--timm--test_vit.r160_in1k"
    file = folder / "snapshots" / ("0" * 40) / "model.safetensors"
    file.parent.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    weights = timm.create_model("test_vit").state_dict()
    save_file(weights, file)
    clf = CNNClassifier("timm/test_vit.r160_in1k")
    if kind is None:
        loaded = clf.source_network().module.state_dict()
        assert all(torch.equal(loaded[k], v) for k, v in weights.items())
        return
    file.write_bytes(_damaged(file.read_bytes(), kind))
    monkeypatch.setattr("skadma.networks.pretrained._LOADED", OrderedDict())
    with pytest.raises(ValueError, match="(?s)test_vit.*incomplete.*Delete"):
        clf.source_network()


def test_cache_entries_are_separate_for_each_activation(pictures):
    """The networks have the same names and weights, but other activations."""

    def build(activation):
        def network():
            return nn.Sequential(
                nn.Conv2d(3, 8, 3),
                activation(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(8, 5),
            )

        return network

    cache = MemoryCache()
    for activation in (nn.ReLU, nn.Tanh, lambda: nn.LeakyReLU(0.1), nn.LeakyReLU):
        clf = CNNClassifier(build(activation), image_size=32)
        expected = clf.set_params(memory=False).source_proba(pictures[0])
        found = clf.set_params(memory=cache).source_proba(pictures[0])
        np.testing.assert_array_equal(found, expected)


def test_names_of_torchvision_without_a_connection(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    known = torchvision.models.ResNet34_Weights.IMAGENET1K_V1
    monkeypatch.setattr(
        "skadma.networks.registry._unreachable", lambda url: f"no way to {url}"
    )
    start = perf_counter()
    file = tmp_path / "checkpoints" / "resnet34-b627a593.pth"
    with pytest.raises(
        OSError, match="not be fetched.*weights='path/to/file.pth'"
    ) as e:
        CNNClassifier("resnet34").source_network()
    assert str(file) in str(e.value)
    assert f"no way to {known.url}" in str(e.value)
    assert perf_counter() - start < 5


def test_an_address_that_does_not_answer():
    """A socket that accepts nothing: the time is limited."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/file.pth"
        start = perf_counter()
        assert _unreachable(address)
        assert perf_counter() - start < 5


def test_names_by_a_pattern():
    pytest.importorskip("timm")
    assert "timm/vit_small_patch14_dinov2" in available_backbones("*dinov2*")
    assert "timm/vit_small_patch14_dinov2.lvd142m" in available_backbones("*dinov2*")
    assert available_backbones("resnet?8") == ["resnet18"]
    found = available_backbones("*resnet18*")
    assert {"resnet18", "timm/resnet18"} <= set(found)
    assert len(set(found)) == len(found)
    assert not any(name.startswith("timm/") for name in available_backbones())
