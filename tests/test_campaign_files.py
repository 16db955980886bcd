"""Campaign: label files, and images that are not as they should be."""

# ruff: noqa: F811

import contextlib
import csv
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from PIL import Image

from skadma import Campaign
from skadma._utils.tables import escape_cell, unescape_cell
from skadma.cli import main
from skadma.labelling.campaign import CampaignError, LabelFileError
from skadma.labelling.campaign.record_labels import find_image
from skadma.strategies import RandomSampling

from .conftest import TinyCNN, tiny_classifier

# pytest finds the fixtures by their names here
from .painted_campaign import (  # noqa: F401
    CLASSES,
    SQUEEZE,
    bits,
    campaign,
    create,
    marks,
    painted,
    pool,
    write,
)

# --- label files ------------------------------------------------------------


@pytest.mark.parametrize("form", ["comma", "semicolon", "bom", "more", "dot"])
def test_label_files(form, campaign, tmp_path):
    text = {
        "comma": "path,label\na b/01 ü.png,red\n00 ü.png,blue\n02 ü.png,\n",
        "semicolon": "label;path\r\nred;a b/01 ü.png\r\nblue;00 ü.png\r\n",
        "bom": '\ufeffPath,Label\n"a b/01 ü.png",red\n00 ü.png, blue\n\n',
        "more": "score,path,label\n1,a b/01 ü.png,red\n2,00 ü.png,blue\n",
        "dot": f"path,label\n./a b/01 u\u0308.png,red\n{campaign.pool}/00 ü.png,blue\n",
    }[form]
    campaign.teach(write(tmp_path, text), train=False)
    assert marks(campaign) == {"a b/01 ü.png": "red", "00 ü.png": "blue"}


@pytest.mark.parametrize("given", ["resolved", "linked", "relative", "dots"])
@pytest.mark.parametrize(
    "row",
    ["{pool}/{name}", "{linked}/{name}", "../pool/{name}", "a b/../{name}",
     "{linked}/../pool/{name}", "{link}", "../elsewhere/../pool/{name}"],
)  # fmt: skip
def test_any_way_into_the_pool(given, row, pool, tmp_path, monkeypatch):
    """Paths are compared as what they lead to, not as texts."""
    (tmp_path / "elsewhere" / "home").mkdir(parents=True)
    linked = tmp_path / "elsewhere" / "home" / "photos"
    linked.symlink_to(pool)
    link = tmp_path / "elsewhere" / "link.png"
    link.symlink_to(pool / "00 ü.png")
    monkeypatch.chdir(tmp_path / "elsewhere")
    place = {
        "resolved": pool,
        "linked": linked,
        "relative": "../pool",
        "dots": f"{tmp_path}/elsewhere/../pool",
    }[given]
    path = row.format(pool=pool, linked=linked, link=link, name="00 ü.png")
    file = write(tmp_path, f"path,label\n{path},red\n")
    with create(tmp_path / "c", place) as campaign:
        campaign.teach(file, train=False)
        assert marks(campaign) == {"00 ü.png": "red"}
        assert ".." not in campaign.pool.parts
        campaign.relabel(path, "blue", train=False)
        assert marks(campaign) == {"00 ü.png": "blue"}


def test_an_image_that_is_a_link(pool, tmp_path):
    (tmp_path / "far.png").write_bytes((pool / "02 ü.png").read_bytes())
    Image.new("RGB", (32, 32), "yellow").save(tmp_path / "far.png")
    (pool / "near.png").symlink_to(tmp_path / "far.png")
    with create(tmp_path / "c", pool) as campaign:
        file = write(tmp_path, f"path,label\n{pool}/near.png,red\n")
        campaign.teach(file, train=False)
        assert marks(campaign) == {"near.png": "red"}
        (tmp_path / "circle").symlink_to("circle")
        with pytest.raises(CampaignError, match="is no folder"):
            campaign.add_pool(tmp_path / "circle")


def test_a_campaign_in_its_pool_behind_a_link(pool, tmp_path):
    (tmp_path / "linked").symlink_to(pool / "a b")
    with pytest.raises(CampaignError, match="is inside the pool"):
        create(tmp_path / "linked" / "c", pool)
    with pytest.raises(CampaignError, match="is inside the pool"):
        create(pool / "c", tmp_path / "linked" / "..")


BAD_ROWS = """path,label
00 ü.png,red
nowhere.png,red
02 ü.png,rot
../pool/none.png,red
00 ü.png,blue
"a b/01
ü.png",red
06 ü.png,?maybe
08 ü.png,blue
"""


def test_all_or_nothing_with_line_numbers(campaign, tmp_path):
    path = write(tmp_path, BAD_ROWS)
    with pytest.raises(LabelFileError) as caught:
        campaign.teach(path)
    said = str(caught.value)
    assert "6 of 8 rows" in said
    for line, why in [
        (3, "not in the pool"), (4, "none of the classes blue, green, red"),
        (5, "not in the pool"), (6, "'red' in line 2"), (7, "not in the pool"),
        (9, r"\?skip"),
    ]:  # fmt: skip
        (problem,) = [p for p in caught.value.problems if p.startswith(f"line {line}:")]
        assert why.replace("\\", "") in problem
    assert marks(campaign) == {}
    assert [event["kind"] for event in campaign.log()] == ["start"]
    taught = campaign.teach(path, partial=True, train=False)
    assert len(taught.refused) == 6
    assert marks(campaign) == {"00 ü.png": "red", "08 ü.png": "blue"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("image,label\nx,red\n", "line 1: the header must have"),
        ("path,path,label\nx,x,red\n", "line 1: the header has path more than once"),
        ("path,label,sha256,SHA256 \nx,red,,\n", "line 1: .* sha256 more than once"),
        ("path,label,note,note\nx,red,,\n", "line 1: .* note more than once"),
        ("path,label\n00 ü.png\n", "line 2: 1 column"),
        ("path,label,sha256\n00 ü.png,red\n", "line 2: 2 column.*may have been cut"),
        ("path,label\n00 ü.png,red, blue\n", "line 2: 3 columns.*quotation"),
        ("path,label,as_of\n00 ü.png,red,99\n", "as_of is 99.*log ends at 1"),
        ("path,label\n00 ü.png,?sk", "line 2: the last line has no end"),
        ('path,label\n00 ü.png,red\n"02 ü.png","r"', "line 3: .* has no end"),
        ('path,label\n"00 ü.png,red\n', "no CSV"),
    ],
)
def test_no_label_files(text, message, campaign, tmp_path):
    with pytest.raises(CampaignError, match=message):
        campaign.teach(write(tmp_path, text))
    with pytest.raises(CampaignError, match="not UTF-8"):
        campaign.teach(write(tmp_path, "path,label\n00 ü.png,red", "latin-1"))
    assert marks(campaign) == {}


@pytest.mark.parametrize(
    "whole",
    [
        "path,label,sha256\n00 ü.png,crack-deep,{}\n02 ü.png,crack-deep,{}\n",
        "path,label\n00 ü.png,crack-deep\n02 ü.png,crack-deep\n",
        "path,label\n00 ü.png,crack-deep\n02 ü.png,'=1\n",
        "path,label\n00 ü.png,crack-deep\n02 ü.png,u\u0308\n",
        "label,path\ncrack-deep,02 ü.png\ncrack,00 ü.png.png\n",
        "path,label,as_of\n00 ü.png,{old},{as_of}\n02 ü.png,{old},{as_of}\n",
        "path,as_of,label\n00 ü.png,{as_of},{old}\n02 ü.png,{as_of},{old}\n",
    ],
)
def test_a_cut_file_gives_no_other_label(whole, pool, tmp_path):
    """Wherever the file was cut, each label that is taken is one that it had."""
    (pool / "00 ü.png.png").write_bytes((pool / "04 ü.png").read_bytes())
    digest = hashlib.sha256((pool / "00 ü.png").read_bytes()).hexdigest()
    another = hashlib.sha256((pool / "02 ü.png").read_bytes()).hexdigest()
    classes = ["crack", "crack-deep", "'", "=1", "ü", "u", "pit"]
    estimator = tiny_classifier(random_state=None)
    with Campaign.create(
        tmp_path / "c", pool, classes, estimator, RandomSampling()
    ) as campaign:
        if "{as_of}" in whole:  # the names meant others before
            for _ in range(5):
                campaign.rename_class("pit", "hole")
                campaign.rename_class("hole", "pit")
            campaign.rename_class("crack", "old")
            campaign.rename_class("crack-deep", "old-deep")
            as_of = campaign.last_event
            assert as_of > 9
            campaign.rename_class("old", "crack")
            campaign.rename_class("old-deep", "crack-deep")
            campaign.rename_class("pit", "old-dee")
            whole = whole.format(as_of=as_of, old="old-deep")
        whole = whole.format(digest, another)
        campaign.teach(write(tmp_path, whole), train=False)
        meant = marks(campaign)
        campaign.undo()
        for n in range(len(whole.encode())):
            (tmp_path / "cut.csv").write_bytes(whole.encode()[:n])
            with contextlib.suppress(CampaignError):
                campaign.teach(tmp_path / "cut.csv", partial=True, train=False)
            assert marks(campaign).items() <= meant.items()
            if marks(campaign):
                campaign.undo()


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("path,label\n00 ü.png,red", True),
        ("path,label\n00 ü.png,?skip", True),
        ("path,label\n00 ü.png,reddish", True),
        ("label,path\nred,00 ü.png", True),
        ("label,path\nred,02 ü.png", False),  # of 02 ü.png.png
        ("path,label,note\n00 ü.png,red,no", True),
        ("path,label,\n00 ü.png,red,", True),
        ("path,label,sha256\n00 ü.png,red,{digest}", True),
        ("path,label,sha256\n00 ü.png,red,", False),
        ("path,label,sha256,as_of\n00 ü.png,red,{digest},1", True),
        ("path,label\n00 ü.png,scarlet", False),  # of its former name scarlet red
    ],
)
def test_a_last_line_without_an_end(text, taken, pool, tmp_path):
    digest = hashlib.sha256((pool / "00 ü.png").read_bytes()).hexdigest()
    (pool / "02 ü.png.png").write_bytes(b"")
    classes = ["red", "reddish", "scarlet"] if "reddish" in text else ["red", "blue"]
    file = write(tmp_path, text.format(digest=digest))
    with Campaign.create(
        tmp_path / "c", pool, classes, tiny_classifier(), RandomSampling()
    ) as campaign:
        if "scarlet" in text:
            campaign.add_classes(["scarlet red"])
            campaign.rename_class("scarlet red", "crimson")
            campaign.add_classes(["scarlet"])
        if taken:
            assert campaign.teach(file, train=False).n_new == 1
        else:
            with pytest.raises(LabelFileError, match="line 2: the last line has no"):
                campaign.teach(file, train=False)
            file.write_text(file.read_text("utf-8") + "\n", "utf-8")
            assert campaign.teach(file, train=False).n_new == 1


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n  ", "\n04 ü.png,"])
def test_whole_last_lines(end, campaign, tmp_path):
    file = write(tmp_path, f"path,label\n00 ü.png,red{end}")
    assert campaign.teach(file, train=False).n_new == 1


FORMULAS = ["=1+1", "+1", "-1", "@sum(a1)", "-deep crack", "'=1", "''@", "＝1", "'ok'"]


def test_no_cell_is_a_formula(pool, tmp_path, capsys):
    """Names of files, classes and people, in every table, come back unchanged."""
    for k, name in enumerate(FORMULAS):
        Image.new("RGB", (32, 32), (9 * k, 0, 99)).save(pool / f"{name}.png")
    folder = ["--campaign", str(tmp_path / "c")]
    with Campaign.create(
        tmp_path / "c", pool, FORMULAS, SQUEEZE, RandomSampling(), who="=eva"
    ) as campaign:
        labels = {f"{name}.png": name for name in FORMULAS}
        campaign.teach(labels, train=False)
    out = tmp_path / "out.csv"
    for command in (["export"], ["suspects"], ["query", "-n", "9"],
                    ["repeats", "--share", "1", "--who=-max"],
                    ["predict", str(pool)]):  # fmt: skip
        assert main([*command, *folder, "-o", str(out), "--overwrite"]) == 0
        with out.open(newline="", encoding="utf-8") as file:
            for row in csv.reader(file):
                assert not [
                    cell for cell in row if cell.startswith((*"=+-@\t\r", "＝"))
                ]
        if command == ["export"]:
            with Campaign.open(tmp_path / "c") as campaign:
                taught = campaign.teach(out, train=False)
                assert (taught.n_new, taught.n_changed) == (0, 0)
                assert taught.n_same == len(FORMULAS)
    capsys.readouterr()


@pytest.mark.parametrize("text", [*FORMULAS, "\tx", "\rx", "", "'", "x", "-", 3, -0.5])
def test_cells_come_back(text):
    escaped = escape_cell(text)
    if isinstance(text, str):
        assert not escaped.startswith((*"=+-@\t\r\n", "＝"))
        assert unescape_cell(escaped) == text
    else:
        assert escaped == text


# --- files that are not as they should be -----------------------------------


def test_copies_share_a_label(pool, tmp_path):
    twin = pool / "copy.png"
    twin.write_bytes((pool / "00 ü.png").read_bytes())
    with create(tmp_path / "c", pool) as campaign:
        assert len(campaign.query(25)) == 24
        campaign.teach({"copy.png": "red"}, train=False)
        assert marks(campaign) == {"copy.png": "red", "00 ü.png": "red"}
        assert campaign.status().labels["red"] == 1
        assert "00 ü.png" not in campaign.candidates()
        with pytest.raises(LabelFileError, match="which is the same image"):
            campaign.teach({"copy.png": "red", "00 ü.png": "blue"})


def test_a_file_changed_since_it_was_labelled(campaign, pool):
    path = "00 ü.png"
    campaign.teach({path: "red", "02 ü.png": "blue"})
    before, old = bits(campaign), (pool / path).read_bytes()
    Image.new("RGB", (32, 32), "yellow").save(pool / path)
    with pytest.warns(UserWarning, match="00 ü.png.* changed since"):
        campaign.query()
    assert campaign.status().changed == [path]
    assert ("00 ü.png", "changed") in [(p, s) for p, _, s in campaign.decisions()]
    assert path in campaign.candidates()  # a new image, as far as labels go
    assert bits(campaign) != before  # its label is not trained with
    campaign.teach({path: "green"})
    both = [(d.label, state) for p, d, state in campaign.decisions() if p == path]
    assert sorted(both) == [("green", "as labelled"), ("red", "changed")]
    campaign.undo()
    (pool / path).write_bytes(old)
    assert campaign.refresh() == 1
    assert bits(campaign) == before
    assert campaign.status().changed == []


def test_files_come_and_go(campaign, pool):
    campaign.teach({"00 ü.png": "red", "02 ü.png": "blue"})
    (pool / "00 ü.png").rename(pool / "moved.png")
    (pool / "02 ü.png").unlink()
    campaign.query()
    status = campaign.status()
    assert status.missing == ["00 ü.png", "02 ü.png"]
    assert status.unusable == 1
    assert marks(campaign) == {
        "00 ü.png": "red",
        "moved.png": "red",
        "02 ü.png": "blue",
    }
    hidden = pool.with_name("hidden")
    pool.rename(hidden)
    with pytest.raises(CampaignError, match="is no folder"):
        campaign.query()
    pool.mkdir()
    with pytest.raises(CampaignError, match="Is its disk mounted"):
        campaign.query()
    assert campaign.status() == status  # an unmounted disk is no lost image
    with Campaign.open(campaign.folder, pool=hidden, backbone=TinyCNN) as elsewhere:
        assert len(elsewhere.query()) == 4


def test_scores_that_are_not_finite(pool, tmp_path):
    estimator = tiny_classifier(lr=1e30, head_lr=1e30)
    with create(tmp_path / "c", pool, estimator=estimator) as campaign:
        campaign.teach({"00 ü.png": "red", "02 ü.png": "blue"})
        with pytest.raises(
            ValueError, match=r"NaN or infinite, the first: .*04 ü\.png"
        ):
            campaign.query()
        assert marks(campaign) == {"00 ü.png": "red", "02 ü.png": "blue"}


@pytest.mark.parametrize("form", [dict, pd.Series], ids=["dict", "Series"])
@pytest.mark.parametrize("key", [str, Path], ids=["str", "Path"])
def test_labels_by_path(campaign, pool, form, key):
    first, second, *_ = sorted(path.name for path in pool.iterdir() if path.is_file())
    given = form({key(first): "red", key(second): "blue"})
    assert campaign.teach(given, train=False).n_new == 2
    assert marks(campaign) == {first: "red", second: "blue"}


@pytest.mark.parametrize(
    "given",
    [pd.DataFrame({"path": ["00.png"], "label": ["red"]}), [("00.png", "red")]],
    ids=["table", "pairs"],
)
def test_labels_of_another_form(campaign, given):
    with pytest.raises(CampaignError, match="Give a dict from paths to labels"):
        campaign.teach(given)


def test_completions_are_annotations(campaign, pool, tmp_path):
    name = min(path.name for path in pool.iterdir() if path.is_file())
    result = {"type": "choices", "from_name": "label", "value": {"choices": ["red"]}}
    task = {"id": 1, "data": {"path": name}, "completions": [{"result": [result]}]}
    export = tmp_path / "export.json"
    export.write_text(json.dumps([task]))
    assert campaign.teach(export, train=False).n_new == 1


def test_many_paths_that_are_not_in_the_pool():
    """The time for n rows about n images is not of n squared."""
    numbers = {f"a/{i:05}\u00e9.jpg": i for i in range(15000)}
    state = SimpleNamespace(numbers=numbers, by_text={path: [path] for path in numbers})
    begin = time.perf_counter()
    for i in range(15000):
        assert find_image(f"b/{i:05}e\u0301.jpg", state) is None
        assert find_image(f"a/{i:05}e\u0301.jpg", state) == i
    assert time.perf_counter() - begin < 5


def test_classes_in_another_unicode_form(pool, tmp_path):
    """macOS gives folders' names with their accents apart."""
    with Campaign.create(
        tmp_path / "c", pool, ["caf\u00e9", "tea"],
        tiny_classifier(random_state=None), RandomSampling(),
    ) as campaign:  # fmt: skip
        campaign.teach({"00 ü.png": "cafe\u0301"}, train=False)
        assert marks(campaign) == {"00 ü.png": "caf\u00e9"}


def test_a_folder_that_may_not_be_read_is_not_gone(campaign, monkeypatch):
    before = campaign.status()
    inside = campaign.pool / "a b"
    scandir, stat = os.scandir, Path.stat

    def refuse(path):
        if Path(path).is_relative_to(inside):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    def list_folder(path):
        refuse(path)
        return scandir(path)

    def state_of(path, **options):
        if path != inside:
            refuse(path)
        return stat(path, **options)

    monkeypatch.setattr(os, "scandir", list_folder)
    monkeypatch.setattr(Path, "stat", state_of)
    with pytest.warns(UserWarning, match="'a b/' is left out: Permission denied"):
        assert campaign.refresh() == 0
    monkeypatch.undo()
    assert campaign.status() == before
    shutil.rmtree(inside)
    assert campaign.refresh() > 0
    assert campaign.status() != before


def test_what_is_left_out_is_told(pool, tmp_path, capsys):
    for name in ("phone.HEIC", "a b/2.heic", "scan", "a b/note.txt", ".hidden"):
        (pool / name).write_bytes(b"no image")
    (tmp_path / "crack").mkdir()
    Image.new("RGB", (32, 32), "yellow").save(tmp_path / "crack" / "1.png")
    (pool / "crack").symlink_to(tmp_path / "crack")
    (pool / "torn.png").write_bytes(b"\x89PNG")
    Image.new("1", (200, 200)).save(pool / "huge.png")
    c = ["--campaign", str(tmp_path / "c")]
    create(tmp_path / "c", pool, estimator=SQUEEZE).close()
    main(["status", *c])
    assert "huge.png" not in capsys.readouterr().out
    started = subprocess.run(
        [sys.executable, "-c", "from skadma.cli import main; main()", "start",
         str(pool), "--classes", *CLASSES, "--campaign", str(tmp_path / "d"),
         "--backbone", "squeezenet1_1", "--training", "fine-tune", "--weights", "none"],
        env={**os.environ, "SKADMA_MAX_IMAGE_PIXELS": "39999"},
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for line in (
        "left out     2: .heic (to read them: pip install pillow-heif)",
        "left out     1: no ending (to read images among them: rename them, such as to "
        "NAME.jpg)",
        "left out     1: link to a folder (to read what is there: skadma pool add "
        "LINK --name NAME)",
        "left out     1: .txt",
        "left out: phone.HEIC",
        "left out: crack",
        "left out: a b/note.txt",
    ):
        assert line in started.splitlines()
    assert ".hidden" not in started
    (torn,) = [x for x in started.splitlines() if x.startswith("unreadable: torn.png")]
    assert "(UnidentifiedImageError: " in torn
    (huge,) = [x for x in started.splitlines() if x.startswith("unreadable: huge.png")]
    assert "DecompressionBombError" in huge
    assert "SKADMA_MAX_IMAGE_PIXELS=1000000000" in started
    main(["pool", "add", str(pool / "crack"), "--name", "cracks", *c])
    assert "cracks/1.png" in _paths(tmp_path / "c")
    with Campaign.open(tmp_path / "c") as campaign:
        assert campaign.status().left_out["link to a folder"] == ["crack"]
        pool.rename(tmp_path / "gone")
        assert campaign.status().left_out == {}


def _paths(folder):
    with Campaign.open(folder) as campaign:
        return campaign.candidates()


def test_the_plugin_for_heif_is_used(pool, tmp_path):
    """With pillow-heif installed, files that it reads are images."""
    (pool / "phone.heic").write_bytes((pool / "00 ü.png").read_bytes() + b"other")
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "pillow_heif.py").write_text(
        "from PIL import Image, PngImagePlugin\n"
        "class HeifImageFile(PngImagePlugin.PngImageFile):\n"
        "    format = 'HEIF'\n"
        "def register_heif_opener():\n"
        "    Image.register_open('HEIF', HeifImageFile)\n"
        "    Image.register_extensions('HEIF', ['.heic', '.heif'])\n"
    )
    create(tmp_path / "c", pool, estimator=SQUEEZE).close()
    path = os.pathsep.join([str(tmp_path / "plugins"), *sys.path])
    shown = subprocess.run(
        [sys.executable, "-c", "from skadma.cli import main; main()",
         "status", "--campaign", str(tmp_path / "c")],
        env={**os.environ, "PYTHONPATH": path},
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert "images       25, of which 0 unreadable" in shown
    assert "left out" not in shown
