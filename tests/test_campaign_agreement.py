"""Agreement between people, and how fast they label."""

# The fixtures that are imported are the arguments of the same name.
# ruff: noqa: F811

import warnings
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from scipy.stats import binomtest

from skadma import Campaign
from skadma.labelling.campaign import CampaignError
from skadma.labelling.campaign.agreement import compare_marks

from .conftest import TinyCNN
from .forged import change_log
from .two_people import CLASSES, N, names, people, pool, teach, truth  # noqa: F401


def quiet(function, *arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments)


# --- agreement ----------------------------------------------------------------


def test_agreement_by_hand(people):
    """48 answers of two; kappa by its definition."""
    eva, max_ = people
    said = ["red red"] * 20 + ["red blue"] * 5 + ["blue red"] * 10 + ["blue blue"] * 13
    first = {p: s.split()[0] for p, s in zip(names(*range(N)), said, strict=True)}
    eva.teach(first, train=False)
    for path, answers in zip(first, said, strict=True):
        max_.teach({path: answers.split()[1]}, blind=True)
    found = eva.agreement()
    (pair,) = found.pairs
    assert (pair.first, pair.second, pair.n, pair.n_agree) == ("eva", "max", 48, 33)
    chance = (25 * 30 + 23 * 18) / 48**2
    assert pair.kappa == pytest.approx((33 / 48 - chance) / (1 - chance))
    wilson = binomtest(33, 48).proportion_ci(0.95, "wilson")
    assert pair.interval == pytest.approx((wilson.low, wilson.high))
    assert pair.kappa_interval == pytest.approx(
        ((wilson.low - chance) / (1 - chance), (wilson.high - chance) / (1 - chance))
    )
    assert len(found.disagreements) == 15
    one = found.disagreements[0]
    assert (one.path, one.first, one.label, one.second, one.other) == (
        "20.png", "eva", "red", "max", "blue",
    )  # fmt: skip
    assert "eva and max: 33 of 48 the same" in str(found)
    # What is corrected afterwards does not make them agree.
    eva.relabel("20.png", "blue", train=False)
    assert eva.agreement() == found


def test_agreement_where_little_can_be_said(people):
    eva, max_ = people
    assert str(eva.agreement()) == "No image was shown again yet."
    teach(eva, 0, 3, 6)
    for path in names(0, 3):
        max_.teach({path: "red"}, blind=True)
    max_.teach({"06.png": "?skip"}, blind=True)  # no answer
    (pair,) = eva.agreement().pairs
    assert (pair.n, pair.n_agree, pair.kappa, pair.kappa_interval) == (2, 2, None, None)
    assert pair.interval[0] < 0.5  # two answers prove little
    assert "no kappa" in str(pair)
    eva.teach({"00.png": "?cant-tell"}, blind=True)
    assert {(p.first, p.second): p.n_agree for p in eva.agreement().pairs} == {
        ("eva", "eva"): 0,
        ("eva", "max"): 2,
    }


@pytest.mark.parametrize("accuracy", [0.8, 0.95])
@pytest.mark.parametrize("n", [15, 60])
def test_the_interval_of_kappa_covers(n, accuracy, people):
    """Of two who are right so often; 95 % is meant."""
    rng = np.random.default_rng(0)
    prior = np.array([0.6, 0.3, 0.1])
    confusion = np.full((3, 3), (1 - accuracy) / 2) + np.eye(3) * (
        accuracy - (1 - accuracy) / 2
    )
    joint = np.einsum("k,ki,kj->ij", prior, confusion, confusion)
    chance = joint.sum(0) @ joint.sum(1)
    kappa = (np.trace(joint) - chance) / (1 - chance)
    hits = []
    for _ in range(300):
        cells = rng.choice(9, n, p=joint.ravel())
        marks = [(CLASSES[cell // 3], CLASSES[cell % 3]) for cell in cells]
        pair = compare_marks("eva", "max", marks)
        if pair.kappa_interval is not None:
            assert pair.kappa_interval[0] <= pair.kappa <= pair.kappa_interval[1]
            hits.append(pair.kappa_interval[0] <= kappa <= pair.kappa_interval[1])
    assert len(hits) > 250
    assert np.mean(hits) > 0.92


def test_kappa_where_people_use_other_classes():
    pair = compare_marks("eva", "max", [("a", "b"), ("a", "b")])
    assert (pair.n_agree, pair.kappa) == (0, 0.0)
    assert pair.kappa_interval == pair.interval  # by chance they agree never
    pair = compare_marks("eva", "max", [("a", "a"), ("b", "b"), ("c", "c")])
    assert pair.kappa == 1.0
    low, high = ((p - 1 / 3) / (2 / 3) for p in pair.interval)  # by chance: a third
    assert pair.kappa_interval == pytest.approx((low, high))


def test_what_people_disagree_about_comes_first(people):
    eva, max_ = people
    teach(eva, *range(12))
    max_.teach({"07.png": "blue"}, blind=True)
    max_.teach({"08.png": truth("08.png")}, blind=True)
    first = eva.second_look()[0]
    assert (first.path, first.others) == ("07.png", [("max", "blue")])
    assert all(doubt.others == [] for doubt in eva.second_look()[1:])
    max_.confirm("07.png")
    assert "07.png" not in [doubt.path for doubt in eva.second_look()]
    # Also where no model can say anything.
    for _ in range(4):
        eva.undo()
    teach(eva, 0)
    max_.teach({"00.png": "?cant-tell"}, blind=True)
    (doubt,) = quiet(eva.second_look)
    assert (doubt.suggested, doubt.score) == (None, None)
    assert doubt.others == [("max", "?cant-tell")]
    eva.relabel("00.png", "?cant-tell", train=False)
    assert quiet(eva.second_look) == []
    with pytest.raises(CampaignError, match="no decision that could stand"):
        eva.confirm("40.png")


# --- pace -------------------------------------------------------------------------


def set_clock(campaign, seconds):
    """Write times into the log; `seconds` is by event, from the campaign's start."""
    campaign.close()
    begin = datetime(2026, 1, 1, tzinfo=timezone.utc)
    changes = []
    for event, at in seconds.items():
        when = (begin + timedelta(seconds=at)).isoformat(timespec="milliseconds")
        changes.append(("UPDATE events SET at = ? WHERE id = ?", (when, event)))
    change_log(campaign.folder, *changes)
    return Campaign.open(campaign.folder, backbone=TinyCNN)


def test_labels_per_hour_without_pauses(people):
    eva, max_ = people
    eva.query(20)  # event 2
    teach(eva, *range(10))  # 3: 60 s after the query, ten labels
    teach(eva, 10)  # 4: 4 s later
    teach(max_, 11)  # 5: 100 s after the query
    max_.teach({"00.png": "red"}, blind=True)  # 6: 6 s later
    teach(eva, 12)  # 7: after lunch
    teach(eva, 13)  # 8: 6 s after lunch
    teach(max_, *range(14, 48))  # 9: an old file of labels
    clock = {1: 0, 2: 10, 3: 70, 4: 74, 5: 110, 6: 116, 7: 3600, 8: 3606, 9: 116.5}
    max_.close()
    with set_clock(eva, clock) as campaign:
        paces = {pace.who: pace for pace in campaign.status().pace}
        said = str(campaign.status())
    assert paces["eva"].n_labels == 12
    assert paces["eva"].hours * 3600 == pytest.approx(60 + 4 + 6)
    assert paces["eva"].per_hour == pytest.approx(12 * 3600 / 70)
    assert paces["max"].n_labels == 2
    assert paces["max"].hours * 3600 == pytest.approx(100 + 6)
    assert "an hour      eva: 617 (12 timed), max: 68 (2 timed)" in said
