"""A campaign whose classes change: names, renamed, merged and added classes."""

# ruff: noqa: F811

import csv
import itertools
import json
import os
import shutil
import sqlite3
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skadma import Campaign, CNNClassifier
from skadma.cli import main
from skadma.labelling.campaign import CampaignError, LabelFileError
from skadma.labelling.campaign.class_names import ClassNames
from skadma.labelling.campaign.folders import (
    Folder,
    Folders,
    check_name,
)
from skadma.labelling.campaign.image_index import check_path
from skadma.labelling.campaign.report import make_report
from skadma.labelling.campaign.state import read_state
from skadma.strategies import MarginSampling

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
    truth,
)
from .conftest import TinyCNN
from .forged import change_log
from .test_fuzz import fuzz

# --- the names ----------------------------------------------------------------


def test_names_by_order_of_events():
    naming = ClassNames(["a", "b"])
    assert not naming.changed
    naming.change("rename", ["a"], "x", 10)
    naming.change("add", ["a"], None, 20)
    naming.change("merge", ["b", "x"], "x", 30)
    assert naming.classes == ["x", "a"]
    assert naming.former == {"b": "x"}
    assert [naming.now("a", event) for event in (5, 15, 25, 35)] == ["x", "a", "a", "a"]
    assert [naming.now("b", event) for event in (5, 25)] == ["x", "x"]
    assert naming.changed


def test_names_that_change_places():
    naming = ClassNames(["a", "b"])
    for event, (old, new) in enumerate([("a", "_"), ("b", "a"), ("_", "b")], 10):
        naming.change("rename", [old], new, event)
    assert naming.classes == ["b", "a"]
    assert (naming.now("a", 1), naming.now("b", 1)) == ("b", "a")
    assert naming.former == {"_": "b"}


@fuzz
@given(
    path=st.text(st.sampled_from("ab./\\:\0~ü "), max_size=12),
    name=st.text(st.sampled_from("ab./\\:\0~ü ="), max_size=3),
)
def test_paths_stay_in_their_pools(path, name):
    first, second = Path("/pools/first"), Path("/pools/second")
    try:
        ever = [Folder("", str(first), 0), Folder(check_name(name), str(second), 5)]
        file = Folders(ever, {}).file(check_path(f"{name}/{path}"))
        other = Folders(ever, {}).file(check_path(path))
    except ValueError:
        return
    assert os.path.commonpath([second, os.path.normpath(file)]) == str(second)
    inside = second if path.startswith(f"{name}/") else first
    assert os.path.commonpath([inside, os.path.normpath(other)]) == str(inside)


@fuzz
@given(data=st.data())
def test_names_are_those_of_a_log_that_is_rewritten(data):
    """Against the slow way: change every label that was given at each change."""
    naming, classes = ClassNames(["a", "b", "c"]), ["a", "b", "c"]
    said = []  # [event, label, label of today]
    for event in range(1, data.draw(st.integers(1, 12))):
        said.append([event, name := data.draw(st.sampled_from(classes)), name])
        change = data.draw(st.sampled_from(["add", "rename", "merge"]))
        name = st.sampled_from("abcdefg")
        names = data.draw(st.lists(name, min_size=1, max_size=3))
        into = None if change == "add" else data.draw(name)
        try:
            naming.change(change, names, into, event)
        except CampaignError:
            assert naming.classes == classes
            continue
        if change == "add":
            classes = [*classes, *names]
        for row in said:
            row[2] = into if row[2] in names and into else row[2]
        classes = list(
            dict.fromkeys(into if c in names and into else c for c in classes)
        )
        assert sorted(naming.classes) == sorted(classes)
        classes = list(naming.classes)
        assert all(row[2] in classes for row in said)
    for event, name, now in said:
        # A label of an event comes before the change that has the same number here.
        assert naming.now(name, event - 1) == now


@pytest.fixture
def named(pool, tmp_path):
    """A campaign that commands can open: its network has a name."""
    network = CNNClassifier("squeezenet1_1", weights=None, image_size=32, max_epochs=1)
    with Campaign.create(
        tmp_path / "c", pool, CLASSES, network, MarginSampling(), n_instances=3
    ) as campaign:
        yield campaign


def use_names_again(campaign):
    """Red becomes rose, and blue becomes red."""
    campaign.rename_class("red", "rose")
    campaign.rename_class("blue", "red")


def test_what_a_name_meant():
    names = ClassNames(["a", "b", "c"])
    names.change("rename", ["a"], "x", 10)
    names.change("rename", ["b"], "a", 11)
    names.change("merge", ["c", "a"], "all", 12)
    names.change("add", ["c"], None, 13)
    assert [names.meant("a", at) for at in (9, 10, 11, 12, 99)] == [
        "x", "x", "all", "all", "all"
    ]  # fmt: skip
    assert [names.meant("c", at) for at in (0, 12, 13)] == ["all", "all", "c"]
    assert names.meant("b", None) == "all"
    accents = ClassNames(["bl\u00e9", "x"])
    accents.change("rename", ["bl\u00e9"], "wheat", 5)
    accents.change("rename", ["x"], "bl\u00e9", 6)
    assert accents.meant("ble\u0301", 1) == "wheat"
    assert accents.meant("ble\u0301", 7) == "bl\u00e9"
    assert names.meant("?skip", 9) == "?skip"
    names.take_back(13, 14)
    with pytest.raises(CampaignError, match="'c' that was meant is no class any more"):
        names.meant("c", 13)
    names.take_back(12, 15)
    assert names.meant("c", 0) == "c"
    assert names.meant("all", 12) == "c"
    assert names.classes == ["x", "a", "c"]


def test_a_file_that_waits_while_names_are_used_again(named, tmp_path):
    """The answers stay with the classes that they were given for."""
    out = tmp_path / "out.csv"
    folder = ["--campaign", str(named.folder)]
    main(["query", "-n", "6", "-o", str(out), *folder])
    rows = list(csv.DictReader(out.open(encoding="utf-8", newline="")))
    for row in rows:
        row["label"] = truth(row["path"])
    use_names_again(named)
    given = tmp_path / "given.csv"
    with given.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    named.teach(given, train=False)
    now = {"red": "rose", "blue": "red", "green": "green"}
    assert marks(named) == {r["path"]: now[r["label"]] for r in rows}
    # What was exported after the change means what it says, also after another.
    main(["export", "-o", str(tmp_path / "all.csv"), *folder])
    before = marks(named)
    named.rename_class("red", "blue")
    named.rename_class("rose", "red")
    assert named.teach(tmp_path / "all.csv", train=False).n_same == len(before)


def test_a_file_of_an_audit_or_repeats_waits_while_names_are_used_again(
    named, tmp_path
):
    label(named, 0, 1, 2)
    folder = ["--campaign", str(named.folder)]
    out = {name: tmp_path / f"{name}.csv" for name in ("audit", "again")}
    main(["evaluate", "--draw", "3", "--method", "random", "-o", str(out["audit"]),
          *folder])  # fmt: skip
    main(["repeats", "--share", "1", "--who", "max", "-o", str(out["again"]), *folder])
    for path in out.values():
        rows = list(csv.DictReader(path.open(encoding="utf-8", newline="")))
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows({**row, "label": truth(row["path"])} for row in rows)
    use_names_again(named)
    now = {"red": "rose", "blue": "red", "green": "green"}
    named.audits.answer(out["audit"])
    state = read_state(named._event_log)
    answers = {state.paths[d.image]: d.label for d in state.audit_answers.values()}
    assert answers == {path: now[truth(path)] for path in answers}
    assert len(answers) == 3
    assert named.teach(out["again"], blind=True).n_repeats == 3
    assert named.agreement().disagreements == []


def test_a_row_with_no_number_of_an_event(named, tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("path,label,as_of\n00.png,red,x\n01.png,red,-1\n02.png,red,\n")
    with pytest.raises(LabelFileError, match="line 2: as_of is 'x'") as caught:
        named.teach(path, train=False)
    assert len(caught.value.problems) == 2


# --- classes ------------------------------------------------------------------


def test_a_renamed_class(campaign, tmp_path):
    label(campaign, 0, 1, 2)
    campaign.query()
    campaign.rename_class("blue", "azure")
    assert campaign.classes == ["azure", "green", "red"]
    assert marks(campaign) == {"00.png": "red", "01.png": "green", "02.png": "azure"}
    assert campaign.status().labels == {"azure": 1, "green": 1, "red": 1}
    assert campaign.estimator().classes_.tolist() == ["azure", "green", "red"]
    with pytest.raises(LabelFileError, match="'blue' is called 'azure' by now"):
        campaign.teach({"05.png": "blue"})
    with pytest.raises(CampaignError, match="'blue' is called 'azure' by now"):
        campaign.rename_class("blue", "navy")
    campaign.teach({"05.png": "azure", "02.png": "azure"}, train=False)
    (event,) = [e for e in campaign.log() if e["kind"] == "classes"]
    assert event["names"] == ["blue"]
    said = [e["decisions"] for e in campaign.log() if e["kind"] == "teach"]
    assert said[0][2]["label"] == "azure"
    assert said[0][2]["label_then"] == "blue"
    assert said[1] == [{**said[1][0], "path": "05.png", "label": "azure"}]
    assert "label_then" not in said[1][0]
    connection = sqlite3.connect(campaign.folder / "campaign.sqlite")
    stored = connection.execute("SELECT label FROM decisions ORDER BY event, image")
    assert stored.fetchall() == [("red",), ("green",), ("blue",), ("azure",)]
    connection.close()


def test_guesses_are_in_todays_names(campaign):
    label(campaign, 0, 1, 2)
    before = [p.guess for p in campaign.query(9)]
    campaign.rename_class("blue", "azure")
    campaign.rename_class("red", "rose")
    (event,) = [e for e in campaign.log() if e["kind"] == "query"]
    names = {"blue": "azure", "red": "rose", "green": "green"}
    assert [p["guess"] for p in event["proposals"]] == [names[g] for g in before]
    label_then = [p.get("guess_then", p["guess"]) for p in event["proposals"]]
    assert label_then == before
    assert "azure" in (page := make_report(campaign))
    assert ">blue<" not in page


def test_merged_classes(campaign):
    label(campaign, 0, 1, 2, 3)
    campaign.teach({"00.png": "blue"}, blind=True)  # it is red
    assert campaign.agreement().pairs[0].n_agree == 0
    campaign.merge_classes(["red", "blue"], into="warm")
    assert campaign.classes == ["green", "warm"] or campaign.classes == [
        "warm",
        "green",
    ]
    assert marks(campaign) == {
        "00.png": "warm", "01.png": "green", "02.png": "warm", "03.png": "warm"
    }  # fmt: skip
    assert campaign.agreement().pairs[0].n_agree == 1
    assert campaign.estimator().classes_.tolist() == ["green", "warm"]
    assert campaign.teach({"00.png": "warm"}, train=False).n_same == 1
    assert len(campaign.query(2)) == 2


def test_a_class_more(campaign):
    label(campaign, 0, 1, 2)
    before = bits(campaign)
    campaign.add_classes(["scratch"])
    assert campaign.estimator().classes_.tolist() == sorted([*CLASSES, "scratch"])
    assert len(bits(campaign)[-1]) == 4 * 4
    campaign.teach({"05.png": "scratch"})
    campaign.undo()
    campaign.undo()
    assert bits(campaign) == before
    with pytest.raises(LabelFileError, match="'scratch' is none of the classes"):
        campaign.teach({"05.png": "scratch"})


CHANGES = {
    "add": lambda campaign: campaign.add_classes(["x", "y"]),
    "rename": lambda campaign: campaign.rename_class("green", "zz"),
    "merge": lambda campaign: campaign.merge_classes(["red"], "blue"),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("warm_start", [False, True])
def test_undo_restores_exactly(change, warm_start, pool, tmp_path):
    with create(tmp_path / "c", pool, warm_start=warm_start) as campaign:
        label(campaign, 0, 1, 2)
        label(campaign, 4, 5)
        before = everything(campaign)
        n_trained = sum(event["kind"] == "train" for event in campaign.log())
        CHANGES[change](campaign)
        assert everything(campaign)[0] != before[0]
        assert everything(campaign)[4] != before[4]
        with Campaign.open(campaign.folder, backbone=TinyCNN) as again:
            assert everything(again) == everything(campaign)
        assert campaign.undo() == []
        assert everything(campaign) == before
        # One model of the changed classes, and the one before was not made again.
        trained = sum(event["kind"] == "train" for event in campaign.log())
        assert trained == n_trained + 1


def test_a_model_of_other_classes_is_never_the_present_one(campaign, pool, tmp_path):
    """Whatever way led to the classes, the model is that of the classes."""
    label(campaign, 0, 1, 2)
    keys = campaign._trainer.model_keys(read_state(campaign._event_log))
    campaign.add_classes(["x"])
    assert campaign._trainer.model_keys(read_state(campaign._event_log)) != keys
    campaign.rename_class("x", "y")
    other = campaign._trainer.model_keys(read_state(campaign._event_log))
    with create(tmp_path / "other", pool) as second:
        label(second, 0, 1, 2)
        assert second._trainer.model_keys(read_state(second._event_log)) == keys
        second.add_classes(["y"])
        assert second._trainer.model_keys(read_state(second._event_log)) == other


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.add_classes(["red"]), "There is a class 'red' already"),
        (lambda c: c.add_classes([]), "is no change of classes"),
        (lambda c: c.add_classes("scratch"), "must be a list"),
        (lambda c: c.add_classes(["x", "x"]), "different names"),
        (lambda c: c.add_classes(["?skip"]), "question mark"),
        (lambda c: c.add_classes([" x"]), "blanks"),
        (lambda c: c.add_classes(["\ud800"]), "no Unicode"),
        (lambda c: c.add_classes([object()]), "must be a list of names"),
        (lambda c: c.rename_class("x", "y"), "'x' is none of the classes blue"),
        (lambda c: c.rename_class("red", "blue"), "merge them"),
        (lambda c: c.rename_class("red", ""), "without blanks"),
        (lambda c: c.rename_class("red", None), "is no change"),
        (lambda c: c.rename_class("red", 7), "must be a list of names.* into 7"),
        (lambda c: c.merge_classes(["red"], "red"), "two classes or more"),
        (lambda c: c.merge_classes(["red"], "x"), "rename it"),
        (lambda c: c.merge_classes(CLASSES, "x"), "at least two"),
        (lambda c: c.merge_classes(["red", "x"], "blue"), "'x' is none"),
        (lambda c: c.add_pool("nowhere"), "is no folder"),
        (lambda c: c.add_pool(c.pool), "one is in the other"),
        (lambda c: c.add_pool(c.pool.parent), "inside"),
        (lambda c: c.add_pool(c.pool.parent / "empty"), "no readable image"),
        (lambda c: c.add_pool(c.pool.parent / "empty", "a/b"), "cannot be the name"),
        (lambda c: c.add_pool(c.pool.parent / "empty", ".."), "cannot be the name"),
    ],
)  # fmt: skip
def test_changes_that_cannot_be(call, message, campaign, tmp_path):
    (tmp_path / "empty").mkdir()
    label(campaign, 0)
    before = campaign.log(), campaign.classes, campaign.pools
    with pytest.raises(CampaignError, match=message):
        call(campaign)
    assert (campaign.log(), campaign.classes, campaign.pools) == before


def test_another_process_changes_the_classes_while_images_are_chosen(campaign):
    label(campaign, 0, 1, 2)
    choose = campaign._trainer.query

    def meanwhile(*arguments):
        with Campaign.open(campaign.folder, backbone=TinyCNN) as other:
            other.rename_class("red", "rose")
        return choose(*arguments)

    campaign._trainer.query = meanwhile
    with pytest.raises(CampaignError, match="Ask again"):
        campaign.query()
    campaign._trainer.query = choose
    assert not any(event["kind"] == "query" for event in campaign.log())
    assert campaign.classes == ["blue", "green", "rose"]
    assert {p.guess for p in campaign.query()} <= {*campaign.classes}


def test_second_looks_and_audits_use_todays_names(campaign):
    label(campaign, *range(9))
    campaign.relabel("00.png", "green", train=False)
    campaign.audits.draw(2, method="random")
    answers = {p.path: truth(p.path) for p in campaign.audits.pending()}
    campaign.audits.answer(answers)
    campaign.rename_class("green", "verdant")
    campaign.rename_class("red", "rose")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        doubts = campaign.second_look()
    assert {d.label for d in doubts} == {"verdant", "blue", "rose"}
    assert {d.suggested for d in doubts} <= {"verdant", "blue", "rose"}
    assert {d.path: d.label for d in doubts}["00.png"] == "verdant"
    state = read_state(campaign._event_log)
    names = {"green": "verdant", "red": "rose", "blue": "blue"}
    said = {state.paths[d.image]: d.label for d in state.audit_answers.values()}
    assert said == {path: names[mark] for path, mark in answers.items()}
    assert campaign.audits.estimate().classes.tolist() == campaign.classes


def test_damaged_changes_are_refused(campaign, tmp_path):
    label(campaign, 0, 1, 2)
    campaign.rename_class("red", "rose")
    paint(tmp_path / "more", [3], seed=1)
    campaign.add_pool(tmp_path / "more")
    campaign.close()
    kinds = {"classes": ["change", "names", "into"], "pool": ["name", "folder"]}
    odd = [None, 7, "", "green", [], ["green"], [7], {}, "..", "a/b", "\0", "x" * 9]
    for kind, keys in kinds.items():
        for key, value in itertools.product(keys, odd):
            folder = tmp_path / "damaged"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(campaign.folder, folder)
            damage(folder, kind, {key: value})
            try:
                with Campaign.open(folder, backbone=TinyCNN) as opened:
                    opened.status()
                    opened.log()
            except CampaignError as error:
                assert "no intact campaign" in str(error), (kind, key, value)  # noqa: PT017
            else:
                fine = value == ["green"] and key == "names"
                fine |= key == "name" and value in ("green", "x" * 9)
                fine |= key == "into" and value in ("..", "a/b", "\0", "x" * 9)
                assert fine, (kind, key, value)
            damage(folder, kind, {key: 1}, drop=key)
            with (
                pytest.raises(CampaignError, match="no intact campaign"),
                Campaign.open(folder, backbone=TinyCNN) as opened,
            ):
                opened.status()


def damage(folder, kind, new, drop=None):
    """Change the detail of an event, as no method does."""
    connection = sqlite3.connect(folder / "campaign.sqlite")
    ((number, text),) = connection.execute(
        "SELECT id, detail FROM events WHERE kind = ?", (kind,)
    )
    detail = {**json.loads(text), **new}
    detail.pop(drop, None)
    connection.close()
    update = "UPDATE events SET detail = ? WHERE id = ?"
    change_log(folder, (update, (json.dumps(detail), number)))
