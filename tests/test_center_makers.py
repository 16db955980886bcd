"""Where centres come from: folders, data sets, examples, the network itself."""

# The fixtures that are imported are the arguments of the same name.
# ruff: noqa: F811

import numpy as np
import pytest
from PIL import Image
from torch import nn
from torchvision.datasets import ImageFolder

from skadma import CNNClassifier, SourceCenters
from skadma.centers._labels import _by_name
from skadma.strategies import ADMA

from .center_sources import same, source  # noqa: F401
from .conftest import lite0, tiny_classifier


@pytest.fixture
def folder(tmp_path, source):
    """Five folders of PNG files."""
    X, y = source
    for i, (image, label) in enumerate(zip(X, y, strict=True)):
        place = tmp_path / "source" / f"class {label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{i:02}.png")
    (tmp_path / "source" / "README.txt").write_text("not an image")
    return tmp_path / "source"


# --- folders and data sets ------------------------------------------------------------


def test_a_folder_a_data_set_and_arrays_give_the_same(folder, source):
    clf = tiny_classifier()
    expected = SourceCenters.from_dataset(clf, *source)
    same(SourceCenters.from_dataset(clf, folder), expected)
    same(SourceCenters.from_dataset(clf, str(folder)), expected)
    data = ImageFolder(folder)
    same(SourceCenters.from_dataset(clf, data, data.targets), expected)


def test_folders_by_class_names(tmp_path, pictures):
    for name, image in zip(("golden_retriever", "tabby"), pictures[0], strict=False):
        (tmp_path / name).mkdir()
        Image.fromarray(image).save(tmp_path / name / "0.png")
    centers = SourceCenters.from_dataset(lite0(image_size=32), tmp_path)
    assert centers.classes.tolist() == [207, 281]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (["a", "b"], r"2 classes \(\['a', 'b'\], ...\), TinyCNN has 5"),
        ([], "One subfolder per source class"),
    ],
)
def test_folders_that_are_not_the_source_classes(tmp_path, folders, message, pictures):
    for name in folders:
        (tmp_path / name).mkdir()
        Image.fromarray(pictures[0][0]).save(tmp_path / name / "0.png")
    with pytest.raises(ValueError, match=message):
        SourceCenters.from_dataset(tiny_classifier(), tmp_path)


def test_labels_are_wanted(source):
    with pytest.raises(ValueError, match="ndarray, does not give the source classes"):
        SourceCenters.from_dataset(tiny_classifier(), source[0])
    with pytest.raises(ValueError, match="no folder 'nowhere'"):
        SourceCenters.from_dataset(tiny_classifier(), "nowhere")


# --- examples -------------------------------------------------------------------------


def test_examples(source):
    X, y = source
    clf = tiny_classifier()
    one = SourceCenters.from_examples(clf, {3: X[0], 1: X[1]})
    assert one.classes.tolist() == [1, 3]
    np.testing.assert_array_equal(one.inputs, X[[1, 0]].transpose(0, 3, 1, 2))
    few = SourceCenters.from_examples(clf, {k: list(X[y == k]) for k in range(5)})
    same(few, SourceCenters.from_dataset(clf, X, y))
    same(few, SourceCenters.from_examples(clf, X, y))


# --- fewer classes --------------------------------------------------------------------


def test_fewer_classes_cover_the_source_space():
    clf = lite0(image_size=32)
    images = np.zeros((1000, 8, 8, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(1000) % 256
    all_of_them = SourceCenters.from_examples(clf, images, np.arange(1000))
    some = all_of_them.subset(clf, 100)
    assert len(some) == 100
    assert len(set(some.class_names)) == 100
    same(some, SourceCenters.from_dataset(clf, images, np.arange(1000), n_centers=100))
    weight = clf.source_network().module.classifier.weight.numpy()
    weight = weight / np.linalg.norm(weight, axis=1, keepdims=True)

    def uncovered(classes):
        return 1 - (weight @ weight[classes].T).max(axis=1)

    # Better than a draw, of which the best of twenty is taken.
    rng = np.random.default_rng(0)
    draws = [uncovered(rng.choice(1000, 100, False)).mean() for _ in range(20)]
    assert uncovered(some.classes).mean() < min(draws)


@pytest.mark.parametrize("n_centers", [1, 6])
def test_a_number_that_there_is_not(n_centers, source):
    clf = tiny_classifier()
    centers = SourceCenters.from_dataset(clf, *source)
    with pytest.raises(ValueError, match="from 2"):
        centers.subset(clf, n_centers)


def test_two_classes_of_one_name():
    class Network:
        name, n_classes = "network", 5
        class_names = ("owl", "crane", "crane", "fox", "hen")

    every = ["owl", "crane", "crane", "fox", "hen"]
    assert _by_name(every, Network).tolist() == [*range(5)]
    assert _by_name(["hen", "owl"], Network).tolist() == [4, 0]
    with pytest.raises(ValueError, match="a name stands for two"):
        _by_name(["hen", "crane"], Network)


def test_a_class_whose_only_image_cannot_be_decoded(folder, tmp_path):
    files = [sorted((folder / f"class {k}").iterdir())[0] for k in range(3)]
    files[1].write_bytes(b"no image")
    clf = tiny_classifier(on_bad_image="skip")
    with pytest.raises(ValueError, match=r"classes \[1\] have no image"):
        SourceCenters.from_dataset(clf, [*map(str, files)], [0, 1, 2])


def test_how_to_make_centres_of_one_size():
    """The way that the message names has to work."""

    def fixed():
        return nn.Sequential(
            nn.Conv2d(3, 4, 7, 4), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(8),
            nn.Flatten(), nn.Linear(4 * 6 * 6, 8), nn.ReLU(), nn.Linear(8, 8),
            nn.ReLU(), nn.Linear(8, 6),
        )  # fmt: skip

    clf = CNNClassifier(fixed, image_size=224)
    X = np.zeros((9, 224, 224, 3), np.uint8)
    with pytest.raises(ValueError, match=r"synthesize\(clf, verbose"):
        ADMA().query(clf, X, 2)
    with pytest.raises(ValueError, match="set to 224: give side= that"):
        SourceCenters.synthesize(clf)
    centers = SourceCenters.synthesize(clf, side=224, n_steps=2)
    assert len(ADMA(centers).query(clf, X, 2)) == 2
