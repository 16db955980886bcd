"""Models of several labels per image: saved, in tables, on cards, as ONNX."""

import csv

import numpy as np
import pytest
from PIL import Image

from skadma import CNNClassifier
from skadma.labelling import predict as predicting
from skadma.labelling.predict import predict_files
from skadma.persistence import ModelError
from skadma.persistence.card import CardFacts, make_card
from skadma.persistence.export import export_model

from .conftest import TinyCNN, tiny_classifier

NAMES = ["red", "green", "blue"]  # in the columns' order, not sorted
FACTS = CardFacts("tagged", {"red": 3})


@pytest.fixture(scope="module")
def tagged():
    """30 pictures, each with any of three colours, also with none."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (30, 3))
    X = rng.integers(0, 90, (30, 32, 32, 3)) + 150 * y[:, None, None]
    return X.astype(np.uint8), y


@pytest.fixture(scope="module")
def clf(tagged):
    return tiny_classifier(max_epochs=60, classes=NAMES).fit(*tagged)


@pytest.fixture
def photos(tagged, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i, x in enumerate(tagged[0]):
        Image.fromarray(x).save(tmp_path / "photos" / f"{i:02}.png")
    (tmp_path / "photos" / "bad.png").write_bytes(b"no image")
    return tmp_path


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_saved_and_loaded(clf, tagged, tmp_path):
    X, y = tagged
    clf.save(tmp_path / "model")
    again = CNNClassifier.load(tmp_path / "model", backbone=TinyCNN)
    assert again.multilabel_ is True
    assert again.classes_.tolist() == NAMES
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    np.testing.assert_array_equal(again.predict(X), clf.predict(X))
    assert again.predict(X).shape == (30, 3)
    assert again.score(X, y) == clf.score(X, y)
    again.set_params(warm_start=True, max_epochs=1).fit(X, y)
    with pytest.raises(ValueError, match="one label per image"):
        again.fit(X, y[:, 0])


def test_the_table(clf, photos, tagged):
    done = predict_files(clf, ["photos"], "out.csv", proba=True)
    assert (done.n_images, done.n_problems) == (31, 1)
    *good, bad = table(photos / "out.csv")
    assert bad["path"] == "photos/bad.png"
    assert (bad["label"], bad["confidence"]) == ("", "")
    assert bad["problem"]
    said = clf.predict(tagged[0])
    proba = clf.predict_proba(tagged[0])
    assert {0, 1, 2, 3} == set(said.sum(axis=1))  # none, one and several
    for row, has, p in zip(good, said, proba, strict=True):
        assert row["label"] == ";".join(n for n, h in zip(NAMES, has, strict=True) if h)
        right = [p[k] if has[k] else 1 - p[k] for k in range(3)]
        assert float(row["confidence"]) == pytest.approx(sum(right) / 3, rel=1e-4)
        assert float(row["proba_green"]) == pytest.approx(p[1], rel=1e-4)
        assert row["problem"] == ""


def test_the_table_goes_on(clf, photos, monkeypatch):
    monkeypatch.setattr(predicting, "_GROUP_SIZE", 4)
    predict_files(clf, ["photos"], "whole.csv")
    append, calls = predicting._append, []

    def stop(*arguments):
        calls.append(1)
        if len(calls) == 4:  # 16 images
            raise KeyboardInterrupt
        append(*arguments)

    monkeypatch.setattr(predicting, "_append", stop)
    with pytest.raises(KeyboardInterrupt):
        predict_files(clf, ["photos"], "out.csv")
    monkeypatch.setattr(predicting, "_append", append)
    done = predict_files(clf, ["photos"], "out.csv")
    assert (done.n_before, done.n_images, done.n_problems) == (12, 31, 1)
    assert (photos / "out.csv").read_bytes() == (photos / "whole.csv").read_bytes()


def test_a_name_with_a_semicolon(tagged, photos):
    X, y = tagged
    clf = tiny_classifier(max_epochs=1, classes=["a;b", "c", "d"]).fit(X, y)
    with pytest.raises(ModelError, match="has a ';'"):
        predict_files(clf, ["photos"], "out.csv")
    one = tiny_classifier(max_epochs=1).fit(X, np.array(["a;b", "c"])[y[:, 0]])
    assert predict_files(one, ["photos"], "out.csv").n_images == 31


def test_the_card(clf):
    card = make_card(clf, FACTS, onnx=False)
    assert "any number of these labels" in card
    assert "sigmoid" in card
    assert "softmax" not in card


def test_onnx(clf, tagged, tmp_path):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    import onnxruntime

    export_model(clf, tmp_path / "model", FACTS, onnx=True)
    session = onnxruntime.InferenceSession(tmp_path / "model" / "model.onnx")
    pixels = tagged[0].transpose(0, 3, 1, 2)
    (proba,) = session.run(None, {"pixels": np.ascontiguousarray(pixels)})
    np.testing.assert_allclose(proba, clf.predict_proba(tagged[0]), atol=1e-4)
    assert not np.allclose(proba.sum(axis=1), 1)
