"""AdaFilterClassifier as an estimator, and the usage of its gates."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from skadma import ActiveLearner, AdaFilterClassifier, CNNClassifier, SourceCenters
from skadma.plotting import GateUsageDisplay
from skadma.strategies import (
    ADMA,
    AIFT,
    BADGE,
    BALD,
    CEAL,
    ClusterMargin,
    CoreSet,
    DropQuery,
    MarginSampling,
    ProbCover,
    RandomSampling,
    TypiClust,
)

from .gated import set_gates, tiny

# --- as an estimator ------------------------------------------------------------------


def test_parameters_are_those_of_cnnclassifier(pictures):
    ours, theirs = AdaFilterClassifier().get_params(), CNNClassifier().get_params()
    assert ours == theirs
    with pytest.raises(ValueError, match="'training' parameter"):
        tiny(training="probe").fit(*pictures)


def test_same_seed_same_result(pictures):
    X, y = pictures
    clf = tiny(max_epochs=4).fit(X, y)
    first = clf.predict_proba(X)
    np.testing.assert_array_equal(clone(clf).fit(X, y).predict_proba(X), first)
    loaded = pickle.loads(pickle.dumps(clf))
    for each in (clf, loaded):
        each.partial_fit(X[:8], y[:8])
    np.testing.assert_array_equal(loaded.predict_proba(X), clf.predict_proba(X))


def test_learns_and_goes_on_with_new_classes(pictures):
    X, y = pictures
    two = y < 2
    clf = tiny(max_epochs=30, warm_start=True).fit(X[two], y[two])
    before = clf.predict_proba(X[two])
    clf.set_params(max_epochs=0).fit(X, y)
    after = clf.predict_proba(X[two])[:, :2]
    np.testing.assert_allclose(after / after.sum(1, keepdims=True), before, atol=1e-5)
    clf.net_.module_(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    clf.set_params(max_epochs=30).fit(X, y)
    assert clf.score(X, y) > 0.9
    assert clf.net_.module_(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).shape[1] == 3


def test_a_failed_fit_loses_nothing(pictures):
    X, y = pictures
    clf = tiny(warm_start=True).fit(X, y)
    before = clf.predict_proba(X), clf.gate_usage(X)
    with pytest.raises(ValueError, match="NaN"):
        clf.fit(np.full((24, 8, 8), np.nan), y)

    class Stop(nn.CrossEntropyLoss):
        def forward(self, *args):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        clone(clf).set_params(criterion=Stop).fit(X, y)
    with pytest.raises(RuntimeError, match="stop"):
        clf.set_params(criterion=Stop).fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(X), before[0])
    assert clf.gate_usage(X) == before[1]


def test_needs_a_convolution_to_adapt(pictures):
    X, y = pictures
    with pytest.raises(ValueError, match="no convolution between its 3 frozen layers"):
        tiny(n_frozen_layers=3).fit(X, y)

    def only_a_head():
        layers = nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        return nn.Sequential(*layers)

    with pytest.raises(ValueError, match="take CNNClassifier"):
        tiny(only_a_head, n_frozen_layers=0).fit(X, y)


@pytest.mark.parametrize(
    "strategy",
    [
        RandomSampling(),
        MarginSampling(),
        AIFT(),
        BADGE(),
        BALD(),
        CEAL(),
        ClusterMargin(),
        CoreSet(),
        DropQuery(),
        ProbCover(),
        TypiClust(),
        "ADMA",
        "ADMA-2",
    ],
    ids=str,
)
def test_in_active_learner(strategy, pictures):
    X, y = pictures
    clf = tiny(max_epochs=3, n_frozen_layers=1)
    if isinstance(strategy, str):
        centers = SourceCenters.from_dataset(clf, X[:10], np.arange(10) % 5)
        layer_a = -4 if strategy == "ADMA" else (-4, -5)
        strategy = ADMA(centers, layer_a=layer_a)
    runs = []
    for _ in range(2):
        learner = ActiveLearner(
            clf, strategy, n_rounds=3, n_instances=4, random_state=0
        ).fit(X, y)
        assert learner.labeled_.sum() == 12
        runs.append((np.stack(learner.queried_indices_), learner.predict_proba(X)))
    for first, second in zip(*runs, strict=True):
        np.testing.assert_array_equal(first, second)
    assert isinstance(learner.estimator_, AdaFilterClassifier)


def test_real_network_learns_real_task(data_dir):
    files = [
        path
        for label in ("cat", "dog")
        for path in sorted((data_dir / "dogs-vs-cats" / label).glob("*.jpg"))[:40]
    ]
    y = np.array([path.parent.name for path in files])
    train = np.arange(80) % 4 == 0
    files = np.array([str(path) for path in files])
    clf = AdaFilterClassifier(
        "efficientnet_lite0",
        image_size=128,
        n_frozen_layers=-6,
        max_epochs=6,
        random_state=0,
    ).fit(files[train], y[train])
    assert clf.score(files[~train], y[~train]) > 0.85
    usage = clf.gate_usage(files[~train])
    assert list(usage) == list(clf.net_.module_.gated_layers)
    assert all(0 <= share <= 1 for share in usage.values())


# --- gate usage -----------------------------------------------------------------------


def test_gate_usage_counts_filters_of_images(tmp_path, pictures):
    X, y = pictures
    clf = tiny(max_epochs=0).fit(X, y)
    set_gates(clf, False)
    with torch.no_grad():
        for i, output in enumerate(clf.net_.module_.branch.gates.outputs):
            output.bias[: i + 1] = 100
    usage = clf.gate_usage(X[:5])
    layers = {"conv1": 12, "conv2": 12, "squeeze": 4, "excite": 12, "shortcut": 12}
    assert list(usage) == list(layers)
    shares = [(i + 1) / n for i, n in enumerate(layers.values())]
    np.testing.assert_allclose(list(usage.values()), shares)
    bad = tmp_path / "0.png"
    bad.write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"0\.png"):
        clf.gate_usage([bad])
    clf.set_params(on_bad_image="skip")
    with (
        pytest.warns(UserWarning, match="unreadable"),
        pytest.raises(ValueError, match="None of the images"),
    ):
        clf.gate_usage([bad])


def test_display(pictures):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    X, y = pictures
    clf = tiny().fit(X, y)
    display = GateUsageDisplay.from_estimator(clf, X)
    usage = clf.gate_usage(X)
    assert display.usage == usage
    assert [bar.get_width() for bar in display.bars_] == list(usage.values())
    assert [text.get_text() for text in display.ax_.get_yticklabels()] == list(usage)
    pyplot.close(display.figure_)
    figure, ax = pyplot.subplots()
    assert display.plot(ax=ax).figure_ is figure
    pyplot.close(figure)


def test_matplotlib_comes_only_when_drawing():
    code = "import sys, skadma.plotting; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_papers_setup_gates_every_convolution():
    X = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    clf = AdaFilterClassifier(
        "resnet18", weights=None, n_frozen_layers=0, image_size=32, max_epochs=1
    ).fit(X, [0, 1, 0, 1])
    modules = clf.source_network().module.named_modules()
    convolutions = {name for name, m in modules if isinstance(m, nn.Conv2d)}
    assert len(convolutions) == 20
    assert set(clf.gate_usage(X)) == convolutions
