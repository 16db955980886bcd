"""The images that CNNClassifier takes: forms, augmentation, unreadable files."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.base import clone

from skadma import ActiveLearner
from skadma.features.cache import MemoryCache
from skadma.images import dataset
from skadma.persistence.card import describe_preprocessing
from skadma.strategies import CoreSet, MarginSampling, RandomSampling

from .conftest import tiny_classifier


@pytest.fixture
def paths(tmp_path, pictures):
    """The pictures as files."""
    paths = [tmp_path / f"{i}.png" for i in range(24)]
    for image, path in zip(pictures[0], paths, strict=True):
        Image.fromarray(image).save(path)
    return paths


def test_forms_of_the_same_images_agree(paths, pictures):
    X, y = pictures
    clf = tiny_classifier().fit(X, y)
    expected = clf.predict_proba(X)
    forms = {
        "channels first": X.transpose(0, 3, 1, 2),
        "floats": X / 255,
        "paths": paths,
        "path strings": np.array([str(path) for path in paths]),
        "series": pd.Series([str(path) for path in paths]),
        "pil": [Image.fromarray(image) for image in X],
        "arrays": list(X),
        "dataset": torch.utils.data.TensorDataset(
            torch.from_numpy(X).permute(0, 3, 1, 2)
        ),
    }
    for name, form in forms.items():
        np.testing.assert_array_equal(clf.predict_proba(form), expected, err_msg=name)
    rows = tiny_classifier(image_shape=(32, 32, 3)).fit(X.reshape(24, -1), y)
    np.testing.assert_array_equal(rows.predict_proba(X.reshape(24, -1)), expected)


def test_unreadable_images(paths, pictures):
    X, y = pictures
    clf = tiny_classifier().fit(paths, y)
    whole = clf.predict_proba(paths)
    paths[3].write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"3\.png"):
        clf.predict_proba(paths)
    with pytest.raises(ValueError, match=r"3\.png"):
        tiny_classifier().fit(paths, y)
    clf.set_params(on_bad_image="skip")
    with pytest.warns(UserWarning, match=r"1 unreadable.*3\.png") as caught:
        proba = clf.predict_proba(paths)
    assert len(caught) == 1
    assert np.isnan(proba[3]).all()
    kept = np.arange(24) != 3
    np.testing.assert_allclose(proba[kept], whole[kept], atol=1e-5)
    with (
        pytest.warns(UserWarning),
        pytest.raises(ValueError, match=r"\[3\] cannot be decoded"),
    ):
        clf.predict(paths)
    with pytest.warns(UserWarning, match="left out"):
        skipped = tiny_classifier(on_bad_image="skip").fit(paths, y)
    assert skipped.n_labels_ == 23
    expected = tiny_classifier().fit(X[kept], y[kept]).predict_proba(X)
    np.testing.assert_array_equal(skipped.predict_proba(X), expected)


def test_augmentation_is_for_training_only(pictures):
    X, y = pictures
    seen = []

    def darken(image):
        seen.append(image.shape)
        return image // 2

    clf = tiny_classifier(max_epochs=3, augment=darken).fit(X, y)
    assert seen == [(3, 32, 32)] * (3 * len(X))
    clf.predict(X)
    assert len(seen) == 3 * len(X)
    dark = tiny_classifier(max_epochs=3).fit(X // 2, y)
    np.testing.assert_allclose(clf.predict_proba(X), dark.predict_proba(X), atol=1e-4)


def test_crops_and_flips_follow_the_seed(pictures):
    X, y = pictures
    plain = tiny_classifier(max_epochs=3).fit(X, y).predict_proba(X)
    clf = tiny_classifier(max_epochs=3, augment="crop_flip")
    first = clf.fit(X, y).predict_proba(X)
    assert not np.allclose(first, plain)
    np.testing.assert_array_equal(clone(clf).fit(X, y).predict_proba(X), first)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ("blur", "The 'augment' parameter"),
        (lambda image: image.float(), "augment gave torch.float32 of shape"),
        (lambda image: image[:, 1:], r"of shape torch.Size\(\[3, 31, 32\]\)"),
        (lambda image: None, "augment gave NoneType"),
    ],
)
def test_refuses_augmentation(augment, message, pictures):
    with pytest.raises(ValueError, match=message):
        tiny_classifier(augment=augment).fit(*pictures)


@pytest.mark.filterwarnings("ignore:1 unreadable")
def test_no_image_can_be_decoded(pictures, tmp_path):
    X, y = pictures
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    bad = [str(tmp_path / "bad.jpg")]
    clf = tiny_classifier(on_bad_image="skip")
    assert clf.embed(bad, [1, -1])[1].shape == (1, clf.embed(X[:1], [1])[1].shape[1])
    clf.fit(X, y)
    for proba, n_classes in ((clf.predict_proba(bad), 3), (clf.source_proba(bad), 5)):
        assert proba.shape == (1, n_classes)
        assert np.isnan(proba).all()
    with pytest.raises(ValueError, match="cannot be decoded"):
        clf.predict(bad)


def test_a_picture_that_breaks_off_is_unreadable(pictures, tmp_path):
    X, y = pictures
    Image.fromarray(X[0]).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    opened = [Image.open(tmp_path / "a.png"), Image.fromarray(X[1])]
    clf = tiny_classifier(on_bad_image="skip").fit(X, y)
    with pytest.warns(UserWarning, match="1 unreadable"):
        proba = clf.predict_proba(opened)
    assert np.isnan(proba[0]).all()
    assert np.isfinite(proba[1]).all()


class FolderLike(torch.utils.data.Dataset):
    """Decodes a file when it is indexed, as torchvision's ImageFolder does."""

    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        with Image.open(self.paths[i]) as image:
            return image.convert("RGB"), 0


def bad_form(name, X, paths):
    """The images of which those numbered 2 and 5 cannot be used, in some form."""
    for i in (2, 5):
        paths[i].write_bytes(paths[i].read_bytes()[:150])
    if name == "paths":
        return paths
    if name == "pil":
        return [Image.open(path) for path in paths]
    if name == "dataset":
        return FolderLike(paths)
    arrays = list(X)
    arrays[2], arrays[5] = np.full((8, 8), np.nan), np.zeros((8, 8, 7), np.uint8)
    return arrays


HOW = {
    "cut": {},
    "probe": {"training": "probe", "n_frozen_layers": "paper"},
    "augment": {"augment": lambda image: image},
    "whole": {"n_frozen_layers": 0},
}


@pytest.mark.parametrize("form", ["paths", "pil", "dataset", "arrays"])
@pytest.mark.parametrize("how", HOW)
def test_bad_images_are_skipped_in_any_form(form, how, paths, pictures):
    X, y = pictures
    kept = np.delete(np.arange(24), [2, 5])
    expected = tiny_classifier(**HOW[how]).fit(X[kept], y[kept]).predict_proba(X)
    bad = bad_form(form, X, paths)
    clf = tiny_classifier(on_bad_image="skip", **HOW[how])
    weights = np.ones(24)
    weights[0] = 0
    name = r"2\.png" if form == "paths" else r"X\[2\]"
    for weight, n_labels in ((None, 22), (weights, 21)):
        with pytest.warns(UserWarning, match=f"2 unreadable.*{name}") as caught:
            clf.fit(bad, y, sample_weight=weight)
        assert len(caught) == 1
        assert "on_bad_image" not in str(caught[0].message)
        assert clf.n_labels_ == n_labels
        if weight is None:
            np.testing.assert_array_equal(clf.predict_proba(X), expected)
    with pytest.raises(ValueError, match=name.replace("2", "[25]")):  # epochs shuffle
        tiny_classifier(**HOW[how]).fit(bad, y)


@pytest.mark.parametrize("form", ["paths", "pil", "dataset", "arrays"])
@pytest.mark.parametrize(
    "strategy", [MarginSampling(), CoreSet(random_state=0), RandomSampling()]
)
@pytest.mark.filterwarnings("ignore:.*unreadable")
def test_bad_images_are_never_chosen(form, strategy, paths, pictures):
    X, y = pictures
    bad = bad_form(form, X, paths)
    clf = tiny_classifier(on_bad_image="skip").fit(X, y)
    strategy = clone(strategy)
    chosen = strategy.query(clf, bad, n_instances=22)
    assert sorted(chosen) == np.delete(np.arange(24), [2, 5]).tolist()


@pytest.mark.parametrize("form", ["paths", "pil", "dataset", "arrays"])
def test_a_learner_names_images_by_their_place_in_the_pool(form, paths, pictures):
    X, y = pictures
    bad = bad_form(form, X, paths)
    known = [0, 1, 3, 4, 5]
    y_known = np.full(24, -1)
    y_known[known] = y[known]
    learner = ActiveLearner(
        tiny_classifier(on_bad_image="skip", classes=np.unique(y)),
        RandomSampling(),
    )
    name = r"5\.png" if form == "paths" else r"X\[5\]"
    with pytest.warns(UserWarning, match=f"1 unreadable.*{name}"):
        learner.fit(bad, y_known)


def test_images_in_the_cache_are_not_decoded_again(paths, pictures, monkeypatch):
    _, y = pictures
    decoded = []

    original = dataset.from_file

    def counted(*args, **kwargs):
        decoded.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(dataset, "from_file", counted)
    for how in ("cut", "probe"):
        decoded.clear()
        clf = tiny_classifier(on_bad_image="skip", memory=MemoryCache(), **HOW[how])
        for n in (12, 24, 24):
            clf.fit(paths[:n], y[:n])
        assert len(decoded) == 24


def wide(X, folder, top=4095, suffix="png"):
    """Grey files of 16 bits whose largest possible value is `top`."""
    folder.mkdir(exist_ok=True)
    paths = []
    for i, image in enumerate(X[..., 0]):
        paths.append(folder / f"{i}.{suffix}")
        values = np.rint(image / 255 * top).astype(np.uint16)
        Image.fromarray(values).save(paths[-1])
    return paths


@pytest.mark.parametrize(
    ("top", "suffix"), [(4095, "png"), (255, "tif"), (1023, "tif")]
)
@pytest.mark.parametrize("training", ["fine-tune", "probe"])
def test_images_of_few_bits_in_16_are_like_those_of_8(
    top, suffix, training, tmp_path, pictures
):
    X, y = pictures
    grey = np.repeat(X[..., :1], 3, axis=3)
    paths = wide(X, tmp_path / "wide", top, suffix)
    params = {"training": training, "n_frozen_layers": "paper"}
    expected = tiny_classifier(**params).fit(grey, y).predict_proba(grey)
    given = tiny_classifier(value_range=(0, top), **params).fit(paths, y)
    with pytest.warns(UserWarning, match=rf"value_range=\(0, {top}\)") as caught:
        found = tiny_classifier(**params).fit(paths, y)
    assert len(caught) == 1
    found.save(tmp_path / "model")
    loaded = type(found).load(tmp_path / "model", backbone=found.backbone)
    for clf in (given, found, loaded, pickle.loads(pickle.dumps(found))):
        np.testing.assert_allclose(clf.predict_proba(paths), expected, atol=1e-5)
        for i in (0, 7):  # not by the largest value of the images at hand
            alone = clf.predict_proba(paths[i : i + 1])
            np.testing.assert_allclose(alone[0], expected[i], atol=1e-5)
    assert describe_preprocessing(found)["value_range"] == (0, top)


def test_value_range_before_the_first_fit_and_after(tmp_path, pictures):
    X, y = pictures
    grey = np.repeat(X[..., :1], 3, axis=3)
    paths = wide(X, tmp_path / "wide")
    expected = tiny_classifier().source_proba(grey)
    with pytest.warns(UserWarning, match=r"\(0, 4095\)"):
        np.testing.assert_allclose(
            tiny_classifier().source_proba(paths), expected, atol=1e-5
        )
    clf = tiny_classifier(value_range=[0, 4095], warm_start=True)
    np.testing.assert_allclose(clf.source_proba(paths), expected, atol=1e-5)
    clf.fit(paths, y).partial_fit(paths, y)
    with pytest.raises(ValueError, match="value_range is now"):
        clf.set_params(value_range=(0, 255)).fit(paths, y)


@pytest.mark.parametrize(
    "value_range", [(5, 5), (9, 1), (0, np.inf), (0, np.nan), "ab"]
)
def test_refuses_a_value_range(value_range, pictures):
    with pytest.raises(ValueError, match="value_range"):
        tiny_classifier(value_range=value_range).fit(*pictures)
