"""Campaign: rounds over days, changed minds, and the commands."""

# ruff: noqa: F811

import csv
import json

import numpy as np
import pytest
from PIL import Image

from skadma import ActiveLearner, Campaign, CNNClassifier, SourceCenters
from skadma.cli import main
from skadma.labelling.campaign import CampaignError
from skadma.labelling.campaign.report import make_report
from skadma.strategies import ADMA, BADGE, MarginSampling, RandomSampling, TypiClust

from .conftest import tiny_classifier

# pytest finds the fixtures by their names here
from .painted_campaign import (  # noqa: F401
    CLASSES,
    bits,
    campaign,
    create,
    marks,
    painted,
    pool,
    reopen,
)

# --- what it chooses and learns ---------------------------------------------


@pytest.mark.parametrize("warm_start", [False, True])
@pytest.mark.parametrize("kind", ["margin", "random", "typiclust", "badge", "adma"])
def test_rounds_are_the_learners(kind, warm_start, painted, pictures, tmp_path):
    """Opened anew for every step, it chooses and learns what one process does."""
    folder, labels = painted
    strategy = {
        "margin": MarginSampling,
        "random": RandomSampling,
        "typiclust": TypiClust,
        "badge": BADGE,
        "adma": lambda: ADMA(
            SourceCenters.from_dataset(
                tiny_classifier(), pictures[0], np.arange(24) % 5
            ),
            layer_a=(-4, -5),
            trade_off=0.1,  # the learner knows how long its run is, a campaign does not
        ),
    }[kind]()
    paths = sorted(labels)
    files = [str(folder / path) for path in paths]
    learner = ActiveLearner(
        tiny_classifier(random_state=None), strategy, n_rounds=3, n_instances=4,
        warm_start=warm_start, random_state=0,
    ).fit(files, [labels[path] for path in paths])  # fmt: skip
    campaign = create(tmp_path / "c", folder, strategy, warm_start=warm_start)
    for expected in learner.queried_indices_:
        campaign = reopen(campaign)
        chosen = [proposal.path for proposal in campaign.query()]
        assert chosen == [paths[i] for i in expected]
        campaign = reopen(campaign)
        campaign.teach({path: labels[path] for path in chosen})
    campaign = reopen(campaign)
    np.testing.assert_array_equal(
        campaign.estimator().predict_proba(files), learner.predict_proba(files)
    )
    campaign.close()


def test_asked_again_the_answer_is_the_same(campaign):
    first = campaign.query()
    assert campaign.query() == first
    campaign = reopen(campaign)
    assert campaign.query() == first
    assert sum(event["kind"] == "query" for event in campaign.log()) == 1
    assert len(campaign.query(6)) == 6
    campaign.close()
    with pytest.raises(CampaignError, match="is closed"):
        campaign.query()


def test_real_network_by_name(elpv, tmp_path):
    """EfficientNet-Lite0 with its ImageNet weights, as the command makes it."""
    X, y = elpv
    (tmp_path / "pool").mkdir()
    labels = {}
    for i in range(16):
        Image.fromarray(X[i]).save(tmp_path / "pool" / f"{i:02}.png")
        labels[f"{i:02}.png"] = str(y[i])
    estimator = CNNClassifier("efficientnet_lite0", image_size=64, max_epochs=1)
    campaign = Campaign.create(
        tmp_path / "c", tmp_path / "pool", ["defective", "sound"], estimator,
        TypiClust(), n_instances=6,
    )  # fmt: skip
    with campaign:
        campaign.teach({p.path: labels[p.path] for p in campaign.query()})
        before = bits(campaign)
    for model in (tmp_path / "c" / "models").iterdir():
        model.unlink()
    with Campaign.open(tmp_path / "c") as campaign:
        assert bits(campaign) == before  # made again from the labels
        proposals = campaign.query()
    assert {p.guess for p in proposals} <= {"defective", "sound"}
    assert all(0.5 <= p.confidence <= 1 for p in proposals)


@pytest.mark.parametrize("warm_start", [False, True])
def test_a_lost_or_damaged_model_is_made_again(warm_start, painted, tmp_path):
    folder, labels = painted
    campaign = create(tmp_path / "c", folder, warm_start=warm_start)
    for _ in range(5):  # more rounds than models are kept
        campaign.teach({p.path: labels[p.path] for p in campaign.query()})
    before, next_query = bits(campaign), campaign.query()
    models = sorted((tmp_path / "c" / "models").iterdir())
    assert len(models) == 3
    for model in models:
        model.write_bytes(bytes(len(model.read_bytes())))
    with pytest.warns(UserWarning, match="damaged or changed"):
        assert bits(reopen(campaign)) == before
    for model in (tmp_path / "c" / "models").iterdir():
        model.unlink()
    campaign = reopen(campaign)
    assert bits(campaign) == before
    assert campaign.query() == next_query
    campaign.close()


# --- changed minds ----------------------------------------------------------


def test_undo_is_as_if_it_had_not_been(painted, campaign):
    labels = painted[1]
    campaign.teach({p.path: labels[p.path] for p in campaign.query()})
    before = bits(campaign), campaign.query(), marks(campaign)
    second = {p.path: labels[p.path] for p in campaign.query()}
    campaign.teach(second)
    assert bits(campaign) != before[0]
    assert sorted(campaign.undo()) == sorted(second)
    assert (bits(campaign), campaign.query(), marks(campaign)) == before
    campaign.undo()
    assert marks(campaign) == {}
    with pytest.raises(CampaignError, match="nothing to undo"):
        campaign.undo()
    kinds = [event["kind"] for event in campaign.log()]
    assert kinds.count("teach") == 2  # all of it is still in the log
    assert kinds.count("undo") == 2


def test_a_corrected_label_leaves_no_trace(painted, pool, tmp_path):
    labels = painted[1]
    right = {path: labels[path] for path in sorted(labels)[:6]}
    wrong = dict(
        right, **{min(right): "red" if labels[min(right)] != "red" else "blue"}
    )
    with create(tmp_path / "1", pool) as one, create(tmp_path / "2", pool) as two:
        one.teach(right)
        taught = two.teach(wrong)
        assert (taught.n_new, taught.n_changed, taught.n_same) == (6, 0, 0)
        assert bits(one) != bits(two)
        two.relabel(min(right), right[min(right)])
        assert bits(one) == bits(two)
        assert [p.path for p in one.query()] == [p.path for p in two.query()]
        given = [e["decisions"] for e in two.log() if e["kind"] == "teach"]
        assert [len(each) for each in given] == [6, 1]
        with pytest.raises(CampaignError, match="no label to correct"):
            two.relabel(max(labels), "red")


def test_the_same_labels_again_change_nothing(painted, campaign):
    some = {p.path: painted[1][p.path] for p in campaign.query()}
    campaign.teach(some)
    n_events = len(campaign.log())
    taught = campaign.teach(some)
    assert (taught.n_new, taught.n_changed, taught.n_same) == (0, 0, 4)
    assert len(campaign.log()) == n_events


def test_set_aside(campaign):
    paths = [proposal.path for proposal in campaign.query(24)]
    kinds = ["?skip", "?cant-tell", "?not-an-image"]
    campaign.teach(dict(zip(paths[:3], kinds, strict=True)))
    again = [proposal.path for proposal in campaign.query(24)]
    assert sorted(again) == sorted(paths[3:])
    assert not hasattr(campaign.estimator(), "net_")
    campaign.teach(dict.fromkeys(paths[3:], "?cant-tell"))
    # What was skipped comes up when nothing else is left.
    assert [proposal.path for proposal in campaign.query()] == paths[:1]
    campaign.teach({paths[0]: "red"})
    assert campaign.status().labels == {"blue": 0, "green": 0, "red": 1}
    with pytest.raises(CampaignError, match="all 24 images .* are decided"):
        campaign.query()


# --- by command -------------------------------------------------------------


def run(folder, *arguments):
    assert main([*map(str, arguments), "--campaign", str(folder), "--who", "eva"]) == 0


def fill(path, answer):
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "label": answer(row["path"])} for row in rows)
    return [row["path"] for row in rows]


def test_by_command(painted, pool, tmp_path, capsys, monkeypatch):
    """A campaign with no Python written, opened anew by each command."""
    monkeypatch.chdir(tmp_path)
    labels = painted[1]
    Image.new("RGB", (32, 32)).save(pool / "=1+1.png")
    labels = {**labels, "=1+1.png": "blue"}
    c = tmp_path / "c"
    run(c, "start", pool, "--classes", *CLASSES, "--backbone", "squeezenet1_1",
        "--weights", "none", "--strategy", "margin-sampling", "-n", "5",
        "--training", "fine-tune",
        "--set", "estimator__image_size=32", "estimator__max_epochs=1")  # fmt: skip
    run(c, "query", "-o", "next.csv")
    with pytest.raises(SystemExit):  # it may hold labels by now
        run(c, "query", "-o", "next.csv")
    assert "--overwrite" in capsys.readouterr().err
    asked = fill(tmp_path / "next.csv", lambda path: labels[path.removeprefix("./")])
    run(c, "teach", "next.csv")
    assert "Saved 5 labels." in capsys.readouterr().out
    run(c, "query", "-n", "25", "-o", "all.csv")
    text = (tmp_path / "all.csv").read_text("utf-8") + "\n".join(asked)
    assert "./=1+1.png" in text  # a spreadsheet must not run it
    run(c, "relabel", asked[0], "?cant-tell")
    run(c, "undo")
    left = [p for p in labels if p not in asked and f"./{p}" not in asked]
    run(c, "skip", left[0])
    run(c, "cant-tell", left[1], left[2])
    run(c, "not-an-image", left[3])
    capsys.readouterr()
    run(c, "status")
    said = capsys.readouterr().out
    assert "labelled     5" in said
    assert "skip: 1, cant-tell: 2, not-an-image: 1" in said
    run(c, "export", "-o", "labels.csv")
    with (tmp_path / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["path"].removeprefix("./"): row for row in csv.DictReader(file)}
    assert len(rows) == 9
    for path in asked:
        name = path.removeprefix("./")
        assert rows[name]["label"] == labels[name]
        assert rows[name]["who"] == "eva"
    run(c, "teach", "labels.csv")  # what was exported can be taught
    assert "Saved 0 labels; 9 are as before." in capsys.readouterr().out
    run(c, "export", "--log", "-o", "log.jsonl")
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").open()]
    assert {"start", "query", "teach", "train", "undo"} <= {e["kind"] for e in events}
    (tmp_path / "bad.csv").write_text("path,label\nnowhere.png,red\n")
    with pytest.raises(SystemExit) as caught:
        run(c, "teach", "bad.csv")
    assert caught.value.code == 1
    assert "line 2: 'nowhere.png' is not in the pool" in capsys.readouterr().err


@pytest.mark.filterwarnings("default:.*has changed since")
def test_quiet_unless_asked(painted, pool, tmp_path, capsys, caplog):
    caplog.set_level("WARNING")  # Python's default; pytest's settings have another
    c = tmp_path / "c"
    run(c, "start", pool, "--classes", *CLASSES, "--backbone", "squeezenet1_1",
        "--weights", "none", "--strategy", "random-sampling", "--training", "fine-tune",
        "--set", "estimator__image_size=32", "estimator__max_epochs=1")  # fmt: skip
    run(c, "query", "-o", tmp_path / "next.csv")
    fill(tmp_path / "next.csv", painted[1].get)
    capsys.readouterr()
    run(c, "teach", tmp_path / "next.csv", "--later")
    assert capsys.readouterr().err == ""
    run(c, "query", "-v", "-o", tmp_path / "more.csv")
    said = capsys.readouterr().err
    assert "training with 20 labels" in said
    assert "4 of 4 images chosen in" in said
    (pool / "00 ü.png").write_bytes(b"")
    run(c, "status")
    assert "status: warning: '00 ü.png' has changed since" in capsys.readouterr().err
    run(c, "report", "-o", tmp_path / "page.html")
    assert "<svg" not in (tmp_path / "page.html").read_text("utf-8")


def test_report(painted, pool, tmp_path):
    nasty = "<script>alert(1)<'\".png"
    try:
        Image.new("RGB", (40, 30), "white").save(pool / "<script>alert(1)<'\".png")
    except OSError:
        pytest.skip("no such file names here")
    with create(tmp_path / "c", pool) as campaign:
        labels = {**painted[1], nasty: "red"}
        campaign.teach({nasty: "red"})
        for _ in range(3):
            campaign.teach({p.path: labels[p.path] for p in campaign.query()})
        page = make_report(campaign)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count("data:image/jpeg;base64,") == 13
    for reference in ("http://", "https://", 'src="/', "@import", "url("):
        assert reference not in page
    assert "<polyline" in page
    assert "labels" in page
