"""The page's sum of the log is the campaign's, whatever changes while it is open."""

# The fixtures that are imported are the arguments of the same name.
# ruff: noqa: F811

import uuid

import pytest

from skadma import Campaign
from skadma.cli import main
from skadma.labelling.campaign.ledger import Mark, Operation
from skadma.labelling.page.controller import Controller

from .label_changes import CLASSES, assert_same, campaign, paint  # noqa: F401
from .label_site import TINY


@pytest.fixture
def controller(campaign):
    """What the page is told, of a ledger that was open before all changes."""
    return Controller(campaign.ledger(), "ana", 4)


def say(ledger, sha256, mark, before=None):
    operation = Operation(str(uuid.uuid4()), [Mark(sha256, mark, before)])
    return ledger.record([operation])[0]


def sync(controller, want=4, have=()):
    return controller.sync("tab", list(have), want and want + 3)  # 3 are not drawn


def test_a_blind_repeat_is_told_as_it_was_given(campaign):
    sha256 = next(iter(campaign.ledger().usable()))
    say(campaign.ledger(), sha256, "red")
    with Campaign.open(campaign.folder, who="ben") as other:
        ben = Controller(other.ledger(), "ben", 4)
        say(ben.ledger, sha256, "blue")
        (told,) = ben.state()["recent"]
    # Taken back and done again with what is told here, it overwrites nobody's label.
    assert [item["before"] for item in told["items"]] == [None]


# --- what the page is told ----------------------------------------------------------


def test_a_renamed_class(campaign, controller):
    first, second, third = list(controller.ledger.usable())[:3]
    say(controller.ledger, first, "red")
    controller.receive(
        {
            "kind": "batch", "known": [(first, "red")], "suspects": [], "people": [],
            "quality": None, "at_once": False,
            "proposals": [{"sha256": second, "guess": "red", "confidence": 0.5}],
            "as_of": 1, "guesses": {},
        }
    )  # fmt: skip
    assert sync(controller, 0)["n_known"] == 1
    campaign.rename_class("red", "rouge")
    told = sync(controller, 1)
    assert told["classes"] == ["blue", "green", "rouge"]
    assert told["former"] == {"red": "rouge"}
    assert told["counts"] == {"blue": 0, "green": 0, "rouge": 1}
    assert told["items"][0]["guess"] == "rouge"
    assert told["recent"][0]["mark"] == "rouge"
    assert told["n_known"] == 0  # what knows it is made anew
    assert controller.n_wanted() is not None
    # A page that was not told yet says what the class was called.
    assert say(controller.ledger, second, "red").status == "recorded"
    assert say(controller.ledger, first, "blue", before="red").status == "recorded"
    assert say(controller.ledger, third, "green").refused == []
    held = {s: d.mark for s, d in controller.ledger.decisions.items()}
    assert held == {first: "blue", second: "rouge", third: "green"}
    campaign.undo()
    campaign.undo()
    campaign.undo()
    campaign.undo()  # the new name
    assert sync(controller, 0)["classes"] == CLASSES
    (refused,) = say(controller.ledger, second, "rouge").refused
    assert "'rouge' is none of the classes blue, green, red" in refused["reason"]
    assert_same(controller.ledger, campaign)


def test_tabs_hold_different_pictures(controller):
    """One with none left is told how many wait in others; it gets what they leave."""
    shas = list(controller.ledger.usable())
    message = {"kind": "batch", "known": [], "suspects": [], "people": [], "as_of": 1,
               "quality": None, "at_once": True, "guesses": {shas[1]: ("red", 0.9)},
               "proposals": [{"sha256": sha256, "guess": None, "confidence": None}
                             for sha256 in shas]}  # fmt: skip
    told = controller.state()
    assert (told["stage"], told["read_all"], controller.at_once) == (
        "choosing", False, False)  # fmt: skip
    controller.receive(message)
    told = controller.state()
    assert (told["stage"], told["read_all"], controller.at_once) == ("idle", True, True)
    controller.note_request()
    assert controller.n_wanted() is None
    controller.receive({**message, "n_left": 3})  # some have not been looked at
    assert controller.n_wanted() is not None and controller.state()["n_left"] == 3
    controller.receive(message)

    def ask(tab, want, have=()):
        told = controller.sync(tab, list(have), want)
        return [item["sha256"] for item in told["items"]], told

    old, _ = ask("old", 8)
    assert old == shas[:8]
    new, told = ask("new", 12)
    assert new == shas[8:] and told["elsewhere"] == 8
    for sha256 in new:
        assert say(controller.ledger, sha256, "red").status == "recorded"
    more, told = ask("new", 6)
    assert more == [] and told["elsewhere"] == 8
    more, told = ask("old", 20, old)
    assert more == [] and told["stale"] == []
    ask("old", 0)  # the page is left
    assert ask("new", 6)[0] == shas[:6]


def test_a_merge_joins_what_is_counted(campaign, controller):
    for sha256, mark in zip(controller.ledger.usable(), CLASSES, strict=False):
        say(controller.ledger, sha256, mark)
    campaign.merge_classes(["blue", "red"], "purple")
    campaign.add_classes(["white"])
    assert sync(controller, 0)["counts"] == {"purple": 2, "green": 1, "white": 0}


def test_a_merge_by_a_page_that_does_not_know_a_name(campaign, controller):
    """Who sees blue and red merges what was red then, whatever red is by now."""
    for sha256, mark in zip(controller.ledger.usable(), CLASSES, strict=False):
        say(controller.ledger, sha256, mark)
    then = campaign.last_event
    campaign.rename_class("red", "rouge")
    campaign.rename_class("green", "red")
    campaign._change_classes("merge", ["blue", "red"], "red", then)
    assert campaign.classes == ["red", "rouge"]
    assert sync(controller, 0)["counts"] == {"red": 1, "rouge": 2}


def test_a_step_that_decides_and_repeats_is_taken_back_as_one(campaign, controller):
    first, second = list(controller.ledger.usable())[:2]
    say(controller.ledger, first, "red")
    with Campaign.open(campaign.folder, who="ben") as other:
        ben = Controller(other.ledger(), "ben", 4)
        marks = [Mark(first, "blue"), Mark(second, "green")]
        (outcome,) = ben.ledger.record([Operation("both", marks)])
        assert outcome.refused == []
        (told,) = ben.state()["recent"]
        assert {i["sha256"]: i["mark"] for i in told["items"]} == {
            first: "blue", second: "green",
        }  # fmt: skip
        # The first event alone, and then the other one by command.
        ben.ledger.record([Operation("back", undo=f"event-{campaign.last_event - 1}")])
        assert campaign.undo() == [campaign.ledger().path(first)]
        assert sync(ben, 0)["recent"] == []
        (held,) = campaign.decisions()
        assert (held[1].sha256, held[1].mark) == (first, "red")


def test_an_audit_is_kept_apart(campaign, controller):
    shown = [item["sha256"] for item in sync(controller, 12)["items"]]
    drawn = {p.sha256 for p in campaign.audits.draw(8, method="random")}
    told = sync(controller, 0, shown)
    assert set(told["stale"]) == drawn
    assert told["n_images"] == 4
    sha256 = min(drawn)
    (refused,) = say(controller.ledger, sha256, "red").refused
    assert "An audit keeps it apart" in refused["reason"]
    assert refused["path"] == controller.ledger.path(sha256)
    campaign.audits.answer({p.path: "red" for p in campaign.audits.pending()})
    told = controller.sync("another", [], 12)
    assert not drawn & {item["sha256"] for item in told["items"]}
    assert (told["n_labels"], told["n_decided"], told["recent"]) == (0, 0, [])
    assert not any(campaign.status().labels.values())
    campaign.audits.release()
    told = sync(controller, 0)
    assert (told["n_labels"], told["n_decided"], told["n_images"]) == (8, 8, 12)
    assert_same(controller.ledger, campaign)


def test_a_pool_that_is_added_and_taken_back(tmp_path, campaign, controller):
    before = set(controller.ledger.usable())
    name = campaign.add_pool(paint(tmp_path / "more", 3, 1))
    told = sync(controller, 15)
    assert told["n_images"] == 15
    paths = {item["sha256"]: item["path"] for item in told["items"]}
    new = set(paths) - before
    assert sorted(paths[sha256] for sha256 in new) == [
        f"{name}/{i:02}.png" for i in range(3)
    ]
    assert say(controller.ledger, min(new), "red").status == "recorded"
    campaign.undo()  # the label
    campaign.undo()  # the pool
    assert new <= set(sync(controller, 0, paths)["stale"])
    (refused,) = say(controller.ledger, min(new), "red").refused
    assert refused["reason"] == "There is no such picture in the pool."
    assert_same(controller.ledger, campaign)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "more"),  # which is not where it was
        (["--pool", "other={}"], "There is no pool 'other'"),
    ],
)
def test_a_pool_that_is_not_there(options, message, tmp_path, capsys):
    pytest.importorskip("starlette")
    folder, photos = str(tmp_path / "c"), paint(tmp_path / "photos", 3, 0)
    main(["start", str(photos), "--classes", *CLASSES, "--campaign", folder, *TINY])
    with Campaign.open(folder) as campaign:
        campaign.add_pool(paint(tmp_path / "more", 3, 1))
    (tmp_path / "more").rename(tmp_path / "moved")
    options = [option.format(tmp_path / "moved") for option in options]
    with pytest.raises(SystemExit) as ended:
        main(["label", "--campaign", folder, "--no-browser", *options])
    assert ended.value.code == 1
    assert message in capsys.readouterr().err
