"""Networks that cannot be traced, of tokens, and of transformers, with their images."""

import csv
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from torch import nn

from skadma import ActiveLearner, Campaign, CNNClassifier
from skadma.features.store import FeatureStore
from skadma.images.dataset import ImageDataset
from skadma.labelling import predict_files
from skadma.networks.adapted import Normalize
from skadma.networks.heads import append_feature_blocks, token_blocks
from skadma.networks.pretrained import load_pretrained
from skadma.persistence import ModelError
from skadma.strategies import AIFT, BADGE, CoreSet, MarginSampling, UncertaintyHerding

timm = pytest.importorskip("timm")


class ByValue(nn.Module):
    """Branches on a value."""

    def __init__(self, n_outputs=1):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.n_outputs = n_outputs

    def forward(self, x):
        x = self.conv(x).relu().mean((2, 3))
        x = 2 * x if x.sum() > 0 else x
        return x if self.n_outputs == 1 else (x,) * self.n_outputs


def scripted():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.Flatten()
    return torch.jit.script(nn.Sequential(*layers, nn.Dropout(0.5)).eval())


def classifier(backbone, **params):
    defaults = {"image_size": 32, "training": "probe", "random_state": 0}
    return CNNClassifier(backbone, **{**defaults, **params})


OF_SCRIPTS = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")


@OF_SCRIPTS
@pytest.mark.parametrize("training", ["probe", "fine-tune"])
@pytest.mark.parametrize("build", [ByValue, scripted])
def test_a_network_that_cannot_be_traced(build, training, pictures, tmp_path):
    X, y = pictures
    clf = classifier(build, training=training, max_epochs=2, memory=False).fit(X, y)
    proba = clf.predict_proba(X)
    np.testing.assert_array_equal(clone(clf).fit(X, y).predict_proba(X), proba)
    clf.save(tmp_path / "model")
    loaded = CNNClassifier.load(tmp_path / "model", backbone=build)
    for other in (loaded, pickle.loads(pickle.dumps(clf))):
        np.testing.assert_array_equal(other.predict_proba(X), proba)
    before, after = clf.source_network_.module, clf.net_.module_.network
    for name, value in before.state_dict().items():
        is_new = name.startswith("new_last_layer")
        assert is_new or torch.equal(value, after.state_dict()[name])
    source = clf.source_network_
    images = torch.stack([*ImageDataset(X, source.preprocessing)])
    with torch.no_grad():
        features = source.module.network.module(Normalize(source.preprocessing)(images))
    np.testing.assert_allclose(clf.embed(X, -2)[-2], features, atol=1e-6)
    assert [row.name for row in clf.layers()] == ["network", "new_last_layer"]
    assert clf.layers()[0].frozen
    for strategy in (MarginSampling(), CoreSet(), BADGE(random_state=0)):
        assert len({*strategy.query(clf, X, 4).tolist()}) == 4
    learner = ActiveLearner(clf, MarginSampling(), n_rounds=2, n_instances=5)
    assert len(np.concatenate(learner.fit(X, y).queried_indices_)) == 10


@OF_SCRIPTS
def test_two_scripts_with_equal_weights_are_two_networks():
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x).mean((2, 3))

    def build(kind):
        torch.manual_seed(0)
        module = kind(3, 4, 3)
        return torch.jit.trace(module.eval(), torch.zeros(1, 3, 32, 32))

    one, other = (
        load_pretrained(lambda kind=kind: build(kind), None, 32, source_classes=False)
        for kind in (Doubled, type("Tripled", (Doubled,), {
            "forward": lambda self, x: 3 * nn.Conv2d.forward(self, x).mean((2, 3))
        }))
    )  # fmt: skip
    assert one.fingerprint == other.fingerprint
    assert one.namespace != other.namespace


def test_what_a_network_without_layers_cannot(pictures):
    X, y = pictures
    for params, what in (
        ({"n_frozen_layers": 0, "training": "fine-tune"}, "used as a whole"),
        ({"source_classes": True}, "cannot be traced"),
    ):
        with pytest.raises(ValueError, match=what):
            classifier(ByValue, **params).fit(X, y)
    with pytest.raises(ValueError, match="tuple instead of one tensor"):
        classifier(lambda: ByValue(2)).fit(X, y)


# --- tokens ---------------------------------------------------------------------------


def vit(kind=timm.models.VisionTransformer, **options):
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 12}
    return kind(**shape, num_heads=2, **options)


TOKENS = {
    "vit": (lambda: vit(num_classes=7), True, 1),
    "registers": (lambda: vit(num_classes=0, reg_tokens=4), True, 5),
    "siglip": (
        lambda: vit(num_classes=0, class_token=False, global_pool="map"), False, 0,
    ),
    # Its class token comes after the blocks.
    "cait": (lambda: vit(timm.models.Cait, num_classes=0), False, 0),
}  # fmt: skip


@pytest.mark.parametrize("name", TOKENS)
def test_layers_are_blocks_of_tokens(name):
    """Class token, mean and deviation of the patches of four blocks, by hooks."""
    build, has_class_token, n_prefix = TOKENS[name]
    source = load_pretrained(build, None, 32)
    found = token_blocks(source.module, source.graph)
    assert [tap[2:] for tap in found] == [(n_prefix, has_class_token)] * 4
    module = source.module
    blocks, kept = getattr(module, "_network", module).blocks, []
    hooks = [
        blocks[i].register_forward_hook(lambda *args: kept.append(args[2]))
        for i in (4, 6, 7, 9)  # of 12: at 0.44, 0.56, 0.68 and 0.8
    ]
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    subgraph = source.graph.extract(module, [tap[0] for tap in found])
    with torch.no_grad():
        values = subgraph(x)
        module(x)
    for hook in hooks:
        hook.remove()
    assert len(values) == 4
    for value in values:
        assert any(torch.allclose(value, other, atol=1e-5) for other in kept)
    last = torch.randn(2, 24, generator=torch.Generator().manual_seed(1))
    outputs = [(v, *tap[1:]) for v, tap in zip(values, found, strict=True)]
    blocks = append_feature_blocks(last, outputs).split([24, *[
        24 * (2 + has_class_token)] * 4
    ], dim=1)  # fmt: skip
    for value, block in zip(values, blocks[1:], strict=True):
        patches = value[:, n_prefix:]
        parts = [patches.mean(1), patches.std(1, correction=0)]
        expected = torch.cat([value[:, 0], *parts] if has_class_token else parts, 1)
        expected *= last.norm(dim=1, keepdim=True) / 2**0.5
        expected /= torch.cat([value[:, 0], *parts] if has_class_token else parts,
                              1).norm(dim=1, keepdim=True)  # fmt: skip
        torch.testing.assert_close(block, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size"),
    [("vit_tiny_patch16_224", 64), ("test_vit", 64),
     ("swin_tiny_patch4_window7_224", 64), ("resnet50_clip", 64)],
)  # fmt: skip
def test_timms_names_with_another_size(name, size, pictures, tmp_path):
    X, y = pictures
    params = {"weights": None, "image_size": size, "memory": False}
    clf = classifier(f"layers/timm/{name}", **params).fit(X[:12], y[:12])
    proba = clf.predict_proba(X[:5])
    clf.save(tmp_path / "model")
    loaded = CNNClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(X[:5]), proba)


def test_positions_are_brought_to_the_size(tmp_path):
    """Weights of one size, loaded for another, as timm does it."""
    torch.manual_seed(0)
    own = timm.create_model("test_vit")
    torch.save(own.state_dict(), tmp_path / "weights.pth")
    source = load_pretrained("timm/test_vit", tmp_path / "weights.pth", 96)
    own.set_input_size(96)
    x = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(source.module(x), own.eval()(x))


# --- preprocessing --------------------------------------------------------------------


def picture(height, width):
    random = np.random.default_rng(height)
    small = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


SIZES = [(200, 300), (301, 173), (224, 224), (64, 50)]


@pytest.mark.parametrize(
    "name",
    ["resnet18", "vit_base_patch16_siglip_224", "vit_small_patch14_dinov2",
     "efficientnet_b0", "convnext_atto", "resnet50_clip"],
)  # fmt: skip
@pytest.mark.parametrize("crop_mode", [None, "squash"])
def test_timms_own_pipeline_to_the_bit(name, crop_mode, monkeypatch):
    config = timm.data.resolve_data_config(
        {}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict()
    )
    if crop_mode:
        config["crop_mode"] = crop_mode
    network = nn.Linear(2, 2)
    network.pretrained_cfg, network.num_classes = {}, 2
    monkeypatch.setattr(timm, "create_model", lambda *args, **options: network)
    monkeypatch.setattr(timm.data, "resolve_model_data_config", lambda model: config)
    from skadma.networks.registry import build_backbone

    config["crop_mode"], own = "border", config["crop_mode"]
    with pytest.raises(ValueError, match="crop_mode='border'.*callable"):
        build_backbone(f"timm/{name}", None)
    config["crop_mode"] = own
    preprocessing = build_backbone(f"timm/{name}", None).preprocessing
    theirs = timm.data.create_transform(**config)
    for size in SIZES:
        image = picture(*size)
        x = ImageDataset([image], preprocessing)[0][None]
        expected = theirs(image)
        mean, std = (torch.tensor(config[k]).view(3, 1, 1) for k in ("mean", "std"))
        pixels = ((expected * std + mean) * 255).round().to(torch.uint8)
        torch.testing.assert_close(x[0], pixels, rtol=0, atol=0)
        ours = Normalize(preprocessing)(x)[0]
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


# --- transformers ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Networks with random weights, saved as transformers does."""
    transformers = pytest.importorskip("transformers")
    base = tmp_path_factory.mktemp("hf")
    torch.manual_seed(7)
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.ViTConfig(
        **shape, intermediate_size=48, image_size=32, patch_size=8
    )
    transformers.ViTModel(config).save_pretrained(base / "vit")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(
        base / "vit"
    )
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(
        base / "vit_without_pooler"
    )
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(
        base / "vit_without_pooler"
    )
    config = transformers.Dinov2Config(**shape, image_size=28, patch_size=14)
    transformers.Dinov2Model(config).save_pretrained(base / "dinov2")
    transformers.BitImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}
    ).save_pretrained(base / "dinov2")
    return base


@pytest.mark.parametrize("name", ["vit", "vit_without_pooler", "dinov2"])
@pytest.mark.parametrize("image_size", [None, 56])
def test_a_network_of_transformers(name, image_size, folders, pictures, tmp_path):
    import transformers

    X, y = pictures
    backbone = f"hf/{folders / name}"
    clf = classifier(backbone, image_size=image_size, memory=False).fit(X, y)
    source = clf.source_network_
    x = Normalize(source.preprocessing)(
        torch.stack([ImageDataset(X[:4], source.preprocessing)[i] for i in range(4)])
    )
    model = transformers.AutoModel.from_pretrained(folders / name).eval()
    options = {} if name == "dinov2" else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        outputs = model(x, **options)
    expected = outputs.pooler_output.numpy()
    if name == "vit_without_pooler":
        expected = outputs.last_hidden_state[:, 0].numpy()
    found = clf.embed(X[:4], -2)[-2]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(AIFT(random_state=0).query(clf, X, 2)) == 2
    proba = clf.predict_proba(X)
    clf.save(tmp_path / "model")
    loaded = CNNClassifier.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict_proba(X), proba)
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(clf)).predict_proba(X), proba
    )
    random = classifier(backbone, weights=None, image_size=image_size).fit(X, y)
    assert random.source_network_.fingerprint != source.fingerprint
    assert source.class_names is None


@pytest.mark.parametrize(
    "name", ["ViTImageProcessor", "BitImageProcessor", "CLIPImageProcessor",
             "SiglipImageProcessor", "ConvNextImageProcessor", "DeiTImageProcessor"],
)  # fmt: skip
def test_the_image_processors_own_pixels(name, tmp_path):
    """To the bit those of the processor that works by Pillow."""
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, f"{name}Pil"):
        pytest.skip("this release has one processor of a name")
    from skadma.networks.huggingface import read_preprocessing

    processor = getattr(transformers, f"{name}Pil")()
    preprocessing = read_preprocessing(processor.to_dict())
    for size in SIZES:
        image = picture(*size)
        theirs = processor(images=image, return_tensors="np")["pixel_values"][0]
        x = ImageDataset([image], preprocessing)[0]
        mean, std = (np.reshape(v, (3, 1, 1)) for v in (
            preprocessing.mean, preprocessing.std
        ))  # fmt: skip
        pixels = np.round((theirs * std + mean) * 255)
        np.testing.assert_array_equal(x.numpy(), pixels)


def test_what_is_no_folder_of_a_network(folders, tmp_path, pictures):
    import shutil

    X, y = pictures
    bad = tmp_path / "bad"

    def fails(what, kind=(ValueError, OSError), **params):
        with pytest.raises(kind, match=what):
            classifier(f"hf/{bad}", **params).fit(X, y)

    fails("no folder")
    shutil.copytree(folders / "vit", bad)
    fails("takes 'DEFAULT'", weights="IMAGENET")
    fails("'hf/FOLDER'", weights=bad / "model.safetensors")
    (bad / "model.safetensors").rename(bad / "pytorch_model.bin")
    fails("save_pretrained")
    (bad / "pytorch_model.bin").rename(bad / "model.safetensors")
    config = bad / "preprocessor_config.json"
    settings = json.loads(config.read_text())
    for change, what in (
        ({"size": {"height": 32, "width": 24}}, "Square images"),
        ({"rescale_factor": 1 / 127.5}, "not built in"),
        ({"resample": 0}, "not built in"),
    ):
        config.write_text(json.dumps({**settings, **change}))
        fails(what)
    config.unlink()
    fails("preprocessor_config.json")
    config.write_text(json.dumps(settings))
    own = json.loads((bad / "config.json").read_text())
    own["auto_map"] = {"AutoConfig": "code.Config", "AutoModel": "code.Model"}
    own["model_type"] = "of-its-own"
    (bad / "config.json").write_text(json.dumps(own))
    (bad / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    fails("trust_remote_code|custom code|of its own")
    assert not (tmp_path / "ran").exists()


# --- what else they can ---------------------------------------------------------------


class BySign(ByValue):
    """Goes another way for some images."""

    def forward(self, x):
        features = super().forward(x)
        return features if x.mean() > 0 else features.square()


def test_openvino_refuses_a_network_that_branches_on_values(pictures):
    pytest.importorskip("openvino")
    X, y = pictures
    with pytest.raises(ValueError, match="outputs are off by"):
        classifier(BySign, engine="openvino", memory=False).fit(X, y)


@OF_SCRIPTS
@pytest.mark.parametrize("name", ["vit", "scripted", "by value"])
def test_a_campaign_with_a_network_used_as_a_whole(name, folders, pictures, tmp_path):
    """Query, teach, OpenVINO, features on the disk; ONNX, or the reason before work."""
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    X, y = pictures
    pool = tmp_path / "pool"
    pool.mkdir()
    for i, image in enumerate(X):
        Image.fromarray(image).save(pool / f"{i:02}.png")
    backbone = {"scripted": scripted, "by value": ByValue}.get(
        name, f"hf/{folders / 'vit'}"
    )
    own = None if name == "vit" else backbone
    clf = classifier(backbone, engine="openvino", memory=False)
    labels = [f"{k}" for k in y]
    with Campaign.create(
        tmp_path / "campaign", pool, ["0", "1", "2"], clf, UncertaintyHerding(),
        n_instances=8,
    ) as campaign:  # fmt: skip
        asked = [each.path for each in campaign.query()]
        campaign.teach({path: labels[int(path[:2])] for path in asked})
        assert campaign.query()[0].guess in {*labels}
        if name == "vit":
            campaign.export_model(tmp_path / "model", onnx=True, calibration=False)
        else:
            what = {"scripted": "it is a script", "by value": "data-dependent"}[name]
            with pytest.raises(ModelError, match=f"{what}.*Without --onnx"):
                campaign.export_model(tmp_path / "model", onnx=True)
            campaign.export_model(tmp_path / "model", calibration=False)
        expected = campaign.estimator()
    model = CNNClassifier.load(tmp_path / "model", backbone=own)
    predict_files(model, [pool], tmp_path / "out.csv")
    with (tmp_path / "out.csv").open() as lines:
        found = [row["label"] for row in csv.DictReader(lines)]
    files = [str(file) for file in sorted(pool.iterdir())]
    assert found == expected.predict(files).tolist()
    store = FeatureStore.build(expected, X, tmp_path / "store", layer=-2)
    assert len({*CoreSet(random_state=0).query(expected, store, 3)}) == 3
    search = GridSearchCV(clf, {"class_weight": [None, "balanced"]}, cv=2)
    assert search.set_params(error_score="raise").fit(X, y).best_score_ > 0.3
