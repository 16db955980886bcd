"""AIFT against patches one by one, and the windows of its patches."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from skadma.features.adapter import cnn_adapter
from skadma.features.cache import MemoryCache
from skadma.images.patches import n_distinct, random_windows
from skadma.strategies import AIFT
from skadma.strategies._aift import patch_score

from .conftest import tiny_classifier


class FixedSize(nn.Module):
    """Its Linear layer takes maps of one size only."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.conv = nn.Conv2d(6, 6, 3, 2, 1)
        self.hidden = nn.Linear(384, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = torch.relu(self.conv(torch.relu(self.stem(x))))
        return self.head(torch.relu(self.hidden(x.flatten(1))))


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("alpha", [0.25, 0.5, 1.0])
def test_aift_is_the_literal_sum(n_classes, alpha):
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(n_classes), size=(7, 8))
    expected = []
    for p in proba:
        dominant = p.mean(axis=0).argmax()
        p = p[np.argsort(-p[:, dominant], kind="stable")][: math.ceil(alpha * 8)]
        total = 0.0
        for j, m in itertools.product(range(len(p)), repeat=2):
            if j == m:
                total -= sum(q * math.log(q) for q in p[j])
            else:
                total += sum(
                    (a - b) * math.log(a / b) for a, b in zip(p[j], p[m], strict=True)
                )
        expected.append(total)
    np.testing.assert_allclose(patch_score(proba, alpha), expected)


def literal_aift(clf, X, windows, n_layers, alpha):
    """Patch by patch: cut the map, run the rest, add the matrix up (Eq. 3-5)."""
    source, network = clf.source_network_, clf.net_.module_
    cut = source.graph.cut_before(n_layers - 1)
    rest = source.graph.extract(network.network, [source.graph.output], cut)
    first = source.graph.extract(source.module, [cut]) if n_layers else None
    dataset, total = cnn_adapter(clf).image_dataset(X), []
    for i in range(len(dataset)):
        p = []
        with torch.no_grad():
            maps = network.normalize(dataset[i][None])
            maps = first(maps)[0] if first else maps
            for w in windows:
                part = maps[:, :, w.top : w.top + w.height, w.left : w.left + w.width]
                p.append(torch.softmax(rest(part)[0][0].double(), 0).numpy())
        dominant = np.mean(p, axis=0).argmax()
        p = sorted(p, key=lambda q: -q[dominant])[: math.ceil(alpha * len(p))]
        entropy = sum(-(q * np.log(q)).sum() for q in p)
        pairs = [(q, r) for a, q in enumerate(p) for b, r in enumerate(p) if a != b]
        total.append(entropy + sum(((q - r) * np.log(q / r)).sum() for q, r in pairs))
    return total


@pytest.mark.parametrize("n_frozen", [0, 2, 3])
def test_aift_against_patches_one_by_one(n_frozen, pictures):
    X, y = pictures
    clf = tiny_classifier(n_frozen_layers=n_frozen, max_epochs=3).fit(X[:9], y[:9])
    strategy = AIFT(random_state=5)
    n_layers, shape = clf.source_network_.deepest_map(n_frozen, 16)
    windows = random_windows(*shape, 16, np.random.default_rng(5))
    assert len(set(windows)) == 16
    np.testing.assert_allclose(
        strategy.score(clf, X).total,
        literal_aift(clf, X, windows, n_layers, strategy.alpha),
        rtol=1e-4,
    )


def test_aift_repeats_nothing_between_rounds(pictures):
    X, y = pictures
    cache = MemoryCache(10**8)
    clf = tiny_classifier(n_frozen_layers=2, memory=cache).fit(X[:9], y[:9])
    first = AIFT(random_state=0).score(clf, X).total
    kept = cache.nbytes
    clf.source_network_._subgraphs.clear()
    for module in clf.source_network_.module.modules():  # the frozen layers' copies
        for parameter in module.parameters(recurse=False):
            parameter.data.fill_(float("nan"))
    np.testing.assert_array_equal(AIFT(random_state=0).score(clf, X).total, first)
    assert cache.nbytes == kept


def test_aift_enlarges_patches_for_networks_of_one_size(pictures):
    X, y = pictures
    clf = (
        tiny_classifier(n_frozen_layers=1)
        .set_params(backbone=FixedSize)
        .fit(X[:9], y[:9])
    )
    total = AIFT(random_state=0).score(clf, X).total
    assert np.isfinite(total).all()
    assert len(np.unique(total.round(6))) > 10


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 4), (7, 5), (28, 28)])
def test_windows_lie_inside_and_differ(height, width):
    n_all = n_distinct(height, width)
    windows = random_windows(height, width, min(n_all, 16), np.random.default_rng(0))
    assert len(set(windows)) == len(windows)
    for w in windows:
        assert w.top >= 0
        assert w.top + w.height <= height
        assert w.left >= 0
        assert w.left + w.width <= width
        assert height / 2 <= w.height <= math.ceil(height / 2) + 1
        assert width / 2 <= w.width <= math.ceil(width / 2) + 1
    if (height // 2 + 1) * (width // 2 + 1) >= len(windows):  # enough of exactly half
        assert {w.height for w in windows} == {math.ceil(height / 2)}
        assert {w.width for w in windows} == {math.ceil(width / 2)}
    every = set(random_windows(height, width, n_all, np.random.default_rng(1)))
    assert len(every) == n_all
    assert len(random_windows(height, width, n_all + 1, np.random.default_rng(2)))


def test_aift_of_certain_patches_is_zero():
    proba = np.zeros((1, 4, 3))
    proba[..., 1] = 1
    assert patch_score(proba, 0.5).tolist() == [0]


def test_aift_follows_its_seed(pictures):
    X, y = pictures
    clf = tiny_classifier(max_epochs=3).fit(X, y)
    first = AIFT(random_state=0).score(clf, X).total
    np.testing.assert_array_equal(AIFT(random_state=0).score(clf, X).total, first)
    assert not np.array_equal(AIFT(random_state=1).score(clf, X).total, first)
