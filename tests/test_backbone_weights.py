"""The weights of networks: random ones, files, downloads, older layouts."""

import copy
import os
import re

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from skadma import CNNClassifier
from skadma.features.cache import MemoryCache

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
