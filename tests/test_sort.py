"""`skadma sort`: photographs into a folder for each class, and back."""

import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skadma import Campaign
from skadma.cli import main
from skadma.labelling.campaign.event_log import CampaignError
from skadma.labelling.sort import (
    JOURNAL,
    UNDO,
    SortPlan,
    check_into,
    folder_names,
    plan_sort,
    run_sort,
    undo_sort,
    unfinished,
)

from .label_site import TINY

CLASSES = ["bright/1", "..", "unsure"]


def files(folder):
    """Contents of all files by path, without those of the program."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "skadma-" not in path.name
    }


def names_in(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A campaign about 30 pictures, two with the same name, and 12 labels."""
    folder = tmp_path_factory.mktemp("sort")
    rng = np.random.default_rng(0)
    for i in range(30):
        place = folder / "photos" / ("a" if i % 3 else "b") / f"{i // 2 * 2:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 100, (32, 32, 3)) + 150 * (i % 2)
        if not place.exists():
            Image.fromarray(pixels.astype(np.uint8)).save(place)
    (folder / "photos/a/broken.png").write_bytes(b"no picture")
    main(
        ["start", str(folder / "photos"), "--classes", *CLASSES, *TINY]
        + ["--campaign", str(folder / "campaign")]
    )
    with Campaign.open(folder / "campaign") as campaign:
        paths = sorted(campaign.candidates())
        marks = [*CLASSES[:2] * 4, "?cant-tell", "?not-an-image", "unsure", "?skip"]
        labels = dict(zip(paths, marks, strict=False))
        campaign.teach(labels)
    assert len({Path(p).name for p in paths}) < len(paths)
    return folder, labels


@pytest.fixture
def place(made, tmp_path):
    """A copy of the pictures, with the campaign about them."""
    shutil.copytree(made[0], tmp_path / "made")
    return tmp_path / "made", made[1]


def sort(place, *arguments):
    main(
        ["sort", "--campaign", str(place / "campaign"), "--pool", str(place / "photos")]
        + [str(a) for a in arguments]
    )


def test_by_labels_and_by_the_model(place, tmp_path, capsys):
    folder, labels = place
    before, into = files(folder / "photos"), tmp_path / "sorted"
    sort(folder, "--into", into, "--unsure", 0)
    said = capsys.readouterr().out
    assert "Nothing was done" in said and not into.exists()
    assert "'bright/1' goes into the folder 'bright_1'." in said
    assert "'..' goes into the folder '_'." in said
    assert "broken.png' is left out: it cannot be read." in said

    sort(folder, "--into", into, "--unsure", 0, "--yes")
    assert files(folder / "photos") == before
    names = {"bright/1": "bright_1", "..": "_", "unsure": "unsure"}
    names |= {"?cant-tell": "cant-tell", "?not-an-image": "not-an-image"}
    where = {data: path for path, data in files(into).items()}
    assert len(where) == len(before) - 1  # all but the broken one
    for path, mark in labels.items():
        if mark != "?skip":
            found = where[before[path]]
            assert found.partition("/")[0] == names[mark]
            assert Path(found).name[:2] == Path(path).name[:2]
    assert {path.name for path in into.iterdir()} <= set(names.values())

    links = tmp_path / "links"
    sort(folder, "--into", links, "--unsure", 1, "--link", "--yes")
    assert {data: path for path, data in files(links).items()}.keys() == where.keys()
    assert all(p.is_symlink() for p in links.rglob("*.png"))
    assert sum("unsure (2)" in path for path in files(links)) == len(where) - 11


def test_moves_and_back(place, tmp_path, capsys):
    folder, labels = place
    (folder / "photos/a/link.png").symlink_to("02.png")
    before, into = files(folder / "photos"), tmp_path / "sorted"
    sort(folder, "--into", into, "--move", "--yes")
    assert files(folder / "photos").keys() == {"a/broken.png"}
    with Campaign.open(folder / "campaign", pool=into) as campaign:
        campaign.refresh()
        assert sum(campaign.status().labels.values()) == 9
        assert campaign.status().unusable == 0
    capsys.readouterr()
    main(["sort", "--undo", str(into / UNDO)])
    assert files(folder / "photos") == before
    assert [*into.iterdir()] == []
    said = capsys.readouterr().out
    assert said.startswith(f"{len(before) - 2} files are back.")


def test_names_of_folders():
    labels = ["a/b", "a_b", "A_B", "..", "CON", "con.txt", "x. . ", ".git", "ok"]
    labels += ["\xe9", "e\u0301", "a\x1b[31m", "n" * 300, "   "]
    names = folder_names(labels)
    found = list(names.values())
    assert len({name.casefold() for name in found}) == len(labels)
    assert names["ok"] == "ok" and names["CON"] == "_CON" and names["x. . "] == "x"
    assert not any(set(name) & set('/\\:*?"<>|\x1b') for name in found)
    assert not any(name.startswith(".") or len(name) > 110 for name in found)


def killed(line, work):
    """Do something in a process that dies at a line of the module; whether it did."""
    if (child := os.fork()) == 0:
        left = iter(range(line))

        def trace(frame, event, _):
            if not frame.f_code.co_filename.endswith("labelling/sort.py"):
                return None
            if event == "line" and next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        try:
            sys.settrace(trace)
            work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] == signal.SIGKILL


@pytest.fixture
def memory():
    """A folder where waiting for the disk takes no time."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shared if shared.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("how", ["move", "move across disks", "copy", "link"])
def test_killed_anywhere_it_goes_on(how, tmp_path, memory):
    """Each file is there once, whole, and goes back; whatever line was the last."""
    photos, into = memory / "photos", memory / "sorted"
    data = {f"{i}.png": bytes([i]) * 2000 for i in range(3)}
    if "disks" in how:
        into, how = tmp_path / "sorted", "move"

    def work():
        there = files(into) if into.exists() else {}
        left = [(file, to) for file, to in steps if to not in there]
        plan = unfinished(into, [photos]) or SortPlan(into, how, left)
        if plan.files:
            run_sort(plan)

    for line in range(0, 2000, 31):
        photos.mkdir()
        for name, content in data.items():
            (photos / name).write_bytes(content)
        steps = [
            (path, f"{i % 2}/{path.name}")
            for i, path in enumerate(sorted(photos.iterdir()))
        ]
        first = died = killed(line, work)
        last = line
        while died:
            there = files(into) if into.exists() else {}
            assert {Path(p).name: c for p, c in there.items()} | files(photos) == data
            last += 60
            died = killed(last, work)
        assert {Path(p).name: c for p, c in files(into).items()} == data
        assert files(photos) == ({} if how == "move" else data)
        assert not {*into.rglob("*part*"), *into.glob(JOURNAL)}
        if how == "move":
            back = partial(undo_sort, into / UNDO)
            last = line // 2
            while killed(last, back):
                last += 60
            assert names_in(photos) == {*data} and files(photos) == data
            assert files(into) == {}
        shutil.rmtree(photos)
        shutil.rmtree(into)
        if not first:
            break  # it has not so many lines
    assert line > 50


def test_what_is_refused(made, tmp_path):
    """Folders that cannot be taken, plans of strangers, files that are in the way."""
    folder, photos = made[0], made[0] / "photos"
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    for into, why in (
        (tmp_path / "nowhere", "leads nowhere"),
        (photos / "sorted", "among the photographs"),
        (tmp_path / "x/y", "there is no folder"),
    ):
        with pytest.raises(SystemExit):
            sort(folder, "--into", into, "--yes")
        with (
            Campaign.open(folder / "campaign") as campaign,
            pytest.raises(CampaignError, match=why),
        ):
            plan_sort(campaign, into)
    # A folder that somebody gives us takes no file of ours, and writes no other.
    into = tmp_path / "given"
    secret, picture = tmp_path / "secret.txt", tmp_path / "own.png"
    secret.write_text("mine")
    picture.write_text("mine")
    into.mkdir()
    head = {"how": "move"}
    for source, target, why in (
        (secret, into / "a/secret.txt", "is no plan"),
        (picture, into / "a/.bashrc", "is no plan"),
        (picture, into / "../own.png", "is no plan"),
        (picture, into / "a/own.png", "no plan for these"),
    ):
        row = {"from": str(source), "to": str(target), "size": 4, "mtime_ns": 0}
        text = f"{json.dumps(head)}\n{json.dumps(row)}\n"
        (into / JOURNAL).write_text(text)
        with pytest.raises(CampaignError, match=why):
            unfinished(into, [photos])
    # Nothing is overwritten, and what changed since is left.
    (into / JOURNAL).unlink()
    (into / "a").mkdir()
    (into / "a/own.png").write_text("another")
    for how in ("move", "copy", "link"):
        (problem,) = run_sort(SortPlan(into, how, [(picture, "a/own.png")]))
        assert "another file" in problem
    (into / UNDO).unlink()
    with pytest.raises(CampaignError, match="there is something in it"):
        check_into(into, [photos])
    (problem,) = run_sort(SortPlan(into, "link", [(tmp_path / "gone.png", "a/x.png")]))
    assert "No such file" in problem
    assert files(into) == {"a/own.png": b"another"} and picture.exists()
