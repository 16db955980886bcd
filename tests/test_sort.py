"""`skadma sort`: photographs into a folder for each class, and back."""

import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skadma import Campaign, ProbeClassifier
from skadma.cli import main
from skadma.labelling.campaign.event_log import CampaignError
from skadma.labelling.page.session import do_job
from skadma.labelling.sort import (
    JOURNAL,
    UNDO,
    SortPlan,
    _free,
    check_into,
    folder_names,
    plan_sort,
    read_plan,
    run_sort,
    undo_sort,
    unfinished,
)
from skadma.strategies import UncertaintyHerding

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
    main(["sort", "--undo", str(into / UNDO)])  # asks
    said = capsys.readouterr().out
    assert f"  {folder / 'photos/a'}\n" in said and "Nothing was done" in said
    assert files(folder / "photos").keys() == {"a/broken.png"}
    main(["sort", "--undo", str(into / UNDO), "--yes"])
    assert files(folder / "photos") == before
    assert [*into.iterdir()] == []
    said = capsys.readouterr().out
    assert f"{len(before) - 2} files are back." in said


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

            def back():
                undo_sort(read_plan(into / UNDO))

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
    head = {"how": "move", "labelled": 0}
    for source, target, why in (
        (secret, into / "a/secret.txt", "is no plan"),
        (picture, into / "a/.bashrc", "is no plan"),
        (picture, into / "../own.png", "is no plan"),
        (picture, into / "a/own.png", "no plan for these"),
        (photos / "a/02.png", "/evil.png", "is no plan"),
        (photos / "a/02.png", "evil.png", "is no plan"),
        (photos / "a/02.png", into / "a/\0.png", "is no plan"),
        (f"{photos}/x/../a/02.png", into / "a/own.png", "is no plan"),
    ):
        row = {"from": str(source), "to": str(target), "size": 4, "mtime_ns": 0}
        text = f"{json.dumps(head)}\n{json.dumps(row)}\n"
        (into / JOURNAL).write_text(text)
        with pytest.raises(CampaignError, match=why):
            unfinished(into, [photos])
        if why == "is no plan":
            with pytest.raises(CampaignError, match=why):
                read_plan(into / JOURNAL)
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


def test_the_only_copy_stays(tmp_path):
    """Whatever links lead from a place to the other, where a move would remove it."""
    photos, into = tmp_path / "photos", tmp_path / "sorted"
    file, moved = photos / "a.png", into / "cat/a.png"

    def begin():
        for folder in (photos, into):
            if folder.is_symlink():
                folder.unlink()
            shutil.rmtree(folder, ignore_errors=True)
        photos.mkdir()
        file.write_bytes(b"a")

    def undo(why):
        n, (problem,) = undo_sort(read_plan(into / UNDO))
        assert n == 0 and why in problem and (into / UNDO).exists()
        assert moved.read_bytes() == b"a" and not moved.is_symlink()

    move = SortPlan(into, "move", [(file, "cat/a.png")])
    begin()
    assert run_sort(move) == []
    file.symlink_to(moved)
    undo("there is a link")
    file.unlink()
    photos.rmdir()
    photos.symlink_to(into / "cat")
    undo("by a linked folder")
    os.link(moved, tmp_path / "third.png")  # is no name of the picture in its place
    undo("by a linked folder")
    for link in (moved, moved.parent):
        begin()
        moved.parent.parent.mkdir()
        if link == moved:
            moved.parent.mkdir()
        link.symlink_to(file if link == moved else photos)
        (problem,) = run_sort(move)
        assert "link" in problem and file.read_bytes() == b"a"
        assert not file.is_symlink()


def test_one_bad_file_stops_no_other(tmp_path):
    """Nor a folder that cannot be made; and long names are numbered."""
    photos, into = tmp_path / "photos", tmp_path / "sorted"
    for name in ("a", "b", "c"):
        (photos / name).mkdir(parents=True)
        for file in (f"{'é' * 125}.png", "x.png"):
            (photos / name / file).write_bytes(name.encode())
    rest, taken = {}, set()
    for file in sorted(photos.rglob("*.png")):
        rest[file] = _free(f"0/{file.stem}", taken, file.suffix)
    assert len(taken) == 6
    assert max(len(name.encode()) for name in rest.values()) <= 257
    files = [*rest.items()]
    long = [f"{'n' * 300}/x.png", f"0/{'n' * 300}.png"]
    problems = run_sort(
        SortPlan(into, "move", [(photos / "a/x.png", to) for to in long] + files)
    )
    assert len(problems) == 2 and all("too long" in p for p in problems)
    assert not [*photos.rglob("*.png")]
    shutil.rmtree(photos / "b")
    (photos / "b").write_text("no folder")
    n, problems = undo_sort(read_plan(into / UNDO))
    assert n == 4 and len(problems) == 4 and (into / UNDO).exists()
    assert len([*photos.rglob("*.png")]) == 4


def test_a_table_judges_what_has_a_row(tmp_path):
    """And says what has none: the sort is not stopped by it."""
    rng = np.random.default_rng(0)
    photos, into = tmp_path / "photos", tmp_path / "sorted"
    photos.mkdir()
    for i in range(8):
        pixels = rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(photos / f"{i}.png")
    rows = np.float32([[i % 2, i / 90, 1] for i in range(8)])
    names = [f"{i}.png" for i in range(8)]
    np.savez(tmp_path / "clip.npz", paths=names, features=rows)
    made = tmp_path / "campaign", photos, ["even", "odd"]
    model = ProbeClassifier(), UncertaintyHerding()
    with Campaign.create(*made, *model, features=tmp_path / "clip.npz") as campaign:
        with pytest.raises(CampaignError, match="no labels"):
            plan_sort(campaign, into)
        campaign.teach({f"{i}.png": ["even", "odd"][i % 2] for i in range(4)})
        # Not the picture any more that a label was given for; and a broken one.
        shutil.copy(photos / "4.png", photos / "3.png")
        (photos / "broken.png").write_bytes(b"no picture")
        with pytest.warns(UserWarning, match="3.png"):
            plan = plan_sort(campaign, into, unsure=0)
        places = {f"{['even', 'odd'][i % 2]}/{i}.png" for i in range(8)}
        assert {to for _, to in plan.files} == places - {"odd/3.png"} | {"even/3.png"}
        assert "3 by your labels, 5 by the model." in str(plan)
        assert "broken.png' is left out" in str(plan)


@pytest.mark.filterwarnings("ignore:1 unreadable")
def test_the_log_changes_meanwhile(place, tmp_path):
    """A picture that the log has not seen again; a class with another name."""
    folder, labels = place
    photos, more = folder / "photos", tmp_path / "more"
    changed = photos / next(path for path, mark in labels.items() if mark == "bright/1")
    cant_tell = next(path for path, mark in labels.items() if mark == "?cant-tell")
    renamed = []
    with Campaign.open(folder / "campaign", pool=photos) as campaign:
        shutil.copytree(photos / "b", more)
        campaign.add_pool(more)
        campaign.estimator()
        shutil.rmtree(more)  # with which no folder is read anew
        shutil.copy(photos / cant_tell, photos / "new.png")

        def rename(frame, event, _):
            if frame.f_code.co_name == "file_digest" and not renamed:
                renamed.append(campaign.rename_class("bright/1", "clear"))

        def plan():
            with pytest.warns(UserWarning, match="as of the last look"):
                plan = plan_sort(campaign, tmp_path / "sorted", [photos], unsure=0)
            return {file: to.partition("/")[0] for file, to in plan.files}

        sys.settrace(rename)  # at the first file that is read
        try:
            places = plan()
        finally:
            sys.settrace(None)
        assert renamed and places[changed] == "clear"
        assert "bright_1" not in places.values()
        shutil.copy(photos / cant_tell, changed)
        assert plan()[changed] == "cant-tell"


@pytest.mark.filterwarnings("ignore:1 unreadable")
def test_the_page_goes_on_with_a_sort(place, tmp_path):
    """But not with a move."""
    folder, _ = place
    into, photos = tmp_path / "sorted", folder / "photos"
    with Campaign.open(folder / "campaign", pool=photos) as campaign:
        plan = plan_sort(campaign, into, unsure=0)
        (counts,) = (x for x in str(plan).splitlines() if "by your labels" in x)
        plan.how = "link"
        assert killed(200, lambda: run_sort(plan)) and (into / JOURNAL).exists()
        said = do_job(campaign, "plan", str(into), "copy", 0.8)["said"]
        assert "This goes on with it: link" in said and counts in said
        done = do_job(campaign, "sort", str(into), "copy", 0.8)
        assert done == {"left_out": []} and not (into / JOURNAL).exists()
        assert len([*into.rglob("*.png")]) == len(plan.files)
        shutil.rmtree(into)
        plan.how = "move"
        assert killed(200, lambda: run_sort(plan)) and (into / JOURNAL).exists()
        with pytest.raises(ValueError, match="A move was interrupted"):
            do_job(campaign, "sort", str(into), "copy", 0.8)
