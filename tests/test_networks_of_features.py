"""Networks without a classifier in all that an estimator does."""

import pickle

import numpy as np
import pytest
import torch
import torchvision
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from skadma import ActiveLearner, CNNClassifier, SourceCenters
from skadma.adafilter import AdaFilterClassifier
from skadma.features.store import FeatureStore
from skadma.images.dataset import ImageDataset
from skadma.networks import available_backbones
from skadma.networks.adapted import Normalize
from skadma.strategies import ADMA, BADGE, CoreSet, MarginSampling, TypiClust

timm = pytest.importorskip("timm")


def vit(**options):
    """A tiny ViT without a classifier."""
    shape = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 3,
        "num_heads": 2,
    }
    return timm.models.VisionTransformer(num_classes=0, **shape, **options)


def registers():
    return vit(reg_tokens=4, init_values=1e-5, dynamic_img_size=True)


def siglip():
    """Pools by attention, as SigLIP's image tower."""
    return vit(class_token=False, global_pool="map")


def convnext():
    return timm.models.ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), num_classes=0)


def swin():
    return timm.models.SwinTransformer(
        img_size=32, patch_size=2, window_size=4, embed_dim=8, depths=(1, 1),
        num_heads=(2, 2), num_classes=0,
    )  # fmt: skip


def efficientnet():
    return timm.create_model("efficientnet_lite0", num_classes=0)


def resnet():
    network = torchvision.models.resnet18()
    network.fc = nn.Identity()
    return network


class Normed(nn.Module):
    """Drops by a function, in training alone, and gives vectors of length 1."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 5, stride=4)
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        x = nn.functional.dropout(self.conv(x).relu().mean((2, 3)), 0.5, self.training)
        return nn.functional.normalize(self.fc(x))


NETWORKS = [vit, registers, siglip, convnext, swin, efficientnet, resnet, Normed]


def classifier(build, **params):
    defaults = {"image_size": 32, "training": "probe", "random_state": 0}
    return CNNClassifier(build, **{**defaults, **params})


def outputs(build, X, clf):
    """The network's own outputs."""
    source = clf.source_network()
    dataset = ImageDataset(X, source.preprocessing)
    images = torch.stack([dataset[i] for i in range(len(X))])
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = build().eval()
        return network, Normalize(source.preprocessing)(images)


@pytest.mark.parametrize("build", NETWORKS)
def test_the_output_is_layer_minus_2(build, pictures):
    X = pictures[0][:5]
    for clf in (classifier(build), classifier(build).fit(*pictures)):
        found = clf.embed(X, -2)[-2]
        network, x = outputs(build, X, clf)
        with torch.no_grad():
            expected = network(x).numpy()
            np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-4)
            if hasattr(network, "forward_head"):
                plain = network.forward_head(
                    network.forward_features(x), pre_logits=True
                )
                np.testing.assert_allclose(found, plain.numpy(), atol=1e-5, rtol=1e-4)
        names = [row.name for row in clf.layers()]
        assert names[-1] == "new_last_layer"
        assert set(names[:-1]) <= {name for name, _ in network.named_modules()}


@pytest.mark.parametrize("build", NETWORKS)
@pytest.mark.parametrize("training", ["probe", "fine-tune"])
def test_fit_save_load_and_pickle(build, training, pictures, tmp_path):
    X, y = pictures
    clf = classifier(build, training=training, max_epochs=1, memory=False)
    expected = clf.fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(clone(clf).fit(X, y).predict_proba(X), expected)
    clf.save(tmp_path / "model")
    loaded = CNNClassifier.load(tmp_path / "model", backbone=build)
    assert loaded.source_network_.n_classes == 0
    for other in (loaded, pickle.loads(pickle.dumps(clf))):
        np.testing.assert_array_equal(other.predict_proba(X), expected)
        assert other.source_network_.fingerprint == clf.source_network_.fingerprint
    if training == "fine-tune":
        last = clf.n_frozen_
        modules = clf.net_.module_.network
        assert isinstance(modules.get_submodule("new_last_layer"), nn.Linear)
        assert 0 < last < len(clf.layers())
        before = clf.source_network_.module.state_dict()
        after = modules.state_dict()
        changed = {k for k in before if not torch.equal(before[k], after[k])}
        names = [row.name for row in clf.layers()[:last]]
        assert not any(k.startswith(f"{n}.") for k in changed for n in names)
        assert len(changed) > 2


def test_dropout_by_a_function_drops_in_training_alone(pictures):
    X, y = pictures
    one, other = (
        classifier(Normed, training="fine-tune", n_frozen_layers=0, random_state=seed,
                   max_epochs=1).fit(X, y)
        for seed in (0, 1)
    )  # fmt: skip
    network = one.net_.module_.network
    x = torch.rand(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(x), network(x))
        network.train()
        assert not torch.equal(network(x), network(x))
    conv = "network.conv.weight"
    states = [clf.net_.module_.state_dict()[conv] for clf in (one, other)]
    assert not torch.equal(*states)


@pytest.mark.parametrize("build", [vit, resnet])
def test_what_goes_on(build, pictures):
    X, y = pictures
    clf = classifier(build, training="fine-tune", warm_start=True, max_epochs=1)
    clf.fit(X[:12], y[:12]).fit(X, y).partial_fit(X, y)
    assert clf.predict(X).shape == y.shape
    grid = GridSearchCV(classifier(build), {"n_frozen_layers": [1, "paper"]}, cv=2).fit(
        X, y
    )
    assert np.isfinite(grid.cv_results_["mean_test_score"]).all()
    wide = classifier(build, augment="crop_flip", training="fine-tune", max_epochs=1)
    assert np.isfinite(wide.fit(X, y).predict_proba(X)).all()
    several = np.stack([y == 0, y > 0], axis=1).astype(int)
    assert classifier(build).fit(X, several).predict(X).shape == (len(X), 2)


@pytest.mark.parametrize("build", [vit, resnet, Normed])
def test_strategies_and_stores(build, pictures, tmp_path):
    X, y = pictures
    clf = classifier(build).fit(X[:12], y[:12])
    for kind in (MarginSampling, CoreSet, TypiClust, BADGE):
        for estimator in (clf, classifier(build)):
            chosen = kind(random_state=0).query(estimator, X, 4)
            assert len(set(chosen.tolist())) == 4
    store = FeatureStore.build(clf, X, tmp_path / "store", layer=-2, dtype="float32")
    np.testing.assert_array_equal(
        CoreSet(random_state=0).query(clf, store, 4),
        CoreSet(random_state=0).query(clf, X, 4),
    )
    learner = ActiveLearner(
        classifier(build), MarginSampling(), n_rounds=2, n_instances=4, random_state=0
    ).fit(X, y)
    assert learner.labeled_.sum() == 8


def test_a_gated_network(pictures):
    X, y = pictures
    clf = AdaFilterClassifier(resnet, image_size=32, max_epochs=1, random_state=0)
    expected = clf.fit(X, y).predict_proba(X)
    again = pickle.loads(pickle.dumps(clf)).predict_proba(X)
    np.testing.assert_array_equal(again, expected)
    assert min(clf.gate_usage(X).values()) >= 0


@pytest.mark.parametrize("fitted", [False, True])
def test_there_are_no_source_classes(fitted, pictures):
    X, y = pictures
    clf = classifier(resnet)
    clf = clf.fit(X, y) if fitted else clf
    centers = SourceCenters.from_examples(clf, X, y)
    assert len(centers) == len(set(y))
    uses = {
        "source_proba": lambda: clf.source_proba(X),
        "SourceCenters.synthesize": lambda: SourceCenters.synthesize(clf),
        r"ADMA\(weights='predict'\)": lambda: ADMA(centers).query(clf, X, 3),
        "ADMA": lambda: ADMA().query(clf, X, 3),
        "n_centers=2": lambda: SourceCenters.from_dataset(clf, X, y, n_centers=2),
        "source_accuracy": lambda: centers.source_accuracy(clf),
    }
    if not fitted:
        uses["its last layer before fit"] = lambda: clf.embed(X, -1)
    for what, use in uses.items():
        with pytest.raises(
            ValueError,
            match=f"resnet gives features.*{what}.*weights='distance'.*from_ex",
        ):
            use()
    chosen = ADMA(centers, weights="distance", random_state=0).query(clf, X, 3)
    assert len(set(chosen.tolist())) == 3
    names = np.array(["a", "b", "c"])[y]
    named = SourceCenters.from_dataset(clf, X, names)
    np.testing.assert_array_equal(named.inputs, centers.inputs)
    several = ADMA(centers, layer_a=(-4, -3), random_state=0).query(clf, X, 3)
    assert len(several) == 3


def test_layers_of_a_network_of_features(pictures, monkeypatch):
    X, y = pictures
    monkeypatch.setattr(
        "skadma.networks.registry._BUILDERS", {"mine": small}, raising=True
    )
    assert "mine" in available_backbones()
    clf = CNNClassifier("layers/mine", weights=None, training="probe").fit(X, y)
    assert clf.source_network_.n_classes == 0
    assert clf.embed(X, -2)[-2].shape[1] > 16
    with pytest.raises(ValueError, match="no scores of source classes"):
        clf.source_proba(X)


def small(name, weights):
    from skadma.images.dataset import Preprocessing
    from skadma.networks.registry import Backbone

    convs = [nn.Conv2d(3 if i == 0 else 8, 8, 3) for i in range(6)]
    end = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(8)
    network = nn.Sequential(*convs, nn.ReLU(), *end)
    return Backbone(name, network, Preprocessing(32, 32), None, None)


def test_weights_of_a_file(pictures, tmp_path):
    X, y = pictures
    network = resnet()
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    clf = classifier(resnet, weights=tmp_path / "weights.pth").fit(X, y)
    found = clf.source_network_.module.conv1.weight
    assert torch.equal(found, network.conv1.weight)


@pytest.mark.parametrize(
    ("name", "n_classes"),
    [("resnet18", 1000), ("test_vit", 1000), ("resnet10t", 1000)],
)
def test_names_of_timm_with_a_classifier(name, n_classes):
    clf = CNNClassifier(f"timm/{name}", weights=None, image_size=None)
    assert clf.source_network().n_classes == n_classes


def test_names_of_timm_without_a_classifier(pictures, monkeypatch):
    """DINOv2 and SigLIP have none, CLIP a projection: here with tiny layers."""
    X, y = pictures
    create = timm.create_model
    tiny = {"img_size": 28, "embed_dim": 24, "depth": 2, "num_heads": 2}
    monkeypatch.setattr(
        timm, "create_model", lambda name, **options: create(name, **tiny, **options)
    )
    for name, size, width in (
        ("vit_small_patch14_dinov2", 28, 24),
        ("vit_small_patch14_reg4_dinov2", 28, 24),
        ("vit_base_patch16_siglip_224", 32, 24),
        ("vit_medium_patch16_clip_224.tinyclip_yfcc15m", 32, 512),
        ("vit_base_patch16_clip_224.openai_ft_in1k", 32, None),
    ):
        tiny["img_size"] = size
        clf = CNNClassifier(
            f"timm/{name}", weights=None, image_size=size, training="probe"
        ).fit(X, y)
        if width is None:
            assert clf.source_network_.n_classes == 1000
        else:
            assert clf.source_network_.n_classes == 0
            assert clf.embed(X, -2)[-2].shape == (len(X), width)
