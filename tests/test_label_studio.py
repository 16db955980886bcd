"""Label Studio: tasks out, annotations back, and the protocol of ML backends.

The JSON in tests/data/label_studio has what Label Studio 1.23 sends and writes; only
SHA-256 of the pictures is filled in here.
"""

# The fixtures that are imported are the arguments of the same name.
# ruff: noqa: F811

import json
import re
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import pytest

from skadma.cli import main
from skadma.labelling.campaign import CampaignError, LabelFileError, Proposal
from skadma.labelling.label_studio import label_config, make_tasks, read_export

from .label_studio_campaign import (  # noqa: F401
    CLASSES,
    CRACK,
    OK,
    annotation,
    campaign,
    marks,
    path_of,
    pool,
    recorded,
    task,
    write,
)


def export_file(name, campaign, tmp_path):
    path = tmp_path / name
    path.write_text(recorded(name, campaign), "utf-8")
    return path


# --- out -----------------------------------------------------------------------


def test_the_configuration():
    root = ElementTree.fromstring(label_config(CLASSES))
    image, choices = root
    assert (image.get("name"), image.get("value")) == ("image", "$image")
    assert (choices.get("name"), choices.get("toName")) == ("label", "image")
    keyed = [(choice.get("value"), choice.get("hotkey")) for choice in choices]
    assert keyed == [
        (CRACK, "1"), (OK, "2"), ("?cant-tell", "0"), ("?not-an-image", "-"),
    ]  # fmt: skip
    many = [f"class {i}" for i in range(50)]
    found = ElementTree.fromstring(label_config(many))[1]
    assert [choice.get("value") for choice in found][:50] == many
    keys = [choice.get("hotkey") for choice in found if choice.get("hotkey")]
    assert keys[8:11] == ["9", "a", "b"]
    assert len(keys) == len(set(keys)) == 37
    with pytest.raises(CampaignError, match="XML cannot hold"):
        label_config(["a", "b\x00"])


def test_tasks():
    proposals = [
        Proposal("a b/01 ü&#%+?.png", 0.25, "ok", 0.75, "0" * 64),
        Proposal("2.png", None, None, None, "1" * 64),
    ]
    one, two = json.loads(json.dumps(make_tasks(proposals, "/photos/", "skadma-7")))
    address = urlsplit(one["data"]["image"])
    assert address.path == "/data/local-files/"
    assert parse_qs(address.query) == {"d": ["photos/a b/01 ü&#%+?.png"]}
    assert one["data"]["path"] == "a b/01 ü&#%+?.png"
    assert one["data"]["sha256"] == "0" * 64
    assert (one["data"]["rank"], one["data"]["score"]) == (0, 0.25)
    (guess,) = one["predictions"]
    assert (guess["model_version"], guess["score"]) == ("skadma-7", 0.75)
    assert guess["result"][0]["value"] == {"choices": ["ok"]}
    assert guess["result"][0]["from_name"] == "label"
    assert two["data"]["rank"] == 1
    assert "predictions" not in two
    assert make_tasks(proposals[1:], "", "")[0]["data"]["image"].endswith("?d=2.png")


def test_by_command(campaign, tmp_path, capsys):
    options = ["--campaign", str(campaign.folder)]
    out = tmp_path / "out"
    export = ["export", "--to", "label-studio", "-o", str(out), "-n", "5", *options]
    assert main(export) == 0
    tasks = json.loads((out / "tasks.json").read_text("utf-8"))
    assert [t["data"]["path"] for t in tasks] == [p.path for p in campaign.query(5)]
    assert all("?d=my%20photos/" in task["data"]["image"] for task in tasks)
    assert (out / "label_config.xml").read_text("utf-8") == label_config(CLASSES)
    with pytest.raises(SystemExit):  # annotations may refer to them
        main(export)
    assert "--overwrite" in capsys.readouterr().err
    for number, each in enumerate(tasks):
        each["id"] = number
        each["annotations"] = [annotation(number, OK)]
    back = tmp_path / "back.JSON"
    back.write_text(json.dumps(tasks), "utf-8")
    assert main(["teach", str(back), "--later", *options]) == 0
    assert "Saved 5 labels." in capsys.readouterr().out
    assert set(marks(campaign).values()) == {OK}


# --- back ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["export.json", "export_min.json"])
def test_recorded_exports(name, campaign, tmp_path):
    path = export_file(name, campaign, tmp_path)
    taught = campaign.teach(path, train=False)
    expected = {path_of(0): OK, path_of(1): CRACK, path_of(2): "?cant-tell"}
    if name == "export.json":  # JSON-MIN leaves out what was skipped
        expected[path_of(3)] = "?skip"
    assert marks(campaign) == expected
    assert taught.n_new == len(expected)
    who = {e["who"] for e in campaign.log() if e["kind"] == "teach"}
    assert who == {"label-studio-1"}
    n_events = len(campaign.log())
    assert campaign.teach(path, train=False).n_same == len(expected)
    assert len(campaign.log()) == n_events
    assert campaign.undo()
    assert marks(campaign) == {}


def test_several_people(campaign, tmp_path):
    """One decides, the others' answers are blind repeats."""
    path = write(
        tmp_path,
        [
            task(
                campaign, 0, annotation(2, CRACK, who=2, at=5), annotation(1, OK, at=1)
            ),
            task(
                campaign, 1, annotation(3, "?cant-tell", at=1),
                annotation(4, OK, who={"id": 2, "email": "max@example.org"}, at=2),
            ),
            task(
                campaign, 2, annotation(5, OK, at=1),
                {**annotation(6, OK, who=2, at=2), "was_cancelled": True, "result": []},
                annotation(7, OK, who=3, at=3),
            ),
            # The same person again: the last counts.
            task(campaign, 3, annotation(8, OK, at=1), annotation(9, CRACK, at=2)),
            task(campaign, 4),
        ],
    )  # fmt: skip
    for n_new, n_repeats in ((4, 3), (0, 0)):  # taken again, it changes nothing
        taught = campaign.teach(path, train=False)
        assert (taught.n_new, taught.n_repeats) == (n_new, n_repeats)
        assert marks(campaign) == {
            path_of(0): OK, path_of(1): OK, path_of(2): OK, path_of(3): CRACK,
        }  # fmt: skip
    people = {d.path: (d.first, d.second) for d in campaign.agreement().disagreements}
    assert people == {
        path_of(0): ("label-studio-1", "label-studio-2"),
        path_of(1): ("label-studio-2", "label-studio-1"),
    }
    pairs = {(p.first, p.second): p.n for p in campaign.agreement().pairs}
    assert pairs == {
        ("label-studio-1", "label-studio-2"): 2,
        ("label-studio-1", "label-studio-3"): 1,
    }
    # What was decided here is not overruled by what somebody else says there, but a
    # person may correct himself.
    campaign.relabel(path_of(2), CRACK, train=False)
    campaign.teach(path, train=False)
    assert marks(campaign)[path_of(2)] == CRACK
    corrected = [task(campaign, 3, annotation(9, OK, at=2))]
    assert campaign.teach(write(tmp_path, corrected), train=False).n_changed == 1
    # One file is taken back as a whole.
    for _ in range(len({e["source"] for e in campaign.log() if e["kind"] == "teach"})):
        campaign.undo()
    campaign.undo()
    assert marks(campaign) == {}
    assert campaign.agreement().pairs == []


def test_all_or_nothing_with_the_tasks_number(campaign, tmp_path):
    no_choice = {**annotation(1, OK), "result": []}
    two = annotation(2, OK)
    two["result"][0]["value"]["choices"] = [OK, CRACK]
    other = annotation(3, OK)
    other["result"][0]["from_name"] = "mood"
    tasks = [
        task(campaign, 0, annotation(10, OK)),
        task(campaign, 1, no_choice),
        task(campaign, 2, two),
        task(campaign, 3, other),
        task(campaign, 4, annotation(4, "rot")),
        task(campaign, 5, annotation(5, OK), path="nowhere.png"),
        task(campaign, 6, annotation(6, OK), sha256="0" * 64),
        task(campaign, 7, annotation(7, OK), path=None),
        task(campaign, 8, 17),
        {"id": 109, "data": 3, "annotations": [annotation(8, OK)]},
        {"id": 110, "data": {}, "annotations": "none"},
    ]
    path = write(tmp_path, tasks)
    with pytest.raises(LabelFileError) as caught:
        campaign.teach(path, train=False)
    problems = caught.value.problems
    assert len(problems) == 10
    for number, why in [
        (101, "must be one choice named 'label', got \\[\\]"), (102, "got \\["),
        (103, "got \\[\\]"), (104, "none of the classes"), (105, "not in the pool"),
        (106, "another picture by now"), (107, "no path"), (108, "none of Label"),
        (109, "no path"), (110, "none of Label|no path"),
    ]:  # fmt: skip
        assert sum(bool(re.match(f"task {number}\\b.*({why})", p)) for p in problems)
    assert marks(campaign) == {}
    assert len(campaign.teach(path, train=False, partial=True).refused) == 10
    assert marks(campaign) == {path_of(0): OK}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no JSON"),
        ("{}", "is no export"),
        ("[3]", "is no export"),
        ('[{"text": "x"}]', "is no export"),
        ("[" * 100_000, "is no JSON"),
        ("\ud800", "is no JSON"),
    ],
)
def test_no_exports(text, message, tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CampaignError, match=message):
        read_export(path)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        # The later change counts, not the later creation.
        (
            {"created_at": "2026-01-02T00:00:00Z"},
            {
                "created_at": "2026-01-01T00:00:00Z",
                "updated_at": "2026-01-03T00:00:00Z",
            },
        ),
        # 09:00 in Berlin is before 08:30 in London.
        (
            {"created_at": "2026-01-01T09:00:00+01:00"},
            {"created_at": "2026-01-01T08:30:00Z"},
        ),
        (
            {"created_at": "2026-01-01T08:00:00.9"},
            {"created_at": "2026-01-01T08:00:01Z"},
        ),
        ({"created_at": "no time"}, {"created_at": "2026-01-01T08:00:01Z"}),
    ],
)
@pytest.mark.parametrize("key", ["annotations", "completions"])
def test_the_last_change_counts(first, second, key, tmp_path):
    def made(label, times):
        result = [{"from_name": "label", "value": {"choices": [label]}}]
        return {"id": 1, "completed_by": 1, "result": result, **times}

    data = {"path": "a.jpg", "sha256": "ab"}
    for made_last_first in (False, True):
        both = [made("old", first), made("new", second)]
        task = {"id": 1, "data": data, key: both[::-1] if made_last_first else both}
        path = tmp_path / "export.json"
        path.write_text(json.dumps([task]))
        assert [row.label for row in read_export(path)] == ["new"]
