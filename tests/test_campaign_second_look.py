"""Second looks: can't-tell, doubts, blind repeats, agreement, pace."""

# The fixtures that are imported are the arguments of the same name.
# ruff: noqa: F811

import csv
from datetime import datetime

import numpy as np
import pytest

from skadma import Campaign, CNNClassifier
from skadma.cli import main
from skadma.evaluation import out_of_fold_proba
from skadma.labelling.campaign import CampaignError, LabelFileError, LabelRow
from skadma.labelling.campaign.agreement import APART
from skadma.labelling.campaign.consensus import weigh_answers
from skadma.strategies import RandomSampling

from . import reference
from .conftest import tiny_classifier
from .two_people import CLASSES, N, names, people, pool, teach, truth  # noqa: F401


def bits(campaign):
    state = campaign.estimator().net_.module_.state_dict()
    return [tensor.numpy().tobytes() for tensor in state.values()]


# --- a repeat changes nothing ------------------------------------------------


def test_a_repeat_changes_no_decision_and_no_model(people):
    eva, max_ = people
    teach(eva, *range(9))
    before = eva.decisions(), bits(eva), eva.query(), eva.status()
    max_.teach({"00.png": "green"}, blind=True)
    max_.teach({"01.png": "?cant-tell"}, blind=True)
    assert (eva.decisions(), bits(eva), eva.query()) == before[:3]
    assert eva.status().labels == before[3].labels
    kinds = [event["kind"] for event in eva.log()]
    assert kinds.count("repeat") == 2
    assert kinds.count("train") == 1
    given = [event["other_answers"] for event in eva.log() if event["kind"] == "repeat"]
    assert [answer["label"] for (answer,) in given] == [
        "green",
        "?cant-tell",
    ]


def test_the_same_answer_again_changes_nothing_another_replaces_it(people):
    eva, max_ = people
    teach(eva, 0, 1)
    for _ in range(3):
        max_.teach({"00.png": "green"}, blind=True)
    assert sum(event["kind"] == "repeat" for event in eva.log()) == 1
    max_.teach({"00.png": "red"}, blind=True)
    (pair,) = eva.agreement().pairs
    assert (pair.n, pair.n_agree) == (1, 1)


def test_repeats_are_undone(people):
    eva, max_ = people
    teach(eva, 0, 1)
    max_.teach({"00.png": "green"}, blind=True)
    assert max_.undo() == ["00.png"]
    assert max_.agreement().pairs == []
    assert max_.undo() == names(0, 1)
    with pytest.raises(CampaignError, match="nothing to undo"):
        eva.undo()


def test_repeats_that_cannot_be(people, pool):
    eva, max_ = people
    teach(eva, 0)
    n_events = len(eva.log())
    sha256 = eva.decisions()[0][1].sha256
    for arguments, message in (
        (("01.png", "red"), "not decided yet, so this is no repeat"),
        (("nowhere.png", "red"), "not in the pool"),
        (("00.png", "rot"), "none of the classes"),
        (("01.png", "red", sha256), "another picture by now"),
    ):
        with pytest.raises(LabelFileError, match=message):
            max_.teach([LabelRow("it", *arguments)], blind=True)
    assert len(eva.log()) == n_events
    max_.teach([LabelRow("it", "00.png", "red", sha256)], blind=True)
    assert len(eva.log()) == n_events + 1


# --- which images are shown again --------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_the_share_of_repeats(share, people):
    """Two people label by turns and answer the repeats that are due."""
    for k in range(N):
        campaign = people[k % 2]
        teach(campaign, k)
        for image in campaign.repeats_due(share):
            assert (image.guess, image.score, image.confidence) == (None,) * 3
            row = LabelRow("it", image.path, truth(image.path), image.sha256)
            campaign.teach([row], blind=True)
        assert campaign.repeats_due(share) == []
    log = people[0].log()
    repeats = [e for e in log if e["kind"] == "repeat"]
    assert len(repeats) / (N + len(repeats)) == pytest.approx(share, abs=0.05)
    shown = [(e["who"], e["other_answers"][0]["path"]) for e in repeats]
    assert len(set(shown)) == len(shown)
    pairs = {(p.first, p.second): p.n for p in people[0].agreement().pairs}
    assert set(pairs) <= {("eva", "eva"), ("eva", "max"), ("max", "max")}
    assert abs(pairs[("eva", "max")] - len(repeats) / 2) <= 2
    whose = {e["decisions"][0]["path"]: e["id"] for e in log if e["kind"] == "teach"}
    for event in repeats:  # not what was seen just before
        taught = whose[event["other_answers"][0]["path"]]
        own = [e for e in log if e["kind"] == "teach" and e["who"] == event["who"]]
        if taught in [e["id"] for e in own]:
            assert sum(taught < e["id"] < event["id"] for e in own) >= APART


def test_what_is_due_is_a_function_of_the_log(people):
    eva, max_ = people
    teach(eva, *range(20), **{"20.png": "?cant-tell"})
    assert max_.repeats_due(0.5) == []  # nothing of his yet to go with
    everything = max_.repeats_due(1)
    assert sorted(image.path for image in everything) == names(*range(20))
    due = eva.repeats_due(0.2)
    assert len(due) == 5
    assert eva.repeats_due(0.2) == due == max_.repeats_due(0.2, "eva")
    assert [i.path for i in due] != sorted(i.path for i in due)
    eva.teach({due[0].path: "red"}, blind=True)
    assert eva.repeats_due(0.2) == due[1:]
    eva.undo()
    assert eva.repeats_due(0.2) == due
    assert eva.repeats_due(0) == []
    with pytest.raises(ValueError, match="from 0 to 1"):
        eva.repeats_due(1.5)


# --- what is worth a second look ------------------------------------------------


def test_wrong_labels_are_found(people):
    """Four of 48 labels are wrong; the list begins with them."""
    eva = people[0]
    wrong = {"05.png": "red", "10.png": "blue", "24.png": "green", "33.png": "blue"}
    right = {path: truth(path) for path in names(*range(N))}
    eva.teach({**right, **wrong}, train=False)
    doubts = eva.second_look()
    assert {doubt.path for doubt in doubts[:4]} == set(wrong)
    for doubt in doubts[:4]:
        assert doubt.likely
        assert doubt.label == wrong[doubt.path]
        assert doubt.suggested == truth(doubt.path)
        assert doubt.who == "eva"
        assert 0.5 < doubt.score <= 1
    assert eva.second_look(2) == doubts[:2]
    eva.rename_class("blue", "other blue")  # no more in the order of their names
    again = {doubt.path: doubt.score for doubt in eva.second_look()}
    assert again == pytest.approx({d.path: d.score for d in doubts}, abs=1e-3)
    eva.undo()
    assert len(doubts) == N
    assert [d.score for d in doubts] == sorted((d.score for d in doubts), reverse=True)
    # A label that was changed is judged anew, one that was confirmed is dropped.
    eva.relabel("05.png", truth("05.png"), train=False)
    eva.confirm("10.png")
    left = eva.second_look()
    assert "10.png" not in [doubt.path for doubt in left]
    assert {doubt.path for doubt in left[:2]} == {"24.png", "33.png"}
    eva.undo()
    assert "10.png" in [doubt.path for doubt in eva.second_look(3)]


def test_no_label_is_judged_by_a_model_that_saw_it(people):
    """The pretrained network is asked, not the one that learnt the mistake."""
    eva = people[0]
    teach(eva, *range(1, 12), **{"00.png": "blue"})
    before = eva.second_look()
    eva.estimator()
    assert eva.second_look() == before


def test_judged_by_the_network_itself(people):
    eva = people[0]
    given = {path: truth(path) for path in names(*range(24))} | {"00.png": "blue"}
    eva.teach(given, train=False)
    doubts = eva.second_look(refit=True)
    proba = out_of_fold_proba(
        tiny_classifier(random_state=0),
        [str(eva.pool / path) for path in given],
        list(given.values()),
        classes=CLASSES,
    )
    own = [
        row[CLASSES.index(label)]
        for row, label in zip(proba, given.values(), strict=True)
    ]
    found = {doubt.path: doubt.score for doubt in doubts}
    assert [found[path] for path in given] == pytest.approx([1 - p for p in own])
    assert found != {doubt.path: doubt.score for doubt in eva.second_look()}


def test_answers_are_weighed_as_written_slowly():
    rng = np.random.default_rng(0)
    proba, answers = rng.dirichlet([1, 1, 1], 8), rng.integers(-1, 3, (8, 3))
    found, *quality = weigh_answers(answers, proba)
    literal, people = reference.consensus(answers.tolist(), proba.tolist(), 15)
    assert found == pytest.approx(np.array(literal), abs=1e-4)
    assert pytest.approx(np.array(people), abs=1e-4) == np.array(quality).T
    # Nobody answered, and nothing is known.
    found, *_ = weigh_answers(np.array([[-1], [1]]), np.full((2, 4), np.nan))
    assert found[0] == pytest.approx(0.25) and found[1].argmax() == 1


def test_consensus(people):
    """Max is often wrong, and does not overrule eva and the model."""
    eva, max_ = people
    assert eva.consensus().images == []
    teach(eva, *range(N), **{"05.png": "red"})
    again = {path: truth(path) for path in names(*range(0, 24))}
    max_.teach(again | dict.fromkeys(names(*range(0, 12, 3)), "green"), blind=True)
    found = eva.consensus()
    assert [(person.who, person.n) for person in found.people] == [
        ("eva", N), ("max", 24)]  # fmt: skip
    first, second = found.people
    assert first.low < first.right < first.high and first.right > second.right + 0.05
    differing = [image for image in found.images if image.label != image.holds]
    assert [(i.path, i.label, i.holds) for i in differing] == [
        ("05.png", truth("05.png"), "red")]  # fmt: skip
    assert differing[0].answers == [("eva", "red"), ("max", truth("05.png"))]
    doubts = eva.second_look()
    assert (doubts[0].path, doubts[0].consensus) == ("05.png", truth("05.png"))
    assert {doubt.path for doubt in doubts[:5]} == {*names(0, 3, 5, 6, 9)}
    said = str(found)
    assert "max: right" in said and "05.png: eva said 'red', max said" in said


def test_few_labels_and_classes_of_one(people):
    eva = people[0]
    with pytest.warns(UserWarning, match="No label can be judged"):
        assert eva.second_look() == []
    teach(eva, 0, 1)
    with pytest.warns(UserWarning, match="two classes with at least two labels"):
        assert eva.second_look() == []
    teach(eva, 3, 4, 2)
    with pytest.warns(UserWarning, match="The only label of 'blue' cannot be judged"):
        doubts = eva.second_look()
    assert {doubt.path for doubt in doubts} == set(names(0, 1, 3, 4))


def test_cant_tell(people):
    eva, max_ = people
    marks = {"00.png": "?cant-tell", "02.png": "?cant-tell", "03.png": "?skip"}
    eva.teach({**marks, "01.png": "red"}, train=False)
    max_.teach({"04.png": "?cant-tell"}, train=False)
    listed = [(path, d.who) for path, d in eva.cant_tell()]
    assert listed == [("00.png", "eva"), ("02.png", "eva"), ("04.png", "max")]
    ((_, first), *_) = eva.cant_tell()
    assert first.sha256 == eva.decisions()[0][1].sha256
    assert datetime.fromisoformat(first.at).tzinfo is not None
    max_.teach({"02.png": "blue"}, train=False)
    assert [path for path, _ in eva.cant_tell()] == names(0, 4)


# --- by command --------------------------------------------------------------------


def run(folder, who, *arguments):
    assert main([*map(str, arguments), "--campaign", str(folder), "--who", who]) == 0


def fill(path, answer):
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "label": answer(row["path"])} for row in rows)
    return rows


def test_by_command(pool, tmp_path, capsys):
    folder = tmp_path / "c"
    Campaign.create(
        folder, pool, CLASSES,
        CNNClassifier("squeezenet1_1", weights=None, image_size=32, max_epochs=1),
        RandomSampling(),
    ).close()  # fmt: skip
    labels = tmp_path / "labels.csv"
    rows = [f"{path},{truth(path)}\n" for path in names(*range(11))]
    labels.write_text("path,label\n" + "".join(rows) + "11.png,?cant-tell\n")
    run(folder, "eva", "teach", labels, "--later")
    again = tmp_path / "again.csv"
    run(folder, "max", "repeats", "--share", "1", "-o", again)
    shown = fill(again, lambda path: "red" if path == "01.png" else truth(path))
    assert len(shown) == 11
    assert set(shown[0]) == {"path", "label", "sha256", "as_of"}  # blind
    capsys.readouterr()
    run(folder, "max", "teach", again, "--blind")
    assert "Saved 11 blind answers" in capsys.readouterr().out
    run(folder, "max", "agreement")
    said = capsys.readouterr().out
    assert "eva and max: 10 of 11 the same" in said
    assert "01.png: eva said 'green', max 'red'" in said
    doubts = tmp_path / "doubts.csv"
    run(folder, "max", "suspects", "-o", doubts)
    with doubts.open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert (listed[0]["path"], listed[0]["label"]) == ("01.png", "green")
    assert listed[0]["others"] == "max: red"
    run(folder, "max", "confirm", "01.png")
    unclear = tmp_path / "unclear.csv"
    run(folder, "max", "export", "-o", unclear)
    text = unclear.read_text()
    assert text.count("11.png,?cant-tell") == 1
    unclear.write_text(text.replace("?cant-tell", "red"))
    run(folder, "max", "teach", unclear, "--later")
    run(folder, "max", "suspects", "-o", doubts, "--overwrite")
    assert "01.png" not in doubts.read_text()
    capsys.readouterr()
    run(folder, "max", "status")
    assert "labelled     12" in capsys.readouterr().out
