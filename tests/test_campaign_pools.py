"""A campaign that gets more pools, or labels there were before it."""

# ruff: noqa: F811

import itertools
import shutil

import pytest

from skadma import Campaign
from skadma.cli import main
from skadma.labelling.campaign import CampaignError, LabelFileError, LabelRow
from skadma.labelling.campaign.folders import Folders
from skadma.labelling.campaign.report import make_report

# pytest finds the fixtures by their names here
from .changing_campaign import (  # noqa: F401
    CLASSES,
    bits,
    campaign,
    create,
    everything,
    label,
    marks,
    paint,
    painted,
    pool,
)
from .conftest import TinyCNN

# --- pools --------------------------------------------------------------------


@pytest.fixture
def more(pool, tmp_path):
    """A second pool with three images of its own and a copy of one of the first."""
    folder = paint(tmp_path / "disk" / "more", [0, 1, 2], seed=1)
    (folder / "a").mkdir()
    shutil.copy(pool / "04.png", folder / "a" / "copy.png")
    return folder


def test_a_second_pool(campaign, more):
    label(campaign, 0, 1, 2, 4)
    assert campaign.add_pool(more) == "more"
    assert campaign.pools == {"": campaign.pool, "more": more}
    status = campaign.status()
    assert (status.n_images, status.n_contents) == (16, 15)
    assert status.pools == {"": campaign.pool, "more": more}
    assert marks(campaign)["more/a/copy.png"] == "green"
    assert "more/a/copy.png" not in campaign.candidates()
    campaign.teach({"more/01.png": "green", str(more / "02.png"): "blue"})
    assert {p.path for p in campaign.query(99)} == {
        "more/00.png", *(f"{i:02}.png" for i in (3, 5, 6, 7, 8, 9, 10, 11))
    }  # fmt: skip
    assert campaign.files(["more/a/copy.png", "00.png"]) == [
        more / "a" / "copy.png",
        campaign.pool / "00.png",
    ]
    paint(more, [7], seed=2)  # found at the next scan
    assert campaign.refresh() == 1
    assert "more/07.png" in campaign.candidates()
    assert make_report(campaign).count("<figure>") == 7


def test_a_copy_in_another_pool_makes_no_other_model(campaign, more):
    """Though by name it would come before."""
    label(campaign, 0, 1, 2, 4)
    before = bits(campaign)
    campaign.add_pool(more, "!first")
    assert bits(campaign) == before
    assert sum(event["kind"] == "train" for event in campaign.log()) == 1


def test_undo_of_a_pool_restores_exactly(campaign, more):
    label(campaign, 0, 1, 2)
    before = everything(campaign)
    campaign.add_pool(more)
    campaign.teach({"more/01.png": "green"})
    paint(more, [7], seed=2)
    campaign.query(99)
    assert campaign.undo() == ["more/01.png"]
    assert campaign.undo() == []
    assert everything(campaign) == before
    assert campaign.status().missing == []
    assert campaign.refresh() == 0
    campaign.log()
    assert campaign.add_pool(more) == "more"
    assert "more/07.png" in campaign.candidates()


def test_a_path_means_what_it_meant_then(campaign, more):
    """A folder of the first pool takes the name of a pool that was taken back."""
    campaign.add_pool(more)
    campaign.undo()
    paint(campaign.pool / "more", [0], seed=9)
    assert campaign.refresh() == 1
    assert "more/00.png" in campaign.candidates()
    assert "more/01.png" not in campaign.candidates()
    with pytest.raises(CampaignError, match="another name"):
        campaign.add_pool(more)
    assert campaign.add_pool(more, "more-2") == "more-2"
    assert {"more/00.png", "more-2/00.png"} <= set(campaign.candidates())


def test_a_folder_of_the_first_pool_with_a_pools_name(campaign, more):
    campaign.add_pool(more)
    paint(campaign.pool / "more", [0, 9], seed=9)
    with pytest.warns(UserWarning, match="'more' of the pool .* is left out"):
        assert campaign.refresh() == 0
    with pytest.raises(CampaignError, match="another name"):
        campaign.add_pool(paint(more.parent / "x", [1], seed=4), "more")


def test_names_of_pools(campaign, more, tmp_path):
    campaign.add_pool(more)
    for folder, message in (("2/more", "another name"), (".x=y", "cannot be the name")):
        with pytest.raises(CampaignError, match=message):
            campaign.add_pool(paint(tmp_path / folder, [1], seed=2))
    assert campaign.add_pool(paint(tmp_path / "3" / "z", [1], seed=5), "ü b") == "ü b"
    assert "ü b/01.png" in campaign.candidates()


def test_a_pool_that_is_not_there(campaign, more):
    campaign.add_pool(more)
    campaign.teach({"more/01.png": "green"}, train=False)
    before = campaign.status().n_images, campaign.log()
    moved = more.rename(more.parent / "moved")
    with pytest.raises(CampaignError, match=r"pools= or --pool more=FOLDER"):
        campaign.query()
    assert (campaign.status().n_images, campaign.log()) == before
    more.mkdir()  # where a disk is mounted
    with pytest.raises(CampaignError, match=r"None of the 4 .*--pool more=FOLDER"):
        campaign.query()
    assert (campaign.status().n_images, campaign.log()) == before
    options = {"backbone": TinyCNN, "pools": {"more": moved}}
    with Campaign.open(campaign.folder, **options) as opened:
        assert "more/00.png" in [p.path for p in opened.query(99)]
        assert opened.estimator().n_labels_ == 1
    with pytest.raises(CampaignError, match="no pool 'mire'"):
        Campaign.open(campaign.folder, backbone=TinyCNN, pools={"mire": moved})


def test_a_pool_taken_back_by_another_process_during_a_scan(
    campaign, more, monkeypatch
):
    campaign.add_pool(more)
    paint(more, [7], seed=2)
    scan = Folders.scan

    def meanwhile(*arguments):
        monkeypatch.undo()
        found = scan(*arguments)
        with Campaign.open(campaign.folder, backbone=TinyCNN) as other:
            other.undo()
        return found

    monkeypatch.setattr(Folders, "scan", meanwhile)
    assert campaign.refresh() == 0
    assert campaign.status().n_images == 12


def test_a_query_reads_one_state_while_another_process_writes(campaign):
    """Between reading which images there are and what is in them."""
    rows = campaign._event_log.rows
    n_read = itertools.count(1)

    def meanwhile(statement, *values):
        found = rows(statement, *values)
        if "FROM images WHERE event" in statement and next(n_read) == 2:
            paint(campaign.pool, [99], seed=3)
            with Campaign.open(campaign.folder, backbone=TinyCNN) as other:
                assert other.refresh() == 1
        return found

    campaign._event_log.rows = meanwhile
    assert len(campaign.query(99)) == 12
    campaign._event_log.rows = rows
    assert next(n_read) > 2
    assert len(campaign.query(99)) == 13


def test_a_pool_that_an_audit_drew_from(campaign, more):
    campaign.add_pool(more)
    campaign.audits.draw(13, method="random")
    with pytest.raises(CampaignError, match="Release the audit"):
        campaign.undo()
    campaign.audits.release()
    campaign.undo()
    assert campaign.status().n_images == 12


# --- labels that there are already --------------------------------------------


def test_labels_of_several_people(campaign):
    """One decides, others' are blind repeats."""
    rows = [
        LabelRow("1", "00.png", "red", who="eva"),
        LabelRow("2", "00.png", "blue", who="max"),
        LabelRow("3", "01.png", "green", who="max"),
    ]
    campaign.teach(rows, train=False)
    assert marks(campaign) == {"00.png": "red", "01.png": "green"}
    assert campaign.agreement().pairs[0].n == 1
    before = campaign.log()
    rows.append(LabelRow("4", "02.png", "rde", who="eva"))
    with pytest.raises(LabelFileError, match="'rde'"):
        campaign.teach(rows, train=False)
    assert campaign.log() == before


def test_bad_labels_change_nothing(campaign, tmp_path):
    bad = {
        "row": "path,label\n00.png,red\n01.png,rde\n",
        "path": "path,label\nx.png,red\n",
        "header": "file,label\n00.png,red\n",
        "twice": "path,label\n00.png,red\n./00.png,blue\n",
    }
    file = tmp_path / "labels.csv"
    for text in bad.values():
        file.write_text(text)
        with pytest.raises(CampaignError, match="labels.csv"):
            campaign.teach(file)
        assert [event["kind"] for event in campaign.log()] == ["start"]
    file.write_text(bad["row"])
    (refused,) = campaign.teach(file, partial=True, train=False).refused
    assert refused.startswith("line 3: 'rde'")
    assert marks(campaign) == {"00.png": "red"}


# --- commands -----------------------------------------------------------------


def test_commands(pool, more, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text("path,label\n00.png,red\n02.png,blue\n")
    settings = ["estimator__image_size=32", "estimator__max_epochs=1"]
    start = ["start", "photos", "--classes", *CLASSES, "--backbone", "squeezenet1_1",
             "--weights", "none", "--training", "fine-tune",
             "--set", *settings]  # fmt: skip

    def run(*arguments):
        main([str(argument) for argument in arguments])
        return capsys.readouterr().out

    assert "red: 0" in run(*start)
    assert "Saved 2 labels" in run("teach", "labels.csv", "--later")
    assert "blue, green, red, x" in run("classes", "add", "x")
    run("classes", "rename", "red", "rose")
    run("classes", "merge", "x", "green", "--into", "green")
    assert "(blue: 1, green: 0, rose: 1)" in run("status")
    assert "begin with bunch/" in run("pool", "add", more, "--name", "bunch")
    more.rename(tmp_path / "moved")
    with pytest.raises(SystemExit):
        run("query", "-o", "q.csv")
    assert "--pool bunch=FOLDER" in capsys.readouterr().err
    run("query", "-n", 99, "-o", "q.csv", "--pool", "bunch=moved", "--pool", "photos")
    assert "bunch/01.png" in (tmp_path / "q.csv").read_text()
    assert "The classes are blue, green, rose" in run("undo")
    assert "The classes are blue, green, rose, x" in run("undo")
    run("export", "-o", "all.csv")
    assert "00.png,rose," in (tmp_path / "all.csv").read_text()
