"""Audits of campaigns: kept apart, never trained with, estimates as the pure ones."""

import csv
import re

import numpy as np
import pytest
from PIL import Image

from skadma import Campaign, CNNClassifier
from skadma.cli import main
from skadma.evaluation import estimate
from skadma.labelling.campaign import CampaignError, LabelFileError
from skadma.labelling.campaign.audits import sampling_design
from skadma.labelling.campaign.ledger import Operation
from skadma.labelling.campaign.state import read_state
from skadma.strategies import MarginSampling, RandomSampling

from .conftest import TinyCNN, tiny_classifier

CLASSES = ["blue", "green", "red"]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """72 pictures of three classes, a third of them hard to tell; labels by path."""
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    labels = {}
    for i in range(72):
        y = i % 3
        pixels = rng.integers(0, 200, (16, 16, 3))
        pixels[:, :, y] += 55 if i % 9 < 6 else 12
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:02}.png")
        labels[f"{i:02}.png"] = CLASSES[y]
    return folder, labels


def create(folder, pool, strategy=None, **params):
    return Campaign.create(
        folder, pool, CLASSES,
        params.pop("estimator", tiny_classifier(random_state=None, max_epochs=4)),
        strategy or MarginSampling(), **{"n_instances": 6, **params},
    )  # fmt: skip


@pytest.fixture
def campaign(many, tmp_path):
    """One with 12 labels and a model."""
    with create(tmp_path / "c", many[0]) as campaign:
        campaign.teach({path: many[1][path] for path in list(many[1])[:12]})
        yield campaign


def answered(drawn, labels):
    return {p.path: labels[p.path] for p in drawn}


@pytest.mark.parametrize("method", ["random", "stratified"])
def test_the_estimate_is_that_of_the_pure_functions(campaign, many, method):
    labels = many[1]
    drawn = campaign.audits.draw(20, method=method)
    assert len({p.path for p in drawn}) == 20
    assert all(p.guess is None and p.confidence is None for p in drawn)
    taken = campaign.audits.answer(answered(drawn, labels))
    assert (taken.n_new, taken.n_changed) == (20, 0)
    found = campaign.audits.estimate(confidence=0.9)
    (kept,) = read_state(campaign._event_log).audits
    files = [str(many[0] / p.path) for p in drawn]
    expected = estimate(
        sampling_design(kept), campaign.estimator().predict(files),
        [labels[p.path] for p in drawn], classes=CLASSES, confidence=0.9,
    )  # fmt: skip
    assert str(found) == str(expected) and found.n_population == 60
    assert found.method == method


def test_audit_images_are_neither_queried_nor_trained_with(campaign, many):
    labels = many[1]
    drawn = {p.path for p in campaign.audits.draw(30)}
    assert not drawn & set(campaign.candidates())
    keys = campaign._trainer.model_keys(read_state(campaign._event_log))
    campaign.audits.answer({path: labels[path] for path in drawn})
    assert campaign._trainer.model_keys(read_state(campaign._event_log)) == keys
    status = campaign.status()
    assert (status.audit, status.audit_answered, status.n_open) == (30, 30, 30)
    assert "30 kept apart, 30 answered" in str(status)
    queried = set()
    while campaign.candidates():
        batch = [p.path for p in campaign.query()]
        queried |= set(batch)
        campaign.teach({path: labels[path] for path in batch}, train=False)
    assert len(queried) == 30 and not queried & drawn
    trained = {
        read_state(campaign._event_log).paths[i]
        for i, _ in read_state(campaign._event_log).labelled()
    }
    assert not trained & drawn and len(trained) == 42
    with pytest.raises(CampaignError, match="or in an audit"):
        campaign.query()
    path = min(drawn)
    with pytest.raises(LabelFileError, match="'skadma evaluate'"):
        campaign.teach({path: labels[path]})
    with pytest.raises(CampaignError, match="no label to correct"):
        campaign.relabel(path, "red")
    with pytest.raises(LabelFileError, match="is in no audit"):
        campaign.audits.answer({min(queried): "red"})


def test_release_makes_labels_of_the_answers(campaign, many):
    labels = many[1]
    drawn = [p.path for p in campaign.audits.draw(10)]
    campaign.audits.answer({path: labels[path] for path in drawn[:7]})
    released = campaign.audits.release()
    assert released.n_new == 7
    state = read_state(campaign._event_log)
    trained = {state.paths[i]: label for i, label in state.labelled()}
    assert all(trained[path] == labels[path] for path in drawn[:7])
    assert set(drawn[7:]) <= set(campaign.candidates())
    with pytest.raises(CampaignError, match="Nothing was drawn"):
        campaign.audits.estimate()
    with pytest.raises(CampaignError, match="no audit to release"):
        campaign.audits.release()
    assert sorted(campaign.undo()) == sorted(drawn[:7])
    assert len(read_state(campaign._event_log).labelled()) == 12


def audited(campaign):
    """What must be again as it was before a release."""
    state = read_state(campaign._event_log)
    answers = {sha: d.mark for sha, d in state.audit_answers.items() if sha in
               state.drawn()}  # fmt: skip
    return (
        answers, [p.path for p in campaign.audits.pending()], campaign.candidates(),
        state.labelled(), str(campaign.audits.estimate()), campaign.status().audit,
    )  # fmt: skip


def test_undo_takes_a_release_back(campaign, many):
    """The answers are the audit's again: never in neither place, nor in both."""
    drawn = [p.path for p in campaign.audits.draw(10)]
    campaign.audits.answer({path: many[1][path] for path in drawn[:4]})
    with Campaign.open(campaign.folder, backbone=TinyCNN, who="max") as other:
        other.audits.answer({path: many[1][path] for path in drawn[4:7]})
        before = audited(campaign)
        ledger = campaign.ledger()
        other.audits.release()
    campaign.teach({drawn[8]: "red"}, train=False)
    assert campaign.undo() == [drawn[8]]
    assert len(campaign.undo()) == 7
    assert audited(campaign) == before
    ledger.update()
    assert ledger.drawn().keys() == read_state(campaign._event_log).drawn().keys()
    with pytest.raises(LabelFileError, match="is in an audit"):
        campaign.teach({drawn[0]: "red"})
    assert campaign.audits.release().n_new == 7
    assert len(campaign.undo()) == 7
    assert len(campaign.undo()) == 3  # of the second person's answers
    assert len(read_state(campaign._event_log).drawn()) == 10


def test_a_release_is_not_taken_back_under_another_audit(campaign, many):
    drawn = [p.path for p in campaign.audits.draw(10)]
    campaign.audits.answer({path: many[1][path] for path in drawn[:4]})
    campaign.audits.release()
    n_labelled = len(read_state(campaign._event_log).labelled())
    n = len(campaign.candidates())
    campaign.audits.draw(n)  # those without an answer among them
    n_events = len(campaign.log())
    with pytest.raises(CampaignError, match="in another audit since.*relabel"):
        campaign.undo()
    assert len(campaign.log()) == n_events
    assert len(read_state(campaign._event_log).labelled()) == n_labelled


def test_the_page_takes_no_label_of_a_release_back(campaign, many):
    drawn = [p.path for p in campaign.audits.draw(10)]
    campaign.audits.answer({path: many[1][path] for path in drawn[:4]})
    campaign.audits.release()
    ledger = campaign.ledger()
    undo = Operation("o" * 8, undo=f"event-{campaign.log()[-1]['id']}")
    for _ in range(2):
        (outcome,) = ledger.record([undo])
        assert outcome.status == "nothing"
        assert len(outcome.refused) == 4
        assert "'skadma undo' takes the release" in outcome.refused[0]["reason"]
    assert len(ledger.labels()) == 16


def test_answers_are_corrected_undone_and_logged(campaign, many):
    drawn = [p.path for p in campaign.audits.draw(12, method="random")]
    wrong = dict.fromkeys(drawn, "red")
    campaign.audits.answer(wrong)
    assert campaign.audits.answer(wrong).n_same == 12
    right = {path: many[1][path] for path in drawn}
    n_changed = sum(label != "red" for label in right.values())
    assert campaign.audits.answer(right).n_changed == n_changed
    after = campaign.audits.estimate()
    assert after.confusion.sum() == pytest.approx(60)
    assert sorted(campaign.undo()) == sorted(p for p, v in right.items() if v != "red")
    assert campaign.audits.estimate().recall["blue"].n_labels == 0
    kinds = [event["kind"] for event in campaign.log()]
    assert kinds[-3:] == ["answer", "answer", "undo"]
    (event,) = [event for event in campaign.log() if event["kind"] == "audit"]
    assert [draw["path"] for draw in event["draws"]] == drawn
    assert event["population"] == 60 and event["model"]


def test_it_is_all_there_after_opening_again(campaign, many):
    drawn = campaign.audits.draw(10)
    campaign.audits.answer(answered(drawn[:5], many[1]))
    before = str(campaign.audits.estimate())
    campaign.close()
    with Campaign.open(campaign.folder, backbone=TinyCNN) as again:
        assert str(again.audits.estimate()) == before
        assert [p.path for p in again.audits.pending()] == [p.path for p in drawn[5:]]


def test_more_draws_add_up_and_the_model_may_change(campaign, many):
    labels = many[1]
    first = campaign.audits.draw(10)
    second = campaign.audits.draw(15, method="random")
    assert not {p.path for p in first} & {p.path for p in second}
    campaign.audits.answer(answered([*first, *second], labels))
    found = campaign.audits.estimate()
    assert found.n_labels == 25 and found.method == "stratified+random"
    campaign.teach({p.path: labels[p.path] for p in campaign.query()})
    later = campaign.audits.estimate()
    assert later.n_labels == 25
    # By now it is about images like those, not only those: less is known.
    full = read_state(campaign._event_log).audits
    files = [many[0] / p.path for p in [*first, *second]]
    expected = estimate(
        [sampling_design(audit) for audit in full],
        campaign.estimator().predict([str(f) for f in files]),
        [labels[f.name] for f in files], classes=CLASSES, finite=False,
    )  # fmt: skip
    assert str(later) == str(expected)


def test_what_cannot_be_told_or_is_gone_is_left_out(many, tmp_path):
    pool = tmp_path / "pool"
    pool.mkdir()
    for path in many[1]:
        (pool / path).write_bytes((many[0] / path).read_bytes())
    with create(tmp_path / "c", pool) as campaign:
        campaign.teach({path: many[1][path] for path in list(many[1])[:12]})
        drawn = campaign.audits.draw(12)
        campaign.audits.answer(
            {**answered(drawn, many[1]), drawn[0].path: "?cant-tell",
             drawn[1].path: "?skip"}
        )  # fmt: skip
        assert campaign.audits.estimate().n_labels == 10
        assert [p.path for p in campaign.audits.pending()] == [drawn[1].path]
        (pool / drawn[2].path).unlink()
        (pool / drawn[3].path).write_bytes((pool / drawn[4].path).read_bytes())
        assert campaign.audits.estimate().n_labels == 8


def test_without_model_or_images_it_says_what_helps(many, tmp_path):
    with create(tmp_path / "c", many[0], RandomSampling()) as campaign:
        with pytest.raises(CampaignError, match="--method random"):
            campaign.audits.draw(5)
        drawn = campaign.audits.draw(5, method="random")
        with pytest.raises(CampaignError, match="has a label yet"):
            campaign.audits.estimate()
        campaign.audits.answer(answered(drawn, many[1]))
        with pytest.raises(CampaignError, match="teach labels first"):
            campaign.audits.estimate()
        with pytest.raises(CampaignError, match="there are 67"):
            campaign.audits.draw(68, method="random")


# --- the command ----------------------------------------------------------------------


def fill(path, labels, leave=0):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows[leave:]:
        row["label"] = labels[row["path"]]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def folder(many, tmp_path):
    """A campaign whose network has a name, with a model."""
    network = CNNClassifier("squeezenet1_1", weights=None, image_size=32, max_epochs=1)
    with create(tmp_path / "c", many[0], estimator=network) as campaign:
        campaign.teach({path: many[1][path] for path in list(many[1])[:12]})
    return tmp_path / "c"


def test_the_command_draws_takes_estimates_and_releases(folder, many, tmp_path, capsys):
    where = ["--campaign", str(folder)]
    file = tmp_path / "audit.csv"
    main(["evaluate", "--draw", "15", "-o", str(file), *where])
    assert f"15 images to label: fill in the column 'label' of {file}" in (
        capsys.readouterr().out
    )
    fill(file, many[1], leave=3)
    main(["evaluate", str(file), *where])
    text = capsys.readouterr().out
    assert "Saved 12 labels" in text and re.search(r"accuracy +\d+\.\d % \(", text)
    assert "on 60 images, from 12 labels (stratified; 95 % intervals)" in text
    assert "3 drawn images have no label yet" in text
    rest = tmp_path / "rest.csv"
    main(["evaluate", "-o", str(rest), *where])
    assert len(rest.read_text().splitlines()) == 4
    fill(rest, many[1])
    main(["evaluate", str(rest), *where, "--confidence", "0.5"])
    assert "from 15 labels (stratified; 50 % intervals)" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["teach", str(file), *where])
    assert "--release" in capsys.readouterr().err
    main(["evaluate", "--release", *where])
    assert "15 labels of the audit are trained with" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--draw", "5"], "needs -o FILE"),
        (["--draw", "5", "--release", "-o", "x"], "not allowed with argument"),
        (["x.csv", "--release"], "not allowed with argument"),
        (["--release", "-o", "x"], "--release goes alone"),
        ([], "Nothing was drawn yet"),
        (["--draw", "500", "-o", "x.csv"], "500 images cannot be drawn"),
    ],
)
def test_the_command_refuses(folder, arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["evaluate", *arguments, "--campaign", str(folder)])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()


def test_suspects_are_listed(many, tmp_path, capsys):
    network = CNNClassifier("squeezenet1_1", weights=None, image_size=32, max_epochs=1)
    paths = list(many[1])[:45]
    given = {path: many[1][path] for path in paths}
    given[paths[0]] = "red"  # it is blue
    with create(tmp_path / "c", many[0], estimator=network) as campaign:
        campaign.teach(given, train=False)
    where = ["--campaign", str(tmp_path / "c")]
    out = tmp_path / "suspects.csv"
    main(["suspects", "-n", "8", "-o", str(out), *where])
    with out.open(newline="") as file:
        shown = list(csv.DictReader(file))
    with Campaign.open(tmp_path / "c") as campaign:
        expected = [doubt.path for doubt in campaign.second_look(8)]
    assert [row["path"] for row in shown] == expected
    assert all(row["label"] == given[row["path"]] for row in shown)
    scores = [float(row["score"]) for row in shown]
    assert scores == sorted(scores, reverse=True)
