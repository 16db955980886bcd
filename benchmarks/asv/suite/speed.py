"""What takes time in skadma, a class each, for a comparison of commits by asv.

A time is read beside that of another function of the same run: SciPy's tau beside ours,
a scan beside the queries that need none.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import scipy.stats
import torch
from sklearn.datasets import load_sample_images

from skadma import CNNClassifier, ProbeClassifier, SourceCenters
from skadma.features.store import FeatureStore
from skadma.strategies import ADMA, UncertaintyHerding
from skadma.strategies.adma import kendall_tau

N_IMAGES = 200
N_LABELS = 40


def photographs():
    """Cut pieces (200, 200, 200, 3), uint8, of two photographs, and say of which."""
    rng = np.random.default_rng(0)
    whole = load_sample_images().images
    y = np.arange(N_IMAGES) % 2
    corners = rng.integers(0, [227, 440], (N_IMAGES, 2))
    pieces = zip(y, corners, strict=True)
    cut = [whole[k][i : i + 200, j : j + 200] for k, (i, j) in pieces]
    return np.stack(cut), y


def network(**changed):
    """Build EfficientNet-Lite0 with its ImageNet weights at 128 pixels."""
    settings = {"image_size": 128, "max_epochs": 2, "random_state": 0, **changed}
    return CNNClassifier("efficientnet_lite0", **settings)


class Kendall:
    """Kendall's tau-b of the rows of two matrices of 512 rows."""

    params = (10, 1000)
    param_names = ("values",)

    def setup(self, n_values):
        rng = np.random.default_rng(0)
        a = rng.normal(size=(512, n_values))
        self.arrays = a, a + rng.normal(size=a.shape)
        self.tensors = [torch.from_numpy(each) for each in self.arrays]

    def time_kendall_tau(self, n_values):
        kendall_tau(*self.tensors)

    def time_scipy(self, n_values):
        for a, b in zip(*self.arrays, strict=True):
            scipy.stats.kendalltau(a, b)


class Scan:
    """Outputs of all frozen layers of 200 photographs, and nothing kept of them."""

    def setup(self):
        self.X, y = photographs()
        classifier = network(memory=False)
        self.classifier = classifier.fit(self.X[:N_LABELS], y[:N_LABELS])

    def time_predict_proba(self):
        self.classifier.predict_proba(self.X)

    def peakmem_predict_proba(self):
        self.classifier.predict_proba(self.X)


class Query:
    """The next 20 images of 160, whose frozen layers' outputs are kept."""

    params = ("ADMA", "UncertaintyHerding")
    param_names = ("strategy",)

    def setup(self, strategy):
        X, y = photographs()
        self.classifier = network().fit(X[:N_LABELS], y[:N_LABELS])
        self.pool = X[N_LABELS:]
        rng = np.random.default_rng(0)
        noise = rng.integers(0, 255, (20, 64, 64, 3), dtype=np.uint8)
        centers = SourceCenters.from_dataset(self.classifier, noise, np.arange(20))
        self.strategy = {
            "ADMA": ADMA(centers), "UncertaintyHerding": UncertaintyHerding()
        }[strategy]  # fmt: skip
        self.time_query(strategy)

    def time_query(self, strategy):
        self.strategy.query(self.classifier, self.pool, n_instances=20)


class Probe:
    """A closed-form fit on 1,280 numbers an image; predictions of 2,000."""

    params = (20, 640)
    param_names = ("labels",)

    def setup(self, n_labels):
        rng = np.random.default_rng(0)
        self.y = rng.integers(0, 10, 2000)
        means = rng.normal(size=(10, 1280))
        self.X = rng.normal(size=(2000, 1280)) + means[self.y]
        self.n = n_labels
        self.time_fit(n_labels)

    def time_fit(self, n_labels):
        self.classifier = ProbeClassifier().fit(self.X[: self.n], self.y[: self.n])

    def time_predict_proba(self, n_labels):
        self.classifier.predict_proba(self.X)


class Store:
    """Outputs of the network for 200 photographs on the disk: made, and read."""

    def setup(self):
        self.folder = Path(tempfile.mkdtemp())
        self.X, y = photographs()
        self.classifier = network(memory=False).fit(self.X[:N_LABELS], y[:N_LABELS])
        self.store = FeatureStore.build(self.classifier, self.X, self.folder / "read")

    def time_build(self):
        FeatureStore.build(self.classifier, self.X, self.folder / "built")
        shutil.rmtree(self.folder / "built")

    def time_predict_proba(self):
        self.classifier.predict_proba(self.store)

    def teardown(self):
        shutil.rmtree(self.folder)
