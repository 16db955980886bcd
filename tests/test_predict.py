"""skadma predict: every file has its row, whatever happens meanwhile."""

import csv
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skadma import Campaign, CNNClassifier
from skadma.cli import main
from skadma.images.folder import iter_images
from skadma.labelling import predict as predicting
from skadma.labelling.predict import predict_files
from skadma.persistence import ModelError
from skadma.strategies import MarginSampling

from .conftest import tiny_classifier


@pytest.fixture(scope="module")
def clf(pictures):
    y = np.array(["blue", "green", "red"])[pictures[1]]
    return tiny_classifier(max_epochs=5).fit(pictures[0], y)


@pytest.fixture
def photos(pictures, tmp_path, monkeypatch):
    """A folder with subfolders and all sorts of names, and a file that is no image."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    names = ["a.png", "a/1.png", "a-b.png", "b/c/ü ,\"q\".png", "=b.png", "b.png",
             "B.png", "a/two\nlines.png", "c.png"]  # fmt: skip
    for i, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pictures[0][i]).save(path)
    (folder / "b" / "bad.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden").mkdir()
    shutil.copy(folder / "a.png", folder / ".hidden")
    return folder


def table(path):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def others(folder):
    """What a run leaves beside its file."""
    return sorted(p.name for p in folder.glob("out.csv?*"))


def test_the_rows(clf, photos, tmp_path):
    done = predict_files(clf, ["photos"], "out.csv", proba=True)
    rows = table("out.csv")
    assert (done.n_images, done.n_problems, done.n_before) == (10, 1, 0)
    assert "1 could not be decided" in str(done)
    paths = [row["path"] for row in rows]
    assert paths == sorted(
        p.relative_to(tmp_path).as_posix()
        for p in photos.rglob("*.*g")
        if ".hidden" not in p.parts
    )
    assert list(rows[0]) == ["path", "label", "confidence", "problem",
                             "proba_blue", "proba_green", "proba_red"]  # fmt: skip
    good = [row for row in rows if row["path"] != "photos/b/bad.jpg"]
    proba = clf.predict_proba([row["path"] for row in good])
    assert [row["label"] for row in good] == list(
        clf.predict([row["path"] for row in good])
    )
    shown = np.array([[float(row[f"proba_{c}"]) for c in clf.classes_] for row in good])
    np.testing.assert_allclose(shown, proba, rtol=1e-4)
    np.testing.assert_allclose([float(r["confidence"]) for r in good], proba.max(1),
                               rtol=1e-4)  # fmt: skip
    (bad,) = (row for row in rows if row not in good)
    assert "UnidentifiedImageError" in bad["problem"]
    assert bad["label"] == bad["confidence"] == bad["proba_red"] == ""
    assert others(tmp_path) == []
    assert clf.memory is None
    assert clf.on_bad_image == "raise"  # its parameters are its own


def test_files_and_folders_each_once(clf, photos, monkeypatch):
    inputs = ["photos/c.png", "photos/b", "photos/b/c", "./photos/a.png",
              "photos/a.png", "photos/notes.txt"]  # fmt: skip
    done = predict_files(clf, inputs, "out.csv")
    paths = [row["path"] for row in table("out.csv")]
    assert paths == ["photos/a.png", "photos/b/bad.jpg", 'photos/b/c/ü ,"q".png',
                     "photos/c.png", "photos/notes.txt"]  # fmt: skip
    assert done.n_problems == 2
    monkeypatch.chdir(photos)
    predict_files(clf, ["."], "out.csv")
    paths = [row["path"] for row in table("out.csv")]
    assert paths[:2] == ["./=b.png", "B.png"]  # no formula
    assert all((photos / path).is_file() for path in paths)


def test_walk_is_sorted(tmp_path):
    """By the whole path, one folder at a time."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        parts = rng.choice(["a", "a b", "a.png", "a-", "b", "B", "é"], rng.integers(3))
        folder = tmp_path.joinpath(*(f"{part}" for part in parts))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"x{rng.choice(list('-.é/').copy()[:3])}.PNG").touch()
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing")
    with pytest.warns(UserWarning, match=r"'gone\.png' is left out"):
        found = [path for path, _ in iter_images(tmp_path)]
    expected = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.PNG")]
    assert found == sorted(expected)
    assert len(found) > 20


def test_what_is_left_out_is_said(clf, photos):
    (photos / "gone.png").symlink_to("nothing")
    with pytest.warns(UserWarning, match=r"'gone\.png' is left out"):
        done = predict_files(clf, ["photos"], "out.csv")
    assert done.n_images == 10


def test_what_is_refused(clf, photos, tmp_path):
    (tmp_path / "empty").mkdir()
    for inputs, message in (
        (["gone"], "no file or folder 'gone'"),
        (["empty"], "no image in 'empty'"),
        ([], "no image in"),
        (["photos", "bad\udcff.png"], "not Unicode"),
    ):
        with pytest.raises(ModelError, match=message):
            predict_files(clf, inputs, "out.csv")
    (tmp_path / "out.csv").write_text("labels of weeks")
    with pytest.raises(FileExistsError, match="--overwrite"):
        predict_files(clf, ["photos"], "out.csv")
    assert (tmp_path / "out.csv").read_text() == "labels of weeks"
    predict_files(clf, ["photos"], "out.csv", overwrite=True)
    assert len(table("out.csv")) == 10
    with pytest.raises(ValueError, match="not fitted"):
        predict_files(tiny_classifier(), ["photos"], "other.csv")


class StoppedError(Exception):
    pass


def begin(clf, monkeypatch, n_batches, **options):
    """Stop after some batches."""
    append, left = predicting._append, [n_batches]

    def stopped(*arguments):
        if not left[0]:
            raise StoppedError
        left[0] -= 1
        append(*arguments)

    with monkeypatch.context() as patch, pytest.raises(StoppedError):
        patch.setattr(predicting, "_append", stopped)
        predict_files(clf, ["photos"], "out.csv", **options)


def test_it_goes_on(clf, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(predicting, "_GROUP_SIZE", 2)
    predict_files(clf, ["photos"], "expected.csv")
    expected = (tmp_path / "expected.csv").read_bytes()
    for n_batches in (0, 1, 2, 4):
        begin(clf, monkeypatch, n_batches)
        assert not (tmp_path / "out.csv").exists()
        done = predict_files(clf, ["photos"], "out.csv")
        assert done.n_before == 2 * n_batches
        assert (done.n_images, done.n_problems) == (10, 1)
        assert (tmp_path / "out.csv").read_bytes() == expected
        assert others(tmp_path) == []
        (tmp_path / "out.csv").unlink()


def test_from_whatever_is_whole(clf, photos, tmp_path, monkeypatch):
    """A part that was cut off or scrambled anywhere leads to the same file."""
    monkeypatch.setattr(predicting, "_GROUP_SIZE", 2)
    predict_files(clf, ["photos"], "expected.csv")
    expected = (tmp_path / "expected.csv").read_bytes()
    begin(clf, monkeypatch, 4)
    part = tmp_path / "out.csv.part"
    whole = part.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*range(0, len(whole), 11), len(whole) - 1, len(whole)]:
        for tail in (b"", b"\0" * 30, b'"', b"\xff\n", b"x,y\r\n", bytes(rng.bytes(9))):
            part.write_bytes(whole[:place] + tail)
            predict_files(clf, ["photos"], "out.csv", overwrite=True)
            assert (tmp_path / "out.csv").read_bytes() == expected


def test_files_that_came_and_went_meanwhile(clf, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(predicting, "_GROUP_SIZE", 2)
    begin(clf, monkeypatch, 3)
    (photos / "a.png").unlink()
    shutil.copy(photos / "c.png", photos / "a" / "0.png")
    predict_files(clf, ["photos"], "out.csv")
    again = (tmp_path / "out.csv").read_bytes()
    predict_files(clf, ["photos"], "out.csv", overwrite=True)
    assert (tmp_path / "out.csv").read_bytes() == again


def test_images_that_changed_meanwhile(clf, photos, pictures, tmp_path, monkeypatch):
    """Of the same name and size, but of another time: no row of the former is kept."""
    monkeypatch.setattr(predicting, "_GROUP_SIZE", 2)
    begin(clf, monkeypatch, 3)
    changed = photos / "a" / "1.png"
    size = changed.stat().st_size
    Image.fromarray(pictures[0][7]).save(changed)
    with changed.open("ab") as file:
        file.write(b"\0" * (size - changed.stat().st_size))
    done = predict_files(clf, ["photos"], "out.csv")
    again = (tmp_path / "out.csv").read_bytes()
    assert done.n_before == 4
    assert "not resumed: the rows from 'photos/a/1.png' on" in str(done)
    assert "added, removed or changed" in done.not_resumed
    predict_files(clf, ["photos"], "out.csv", overwrite=True)
    assert (tmp_path / "out.csv").read_bytes() == again


def test_the_same_names_in_another_folder(clf, photos, pictures, tmp_path, monkeypatch):
    """A file that was begun about A/photos is not finished with those of B/photos."""
    monkeypatch.setattr(predicting, "_GROUP_SIZE", 2)
    begin(clf, monkeypatch, 2)
    part = tmp_path / "out.csv.part"
    before = part.read_bytes()
    other = tmp_path / "B"
    shutil.copytree(photos, other / "photos")  # with the same sizes and times
    for i, path in enumerate(sorted((other / "photos").rglob("*.png"))):
        Image.fromarray(pictures[0][-i]).save(path)
    monkeypatch.chdir(other)
    out = tmp_path / "out.csv"
    with pytest.raises(ModelError, match="another inputs") as refused:
        predict_files(clf, ["photos"], out)
    assert f"({photos}; now {other / 'photos'})" in str(refused.value)
    assert part.read_bytes() == before
    done = predict_files(clf, ["photos"], out, overwrite=True)
    assert done.n_before == 0
    assert "not resumed: what was begun with another inputs" in str(done)
    predict_files(clf, ["photos"], "expected.csv")
    assert out.read_bytes() == (other / "expected.csv").read_bytes()


def test_what_another_began_is_not_gone_on_with(clf, photos, pictures, tmp_path,
                                                monkeypatch):  # fmt: skip
    monkeypatch.setattr(predicting, "_GROUP_SIZE", 2)
    begin(clf, monkeypatch, 2)
    part = tmp_path / "out.csv.part"
    before = part.read_bytes()
    other = tiny_classifier(max_epochs=1).fit(*pictures)
    renamed = tiny_classifier(max_epochs=5).fit(pictures[0], pictures[1])
    for who, options, message in (
        (other, {}, "another model and other columns|another model"),
        (renamed, {}, "another model"),
        (clf, {"proba": True}, "another columns"),
    ):
        with pytest.raises(ModelError, match=message):
            predict_files(who, ["photos"], "out.csv", **options)
    with pytest.raises(ModelError, match="another inputs"):
        predict_files(clf, ["photos/a"], "out.csv")
    assert part.read_bytes() == before
    for text in (b"", b"{}", b"7", b"[" * 100_000):
        part.write_bytes(text)
        with pytest.raises(ModelError, match="another note of what it is"):
            predict_files(clf, ["photos"], "out.csv")
        assert part.read_bytes() == text
    part.write_bytes(before)
    done = predict_files(other, ["photos"], "out.csv", overwrite=True)
    assert done.n_before == 0


def test_a_full_disk(clf, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(predicting, "_GROUP_SIZE", 2)
    predict_files(clf, ["photos"], "expected.csv")
    append, left = predicting._append, [2]

    def full(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(28, "No space left on device")
        append(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(predicting, "_append", full)
        with pytest.raises(ModelError, match="rows so far are kept"):
            predict_files(clf, ["photos"], "out.csv")
    done = predict_files(clf, ["photos"], "out.csv")
    assert done.n_before == 4
    assert (tmp_path / "out.csv").read_bytes() == (
        tmp_path / "expected.csv"
    ).read_bytes()


# --- by command -----------------------------------------------------------------


@pytest.fixture(scope="module")
def model(pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    clf = CNNClassifier(
        "squeezenet1_1", weights=None, image_size=32, max_epochs=1, random_state=0
    )
    clf.fit(pictures[0], np.array(["b", "g", "r"])[pictures[1]]).save(folder)
    return folder


def test_command(model, photos, tmp_path, capsys):
    main(["predict", "photos", "-o", "out.csv", "--model", str(model), "--proba"])
    said = capsys.readouterr()
    assert "10 images; 1 could not be decided" in said.out
    assert "10/10" in said.err  # the progress bar
    rows = table("out.csv")
    clf = CNNClassifier.load(model)
    paths = [row["path"] for row in rows if row["label"]]
    assert [row["label"] for row in rows if row["label"]] == list(clf.predict(paths))
    for arguments, message in (
        (["--model", "nowhere"], "no model in"),
        (["--campaign", "nowhere"], "no campaign in"),
    ):
        with pytest.raises(SystemExit):
            main(["predict", "photos", "-o", "new.csv", *arguments])
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["predict", "photos", "-o", "new.csv"])
    assert "--model --campaign is required" in capsys.readouterr().err


def test_command_with_a_campaign(photos, tmp_path, capsys):
    clf = CNNClassifier("squeezenet1_1", weights=None, image_size=32, max_epochs=1)
    arguments = ["predict", "photos/a", "-o", "out.csv", "--campaign", "c"]
    with Campaign.create("c", photos, ["x", "y"], clf, MarginSampling()) as campaign:
        with pytest.raises(SystemExit):
            main(arguments)
        assert "no labels yet" in capsys.readouterr().err
        campaign.teach({"a.png": "x", "b.png": "y"})
        expected = campaign.estimator().predict(["photos/a/1.png"])
    main(arguments)
    rows = table("out.csv")
    assert rows[0]["path"] == "photos/a/1.png"
    assert rows[0]["label"] == expected[0]


COMMAND = "import sys; from skadma.cli import main; main(sys.argv[1:])"


def test_killed(model, pictures, tmp_path, monkeypatch):
    """Killed again and again, it makes the file that it makes undisturbed."""
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(24):
        for k in range(40):
            Image.fromarray(pictures[0][i]).save(folder / f"{k:02}-{i:02}.png")
    command = [sys.executable, "-c", COMMAND, "predict", "many", "--model", str(model)]
    out, part = tmp_path / "out.csv", tmp_path / "out.csv.part"
    at = []

    def size():
        try:
            return part.stat().st_size
        except FileNotFoundError:  # not begun, or renamed just now
            return 0

    while len(at) < 2:
        before = size()
        process = subprocess.Popen([*command, "-o", "out.csv"], cwd=tmp_path,
                                   stderr=subprocess.DEVNULL)  # fmt: skip
        while process.poll() is None and size() <= before + 100:
            time.sleep(0.005)
        process.kill()
        process.wait()
        if part.exists():
            at.append(part.read_bytes().count(b"\n"))
        else:  # it was faster than this test, which gets little of the processor
            assert len(table(out)) == 960
            out.unlink()
            at.clear()
    assert at == sorted(set(at))
    for name in (out.name, part.name):  # killed while one of them was written whole
        (tmp_path / f".{name}.{process.pid}.1.part").write_text("path,la")
    monkeypatch.chdir(tmp_path)
    main(["predict", "many", "--model", str(model), "-o", "out.csv"])
    main(["predict", "many", "--model", str(model), "-o", "whole.csv"])
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert len(table(out)) == 960
    assert others(tmp_path) == []
    assert list(tmp_path.glob(".out.csv*.part")) == []


MEASURED = """
import resource, sys
from skadma import CNNClassifier
from skadma.labelling.predict import predict_files
from tests.conftest import TinyCNN
clf = CNNClassifier.load(sys.argv[1], backbone=TinyCNN)
for folder in sys.argv[2:]:
    print(predict_files(clf, [folder], folder + ".csv").n_images)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow(clf, pictures, tmp_path):
    clf.save(tmp_path / "model")
    for i in range(24):
        Image.fromarray(pictures[0][i]).save(tmp_path / f"{i}.png")
    for n in (600, 3000):
        (tmp_path / f"{n}").mkdir()
        for k in range(n):
            os.link(tmp_path / f"{k % 24}.png", tmp_path / f"{n}" / f"{k:05}.png")
    arguments = [tmp_path / "model", tmp_path / "600", tmp_path / "3000"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    n_few, few, n_many, many = map(int, done.stdout.split())
    assert (n_few, n_many) == (600, 3000)
    # The frozen layer's outputs of 2,400 more images alone would be 19 MiB.
    assert (many - few) / 1024 < 10
