"""The pretrained network by other engines and in bfloat16; names of caches."""

import pickle
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from skadma import CNNClassifier
from skadma.features.cache import MemoryCache
from skadma.networks.engines import ENGINES, PRECISIONS, Engine
from skadma.strategies import MarginSampling

from .conftest import TinyCNN, lite0, tiny_classifier

CASES = [
    pytest.param({"engine": engine, "precision": precision}, id=f"{engine}-{precision}")
    for engine in ENGINES
    for precision in PRECISIONS
    if (engine, precision) != ("torch", "float32")
]


@pytest.fixture(autouse=True)
def _is_there(request):
    case = getattr(request.node, "callspec", None)
    if case is None or case.params.get("case", {}).get("engine") != "openvino":
        return
    openvino = pytest.importorskip("openvino")
    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if case.params["case"]["precision"] == "bfloat16" and "BF16" not in able:
        pytest.skip("this processor has no bfloat16")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layer", [-2, 2])
def test_outputs_are_those_of_torch(case, layer, elpv):
    X, y = elpv[0][:40], elpv[1][:40]
    plain, other = lite0(), lite0(**case)
    expected, found = (clf.embed(X, layer)[layer] for clf in (plain, other))
    off = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    least, most = (1e-4, 0.1) if case["precision"] == "bfloat16" else (0, 1e-5)
    assert least <= off <= most
    probas = [clf.fit(X[:20], y[:20]).predict_proba(X) for clf in (plain, other)]
    np.testing.assert_allclose(*probas, atol=10 * most)
    if case["precision"] == "bfloat16":  # the frozen layers are run by it as well
        assert not np.array_equal(*probas)


@pytest.mark.parametrize("case", CASES)
def test_the_same_with_and_without_a_cache(case, elpv):
    """Up to float32's rounding, which may depend on a row's place in its batch."""
    X, y = elpv
    clf = lite0(**case, memory=False, training="probe").fit(X[:20], y[:20])
    kept = clone(clf).set_params(memory=MemoryCache()).fit(X[:20], y[:20])
    kept.predict_proba(X[::-3])
    expected = clf.predict_proba(X)
    np.testing.assert_allclose(kept.predict_proba(X), expected, atol=1e-6)
    np.testing.assert_allclose(clf.predict_proba(X[50:]), expected[50:], atol=1e-6)
    chosen = [MarginSampling(random_state=0).query(c, X, 9) for c in (clf, kept)]
    np.testing.assert_array_equal(*chosen)


@pytest.mark.parametrize("case", CASES)
def test_cache_entries_and_saved_models_name_the_engine(case, pictures, tmp_path):
    X, y = pictures
    memory = MemoryCache()
    plain = tiny_classifier(memory=memory).fit(X, y)
    clf = tiny_classifier(memory=memory, **case).fit(X, y)
    sources = plain.source_network_, clf.source_network_
    assert sources[0].fingerprint == sources[1].fingerprint
    assert sources[0].namespace != sources[1].namespace
    expected = clf.predict_proba(X)
    clf.save(tmp_path / "model")
    loaded = CNNClassifier.load(tmp_path / "model", backbone=TinyCNN)
    for again in (loaded, pickle.loads(pickle.dumps(clf))):
        assert again.source_network_.engine == Engine(*case.values())
        again.set_params(memory=False)
        np.testing.assert_array_equal(again.predict_proba(X), expected)


@pytest.mark.parametrize("case", CASES)
def test_maps_of_any_size_and_number(case):
    compiled, plain = (
        network.inference_subgraph(
            [network.graph.layers[1].output], None, torch.device("cpu")
        )
        for network in (
            tiny_classifier(**case).source_network(),
            tiny_classifier().source_network(),
        )
    )
    most = 1e-2 if case["precision"] == "bfloat16" else 1e-5
    for n, height in ((1, 32), (5, 32), (3, 48), (0, 32)):
        x = torch.rand(n, 3, height, 32)
        with torch.inference_mode():
            (found,), (expected,) = compiled(x), plain(x)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, atol=most, rtol=0)


class _Numbered(nn.Module):
    """Multiplies each image by its number in the batch."""

    def forward(self, x):
        return x * (1 + torch.arange(int(x.shape[0])))[:, None, None, None]


class _NumberedCNN(TinyCNN):
    def __init__(self):
        super().__init__()
        self.numbered = _Numbered()

    def forward(self, x):
        return super().forward(self.numbered(x))


@pytest.mark.parametrize("case", CASES[1:2])
def test_wrong_outputs_of_openvino_are_refused(case, pictures):
    clf = CNNClassifier(_NumberedCNN, image_size=32, **case)
    with pytest.raises(ValueError, match="take engine='torch'"):
        clf.embed(pictures[0], 0)


def test_errors_name_the_alternative(pictures, monkeypatch):
    X, y = pictures
    with pytest.raises(ValueError, match=r"'openvino'.*Got 'onnx'"):
        tiny_classifier(engine="onnx").fit(X, y)
    with pytest.raises(ValueError, match=r"'bfloat16'.*Got 'int8'"):
        tiny_classifier(precision="int8").fit(X, y)
    with pytest.raises(ValueError, match="device is 'cuda'"):
        Engine("openvino").compile(nn.Identity(), torch.device("cuda"))
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r"pip install skadma\[openvino\]"):
        tiny_classifier(engine="openvino").fit(X, y)
