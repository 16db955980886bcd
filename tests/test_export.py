"""An exported model says the same elsewhere, and its card what it is."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skadma import AdaFilterClassifier, Campaign, CNNClassifier
from skadma.cli import main
from skadma.features.adapter import cnn_adapter
from skadma.labelling.campaign import CampaignError
from skadma.persistence import ModelError
from skadma.persistence import export as writing
from skadma.persistence.card import CardFacts, make_card
from skadma.persistence.export import export_model
from skadma.strategies import MarginSampling

from .conftest import TinyCNN, lite0, tiny_classifier

DOCS = Path(__file__).parents[1] / "docs" / "persistence.md"
FACTS = CardFacts("a model", {"a": 2, "b": 1})


@pytest.fixture
def onnx():
    """The packages that the extra "onnx" brings."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)


@pytest.fixture
def campaign(pictures, tmp_path):
    pool = tmp_path / "pool"
    pool.mkdir()
    for i in range(8):
        Image.fromarray(pictures[0][i]).save(pool / f"{i}.png")
    (pool / "bad.png").write_bytes(b"x")
    clf = CNNClassifier("squeezenet1_1", weights=None, image_size=32, max_epochs=1)
    with Campaign.create(
        tmp_path / "c", pool, ["ok", "crack | [x]"], clf, MarginSampling(),
        n_instances=2,
    ) as campaign:  # fmt: skip
        yield campaign


def teach(campaign):
    campaign.teach({"0.png": "ok", "1.png": "crack | [x]", "2.png": "ok"})
    for proposal in campaign.query():
        campaign.teach({proposal.path: "ok"}, train=False)


def front_matter(text):
    yaml = pytest.importorskip("yaml")
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


# --- the script of the docs on real photographs ----------------------------------


@pytest.fixture(scope="module")
def photographs(data_dir, elpv, tmp_path_factory):
    """Dogs, cats, solar cells; turned, grey, of 16 bits, of all sizes and modes."""
    folder = tmp_path_factory.mktemp("photographs")
    paths = sorted((data_dir / "dogs-vs-cats" / "dog").glob("*.jpg"))[:6]
    paths += sorted((data_dir / "dogs-vs-cats" / "cat").glob("*.jpg"))[:6]
    photo = Image.open(paths[0])
    for turn in range(2, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        photo.save(folder / f"turned{turn}.jpg", exif=exif, quality=95)
    photo.convert("L").save(folder / "grey.png")
    photo.convert("P").save(folder / "palette.png")
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    photo.convert("RGBA").save(folder / "alpha.png")
    deep = np.asarray(photo.convert("L")).astype(np.uint16) * 257
    deep += np.random.default_rng(0).integers(0, 200, deep.shape).astype(np.uint16)
    Image.fromarray(deep).save(folder / "sixteen.png")
    Image.fromarray(deep).save(folder / "sixteen.tif")
    for i in range(4):
        Image.fromarray(elpv[0][i]).save(folder / f"cell{i}.png")
    for width, height in (
        (80, 64),
        (97, 97),
        (111, 111),
        (111, 130),
        (200, 9),
        (9, 200),
    ):
        photo.resize((width, height)).save(folder / f"{width} x {height}.png")
    return [*map(str, paths), *map(str, sorted(folder.iterdir()))]


BLOCKED = "import sys\nfor name in ('torch', 'skadma'):\n    sys.modules[name] = None\n"


def test_the_script_in_the_docs(onnx, photographs, tmp_path):
    clf = lite0(image_size=97, head_lr=0.01, max_epochs=3)
    clf.fit(photographs[:12], ["dog"] * 6 + ["cat"] * 6)
    export_model(clf, tmp_path / "model", FACTS, onnx=True)
    (script,) = re.findall(r"```python\n(import json, sys\n.*?)```", DOCS.read_text(
        "utf-8"), re.S)  # fmt: skip
    assert len(script.strip().splitlines()) <= 32
    (tmp_path / "run.py").write_text(BLOCKED + script, "utf-8")
    done = subprocess.run(
        [sys.executable, tmp_path / "run.py", tmp_path / "model", *photographs],
        check=True, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    expected = clf.predict_proba(photographs)
    assert [row[0] for row in rows] == photographs
    np.testing.assert_allclose([row[2] for row in rows], expected, atol=1e-4)
    assert [row[1] for row in rows] == list(clf.predict(photographs))
    assert np.ptp(expected[:, 0]) > 0.3  # they do differ from image to image
    assert clf.source_network().preprocessing.resize_size == 111


def test_adafilter(onnx, pictures, tmp_path):
    X, y = pictures
    clf = AdaFilterClassifier(
        TinyCNN, image_size=32, n_frozen_layers=1, max_epochs=2, random_state=0
    ).fit(X, y)
    export_model(clf, tmp_path / "model", FACTS, onnx=True)
    np.testing.assert_allclose(run(clf, tmp_path / "model", X), clf.predict_proba(X),
                               atol=1e-4)  # fmt: skip


def run(clf, folder, X):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    images = cnn_adapter(clf).image_dataset(X)
    pixels = np.stack([images[i].numpy() for i in range(len(images))])
    return session.run(None, {"pixels": pixels})[0]


def test_the_operator_set(onnx, pictures, tmp_path):
    import onnx as onnx_package

    clf = tiny_classifier().fit(*pictures)
    export_model(clf, tmp_path / "model", FACTS, onnx=True)
    model = onnx_package.load(tmp_path / "model" / "model.onnx")
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == 18
    onnx_package.checker.check_model(model)
    assert not list((tmp_path / "model").glob("*.data"))
    np.testing.assert_allclose(
        run(clf, tmp_path / "model", pictures[0]), clf.predict_proba(pictures[0]),
        atol=1e-4,
    )  # fmt: skip


def test_a_file_that_says_something_else_is_not_kept(onnx, pictures, tmp_path,
                                                     monkeypatch):  # fmt: skip
    clf = tiny_classifier().fit(*pictures)
    other = tiny_classifier(max_epochs=0, random_state=1).fit(*pictures)
    write = writing._write
    monkeypatch.setattr(
        writing,
        "_write",
        lambda _, *rest: write(writing._PixelsToProbabilities(other), *rest),
    )
    with pytest.raises(ModelError, match="differ by"):
        export_model(clf, tmp_path / "model", FACTS, onnx=True)
    assert list(tmp_path.iterdir()) == []


class Inverse(TinyCNN):
    """A network with an operation that ONNX has not."""

    def forward(self, x):
        return super().forward(x + torch_inverse(x))


def torch_inverse(x):
    import torch

    return torch.linalg.eigvals(x[:, 0, :4, :4]).real.sum(1)[:, None, None, None]


def test_a_network_that_onnx_cannot_express(onnx, pictures, tmp_path):
    clf = CNNClassifier(
        Inverse, image_size=32, n_frozen_layers=1, max_epochs=0
    ).fit(*pictures)  # fmt: skip
    with pytest.raises(ModelError, match="cannot write this network as ONNX"):
        export_model(clf, tmp_path / "model", FACTS, onnx=True)
    assert list(tmp_path.iterdir()) == []
    export_model(clf, tmp_path / "model", FACTS)  # without it there is no trouble


# --- campaigns -----------------------------------------------------------------


def test_export_of_a_campaign(campaign, tmp_path):
    with pytest.raises(CampaignError, match="no labels yet"):
        campaign.export_model(tmp_path / "model")
    teach(campaign)
    campaign.export_model(tmp_path / "model", calibration=False)
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "README.md", "model.json", "model.safetensors", "preprocessing.json",
        "source.safetensors",
    ]  # fmt: skip
    clf = CNNClassifier.load(tmp_path / "model")
    paths = [str(campaign.pool / f"{i}.png") for i in range(8)]
    np.testing.assert_array_equal(
        clf.predict_proba(paths), campaign.estimator().predict_proba(paths)
    )
    how = json.loads((tmp_path / "model" / "preprocessing.json").read_text("utf-8"))
    assert how["labels"] == ["crack | [x]", "ok"]
    assert (how["image_size"], how["mean"]) == (32, [0.485, 0.456, 0.406])
    with pytest.raises(ModelError, match="already"):
        campaign.export_model(tmp_path / "model")
    campaign.export_model(tmp_path / "model", overwrite=True)


def test_the_card(campaign, tmp_path):
    teach(campaign)
    campaign.export_model(tmp_path / "model", calibration=False)
    text = (tmp_path / "model" / "README.md").read_text("utf-8")
    front, body = front_matter(text)
    assert front["license"] == ""
    assert front["labels"] == ["crack | [x]", "ok"]
    assert front["n_labels"] == {"ok": 4, "crack | [x]": 1}
    assert front["base_model"] == "squeezenet1_1"
    assert r"| crack \| \[x\] | 1 |" in body
    assert "9 image files, 8 different ones that can be read, 1 unreadable" in body
    assert "`MarginSampling(" in body
    right = sum(
        proposal["guess"] == "ok"
        for event in campaign.log()
        for proposal in event.get("proposals", [])
    )
    assert f"| 3 | 2 | {right} | {right / 2:.0%} |" in body
    assert "Not measured. Take the" in body
    assert "of the pretrained weights: \n" in body
    assert str(tmp_path) not in text  # whose disk it was is nobody's business
    side = campaign.estimator().source_network().preprocessing.resize_size
    assert f"The shorter side is resized to {side} pixels" in body


def test_the_card_tells_another_engine(pictures):
    X, y = pictures
    for precision in ("float32", "bfloat16"):
        clf = tiny_classifier(precision=precision, max_epochs=0).fit(X, y)
        assert ("run by torch in bfloat16" in make_card(clf, FACTS, onnx=False)) == (
            precision == "bfloat16"
        )


def test_names_in_a_card_are_names(pictures):
    labels = np.array(["a: b", "- x", '"#\n'])[pictures[1]]
    clf = tiny_classifier(max_epochs=0).fit(pictures[0], labels)
    facts = CardFacts("<b>x</b>\n# y", {"a: b": 3})
    front, body = front_matter(make_card(clf, facts, onnx=False))
    assert front["labels"] == sorted(set(labels.tolist()))
    assert r"# \<b\>x\</b\> \# y" in body
    assert "Not measured" in body


def test_command(onnx, campaign, tmp_path, capsys, monkeypatch):
    teach(campaign)
    monkeypatch.chdir(tmp_path)
    command = ["export-model", "--campaign", "c", "-o", "model"]
    main([*command, "--onnx"])
    assert "lines to fill in" in capsys.readouterr().out
    paths = [str(campaign.pool / f"{i}.png") for i in range(8)]
    np.testing.assert_allclose(
        run(CNNClassifier.load("model"), Path("model"), paths),
        campaign.estimator().predict_proba(paths), atol=1e-4,
    )  # fmt: skip
    with pytest.raises(SystemExit):
        main(command)
    assert re.search("There is a model in .* already", capsys.readouterr().err)
    assert Path("model", "model.onnx").is_file()  # it did no harm
    main(["predict", "pool", "-o", "out.csv", "--model", "model"])
    assert "9 images; 1 could" in capsys.readouterr().out


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package(package, onnx, campaign, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package}: pip install skadma\[onnx\]"):
        campaign.export_model(tmp_path / "model", onnx=True)
