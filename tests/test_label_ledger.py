"""The page's decisions: written once, in order, and the same as the campaign's own."""

import random
import time
import uuid

import pytest
from PIL import Image

from skadma import Campaign, CNNClassifier
from skadma.labelling.campaign import CampaignError
from skadma.labelling.campaign.ledger import Mark, Operation
from skadma.labelling.campaign.state import read_state
from skadma.strategies import MarginSampling

CLASSES = ["blue", "green", "red"]
TINY = CNNClassifier("squeezenet1_1", weights=None, image_size=32, max_epochs=1)


def new_id():
    return str(uuid.uuid4())


@pytest.fixture
def campaign(tmp_path, pictures):
    pool = tmp_path / "pool"
    pool.mkdir()
    for i, x in enumerate(pictures[0]):
        Image.fromarray(x).save(pool / f"{i:02}.png")
    with Campaign.create(
        tmp_path / "campaign", pool, CLASSES, TINY, MarginSampling(),
        n_instances=4, who="ana",
    ) as campaign:  # fmt: skip
        yield campaign


@pytest.fixture
def ledger(campaign):
    return campaign.ledger()


@pytest.fixture
def ben(campaign):
    """Another person's ledger of the same campaign."""
    with Campaign.open(campaign.folder, who="ben") as other:
        yield other.ledger()


def say(ledger, sha256, mark, before=None, name=None):
    operation = Operation(name or new_id(), [Mark(sha256, mark, before)])
    (outcome,) = ledger.record([operation])
    return operation, outcome


def take_back(ledger, target):
    (outcome,) = ledger.record([Operation(new_id(), undo=target)])
    return outcome.status


def held(state_or_ledger):
    return {sha256: d.mark for sha256, d in state_or_ledger.decisions.items()}


def test_what_the_ledger_says_is_what_the_log_says(campaign, ledger, ben):
    """Random decisions, undoings, and repeats of both, by three writers."""
    rng = random.Random(0)
    other = ben
    shas = list(ledger.usable())
    marks = [*CLASSES, "?skip", "?cant-tell", "?not-an-image"]
    done = []
    for _ in range(300):
        mine = rng.choice([ledger, other])
        mine.update()
        kind = rng.random()
        if kind < 0.6:
            chosen = rng.sample(shas, rng.choice([1, 1, 1, 5]))
            told = held(mine) if rng.random() < 0.7 else {}
            operation = Operation(
                new_id(), [Mark(s, rng.choice(marks), told.get(s)) for s in chosen]
            )
        elif kind < 0.75 and done:
            operation = rng.choice(done)
        elif kind < 0.85:
            path = ledger.path(rng.choice(shas))
            campaign.teach({path: rng.choice(marks)}, train=False)
            continue
        else:
            undone = rng.choice(done).id if done else "nobody-made-it"
            operation = Operation(new_id(), undo=undone)
        mine.record([operation], round_=rng.choice([None, 1, 2]))
        done.append(operation)
    ledger.update()
    other.update()
    state = read_state(campaign._event_log)
    fresh = campaign.ledger()
    assert held(ledger) == held(other) == held(fresh) == held(state)
    assert ledger.acts == fresh.acts == state.acts
    assert list(ledger.acts) == list(state.acts)
    assert list(ledger.decisions) == list(state.decisions)
    assert sorted(ledger.labels().items()) == sorted(
        (state.contents[i].sha256, label) for i, label in state.labelled()
    )


def test_an_operation_is_done_once(campaign, ledger):
    sha256, *_ = ledger.usable()
    operation, outcome = say(ledger, sha256, "red")
    assert outcome.status == "recorded"
    n_events = len(campaign.log())
    assert [o.status for o in ledger.record([operation, operation])] == ["known"] * 2
    again = campaign.ledger()  # as after a restart
    assert again.record([operation])[0].status == "known"
    assert len(campaign.log()) == n_events


@pytest.mark.parametrize("restart", [False, True])
def test_a_late_repeat_does_not_undo_an_undoing(campaign, ledger, restart):
    sha256, *_ = ledger.usable()
    operation, _ = say(ledger, sha256, "red")
    assert take_back(ledger, operation.id) == "undone"
    if restart:
        ledger = campaign.ledger()
    assert ledger.record([operation])[0].status == "known"
    assert held(ledger) == {} == held(read_state(campaign._event_log))


def test_what_changed_nothing_changes_nothing_later(ledger):
    sha256, *_ = ledger.usable()
    first, _ = say(ledger, sha256, "red")
    same, outcome = say(ledger, sha256, "red")
    assert outcome.status == "nothing"
    take_back(ledger, first.id)
    assert ledger.record([same])[0].status == "known"
    assert held(ledger) == {}


def test_an_undoing_that_comes_before_its_decision(ledger):
    sha256, *_ = ledger.usable()
    name = new_id()
    assert take_back(ledger, name) == "nothing"
    assert say(ledger, sha256, "red", name=name)[1].status == "known"
    assert held(ledger) == {}


def test_an_answer_of_a_later_state_of_the_campaign(ledger):
    """As after a backup took the campaign's place: names may mean other classes."""
    sha256 = next(iter(ledger.available()))
    mark = Mark(sha256, "red", as_of=ledger.as_of + 1)
    (outcome,) = ledger.record([Operation(new_id(), [mark])])
    assert outcome.status == "nothing"
    assert "older copy" in outcome.refused[0]["reason"]
    assert held(ledger) == {}


def test_a_change_of_classes_is_taken_back_while_nothing_needs_it(
    campaign, ledger, ben
):
    note = campaign._change_classes("note", ["red"], "like blood")
    added = campaign._change_classes("add", ["white"], None)
    assert take_back(ledger, f"event-{added}") == "undone"
    assert ledger.classes == campaign.classes == CLASSES
    added = campaign._change_classes("add", ["white"], None)
    ben.update()
    sha256 = next(iter(ben.usable()))
    _, said = say(ben, sha256, "white")
    (outcome,) = ledger.record([Operation(new_id(), undo=f"event-{added}")])
    assert outcome.status == "nothing" and "since" in outcome.refused[0]["reason"]
    assert take_back(ledger, f"event-{note}") == "undone"  # no answer needs it
    assert ledger.class_names.notes == {} and ledger.classes == [*CLASSES, "white"]
    assert take_back(ben, said.id) == "undone"
    assert take_back(ledger, f"event-{added}") == "undone"
    assert read_state(campaign._event_log).classes == ledger.classes == CLASSES


def test_undoing_one_from_the_middle(campaign, ledger):
    a, b, *_ = ledger.usable()
    first, _ = say(ledger, a, "red")
    second, _ = say(ledger, a, "blue", before="red")
    say(ledger, b, "green")
    assert take_back(ledger, second.id) == "undone"
    assert (
        held(ledger) == {a: "red", b: "green"} == held(read_state(campaign._event_log))
    )
    assert take_back(ledger, second.id) == "nothing"
    event = max(ledger.acts)
    assert take_back(ledger, f"event-{event}") == "undone"
    assert held(ledger) == {a: "red"}
    assert take_back(ledger, "event-999") == take_back(ledger, "event-x") == "nothing"


def test_a_decision_of_somebody_else_is_not_overwritten(campaign, ledger):
    sha256, *_ = ledger.usable()
    campaign.teach({ledger.path(sha256): "green"}, train=False)
    _, outcome = say(ledger, sha256, "red")
    assert outcome.status == "nothing"
    (refused,) = outcome.refused
    assert refused["holds"] == "green" and refused["by"] == "ana"
    assert "meanwhile" in refused["reason"]
    assert say(ledger, sha256, "red", before="green")[1].status == "recorded"
    assert held(ledger) == {sha256: "red"}


def test_another_persons_blind_answer_is_a_repeat(campaign, ledger, ben):
    """The label stays, the answer counts for the agreement, once, until undone."""
    a, b, *_ = ledger.usable()
    say(ledger, a, "red")
    say(ledger, b, "green")
    marks = [Mark(a, "red"), Mark(b, "blue")]
    operation = Operation(new_id(), marks)
    assert ben.record([operation, operation])[0].status == "recorded"
    assert say(ben, a, "blue")[1].status == "nothing"  # nobody answers again twice
    assert held(ben) == {a: "red", b: "green"} == held(read_state(campaign._event_log))
    (pair,) = campaign.agreement().pairs
    assert (pair.first, pair.second, pair.n, pair.n_agree) == ("ana", "ben", 2, 1)
    assert ben.has_repeated(a, "ben") and not ben.has_repeated(a, "ana")
    assert take_back(ben, operation.id) == "undone"
    assert campaign.agreement().pairs == [] and not ben.has_repeated(a, "ben")
    assert ben.record([operation])[0].status == "known"


def test_new_labels_and_repeats_in_one_step(campaign, ledger, ben):
    a, b, *_ = ledger.usable()
    say(ledger, a, "red")
    operation = Operation(new_id(), [Mark(a, "red"), Mark(b, "blue")])
    assert ben.record([operation])[0].status == "recorded"
    assert [e["kind"] for e in campaign.log()[-2:]] == ["teach", "repeat"]
    assert held(ben) == {a: "red", b: "blue"}
    campaign.undo()  # both, as one
    assert held(read_state(campaign._event_log)) == {a: "red"}
    assert campaign.agreement().pairs == []


def test_ones_own_label_is_a_repeat_only_when_it_is_long_ago(campaign, ledger):
    first, *others = ledger.usable()
    say(ledger, first, "red")
    assert "meanwhile" in say(ledger, first, "blue")[1].refused[0]["reason"]
    for sha256 in others[:10]:
        say(ledger, sha256, "green")
    assert say(ledger, first, "blue")[1].status == "recorded"
    assert held(ledger)[first] == "red"
    (pair,) = campaign.agreement().pairs
    assert (pair.first, pair.second, pair.n_agree) == ("ana", "ana", 0)


@pytest.mark.parametrize("undone", [False, True])
def test_an_answer_waits_while_names_are_used_again(campaign, ledger, undone):
    a, b, c, *_ = ledger.usable()
    as_of = ledger.as_of
    campaign.rename_class("red", "rose")
    campaign.rename_class("blue", "red")
    if undone:
        as_of = ledger.as_of + 2
        campaign.undo()
        campaign.undo()
    marks = [Mark(a, "red", as_of=as_of), Mark(b, "green", as_of=as_of)]
    marks += [Mark(c, "rose" if undone else "blue", as_of=as_of)]
    assert ledger.record([Operation(new_id(), marks)])[0].status == "recorded"
    expected = ("blue", "green", "red") if undone else ("rose", "green", "red")
    assert tuple(held(ledger)[sha] for sha in (a, b, c)) == expected


def test_an_answer_with_a_class_that_was_taken_back(campaign, ledger):
    sha256, *_ = ledger.usable()
    campaign.add_classes(["pink"])
    as_of = ledger.as_of + 1
    campaign.undo()
    campaign.add_classes(["pink"])  # another class of the same name
    operation = Operation(new_id(), [Mark(sha256, "pink", as_of=as_of)])
    (outcome,) = ledger.record([operation])
    assert "no class any more" in outcome.refused[0]["reason"]
    assert held(ledger) == {}


def test_confirming(campaign, ledger):
    sha256, *_ = ledger.usable()
    say(ledger, sha256, "red")
    mark = Mark(sha256, "red", "red")
    operation = Operation(new_id(), [mark], confirm=True)
    assert ledger.record([operation])[0].status == "recorded"
    assert campaign.log()[-1]["kind"] == "confirm" and held(ledger) == {sha256: "red"}
    wrong = Operation(new_id(), [Mark(sha256, "blue", "blue")], confirm=True)
    assert "otherwise" in ledger.record([wrong])[0].refused[0]["reason"]
    assert take_back(ledger, operation.id) == "undone"
    assert held(ledger) == {sha256: "red"}


def test_what_an_audit_drew_is_left_alone(campaign, ledger):
    drawn = {p.sha256 for p in campaign.audits.draw(4, method="random")}
    ledger.update()
    assert set(ledger.available()) == set(ledger.usable()) - drawn
    sha256 = min(drawn)
    assert "audit" in say(ledger, sha256, "red")[1].refused[0]["reason"]
    campaign.audits.release()
    ledger.update()
    assert set(ledger.available()) == set(ledger.usable())
    assert say(ledger, sha256, "red")[1].status == "recorded"


def test_a_grid_is_one_step(campaign, ledger):
    shas = list(ledger.usable())[:5]
    operation = Operation(new_id(), [Mark(s, "red") for s in [*shas, shas[0]]])
    (outcome,) = ledger.record([operation])
    assert [r["reason"] for r in outcome.refused] == ["It is in this list twice."]
    assert held(ledger) == dict.fromkeys(shas, "red")
    assert len(campaign.undo()) == 5


def test_what_is_unknown_is_refused(ledger):
    sha256, *_ = ledger.usable()
    assert "no such picture" in say(ledger, "0" * 64, "red")[1].refused[0]["reason"]
    assert "'pink' is none" in say(ledger, sha256, "pink")[1].refused[0]["reason"]
    assert held(ledger) == {}


@pytest.mark.parametrize("restart", [False, True])
def test_what_was_refused_is_refused_when_it_is_sent_again(campaign, ledger, restart):
    """As when the answer to the first time was lost on its way."""
    a, b, c, d, *_ = ledger.usable()
    campaign.teach({ledger.path(a): "green"}, train=False)
    alone = Operation(new_id(), [Mark(a, "red")])
    among = Operation(new_id(), [Mark(a, "red"), Mark(b, "red"), Mark("0" * 64, "red")])
    wrong = Operation(new_id(), [Mark(d, "pink")])
    fine = Operation(new_id(), [Mark(c, "red")])
    operations = [alone, among, wrong, fine]
    first = ledger.record(operations)
    assert [o.status for o in first] == ["nothing", "recorded", "nothing", "recorded"]
    assert [len(o.refused) for o in first] == [1, 2, 1, 0]
    n_events = len(campaign.log())
    if restart:
        ledger = campaign.ledger()
    second = ledger.record(operations)
    assert second[:3] == first[:3]
    assert (second[3].status, second[3].refused) == ("known", [])
    assert len(campaign.log()) == n_events
    assert held(ledger) == {a: "green", b: "red", c: "red"}


def test_what_was_refused_is_not_done_when_it_could_be(campaign, ledger):
    """The reason has gone by the time it comes again."""
    a, *_ = ledger.usable()
    operation, outcome = say(ledger, a, "pink")
    assert "'pink' is none" in outcome.refused[0]["reason"]
    campaign.add_classes(["pink"])
    assert ledger.record([operation]) == [outcome]
    assert held(ledger) == {}


def test_a_label_is_about_the_picture_that_was_looked_at(campaign, ledger):
    """Its file is changed between the look and the key."""
    sha256, *_ = ledger.usable()
    path = campaign.pool / ledger.path(sha256)
    Image.new("RGB", (32, 32), (1, 2, 3)).save(path)
    assert say(ledger, sha256, "red")[1].status == "recorded"
    with pytest.warns(UserWarning, match="has changed since it was labelled"):
        campaign.refresh()
    assert campaign.status().changed == [path.name]
    assert read_state(campaign._event_log).labelled() == []
    ledger.update()
    assert sha256 not in ledger.usable() and len(ledger.usable()) == 24


def test_a_failed_write_leaves_nothing_behind(campaign, ledger, monkeypatch):
    a, b, *_ = ledger.usable()
    add = campaign._event_log.add

    def fail_at_second(table, rows):
        rows = list(rows)
        if table == "decisions" and rows[0][2] == b:
            raise CampaignError("the disk is full")
        add(table, rows)

    monkeypatch.setattr(campaign._event_log, "add", fail_at_second)
    operations = [Operation(new_id(), [Mark(s, "red")]) for s in (a, b)]
    with pytest.raises(CampaignError, match="disk is full"):
        ledger.record(operations)
    monkeypatch.undo()
    ledger.update()
    assert held(ledger) == {} == held(read_state(campaign._event_log))
    assert [o.status for o in ledger.record(operations)] == ["recorded"] * 2
    assert held(ledger) == {a: "red", b: "red"}


def test_labels_one_by_one_are_one_round(campaign, ledger):
    """A warm start fine-tunes once for a round, not once for each key."""
    a, b, c, d, *_ = ledger.usable()

    def record(sha256, round_):
        ledger.record([Operation(new_id(), [Mark(sha256, "red")])], round_)

    for sha256, round_ in ((a, 7), (b, 7), (c, 9), (d, 9)):
        record(sha256, round_)
    sets = read_state(campaign._event_log).training_sets
    assert [len(labelled) for labelled in sets] == [2, 4]
    campaign.undo()
    campaign.undo()
    campaign.undo()
    assert [len(s) for s in read_state(campaign._event_log).training_sets] == [1]
    campaign.teach({ledger.path(c): "red"}, train=False)
    campaign.teach({ledger.path(d): "red"}, train=False)
    assert [len(s) for s in read_state(campaign._event_log).training_sets] == [1, 2, 3]


def test_a_decision_takes_milliseconds_in_a_large_pool(campaign, ledger):
    """It looks neither at the pool nor at the whole log."""
    store = campaign._event_log
    with store.transaction():
        event = store.add_event("scan", n=30_000)
        store.add("images", ((1000 + i, f"x/{i}.png", event) for i in range(30_000)))
        rows = ((event, 1000 + i, f"{i:064x}", 1, 1, None) for i in range(30_000))
        store.add("contents", rows)
    ledger.update()
    seconds = []
    for i in range(50):
        begin = time.perf_counter()
        assert say(ledger, f"{i:064x}", "red")[1].status == "recorded"
        seconds.append(time.perf_counter() - begin)
    assert sorted(seconds)[25] < 0.05  # reading all of it takes 0.1 s and more
    assert len(ledger.labels()) == 50
