"""The page's sum of the log is the campaign's, whatever changes while it is open."""

import contextlib
import random
import uuid
import warnings
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from skadma import Campaign
from skadma.campaign import CampaignError, LabelFileError
from skadma.campaign.agreement import n_due
from skadma.campaign.operations import Mark, Operation
from skadma.campaign.state import read_state
from skadma.cli import main
from skadma.label.desk import Desk
from skadma.strategies import MarginSampling

from .conftest import TinyCNN, tiny_classifier
from .label_site import TINY

CLASSES = ["blue", "green", "red"]
ASIDE = ["?skip", "?cant-tell", "?not-an-image"]


def paint(folder, n, seed):
    """Make `n` different pictures."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(n):
        pixels = rng.integers(0, 255, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return folder


def create(tmp_path, n=12):
    return Campaign.create(
        tmp_path / "campaign", paint(tmp_path / "pool", n, 0), CLASSES,
        tiny_classifier(random_state=None, max_epochs=1), MarginSampling(),
        n_instances=4, who="ana",
    )  # fmt: skip


@pytest.fixture
def campaign(tmp_path):
    with create(tmp_path) as campaign:
        yield campaign


@pytest.fixture
def desk(campaign):
    """What the page is told, of a ledger that was open before all changes."""
    return Desk(campaign.ledger(), "ana", 4)


def say(ledger, sha256, mark, before=None):
    operation = Operation(str(uuid.uuid4()), [Mark(sha256, mark, before)])
    return ledger.record([operation])[0]


def sync(desk, want=4, have=()):
    return desk.sync("tab", list(have), want, meanwhile=True)


def assert_same(ledger, campaign):
    """What a ledger says, and what is added up anew from the whole log."""
    ledger.read()
    with campaign._store.reading():
        state = read_state(campaign._store)
    assert ledger.classes == state.classes
    assert ledger.naming.former == state.naming.former
    assert ledger.pools.names == state.pools.names
    assert ledger.paths == state.paths
    assert ledger.contents == state.contents
    assert list(ledger.usable().items()) == list(state.usable().items())
    drawn = state.drawn()
    assert ledger.candidates() == {
        sha256: i for sha256, i in state.usable().items() if sha256 not in drawn
    }
    assert ledger.decisions() == state.decisions
    assert ledger.counts() == Counter(d.mark for d in state.decisions.values())
    labels = {s: d.label for s, d in state.decisions.items() if d.label is not None}
    assert ledger.labels() == labels
    here = {state.contents[i].sha256: label for i, label in state.labelled()}
    assert here == {s: label for s, label in labels.items() if s in state.usable()}
    others = {e["id"] for e in campaign.log() if e["kind"] in ("classes", "pool")}
    assert list(ledger.acts) == [act for act in state.acts if act not in others]
    for image, sha256 in state.last_known.items():
        assert state.contents[ledger.image(sha256)].sha256 in (sha256, None)
        if state.contents[image].sha256 == sha256:
            assert ledger.path(sha256) in state.paths.values()


class Chaos:
    """People who do whatever can be done to a campaign, by chance."""

    def __init__(self, campaign, ben, more, seed):
        self.campaign = campaign
        self.rng = random.Random(seed)
        self.ledgers = [campaign.ledger(), ben.ledger()]
        self.people = [campaign, ben]
        self.more = more
        self.done = []
        self.names = [f"class {i}" for i in range(100)]

    def mark(self):
        return self.rng.choice([*self.campaign.classes, *self.campaign.classes, *ASIDE])

    def path(self):
        with self.campaign._store.reading():
            return self.rng.choice(
                sorted(read_state(self.campaign._store).paths.values())
            )

    def teach(self):
        n = self.rng.choice([1, 1, 3])
        labels = {self.path(): self.mark() for _ in range(n)}
        self.rng.choice(self.people).teach(labels, train=False, partial=True)

    def take_back(self):
        self.rng.choice(self.people).undo()

    def add_class(self):
        self.campaign.add_classes([self.names.pop(0)])

    def rename(self):
        old = self.rng.choice(self.campaign.classes)
        new = self.rng.choice([self.names.pop(0), *CLASSES, *self.campaign.classes])
        self.campaign.rename_class(old, new)

    def merge(self):
        names = self.rng.sample(self.campaign.classes, 2)
        self.campaign.merge_classes(names, self.rng.choice([*names, "both"]))

    def add_pool(self):
        name = self.rng.choice(["more", "again"])
        self.campaign.add_pool(self.rng.choice(self.more), name)

    def draw(self):
        self.campaign.audits.draw(self.rng.choice([1, 2]), method="random")

    def answer(self):
        pending = self.campaign.audits.pending()
        if pending:
            path = self.rng.choice(pending).path
            self.campaign.audits.answer({path: self.mark()})

    def release(self):
        self.campaign.audits.release(train=False)

    def repeat(self):
        self.rng.choice(self.people).record_repeat(self.path(), self.mark())

    def confirm(self):
        self.campaign.confirm(self.path())

    def change_file(self):
        file = self.campaign.files([self.path()])[0]
        if self.rng.random() < 0.4:
            file.unlink(missing_ok=True)
        else:
            pixels = np.full((16, 16, 3), self.rng.randrange(256), np.uint8)
            Image.fromarray(pixels).save(file)
        self.campaign.refresh()

    def on_the_page(self):
        ledger = self.rng.choice(self.ledgers)
        kind = self.rng.random()
        if kind < 0.15 and self.done:
            operation = self.rng.choice(self.done)
        elif kind < 0.3 and self.done:
            name = self.rng.choice(self.done).id
            event = f"event-{self.rng.choice(self.campaign.log())['id']}"
            undo = self.rng.choice([name, event])
            operation = Operation(str(uuid.uuid4()), undo=undo)
        else:
            known = list(ledger._images)
            told = ledger.decisions()
            marks = [
                Mark(s, self.mark(), told[s].mark if s in told else None)
                for s in self.rng.sample(known, min(3, len(known)))
            ]
            confirm = self.rng.random() < 0.1
            operation = Operation(str(uuid.uuid4()), marks, confirm=confirm)
        ledger.record([operation], self.rng.choice([None, 1, 2]))
        self.done.append(operation)

    def step(self):
        often = [self.on_the_page] * 10 + [self.teach] * 4 + [self.take_back] * 4
        often += [self.answer, self.repeat, self.rename] * 2
        rarely = [
            self.add_class, self.merge, self.add_pool, self.draw, self.release,
            self.confirm, self.change_file,
        ]  # fmt: skip
        # What cannot be done, such as to undo where nothing is left, changes nothing.
        with contextlib.suppress(CampaignError, LabelFileError):
            self.rng.choice(often + rarely)()


@pytest.mark.parametrize("seed", range(4))
def test_random_logs(tmp_path, campaign, seed):
    more = [paint(tmp_path / f"more{i}", 4, 10 + i) for i in range(2)]
    Image.open(tmp_path / "pool" / "00.png").save(more[0] / "copy.png")
    ben = Campaign.open(campaign.folder, who="ben", backbone=TinyCNN)
    chaos = Chaos(campaign, ben, more, seed)
    with ben, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of files that changed
        for _ in range(150):
            chaos.step()
            assert_same(chaos.ledgers[0], campaign)
            n = n_due(0.4, *chaos.ledgers[0].n_answered("ana"))
            there = campaign.repeats_due(1)  # in order, so that these are the first
            assert campaign.repeats_due(0.4) == there[: max(0, n)]
        assert_same(chaos.ledgers[1], campaign)
        assert_same(campaign.ledger(), campaign)
    kinds = {event["kind"] for event in campaign.log()}
    assert kinds >= {"teach", "undo", "classes", "scan", "repeat"}
    assert kinds & {"pool", "audit"}


# --- what the page is told ----------------------------------------------------------


def test_a_renamed_class(campaign, desk):
    first, second, third = list(desk.ledger.usable())[:3]
    say(desk.ledger, first, "red")
    desk.hear(
        {
            "kind": "batch", "known": [(first, "red")], "repeats": {}, "doubts": [],
            "proposals": [{"sha256": second, "guess": "red", "confidence": 0.5}],
            "as_of": 1, "guesses": {},
        }
    )  # fmt: skip
    assert sync(desk, 0)["n_known"] == 1
    campaign.rename_class("red", "rouge")
    told = sync(desk, 1)
    assert told["classes"] == ["blue", "green", "rouge"]
    assert told["former"] == {"red": "rouge"}
    assert told["counts"] == {"blue": 0, "green": 0, "rouge": 1}
    assert told["items"][0]["guess"] == "rouge"
    assert told["recent"][0]["mark"] == "rouge"
    assert told["n_known"] == 0  # what knows it is made anew
    assert desk.wanted() is not None
    # A page that was not told yet says what the class was called.
    assert say(desk.ledger, second, "red").status == "recorded"
    assert say(desk.ledger, first, "blue", before="red").status == "recorded"
    assert say(desk.ledger, third, "green").refused == []
    held = {s: d.mark for s, d in desk.ledger.decisions().items()}
    assert held == {first: "blue", second: "rouge", third: "green"}
    campaign.undo()
    campaign.undo()
    campaign.undo()
    campaign.undo()  # the new name
    assert sync(desk, 0)["classes"] == CLASSES
    (refused,) = say(desk.ledger, second, "rouge").refused
    assert "'rouge' is none of the classes blue, green, red" in refused["reason"]
    assert_same(desk.ledger, campaign)


def test_repeats_among_pictures_drawn_meanwhile(campaign):
    """As many as are due by what was answered, one at a time, none twice."""
    desk = Desk(campaign.ledger(), "ana", 4, repeat=0.5)
    shas = list(desk.ledger.usable())
    with Campaign.open(campaign.folder, who="ben", backbone=TinyCNN) as ben:
        for sha256 in shas[:3]:
            say(ben.ledger(), sha256, "red")
    message = {"kind": "batch", "known": [], "doubts": [], "proposals": [], "as_of": 1,
               "guesses": {}, "repeats": dict.fromkeys(shas[:3])}  # fmt: skip
    desk.hear(message)  # the child's only word: it is slow
    answered, seen = [], []
    for _ in range(10):
        items = sync(desk, 2)["items"]
        again = [item["sha256"] for item in items if item["sha256"] in shas[:3]]
        assert len(items) == 2 and len(again) <= 1
        assert all(item["before"] is None for item in items)
        assert again == [] or sync(desk, 0, again)["stale"] == []
        for item in items:
            answered.append(item["sha256"])
            assert say(desk.ledger, item["sha256"], "red").status == "recorded"
        seen += again
        if len(seen) == 3:
            break
    assert seen == shas[:3] and len(set(answered)) == len(answered)
    acts = [event["kind"] for event in campaign.log()]
    assert acts.count("repeat") == 3
    assert {s: d.mark for s, d in desk.ledger.decisions().items()} == (
        dict.fromkeys(answered, "red")
    )
    assert not {item["sha256"] for item in sync(desk, 12)["items"]} & set(shas[:3])


def test_a_repeat_has_a_guess_where_the_others_have_one(campaign):
    """So that it cannot be told from them, also while it waits on the page."""
    desk = Desk(campaign.ledger(), "ana", 4, repeat=0.5)
    shas = list(desk.ledger.usable())
    with Campaign.open(campaign.folder, who="ben", backbone=TinyCNN) as ben:
        for sha256 in shas[:3]:
            say(ben.ledger(), sha256, "red")
    for sha256 in shas[3:6]:
        say(desk.ledger, sha256, "blue")
    message = {"kind": "batch", "known": [], "doubts": [], "as_of": 1, "guesses": {},
               "proposals": [{"sha256": sha256, "guess": "blue", "confidence": 0.5}
                             for sha256 in shas[6:9]],
               "repeats": {shas[0]: None, shas[1]: ("green", 0.7),
                           shas[2]: ("green", 0.8)}}  # fmt: skip
    desk.hear(message)
    items = sync(desk, 3)["items"]
    guesses = {item["sha256"]: (item["guess"], item["confidence"]) for item in items}
    assert guesses.pop(shas[1]) == ("green", 0.7)  # the first of those with a guess
    assert list(guesses.values()) == [("blue", 0.5)] * 2
    # Drawn by chance, without a guess: nor has the one among them that is a repeat.
    say(desk.ledger, shas[1], "red")
    shown = list(guesses)
    desk.hear({**message, "proposals": []})
    drawn = desk.sync("tab", shown, 2, meanwhile=True)["items"]
    assert [item["guess"] for item in drawn] == [None, None]
    again = {item["sha256"] for item in drawn} & set(shas[:3])
    assert again == {shas[0]}
    # A new model's guesses come for all of them at once.
    shown += [item["sha256"] for item in drawn]
    others = {sha256: ("green", 0.6) for sha256 in shown if sha256 != shas[0]}
    late = others.popitem()  # handed out when the child had been asked already
    proposals = [{"sha256": late[0], "guess": "green", "confidence": 0.6}]
    desk.hear({**message, "guesses": others, "proposals": proposals,
               "repeats": {shas[0]: ("red", 0.9)}})  # fmt: skip
    campaign.rename_class("red", "rouge")
    told = sync(desk, 0, shown)["guesses"]
    assert told == {**others, late[0]: late[1], shas[0]: ("rouge", 0.9)}


def test_a_tab_with_none_left_takes_over_what_waits_in_another(desk):
    """One that was forgotten would keep them for good."""
    shas = list(desk.ledger.usable())
    message = {"kind": "batch", "known": [], "doubts": [], "as_of": 1, "repeats": {},
               "guesses": {shas[1]: ("red", 0.9)},
               "proposals": [{"sha256": sha256, "guess": None, "confidence": None}
                             for sha256 in shas]}  # fmt: skip
    assert desk.state()["stage"] == "starting"
    desk.hear(message)
    assert desk.state()["stage"] == "idle"

    def ask(tab, want, have=()):
        told = desk.sync(tab, list(have), want)
        return [item["sha256"] for item in told["items"]], told

    old, _ = ask("old", 12)
    assert old == shas
    new, told = ask("new", 4)
    assert new == shas[1:5] and told["elsewhere"] == 8
    assert [item["guess"] for item in told["items"]] == ["red", None, None, None]
    more, told = ask("old", 20, old)  # it is told, and takes nothing back
    assert more == [] and told["stale"] == new
    old = [sha256 for sha256 in old if sha256 not in new]
    assert ask("new", 6, new)[0] == []  # it has some
    for sha256 in new:
        assert say(desk.ledger, sha256, "red").status == "recorded"
    new, _ = ask("new", 20)
    assert new == shas[5:]
    for sha256 in new:
        say(desk.ledger, sha256, "red")
    new, told = ask("new", 6)  # what is looked at there stays there
    assert new == [] and told["elsewhere"] == 1
    assert ask("old", 20, old)[1]["stale"] == shas[5:]
    ask("old", 0)  # the page is left
    assert ask("new", 6)[0] == shas[:1]


def test_a_merge_joins_what_is_counted(campaign, desk):
    for sha256, mark in zip(desk.ledger.usable(), CLASSES, strict=False):
        say(desk.ledger, sha256, mark)
    campaign.merge_classes(["blue", "red"], "purple")
    campaign.add_classes(["white"])
    assert sync(desk, 0)["counts"] == {"purple": 2, "green": 1, "white": 0}


def test_an_audit_is_kept_apart(campaign, desk):
    shown = [item["sha256"] for item in sync(desk, 12)["items"]]
    drawn = {p.sha256 for p in campaign.audits.draw(8, method="random")}
    told = sync(desk, 0, shown)
    assert set(told["stale"]) == drawn
    assert told["n_images"] == 4
    sha256 = min(drawn)
    (refused,) = say(desk.ledger, sha256, "red").refused
    assert "An audit keeps it apart" in refused["reason"]
    assert refused["path"] == desk.ledger.path(sha256)
    campaign.audits.answer({p.path: "red" for p in campaign.audits.pending()})
    told = desk.sync("another", [], 12, meanwhile=True)
    assert not drawn & {item["sha256"] for item in told["items"]}
    assert (told["n_labels"], told["n_decided"], told["recent"]) == (0, 0, [])
    assert not any(campaign.status().labels.values())
    campaign.audits.release(train=False)
    told = sync(desk, 0)
    assert (told["n_labels"], told["n_decided"], told["n_images"]) == (8, 8, 12)
    assert_same(desk.ledger, campaign)


def test_a_pool_that_is_added_and_taken_back(tmp_path, campaign, desk):
    before = set(desk.ledger.usable())
    name = campaign.add_pool(paint(tmp_path / "more", 3, 1))
    told = sync(desk, 15)
    assert told["n_images"] == 15
    paths = {item["sha256"]: item["path"] for item in told["items"]}
    new = set(paths) - before
    assert sorted(paths[sha256] for sha256 in new) == [
        f"{name}/{i:02}.png" for i in range(3)
    ]
    assert say(desk.ledger, min(new), "red").status == "recorded"
    campaign.undo()  # the label
    campaign.undo()  # the pool
    assert new <= set(sync(desk, 0, paths)["stale"])
    (refused,) = say(desk.ledger, min(new), "red").refused
    assert refused["reason"] == "There is no such picture in the pool."
    assert_same(desk.ledger, campaign)


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
