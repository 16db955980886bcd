"""Networks on other devices than the CPU, as far as a machine without any can tell."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from skadma import CNNClassifier
from skadma.features.extractor import FeatureExtractor
from skadma.networks.torch_state import seeded_torch
from skadma.strategies import DropQuery

from .conftest import tiny_classifier


@pytest.mark.parametrize("device", ["cuda", "cuda:3", "mps"])
def test_a_pickle_of_a_gpu_loads_on_a_cpu(device, pictures, monkeypatch):
    X, y = pictures
    clf = tiny_classifier().fit(X, y)
    expected = clf.predict_proba(X)
    on_gpu = {v.data_ptr() for v in clf.net_.module_.state_dict().values()}
    tag = torch.serialization.location_tag
    monkeypatch.setattr(
        torch.serialization,
        "location_tag",
        lambda storage: device if storage.data_ptr() in on_gpu else tag(storage),
    )
    clf.net_.device = device
    content = pickle.dumps(clf)
    assert device.encode() in content
    loaded = pickle.loads(content)
    np.testing.assert_array_equal(loaded.predict_proba(X), expected)
    loaded.partial_fit(X, y)
    assert loaded.set_params(device=device).layers()
    with pytest.raises(ValueError, match=f"device='{device}' cannot be used.*'cpu'"):
        loaded.predict_proba(X)
    again = loaded.set_params(device="auto").predict_proba(X)
    assert np.isfinite(again).all()


@pytest.mark.parametrize("device", ["meta", "cuda:99", "nonsense"])
def test_a_device_that_fails_leaves_the_fitted_model_as_it_was(device, pictures):
    X, y = pictures
    clf = tiny_classifier(memory=False).fit(X, y)
    expected = clf.predict_proba(X)
    clf.set_params(device=device)
    for use in (clf.predict_proba, clf.embed, clf.source_proba):
        with pytest.raises(ValueError, match="device="):
            use(X)
    with pytest.raises(ValueError, match="device="):
        clf.fit(X, y)
    clf.set_params(device="cpu")
    np.testing.assert_array_equal(clf.predict_proba(X), expected)


def test_an_extractor_leaves_the_networks_where_they_are(pictures):
    clf = tiny_classifier().fit(*pictures)
    adapted, source = clf.net_.module_, clf.source_network_
    FeatureExtractor(
        source,
        adapted,
        [-1],
        [-1],
        n_frozen=1,
        device=torch.device("meta"),
        batch_size=16,
    )
    for network in (adapted, source.module):
        assert {v.device.type for v in network.state_dict().values()} == {"cpu"}


def test_a_network_without_weights_is_refused(pictures):
    def build():
        with torch.device("meta"):
            return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5))

    with pytest.raises(ValueError, match="meta device"):
        CNNClassifier(build, image_size=32).fit(*pictures)


def test_generators_of_gpus_are_left_alone(pictures, monkeypatch):
    def touched(*args):
        raise AssertionError("a GPU's generator was used")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", touched)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", touched)
    X, y = pictures
    before = torch.random.get_rng_state()
    CNNClassifier("squeezenet1_1", weights=None, image_size=40).layers()
    with seeded_torch(3):
        drawn = torch.rand(3)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.default_generator.manual_seed(3)
    assert torch.equal(drawn, torch.rand(3))
    torch.random.set_rng_state(before)


def test_a_device_under_another_name_goes_on_as_before(pictures):
    X, y = pictures
    one, other = (tiny_classifier(warm_start=True).fit(X, y) for _ in range(2))
    expected = one.predict_proba(X)
    other.set_params(device="cpu:0")
    np.testing.assert_array_equal(other.predict_proba(X), expected)

    def steps(clf):
        return {float(s["step"]) for s in clf.net_.optimizer_.state.values()}

    (before,) = steps(other)
    other.partial_fit(X, y)
    assert min(steps(other)) > before  # it goes on with its optimizer's state
    np.testing.assert_array_equal(
        other.predict_proba(X), one.partial_fit(X, y).predict_proba(X)
    )
    assert other.torch_device() == torch.device("cpu")
    np.testing.assert_array_equal(
        DropQuery(random_state=0).query(other, X, 4),
        DropQuery(random_state=0).query(one, X, 4),
    )
