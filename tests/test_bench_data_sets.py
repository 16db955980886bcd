"""Benchmarks: how data sets are read and split."""

import json
from pathlib import Path

import numpy as np
import pytest

from skadma import CNNClassifier, SourceCenters
from skadma.bench import read_results, run_benchmark, write_report
from skadma.bench.cells import measure
from skadma.bench.datasets import LabelledImages, load_dataset, split_dataset

from .small_data_sets import dogs_vs_cats, indoor67, inria_person, picture, voc2012

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
VOC = ("paper_data_sets:voc2012", "VOCdevkit")


@pytest.fixture(autouse=True)
def _readers(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)


def test_splits_are_of_the_seed_and_keep_the_shares():
    images = load_dataset("digits")
    a, again, b = (split_dataset(images, s, 200, 100) for s in (0, 0, 1))
    np.testing.assert_array_equal(a.X, again.X)
    np.testing.assert_array_equal(a.y_test, again.y_test)
    assert not np.array_equal(a.X, b.X)
    assert len(a.X) == len(a.y) == 200
    assert len(a.X_test) == len(a.y_test) == 100
    assert np.bincount(a.y).min() >= 19  # of ten classes
    full = split_dataset(images, 0)
    assert (len(full.y), len(full.y_test)) == (1257, 540)  # 70/30
    assert a.X.max() == 255
    seen = {x.tobytes() for x in full.X} & {x.tobytes() for x in full.X_test}
    assert not seen


def test_an_official_split_stays():
    images = LabelledImages(
        np.arange(6), np.array(list("aabbcc")), np.arange(6, 10), np.array(list("abbd"))
    )
    split = split_dataset(images, 3)
    np.testing.assert_array_equal(split.X, np.arange(6))
    np.testing.assert_array_equal(split.X_test, np.arange(6, 10))
    assert split.classes.tolist() == list("abcd")
    assert split.y_test.tolist() == [0, 1, 1, 3]
    assert set(split_dataset(images, 3, pool_size=4).X) < set(range(6))


def test_elpv_is_binary_at_one_half():
    split = split_dataset(load_dataset("elpv"), 0, 50, 30)
    assert split.classes.tolist() == ["defective", "sound"]
    assert split.X.shape == (50, 300, 300)


def test_the_photographs_at_hand(data_dir):
    cifar = load_dataset("cifar10", root=data_dir)
    assert (len(cifar.y), len(cifar.y_test), len(set(cifar.y))) == (3000, 1000, 10)
    dogs = load_dataset("dogs-vs-cats", root=data_dir)
    assert (len(dogs.y), set(dogs.y), dogs.y_test) == (1399, {"cat", "dog"}, None)


def test_voc_takes_the_largest_object_that_is_not_difficult(tmp_path):
    voc2012(tmp_path)
    images = load_dataset(*VOC, root=tmp_path)
    assert images.y.tolist() == ["dog", "person", "cat", "cat", "dog", "person",
                                 "person", "dog"]  # fmt: skip
    assert images.y_test.tolist() == ["dog", "cat", "person", "cat", "person"]
    stems = [Path(path).stem for path in images.X]
    assert "2012_train003" not in stems  # all that is in it is difficult
    assert all(Path(path).is_file() for path in [*images.X, *images.X_test])
    inside = load_dataset(VOC[0], tmp_path / "VOCdevkit" / "VOC2012")
    assert inside.y.tolist() == images.y.tolist()


def test_voc_with_all_its_labels(tmp_path):
    voc2012(tmp_path)
    images = load_dataset(f"{VOC[0]}_multilabel", VOC[1], tmp_path)
    assert len(images.classes) == images.y.shape[1] == 20

    def names(row, value=1):
        return set(images.classes[row == value])

    assert [names(row) for row in images.y] == [
        {"person", "dog"}, {"person"}, {"cat"}, set(), {"cat"}, {"person", "dog"},
        {"person"}, {"person", "cat"}, {"dog"},
    ]  # fmt: skip
    assert set(images.y.ravel()) == {0, 1}
    assert [names(row, -1) for row in images.y_test] == [
        set(), set(), set(), {"sheep"}, set(), {"sheep"},
    ]  # fmt: skip
    assert names(images.y_test[3]) == {"cat"}
    split = split_dataset(images, 0, pool_size=4, test_size=3)
    assert split.y.shape == (4, 20)
    assert split.y_test.shape == (3, 20)
    rows = [list(images.X).index(path) for path in split.X]
    np.testing.assert_array_equal(images.y[rows], split.y)
    assert split.classes.tolist() == images.classes.tolist()
    [annotation] = tmp_path.rglob("2012_train001.xml")
    annotation.write_text(annotation.read_text().replace("person", "unicorn"))
    with pytest.raises(ValueError, match="unicorn"):
        load_dataset(f"{VOC[0]}_multilabel", VOC[1], tmp_path)


def test_average_precision_by_hand():
    y = np.array([[1, 0], [0, 1], [1, -1], [0, 0], [0, 1]])
    proba = np.array([[0.9, 0.1], [0.8, 0.7], [0.7, 0.99], [0.2, 0.8], [0.1, 0.6]])
    found = measure(proba, y)
    first = (1 + 2 / 3) / 2  # positives at ranks 1 and 3
    second = (1 / 2 + 2 / 3) / 2  # ranks 2 and 3 of the four that count
    assert found["average_precision"] == pytest.approx((first + second) / 2)
    assert found["auc"] == pytest.approx((5 / 6 + 2 / 4) / 2)
    # Right: 0, 2 (its second label does not count) and 4.
    assert found["accuracy"] == pytest.approx(3 / 5)
    unread = np.vstack([proba, [np.nan, np.nan]])
    assert measure(unread, np.vstack([y, [1, 1]])) == found


def test_voc_with_all_its_labels_runs(tmp_path):
    """Beside the same with one label per image, with small random networks."""
    voc2012(tmp_path)
    config = json.loads(
        (BENCHMARKS / "configs" / "voc2012-multilabel.json").read_text()
    )
    config |= {"networks": {"resnet18": {"weights": None}}, "seeds": 1, "n_rounds": 2}
    config["classifier"] |= {"image_size": 32, "max_epochs": 1}
    config["datasets"]["voc2012"] = {"class": VOC[0], "path": VOC[1]}
    for k in (3, 50, 400, 999):
        picture(tmp_path / "centers" / f"{k:04}" / "0.png", k)
    clf = CNNClassifier("resnet18", weights=None, image_size=32)
    paths = sorted((tmp_path / "centers").rglob("*.png"))
    centers = SourceCenters.from_dataset(clf, paths, [3, 50, 400, 999])
    centers.save(tmp_path / "centers.safetensors")
    config["centers"] = "centers.safetensors"
    out = tmp_path / "out"
    results = read_results(run_benchmark(config, out, data=tmp_path, verbose=False))
    assert set(results["strategy"]) == set(config["strategies"])
    many = results["dataset"] == "voc2012-multilabel"
    assert results.loc[many, "average_precision"].between(0, 1).all()
    assert results.loc[~many, "average_precision"].isna().all()
    report = write_report(out, against="random").read_text("utf-8")
    assert report.count("## Area under the mean average precision curve") == 1
    assert report.count("### mean average precision") == 1


def test_indoor67_by_its_lists_or_all_of_it(tmp_path):
    indoor67(tmp_path)
    listed = load_dataset("paper_data_sets:indoor67", "indoor67", tmp_path)
    assert (len(listed.y), len(listed.y_test)) == (9, 6)
    assert set(listed.y) == {"kitchen", "bar", "computerroom"}
    assert all(Path(p).is_file() for p in [*listed.X, *listed.X_test])
    everything = load_dataset("folder", "indoor67/Images", tmp_path)
    assert (len(everything.y), everything.y_test) == (18, None)


def test_inria_person(tmp_path):
    inria_person(tmp_path)
    images = load_dataset("paper_data_sets:inria_person", "INRIAPerson", tmp_path)
    assert sorted(images.y) == ["no person"] * 5 + ["person"] * 5
    assert sorted(images.y_test) == ["no person"] * 3 + ["person"] * 3
    for path, label in zip(images.X, images.y, strict=True):
        assert ("pos" in path) == (label == "person")


def test_dogs_vs_cats(tmp_path):
    dogs_vs_cats(tmp_path)
    images = load_dataset("dogs-vs-cats", root=tmp_path)
    assert sorted(images.y) == ["cat"] * 8 + ["dog"] * 8
    assert images.y_test is None
    for name in ("._0.jpg", ".hidden.jpg", "notes.txt"):
        (tmp_path / "dogs-vs-cats" / "cat" / name).write_bytes(b"not an image")
    again = load_dataset("dogs-vs-cats", root=tmp_path)
    assert list(again.X) == list(images.X)


@pytest.mark.parametrize("name", ["voc2012", "indoor67", "inria_person"])
def test_what_is_missing_is_named(name, tmp_path):
    name = f"paper_data_sets:{name}"
    with pytest.raises(FileNotFoundError, match="should be at .* nothing there"):
        load_dataset(name, "nowhere", tmp_path)
    with pytest.raises(FileNotFoundError, match="has no .* Unpack .*"):
        load_dataset(name, tmp_path)
    with pytest.raises(FileNotFoundError, match="--data or the environment variable"):
        load_dataset("cifar10")


@pytest.mark.parametrize(
    "name", ["paper_data_sets:nothing", "no_such_module:f", ":f", "numpy:"]
)
def test_a_reader_that_cannot_be_imported(name, tmp_path):
    with pytest.raises(ValueError, match="cannot be imported .*PYTHONPATH"):
        load_dataset(name, tmp_path)


def test_folders_that_hold_no_classes(tmp_path):
    with pytest.raises(ValueError, match="There is no data set 'imagenet'"):
        load_dataset("imagenet")
    with pytest.raises(ValueError, match="comes in a package"):
        load_dataset("digits", tmp_path)
    with pytest.raises(FileNotFoundError, match="say where by 'path'"):
        load_dataset("folder", root=tmp_path)
    picture(tmp_path / "one" / "a.png")
    with pytest.raises(ValueError, match="at least two classes; found .'one'."):
        load_dataset("folder", tmp_path)
