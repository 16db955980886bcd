"""The instrument: data sets, cells, going on after a kill, and what is made of it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import wilcoxon
from sklearn.metrics import roc_auc_score

from skadma import CNNClassifier, SourceCenters
from skadma.bench import (
    DATASETS,
    FailedCellsError,
    area_under_curve,
    compare,
    expand,
    labels_to_reach,
    learning_table,
    load_config,
    load_dataset,
    read_results,
    run_benchmark,
    split_dataset,
    summary_table,
    wins_and_losses,
    write_report,
)
from skadma.bench.cells import measure
from skadma.bench.folders import LabelledImages
from skadma.cli import main

from .conftest import lite0

CONFIGS = Path(__file__).parents[1] / "benchmarks" / "configs"
MEASURED = ["dataset", "network", "strategy", "seed", "round", "n_labels", "accuracy",
            "auc"]  # fmt: skip


@pytest.fixture(scope="module")
def centers(tmp_path_factory):
    """Centres of three source classes, in a file."""
    path = tmp_path_factory.mktemp("centers") / "centers.safetensors"
    X = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    SourceCenters.from_dataset(lite0(image_size=32), X, [5, 100, 900]).save(path)
    return str(path)


@pytest.fixture(scope="module")
def config(centers):
    return {
        "datasets": {"digits": {}},
        "networks": {"efficientnet_lite0": {}, "slow": {
            "backbone": "efficientnet_lite0", "lr": 1e-5}},
        "strategies": {
            "random": {"class": "RandomSampling"},
            "margin": {"class": "MarginSampling"},
            "ADMA rescaled": {"class": "ADMA", "rescale": True},
            "ceiling": {"class": "FullyTrained"},
        },
        "seeds": 2, "n_rounds": 2, "n_instances": 6, "pool_size": 40,
        "test_size": 60, "centers": centers,
        "classifier": {"image_size": 32, "max_epochs": 1, "n_frozen_layers": 40},
    }  # fmt: skip


@pytest.fixture(scope="module")
def done(config, tmp_path_factory):
    """A folder with all results, made in this process."""
    out = tmp_path_factory.mktemp("done")
    run_benchmark(config, out, verbose=False)
    return out


# --- data sets ------------------------------------------------------------------------


def test_splits_are_of_the_seed_and_keep_the_shares():
    images = load_dataset("digits")
    a, again, b = (split_dataset(images, s, 200, 100) for s in (0, 0, 1))
    np.testing.assert_array_equal(a.X_pool, again.X_pool)
    np.testing.assert_array_equal(a.y_test, again.y_test)
    assert not np.array_equal(a.X_pool, b.X_pool)
    assert len(a.X_pool) == len(a.y_pool) == 200
    assert len(a.X_test) == len(a.y_test) == 100
    assert np.bincount(a.y_pool).min() >= 19  # of ten classes
    full = split_dataset(images, 0)
    assert (len(full.y_pool), len(full.y_test)) == (1257, 540)  # 70/30
    assert a.X_pool.max() == 255
    seen = {x.tobytes() for x in full.X_pool} & {x.tobytes() for x in full.X_test}
    assert not seen


def test_an_official_split_stays():
    images = LabelledImages(
        np.arange(6), np.array(list("aabbcc")), np.arange(6, 10), np.array(list("abbd"))
    )
    split = split_dataset(images, 3)
    np.testing.assert_array_equal(split.X_pool, np.arange(6))
    np.testing.assert_array_equal(split.X_test, np.arange(6, 10))
    assert split.classes.tolist() == list("abcd")
    assert split.y_test.tolist() == [0, 1, 1, 3]
    assert set(split_dataset(images, 3, pool_size=4).X_pool) < set(range(6))


def test_elpv_is_binary_at_one_half():
    split = split_dataset(load_dataset("elpv"), 0, 50, 30)
    assert split.classes.tolist() == ["defective", "sound"]
    assert split.X_pool.shape == (50, 300, 300)


def test_the_photographs_at_hand(data_dir):
    cifar = load_dataset("cifar10", root=data_dir)
    assert (len(cifar.y), len(cifar.y_test), len(set(cifar.y))) == (3000, 1000, 10)
    dogs = load_dataset("dogs-vs-cats", root=data_dir)
    assert (len(dogs.y), set(dogs.y), dogs.y_test) == (1399, {"cat", "dog"}, None)


def picture(path, value=0, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(value)
    Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def voc2012(folder):
    """Two lists of images with one to three objects each, as in the devkit."""
    root = folder / "VOCdevkit" / "VOC2012"
    # name, difficult, xmin, ymin, xmax, ymax
    person, dog = ("person", 0, 1, 1, 20, 20), ("dog", 0, 5, 5, 30, 35)
    cat, far = ("cat", 0, 2, 2, 9, 9), ("sheep", 1, 1, 1, 40, 40)
    lists = {
        "train": [[person, dog], [person], [cat], [far], [far, cat], [dog, person],
                  [person], [cat, person], [dog]],
        "val": [[dog], [cat], [person], [cat, far], [person, cat], [far]],
    }  # fmt: skip
    for part, images in lists.items():
        stems = []
        for i, objects in enumerate(images):
            stem = f"2012_{part}{i:03}"
            stems.append(stem)
            picture(root / "JPEGImages" / f"{stem}.jpg", i)
            described = "".join(
                f"<object><name>{name}</name><pose>Left</pose>"
                f"<difficult>{difficult}</difficult><bndbox><xmax>{x2}</xmax>"
                f"<xmin>{x1}</xmin><ymax>{y2}</ymax><ymin>{y1}</ymin></bndbox>"
                "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
                "<xmax>90</xmax><ymax>90</ymax></bndbox></part></object>"
                for name, difficult, x1, y1, x2, y2 in objects
            )
            annotation = root / "Annotations" / f"{stem}.xml"
            annotation.parent.mkdir(exist_ok=True)
            annotation.write_text(f"<annotation>{described}</annotation>")
        listed = root / "ImageSets" / "Main" / f"{part}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(stems) + "\n")


def indoor67(folder):
    root = folder / "indoor67"
    lists = {"TrainImages.txt": [], "TestImages.txt": []}
    for name in ("kitchen", "bar", "computerroom"):
        for i in range(6):
            picture(root / "Images" / name / f"int{i}.jpg", i)
            # One image is in neither list, as most are.
            if i:
                which = "TrainImages.txt" if i < 4 else "TestImages.txt"
                lists[which].append(f"{name}/int{i}.jpg")
    for which, lines in lists.items():
        (root / which).write_text("\n".join(lines))


def inria_person(folder):
    for part, n in (("Train", 5), ("Test", 3)):
        for sub in ("pos", "neg"):
            for i in range(n):
                picture(folder / "INRIAPerson" / part / sub / f"crop_{i}.png", i)
        (folder / "INRIAPerson" / part / "pos.lst").write_text("Train/pos/crop_0.png")


def dogs_vs_cats(folder):
    for i in range(8):
        for name in ("cat", "dog"):
            picture(folder / "dogs-vs-cats" / "train" / f"{name}.{i}.jpg", i)
    picture(folder / "dogs-vs-cats" / "test1" / "1.jpg")


def test_voc_takes_the_largest_object_that_is_not_difficult(tmp_path):
    voc2012(tmp_path)
    images = load_dataset("voc2012", root=tmp_path)
    assert images.y.tolist() == ["dog", "person", "cat", "cat", "dog", "person",
                                 "person", "dog"]  # fmt: skip
    assert images.y_test.tolist() == ["dog", "cat", "person", "cat", "person"]
    stems = [Path(path).stem for path in images.X]
    assert "2012_train003" not in stems  # all that is in it is difficult
    assert all(Path(path).is_file() for path in [*images.X, *images.X_test])
    inside = load_dataset("voc2012", tmp_path / "VOCdevkit" / "VOC2012")
    assert inside.y.tolist() == images.y.tolist()


def test_voc_with_all_its_labels(tmp_path):
    voc2012(tmp_path)
    images = load_dataset("voc2012-multilabel", root=tmp_path)
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
    assert split.y_pool.shape == (4, 20)
    assert split.y_test.shape == (3, 20)
    rows = [list(images.X).index(path) for path in split.X_pool]
    np.testing.assert_array_equal(images.y[rows], split.y_pool)
    assert split.classes.tolist() == images.classes.tolist()
    [annotation] = tmp_path.rglob("2012_train001.xml")
    annotation.write_text(annotation.read_text().replace("person", "unicorn"))
    with pytest.raises(ValueError, match="unicorn"):
        load_dataset("voc2012-multilabel", root=tmp_path)


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
    config = json.loads((CONFIGS / "voc2012-multilabel.json").read_text())
    config |= {"networks": {"resnet18": {"weights": None}}, "seeds": 1, "n_rounds": 2}
    config["classifier"] |= {"image_size": 32, "max_epochs": 1}
    config["datasets"] = {"voc2012-multilabel": {}, "voc2012": {}}
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
    listed = load_dataset("indoor67", root=tmp_path)
    assert (len(listed.y), len(listed.y_test)) == (9, 6)
    assert set(listed.y) == {"kitchen", "bar", "computerroom"}
    assert all(Path(p).is_file() for p in [*listed.X, *listed.X_test])
    everything = load_dataset("folder", "indoor67/Images", tmp_path)
    assert (len(everything.y), everything.y_test) == (18, None)


def test_inria_person(tmp_path):
    inria_person(tmp_path)
    images = load_dataset("inria-person", root=tmp_path)
    assert sorted(images.y) == ["no person"] * 5 + ["person"] * 5
    assert sorted(images.y_test) == ["no person"] * 3 + ["person"] * 3
    for path, label in zip(images.X, images.y, strict=True):
        assert ("pos" in path) == (label == "person")


def test_kaggles_dogs_vs_cats(tmp_path):
    dogs_vs_cats(tmp_path)
    images = load_dataset("dogs-vs-cats", root=tmp_path)
    assert sorted(images.y) == ["cat"] * 8 + ["dog"] * 8
    assert images.y_test is None
    picture(tmp_path / "dogs-vs-cats" / "train" / "bird.0.jpg")
    with pytest.raises(ValueError, match="must be called cat.<number>.jpg"):
        load_dataset("dogs-vs-cats", root=tmp_path)


@pytest.mark.parametrize("name", ["voc2012", "indoor67", "inria-person"])
def test_what_is_missing_is_named(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="should be at .* nothing there"):
        load_dataset(name, root=tmp_path)
    with pytest.raises(FileNotFoundError, match="has no .* Unpack .*"):
        load_dataset(name, tmp_path)
    with pytest.raises(FileNotFoundError, match="--data or the environment variable"):
        load_dataset(name)


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


# --- configurations -------------------------------------------------------------------


def test_cells_keep_data_set_and_network_together(config):
    cells = expand(load_config(config))
    assert len(cells) == len({c.file_name for c in cells}) == 1 * 2 * 4 * 2
    groups = [(c.dataset, c.network) for c in cells]
    assert groups == sorted(groups)
    assert [c.seed for c in cells[:8]] == [0] * 4 + [1] * 4
    slow = next(c for c in cells if c.network == "slow").settings
    assert slow["network"]["lr"] == 1e-5
    assert slow["network"]["image_size"] == 32
    own = {**config, "datasets": {"digits": {"n_instances": 3}}}
    assert expand(load_config(own))[0].settings["protocol"]["n_instances"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_round": 3}, r"has \['n_round'\], but takes only"),
        ({"strategies": []}, "names no strategies"),
        ({"strategies": ["Adma"]}, "There is no strategy 'Adma'. There are .'ADMA'"),
        ({"strategies": {"a": {"class": "ADMA", "scale": 1}}}, r"'a' has \['scale'\]"),
        ({"strategies": ["ScoringStrategy"]}, "There is no strategy"),
        ({"strategies": {"f": {"class": "FullyTrained", "x": 1}}}, r"has \['x'\]"),
        ({"datasets": ["cifar11"]}, "'cifar11' has no reader"),
        ({"datasets": {"digits": {"size": 3}}}, r"'digits' has \['size'\]"),
        ({"networks": {"n": {"memory": None}}}, r"'n' has \['memory'\]"),
        ({"classifier": {"epochs": 3}}, r"'classifier' has \['epochs'\]"),
    ],
)
def test_what_is_wrong_with_a_configuration(config, change, message):
    with pytest.raises(ValueError, match=message):
        load_config({**config, **change})


def test_names_that_would_share_a_file(config):
    names = {"a b": {"class": "BADGE"}, "a/b": {"class": "BADGE"}}
    with pytest.raises(ValueError, match="kept in one file"):
        expand(load_config({**config, "strategies": names}))


def test_strategies_of_other_modules(config):
    named = {"mine": {"class": "skadma.strategies._badge.BADGE"}}
    assert expand(load_config({**config, "strategies": named}))


def test_a_file_that_is_no_configuration(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{datasets")
    with pytest.raises(ValueError, match="is not JSON"):
        load_config(path)


# --- runs -----------------------------------------------------------------------------


def test_results_have_a_row_per_round(done):
    results = read_results(done)
    assert len(results) == 2 * 2 * (3 * 2 + 1)
    curves = results[results["strategy"] != "ceiling"]
    assert sorted(set(curves["n_labels"])) == [6, 12]
    assert set(results[results["strategy"] == "ceiling"]["n_labels"]) == {40}
    assert results["accuracy"].between(0, 1).all()
    assert results["auc"].between(0, 1).all()
    assert (results["fit_seconds"] > 0).all()
    assert set(results["n_test"]) == {60}
    assert set(results["n_frozen"]) == {40}
    assert set(results[results["network"] == "slow"]["lr"]) == {1e-5}
    ran = json.loads((done / "runs.jsonl").read_text())
    assert ran["n_cells"] == ran["n_to_run"] == 16


def test_pairs_share_split_and_network(config, tmp_path):
    """Twice the same strategy under two names: to the bit the same."""
    strategies = {name: {"class": "RandomSampling"} for name in ("one", "two")}
    small = {**config, "strategies": strategies, "networks": ["efficientnet_lite0"]}
    results = read_results(run_benchmark(small, tmp_path, verbose=False))
    one, two = (results[results["strategy"] == n] for n in ("one", "two"))
    for column in ("seed", "n_labels", "accuracy", "auc"):
        np.testing.assert_array_equal(one[column], two[column])
    assert (
        one[one["seed"] == 0]["auc"].iloc[-1] != one[one["seed"] == 1]["auc"].iloc[-1]
    )


def children(pid):
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_killed_run_goes_on_and_jobs_change_nothing(config, done, tmp_path):
    path, out = tmp_path / "config.json", tmp_path / "out"
    path.write_text(json.dumps(config))
    arguments = ["bench", "run", str(path), "--out", str(out), "--jobs", "2"]
    run = f"from skadma.cli import main; main({arguments})"
    process = subprocess.Popen(
        [sys.executable, "-c", run],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while len(list(out.glob("cells/*.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline, "processes outlive the run"
        time.sleep(0.05)
    before = {p.name: p.stat().st_mtime_ns for p in out.glob("cells/*.json")}
    assert 2 <= len(before) < 16
    assert not (out / "results.csv").exists()
    run_benchmark(path, out, jobs=1, verbose=False)
    after = {p.name: p.stat().st_mtime_ns for p in out.glob("cells/*.json")}
    assert len(after) == 16
    assert before.items() <= after.items()
    pd.testing.assert_frame_equal(read_results(out)[MEASURED],
                                  read_results(done)[MEASURED])  # fmt: skip


def test_results_of_other_settings_are_not_mixed(config, done):
    other = {**config, "classifier": {**config["classifier"], "max_epochs": 2}}
    with pytest.raises(ValueError, match="with other settings of .'network'."):
        run_benchmark(other, done, verbose=False)


def test_more_strategies_later(config, done, tmp_path):
    """What is there is not run again, under whatever configuration it was made."""
    small = {**config, "networks": ["efficientnet_lite0"], "seeds": [1]}
    run_benchmark({**small, "strategies": ["BADGE"]}, tmp_path, verbose=False)
    both = {"BADGE": {}, "random": {"class": "RandomSampling"}}
    run_benchmark({**small, "strategies": both}, tmp_path, verbose=False)
    runs = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert [json.loads(run)["n_to_run"] for run in runs] == [1, 1]
    mine, all_ = read_results(tmp_path), read_results(done)
    assert set(mine["strategy"]) == {"BADGE", "random"}
    for column in ("accuracy", "auc"):
        expected = all_.query(
            "network == 'efficientnet_lite0' and seed == 1 and strategy == 'random'"
        )[column]
        got = mine.query("strategy == 'random'")[column]
        np.testing.assert_array_equal(got, expected)


def test_a_failed_cell_does_not_stop_the_others(config, tmp_path):
    broken = {**config, "centers": "missing.safetensors", "seeds": 1}
    with pytest.raises(
        FailedCellsError, match="(?s)2 of 8 cells .* folder of source centres"
    ):
        run_benchmark(broken, tmp_path, verbose=False)
    assert len(read_results(tmp_path)) == 2 * (2 * 2 + 1)
    with pytest.raises(FailedCellsError, match="2 of 2 cells failed"):
        none = {**broken, "strategies": ["ADMA"]}
        run_benchmark(none, tmp_path / "none", verbose=False)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(broken))
    with pytest.raises(SystemExit, match="skadma bench: 2 of 2 cells failed"):
        main(["bench", "run", str(path), "--out", str(tmp_path)])


def test_initial_labels_are_there_before_the_first_query(config, tmp_path):
    small = {**config, "networks": ["efficientnet_lite0"], "seeds": 1, "n_initial": 9}
    run_benchmark(small, tmp_path, verbose=False)
    results = read_results(tmp_path).query("strategy != 'ceiling'")
    assert set(results["n_labels"]) == {15, 21}
    cells = [json.loads(p.read_text()) for p in tmp_path.glob("cells/*.json")]
    asked = [i for c in cells if c["strategy"] == "margin" for r in c["rows"]
             for i in r["indices"]]  # fmt: skip
    first = np.random.default_rng(0).choice(40, 9, replace=False)
    assert len(set(asked)) == 12
    assert not set(asked) & set(first.tolist())


@pytest.mark.parametrize(
    ("name", "make"),
    [("voc2012", voc2012), ("indoor67", indoor67), ("inria-person", inria_person),
     ("dogs-vs-cats", dogs_vs_cats)],
)  # fmt: skip
def test_the_papers_protocols_run(name, make, tmp_path):
    """As configured, but with small random networks and few labels."""
    make(tmp_path)
    config = json.loads((CONFIGS / f"paper-{name}.json").read_text())
    assert config["networks"] == {"alexnet": {}, "vgg16": {}, "resnet18": {}}
    batch = {"voc2012": 2, "indoor67": 10}.get(name, 1)
    assert config["n_instances"] == batch
    assert config["n_rounds"] == (60 if batch > 1 else 100)  # Tables 1 and 2
    for k in (3, 50, 400, 999):
        picture(tmp_path / "centers" / f"{k:04}" / "0.png", k)
    config |= {"networks": {"resnet18": {"weights": None}}, "seeds": 1, "n_rounds": 2}
    config["n_instances"] = min(batch, 4)
    config["classifier"] |= {"image_size": 32, "max_epochs": 1}
    clf = CNNClassifier("resnet18", weights=None, image_size=32)
    paths = sorted((tmp_path / "centers").rglob("*.png"))
    centers = SourceCenters.from_dataset(clf, paths, [3, 50, 400, 999])
    centers.save(tmp_path / "centers.safetensors")
    config["centers"] = "centers.safetensors"
    out = tmp_path / "out"
    results = read_results(run_benchmark(config, out, data=tmp_path, verbose=False))
    expected = {"ADMA-predict", "ADMA-2", "ADMA-distance", "random", "fully trained"}
    if batch == 1:  # Sec. 4.1 compares with AIFT on binary tasks only
        expected.add("AIFT")
    assert set(results["strategy"]) == expected
    assert set(results["n_frozen"]) == {8}


def test_centres_from_folders_of_class_names(config, tmp_path):
    for name in ("tabby", "beagle", "pizza"):
        for i in range(2):
            picture(tmp_path / "source" / name / f"{i}.png", i)
    small = {**config, "centers": "source", "strategies": ["ADMA"], "seeds": 1}
    path = run_benchmark(small, tmp_path / "out", data=tmp_path, verbose=False)
    assert set(read_results(path)["strategy"]) == {"ADMA"}


def test_a_strategys_own_centres(config, tmp_path):
    kinds = {"of the pool": {"class": "ADMA", "centers": "pool"}}
    kinds["of a file"] = {"class": "ADMA", "centers": config["centers"]}
    kinds["shipped"] = {"class": "ADMA", "n_centers": 5}
    small = {**config, "networks": ["efficientnet_lite0"], "seeds": 1}
    path = run_benchmark(
        {**small, "strategies": kinds, "centers": None}, tmp_path, verbose=False
    )
    assert set(read_results(path)["strategy"]) == set(kinds)
    cells = [json.loads(p.read_text()) for p in tmp_path.glob("cells/*.json")]
    asked = [cell["rows"][0]["indices"] for cell in cells]
    assert len({tuple(indices) for indices in asked}) == 3


# --- what is made of it ---------------------------------------------------------------


def table(rows):
    """Results of curves: (network, strategy, seed, n_labels, accuracy)."""
    columns = ["network", "strategy", "seed", "n_labels", "accuracy"]
    results = pd.DataFrame(rows, columns=columns)
    classes = {"random": "RandomSampling", "full": "FullyTrained"}
    return results.assign(
        dataset="d",
        auc=results["accuracy"] / 2,
        strategy_class=[classes.get(s, "ADMA") for s in results["strategy"]],
    )


def curve(strategy, seed, values, network="n", labels=(10, 20, 40)):
    return [
        (network, strategy, seed, n, v) for n, v in zip(labels, values, strict=True)
    ]


SMALL = table(
    [
        *curve("random", 0, [0.5, 0.6, 0.8]),
        *curve("random", 1, [0.3, 0.6, 0.6]),
        *curve("ADMA", 0, [0.4, 0.8, 1.0]),
        *curve("ADMA", 1, [0.4, 0.4, 0.9]),
        *curve("flat", 0, [0.5, 0.5, 0.5]),
        *curve("full", 0, [0.95], labels=(100,)),
    ]
)


def test_learning_table_by_hand():
    found = learning_table(SMALL).loc[("d", "n", "random")]
    assert found["mean"].tolist() == pytest.approx([0.4, 0.6, 0.7])
    assert found["std"].tolist() == pytest.approx([0.02**0.5, 0, 0.02**0.5])
    assert found["n_seeds"].tolist() == [2, 2, 2]
    assert learning_table(SMALL, "auc").loc[("d", "n", "random", 40), "mean"] == 0.35


def test_area_by_hand():
    areas = area_under_curve(SMALL).set_index(["strategy", "seed"])["area"]
    # (10 * 0.55 + 20 * 0.7) / 30
    assert areas["random", 0] == pytest.approx(0.65)
    assert areas["ADMA", 1] == pytest.approx((10 * 0.4 + 20 * 0.65) / 30)
    assert areas["flat", 0] == pytest.approx(0.5)
    assert "full" not in areas.index.get_level_values("strategy")
    one = table(curve("a", 0, [0.7], labels=(5,)))
    assert area_under_curve(one)["area"].tolist() == [0.7]


def test_labels_to_reach_by_hand():
    found = labels_to_reach(SMALL).set_index("strategy")
    assert found["target"].tolist() == pytest.approx([0.7] * 3)
    assert found.loc["random", ["labels", "share"]].tolist() == [40, 1]
    # ADMA's mean: 0.4, 0.6, 0.95; 0.7 lies 0.1 / 0.35 of the way from 20 to 40.
    assert found.loc["ADMA", "labels"] == pytest.approx(20 + 20 * 0.1 / 0.35)
    assert found.loc["ADMA", "share"] == pytest.approx((20 + 20 * 0.1 / 0.35) / 40)
    assert np.isnan(found.loc["flat", "labels"])
    early = table([*curve("random", 0, [1, 2, 3]), *curve("a", 0, [5, 5, 5])])
    assert labels_to_reach(early).set_index("strategy").loc["a", "labels"] == 10
    with pytest.raises(ValueError, match="no results of 'BADGE', only of"):
        labels_to_reach(SMALL, "BADGE")


def test_paired_tests_by_hand():
    rng = np.random.default_rng(0)
    rows, differences = [], []
    for network in ("n", "m"):
        for seed in range(6):
            base, gain = rng.random(2)
            differences.append(gain if network == "n" else -gain / 2)
            rows += curve("random", seed, [base] * 3, network)
            rows += curve("b", seed, [base + differences[-1]] * 3, network)
            rows += curve("same", seed, [base] * 3, network)
    found = compare(table(rows), "random").set_index(["network", "strategy"])
    assert found.loc[("n", "b"), "p"] == pytest.approx(2 / 2**6)
    assert found.loc[("n", "b"), "p_holm"] == pytest.approx(4 / 2**6)
    assert found.loc[("n", "b"), ["wins", "losses"]].tolist() == [6, 0]
    assert found.loc[("m", "b"), ["wins", "losses"]].tolist() == [0, 6]
    pooled = found.loc[("all", "b")]
    assert pooled["n_pairs"] == 12
    assert pooled["difference"] == pytest.approx(np.mean(differences))
    assert pooled["p"] == pytest.approx(wilcoxon(differences).pvalue)
    assert found.loc[("n", "same"), ["p", "wins", "losses"]].tolist() == [1, 0, 0]


def test_only_pairs_are_compared():
    found = compare(SMALL, "random").set_index(["network", "strategy"])
    assert found.loc[("n", "flat"), "n_pairs"] == 1
    assert found.loc[("n", "ADMA"), "n_pairs"] == 2


def test_wins_by_hand():
    wins = wins_and_losses(SMALL)
    assert list(wins.columns) == ["random", "ADMA", "flat"]
    assert wins.loc["ADMA", "random"] == 2  # 0.8 > 0.65 and 0.567 > 0.55
    assert wins.loc["random", "ADMA"] == 0
    assert wins.loc["flat", "random"] == 0


def test_summary_by_hand():
    means = summary_table(SMALL).loc[("d", "n")]
    assert means["random"] == pytest.approx((0.65 + 0.55) / 2)
    assert means["flat"] == pytest.approx(0.5)


def test_auc_is_scikit_learns():
    rng = np.random.default_rng(0)
    proba, y = rng.dirichlet(np.ones(4), 50), rng.integers(0, 4, 50)
    expected = roc_auc_score(y, proba, multi_class="ovr")
    assert measure(proba, y)["auc"] == pytest.approx(expected)
    assert measure(proba, y)["accuracy"] == (proba.argmax(1) == y).mean()
    binary = rng.dirichlet(np.ones(2), 30)
    expected = roc_auc_score(y[:30] == 1, binary[:, 1])
    two = (y[:30] == 1).astype(int)
    assert measure(binary, two)["auc"] == pytest.approx(expected)
    # A class that no test image has does not count.
    assert np.isfinite(measure(proba, np.minimum(y, 2))["auc"])


def test_report(done, capsys):
    assert main(["bench", "report", str(done), "--against", "margin"]) == 0
    printed = capsys.readouterr().out
    assert (done / "report.md").read_text("utf-8").strip() == printed.strip()
    assert "### Against margin" in printed
    assert "### Labels needed for the final accuracy of random" in printed
    assert "ceiling, all 40 labels: " in printed
    area = area_under_curve(read_results(done))
    area = area[area["strategy"] == "random"].groupby("network")["area"].mean()
    for value in area:
        assert f"{value:.3f}" in printed
    names = sorted(path.name for path in (done / "figures").iterdir())
    assert names == ["digits__efficientnet_lite0.png", "digits__slow.png"]
    best = write_report(done).read_text("utf-8")
    assert f"Against {summary_table(read_results(done)).mean().idxmax()}" in best


def test_a_report_while_the_run_goes_on(config, done, tmp_path):
    """Of the cells that are done by now."""
    (tmp_path / "cells").mkdir()
    for path in (done / "cells").glob("*__0.json"):
        (tmp_path / "cells" / path.name).write_bytes(path.read_bytes())
    assert "4 strategies, 1 seed(s)" in write_report(tmp_path).read_text("utf-8")
    assert set(read_results(tmp_path)["seed"]) == {0}


def test_no_results_yet(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["bench", "report", str(tmp_path)])
    assert "skadma bench run CONFIG --out DIR" in capsys.readouterr().err


def test_names_in_the_documentation():
    text = (CONFIGS.parents[1] / "docs" / "benchmarks.md").read_text("utf-8")
    for name in DATASETS:
        assert f"`{name}`" in text
