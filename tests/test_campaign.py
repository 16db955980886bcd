"""Campaign: the same as the learner's rounds, by hand, over days and processes."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from skorch.callbacks import Callback

from skadma import ActiveLearner, Campaign, CNNClassifier, SourceCenters
from skadma.campaign import CampaignBusyError, CampaignError, LabelFileError
from skadma.campaign.report import make_report
from skadma.campaign.store import Store
from skadma.cli import main
from skadma.strategies import (
    ADMA,
    BADGE,
    CEAL,
    EntropySampling,
    MarginSampling,
    RandomSampling,
    TypiClust,
    from_modal,
)

from .conftest import TinyCNN, tiny_classifier

CLASSES = ["blue", "green", "red"]
SQUEEZE = CNNClassifier("squeezenet1_1", weights=None, image_size=32, max_epochs=1)


@pytest.fixture(scope="module")
def painted(tmp_path_factory, pictures):
    """A folder of 24 pictures, and their labels by path."""
    folder = tmp_path_factory.mktemp("painted")
    X, y = pictures
    (folder / "a b").mkdir()
    labels = {}
    for i in range(24):
        name = f"{'a b/' if i % 2 else ''}{i:02} ü.png"
        Image.fromarray(X[i]).save(folder / name)
        labels[name] = CLASSES[y[i]]
    return folder, labels


@pytest.fixture
def pool(painted, tmp_path):
    """A copy of it that may be changed."""
    folder = tmp_path / "pool"
    folder.mkdir()
    (folder / "a b").mkdir()
    for name in painted[1]:
        (folder / name).write_bytes((painted[0] / name).read_bytes())
    return folder


def create(folder, pool, strategy=None, **params):
    estimator = params.pop("estimator", tiny_classifier(random_state=None))
    return Campaign.create(
        folder, pool, CLASSES, estimator, strategy or MarginSampling(),
        **{"n_instances": 4, **params},
    )  # fmt: skip


def reopen(campaign):
    campaign.close()
    return Campaign.open(campaign.folder, backbone=TinyCNN)


def bits(campaign):
    return [t.numpy().tobytes() for t in
            campaign.estimator().net_.module_.state_dict().values()]  # fmt: skip


def marks(campaign):
    return {path: decision.mark for path, decision, _ in campaign.decisions()}


@pytest.fixture
def campaign(pool, tmp_path):
    with create(tmp_path / "campaign", pool) as campaign:
        yield campaign


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


# --- label files ------------------------------------------------------------


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("form", ["comma", "semicolon", "bom", "more", "dot"])
def test_label_files(form, campaign, tmp_path):
    text = {
        "comma": "path,label\na b/01 ü.png,red\n00 ü.png,blue\n02 ü.png,\n",
        "semicolon": "label;path\r\nred;a b/01 ü.png\r\nblue;00 ü.png\r\n",
        "bom": '\ufeffPath,Label\n"a b/01 ü.png",red\n00 ü.png, blue\n\n',
        "more": "score,path,label\n1,a b/01 ü.png,red\n2,00 ü.png,blue\n",
        "dot": f"path,label\n./a b/01 u\u0308.png,red\n{campaign.pool}/00 ü.png,blue\n",
    }[form]
    campaign.teach(write(tmp_path, text), train=False)
    assert marks(campaign) == {"a b/01 ü.png": "red", "00 ü.png": "blue"}


BAD_ROWS = """path,label
00 ü.png,red
nowhere.png,red
02 ü.png,rot
../pool/04 ü.png,red
00 ü.png,blue
"a b/01
ü.png",red
06 ü.png,?maybe
08 ü.png,blue
"""


def test_all_or_nothing_with_line_numbers(campaign, tmp_path):
    path = write(tmp_path, BAD_ROWS)
    with pytest.raises(LabelFileError) as caught:
        campaign.teach(path)
    said = str(caught.value)
    assert "6 of 8 rows" in said
    for line, why in [
        (3, "not in the pool"), (4, "none of the classes blue, green, red"),
        (5, "not in the pool"), (6, "'red' in line 2"), (7, "not in the pool"),
        (9, r"\?skip"),
    ]:  # fmt: skip
        (problem,) = [p for p in caught.value.problems if p.startswith(f"line {line}:")]
        assert why.replace("\\", "") in problem
    assert marks(campaign) == {}
    assert [event["kind"] for event in campaign.log()] == ["start"]
    taught = campaign.teach(path, partial=True, train=False)
    assert len(taught.refused) == 6
    assert marks(campaign) == {"00 ü.png": "red", "08 ü.png": "blue"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("image,label\nx,red\n", "line 1: the header must have"),
        ("path,path,label\nx,x,red\n", "line 1: the header must have"),
        ("path,label\n00 ü.png\n", "line 2: 1 column"),
        ('path,label\n"00 ü.png,red\n', "no CSV"),
    ],
)
def test_no_label_files(text, message, campaign, tmp_path):
    with pytest.raises(CampaignError, match=message):
        campaign.teach(write(tmp_path, text))
    with pytest.raises(CampaignError, match="not UTF-8"):
        campaign.teach(write(tmp_path, "path,label\n00 ü.png,red", "latin-1"))
    assert marks(campaign) == {}


# --- files that are not as they should be -----------------------------------


def test_copies_share_a_label(pool, tmp_path):
    twin = pool / "copy.png"
    twin.write_bytes((pool / "00 ü.png").read_bytes())
    with create(tmp_path / "c", pool) as campaign:
        assert len(campaign.query(25)) == 24
        campaign.teach({"copy.png": "red"}, train=False)
        assert marks(campaign) == {"copy.png": "red", "00 ü.png": "red"}
        assert campaign.status().labels["red"] == 1
        assert "00 ü.png" not in campaign.candidates()
        with pytest.raises(LabelFileError, match="which is the same image"):
            campaign.teach({"copy.png": "red", "00 ü.png": "blue"})


def test_a_file_changed_since_it_was_labelled(campaign, pool):
    path = "00 ü.png"
    campaign.teach({path: "red", "02 ü.png": "blue"})
    before, old = bits(campaign), (pool / path).read_bytes()
    Image.new("RGB", (32, 32), "yellow").save(pool / path)
    with pytest.warns(UserWarning, match="00 ü.png.* changed since"):
        campaign.query()
    assert campaign.status().changed == [path]
    assert ("00 ü.png", "changed") in [(p, s) for p, _, s in campaign.decisions()]
    assert path in campaign.candidates()  # a new image, as far as labels go
    assert bits(campaign) != before  # its label is not trained with
    campaign.teach({path: "green"})
    both = [(d.label, state) for p, d, state in campaign.decisions() if p == path]
    assert sorted(both) == [("green", "as labelled"), ("red", "changed")]
    campaign.undo()
    (pool / path).write_bytes(old)
    assert campaign.refresh() == 1
    assert bits(campaign) == before
    assert campaign.status().changed == []


def test_files_come_and_go(campaign, pool):
    campaign.teach({"00 ü.png": "red", "02 ü.png": "blue"})
    (pool / "00 ü.png").rename(pool / "moved.png")
    (pool / "02 ü.png").unlink()
    campaign.query()
    status = campaign.status()
    assert status.missing == ["00 ü.png", "02 ü.png"]
    assert status.unusable == 1
    assert marks(campaign) == {
        "00 ü.png": "red",
        "moved.png": "red",
        "02 ü.png": "blue",
    }
    hidden = pool.with_name("hidden")
    pool.rename(hidden)
    with pytest.raises(CampaignError, match="is no folder"):
        campaign.query()
    pool.mkdir()
    with pytest.raises(CampaignError, match="Is its disk mounted"):
        campaign.query()
    assert campaign.status() == status  # an unmounted disk is no lost image
    with Campaign.open(campaign.folder, pool=hidden, backbone=TinyCNN) as elsewhere:
        assert len(elsewhere.query()) == 4


def test_scores_that_are_not_finite(pool, tmp_path):
    estimator = tiny_classifier(lr=1e30, head_lr=1e30)
    with create(tmp_path / "c", pool, estimator=estimator) as campaign:
        campaign.teach({"00 ü.png": "red", "02 ü.png": "blue"})
        with pytest.raises(
            ValueError, match=r"NaN or infinite, the first: .*04 ü\.png"
        ):
            campaign.query()
        assert marks(campaign) == {"00 ü.png": "red", "02 ü.png": "blue"}


# --- more than one process --------------------------------------------------

_TEACH = """
import sys
from skadma import Campaign
from tests.conftest import TinyCNN
folder, *paths = sys.argv[1:]
with Campaign.open(folder, backbone=TinyCNN, who=paths[0], wait=120) as campaign:
    for path in paths:
        campaign.teach({path: "red"}, train=path == paths[-1])
    print([p.path for p in campaign.query()])
"""


def test_two_processes_at_once(painted, campaign, request):
    paths = sorted(painted[1])
    shares = paths[:8], paths[8:16]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _TEACH, str(campaign.folder), *share],
            cwd=request.config.rootpath,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for share in shares
    ]
    for process in running:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    assert marks(campaign) == dict.fromkeys(paths[:16], "red")
    given = [event for event in campaign.log() if event["kind"] == "teach"]
    assert {event["who"] for event in given} == {paths[0], paths[8]}
    for share in shares:  # in the order in which each gave them
        mine = [e["decisions"][0]["path"] for e in given if e["who"] == share[0]]
        assert mine == share
    assert set(campaign.candidates()) == set(paths[16:])


def test_the_second_process_gets_a_clear_error(campaign):
    from skadma.campaign.lock import locked

    with locked(campaign.folder, 0, "query"):
        other = Campaign.open(campaign.folder, backbone=TinyCNN, wait=0.2)
        with pytest.raises(CampaignBusyError, match="'query' in process .* works on"):
            other.query()
        other.teach({"00 ü.png": "red"}, train=False)  # labels need not wait
        other.close()
    store = Store(campaign.folder / "campaign.sqlite")
    with store.transaction():
        other = Campaign.open(campaign.folder, backbone=TinyCNN, wait=0.2)
        with pytest.raises(CampaignBusyError, match="nothing was changed"):
            other.teach({"02 ü.png": "red"}, train=False)
        assert marks(other) == {"00 ü.png": "red"}  # reading need not wait either
        other.close()
    store.close()


# --- starting and opening ---------------------------------------------------


def test_nothing_is_ever_changed_in_the_file(campaign):
    store = campaign._store
    campaign.teach({"00 ü.png": "red"}, train=False)
    for statement in ("UPDATE decisions SET label = 'blue'", "DELETE FROM events"):
        with pytest.raises(CampaignError, match="only ever adds"), store.transaction():
            store._execute(statement)
    assert store.rows("PRAGMA synchronous") == [(2,)]  # FULL
    assert store.rows("PRAGMA journal_mode") == [("wal",)]
    assert store.rows("PRAGMA foreign_keys") == [(1,)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["a"]}, "at least two"),
        ({"classes": ["a", "?b"]}, "question mark"),
        ({"classes": "ab"}, "list of names"),
        ({"strategy": CEAL()}, "trains on its own guesses"),
        ({"strategy": from_modal(max)}, "holds a function"),
        ({"estimator": tiny_classifier(augment=np.flip)}, "plain values"),
        ({"estimator": tiny_classifier(random_state=np.random.RandomState(0))},
         "plain values"),
        ({"estimator": tiny_classifier(batch_size=0)}, "batch_size"),
        ({"estimator": tiny_classifier(lr=-1.0)}, "lr"),
        ({"estimator": CNNClassifier("resnet18", weights="gone.pth")}, "no file of"),
        ({"strategy": TypiClust(n_neighbors=0)}, "n_neighbors"),
        ({"random_state": -1}, "random_state=-1"),
        ({"n_instances": 0}, "n_instances=0"),
        ({"pool": "nowhere"}, "is no folder"),
        ({"folder": "inside"}, "inside the pool"),
    ],
)  # fmt: skip
def test_refused_at_the_start(change, message, pool, tmp_path):
    given = {"folder": tmp_path / "c", "pool": pool, "classes": CLASSES,
             "estimator": tiny_classifier(), "strategy": EntropySampling()}  # fmt: skip
    if change.get("folder"):
        change = {"folder": pool / "c"}
    with pytest.raises(CampaignError, match=message):
        Campaign.create(**{**given, **change})
    assert not (tmp_path / "c").exists()


def test_opening(campaign, pool, tmp_path):
    with pytest.raises(CampaignError, match="no campaign in .*Start one"):
        Campaign.open(tmp_path / "nowhere")
    with pytest.raises(CampaignError, match="already"):
        create(campaign.folder, pool)
    with pytest.raises(CampaignError, match="callable 'TinyCNN'.*backbone="):
        Campaign.open(campaign.folder)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "campaign.sqlite").touch()
    with pytest.raises(CampaignError, match="broken off"):
        Campaign.open(tmp_path / "empty")
    create(tmp_path / "empty", pool).close()


def test_a_file_of_weights_is_found_from_everywhere(pool, tmp_path, monkeypatch):
    clf = CNNClassifier("squeezenet1_1", weights=None, image_size=32, max_epochs=1)
    save_file(clf.source_network().module.state_dict(), tmp_path / "w.safetensors")
    monkeypatch.chdir(tmp_path)
    create("c", pool, estimator=clf.set_params(weights="w.safetensors")).close()
    monkeypatch.chdir(pool)
    with Campaign.open(tmp_path / "c") as campaign:
        campaign.teach({"00 ü.png": "red", "02 ü.png": "blue"})


def test_an_answer_is_for_the_paths_it_was_given_for(campaign, pool):
    first = campaign.query()
    asked = first[0].path
    (pool / asked).rename(pool / "renamed.png")
    again = [proposal.path for proposal in campaign.query()]
    assert asked not in again
    assert all((pool / path).is_file() for path in again)
    # Two files change places: what has a label is not asked for again.
    (pool / "renamed.png").rename(pool / asked)
    first, labelled = campaign.query(1)[0].path, "02 ü.png"
    campaign.teach({labelled: "red"}, train=False)
    (pool / first).rename(pool / "aside.png")
    (pool / labelled).rename(pool / first)
    assert campaign.query(1)[0].path != first


def test_an_only_folder_is_renamed(tmp_path, painted):
    pool = tmp_path / "pool"
    (pool / "north").mkdir(parents=True)
    for i, path in enumerate(list(painted[1])[:6]):
        (pool / "north" / f"{i}.png").write_bytes((painted[0] / path).read_bytes())
    with create(tmp_path / "c", pool) as campaign:
        campaign.teach({"north/0.png": "red", "north/1.png": "blue"}, train=False)
        (pool / "north").rename(pool / "north-2024")
        assert len(campaign.query()) == 4
        assert marks(campaign)["north-2024/0.png"] == "red"


def test_a_model_is_of_the_pictures_that_were_labelled(campaign, pool):
    path = "00 ü.png"
    campaign.teach({path: "red", "02 ü.png": "blue", "04 ü.png": "green"})
    expected, old = bits(campaign), (pool / path).read_bytes()
    for model in (campaign.folder / "models").iterdir():
        model.unlink()
    state = (pool / path).stat()
    Image.new("RGB", (32, 32), "yellow").save(pool / path)
    with pytest.warns(UserWarning, match="changed since"):
        assert bits(campaign) != expected  # without it, and under another name
    (pool / path).write_bytes(old)
    os.utime(pool / path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert bits(campaign) == expected


def test_a_picture_that_changes_during_training(campaign, pool):
    class Touch(Callback):
        def on_epoch_end(self, net, **kwargs):
            Image.new("RGB", (32, 32), "yellow").save(pool / "00 ü.png")

    campaign._trainer._learner.estimator.set_params(callbacks=[("touch", Touch())])
    with pytest.raises(CampaignError, match="labels are safe, but '00 ü.png' was"):
        campaign.teach({"00 ü.png": "red", "02 ü.png": "blue"})
    assert marks(campaign) == {"00 ü.png": "red", "02 ü.png": "blue"}
    assert not [event for event in campaign.log() if event["kind"] == "train"]


def test_an_interrupted_training_leaves_no_model(campaign):
    class Interrupt(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise KeyboardInterrupt

    campaign._trainer._learner.estimator.set_params(callbacks=[("i", Interrupt())])
    with pytest.raises(KeyboardInterrupt):
        campaign.teach({"00 ü.png": "red", "02 ü.png": "blue"})
    assert marks(campaign) == {"00 ü.png": "red", "02 ü.png": "blue"}
    assert not [event for event in campaign.log() if event["kind"] == "train"]


def test_a_label_is_for_what_was_looked_at(campaign, pool, tmp_path):
    path = "00 ü.png"
    file = write(tmp_path, f"path,label\n{path},red\n02 ü.png,blue\n")
    campaign.teach(file, train=False)
    (sha256,) = (p.sha256 for p in campaign.query(24) if p.path == "04 ü.png")
    seen = write(tmp_path, f"path,label,sha256\n04 ü.png,green,{sha256}\n")
    Image.new("RGB", (32, 32), "yellow").save(pool / "04 ü.png")
    with pytest.raises(LabelFileError, match="line 2: .*another picture by now"):
        campaign.teach(seen, train=False)
    Image.new("RGB", (32, 32), "orange").save(pool / path)
    again = write(tmp_path, f"path,label\n{path},red\n02 ü.png,blue\n")
    with (
        pytest.warns(UserWarning, match="changed since"),
        pytest.raises(LabelFileError, match="line 2: .*changed since it was labelled"),
    ):
        campaign.teach(again, train=False)
    assert campaign.teach({path: "red"}, train=False).n_new == 1  # said now
    old = campaign.decisions()
    rows = "".join(f"{p},{d.mark},{d.sha256}\n" for p, d, _ in old)
    taught = campaign.teach(write(tmp_path, "path,label,sha256\n" + rows), train=False)
    assert (taught.n_new, taught.n_changed) == (0, 0)


def test_blanks_around_a_name_belong_to_it(pool, tmp_path):
    Image.new("RGB", (32, 32), "white").save(pool / " 00 ü.png")
    with create(tmp_path / "c", pool) as campaign:
        file = write(tmp_path, 'path,label\n" 00 ü.png",red\n 02 ü.png,blue\n')
        campaign.teach(file, train=False)
        assert marks(campaign) == {" 00 ü.png": "red", "02 ü.png": "blue"}


def test_separators_and_short_rows(campaign, tmp_path):
    text = 'path;label;"note, who"\n00 ü.png;red;eva\n02 ü.png\n04 ü.png;blue;\n'
    with pytest.raises(LabelFileError, match=r"line 3: 1 column"):
        campaign.teach(write(tmp_path, text), train=False)
    taught = campaign.teach(write(tmp_path, text), partial=True, train=False)
    assert taught.n_new == 2
    assert len(taught.refused) == 1


@pytest.mark.parametrize("detail", ["[]", "{}", "3"])
def test_events_that_no_campaign_writes(detail, campaign):
    campaign.query()
    campaign._store._connection.execute(
        "INSERT INTO events (at, who, kind, detail) VALUES ('', '', 'query', ?)",
        (detail,),
    )
    campaign._store._connection.execute(
        "INSERT INTO events (at, who, kind, detail) VALUES ('', '', 'train', ?)",
        (detail,),
    )
    with pytest.raises(CampaignError, match="no intact campaign"):
        campaign.query()
    campaign.teach({"00 ü.png": "red"}, train=False)
    with pytest.raises(CampaignError, match="no intact campaign"):
        campaign.estimator()


@pytest.mark.parametrize("place", range(2, 12))
def test_a_database_of_which_sqlite_says_no_text(place, campaign):
    file = campaign.folder / "campaign.sqlite"
    campaign.close()
    whole = file.read_bytes()
    at = whole.index(b"CREATE TABLE") + place
    file.write_bytes(whole[:at] + b"\x80" + whole[at + 1 :])
    with pytest.raises(CampaignError, match="no intact campaign"):
        reopen(campaign)


def test_a_name_that_cannot_be_shown_is_no_failure(pool, tmp_path):
    create(tmp_path / "c", pool, RandomSampling(), estimator=SQUEEZE).close()
    command = [sys.executable, "-c", "from skadma.cli import main; main()"]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for arguments, said in (
        (["skip", "00 ü.png"], b"1 new"),
        (["undo"], rb"00 \xfc.png"),
    ):
        shown = subprocess.run(
            [*command, *arguments, "--campaign", str(tmp_path / "c")],
            check=True, capture_output=True, env=ascii_only,
        )  # fmt: skip
        assert said in shown.stdout


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
        "--set", "estimator__image_size=32", "estimator__max_epochs=1")  # fmt: skip
    run(c, "query", "-o", "next.csv")
    with pytest.raises(SystemExit):  # it may hold labels by now
        run(c, "query", "-o", "next.csv")
    assert "--overwrite" in capsys.readouterr().err
    asked = fill(tmp_path / "next.csv", lambda path: labels[path.removeprefix("./")])
    run(c, "teach", "next.csv")
    assert "Safe: 5 new" in capsys.readouterr().out
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
    assert "Safe: 0 new, 0 changed, 9 as before" in capsys.readouterr().out
    run(c, "export", "--log", "-o", "log.jsonl")
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").open()]
    assert {"start", "query", "teach", "train", "undo"} <= {e["kind"] for e in events}
    (tmp_path / "bad.csv").write_text("path,label\nnowhere.png,red\n")
    with pytest.raises(SystemExit) as caught:
        run(c, "teach", "bad.csv")
    assert caught.value.code == 1
    assert "line 2: 'nowhere.png' is not in the pool" in capsys.readouterr().err


def test_quiet_unless_asked(painted, pool, tmp_path, capsys):
    c = tmp_path / "c"
    run(c, "start", pool, "--classes", *CLASSES, "--backbone", "squeezenet1_1",
        "--weights", "none", "--strategy", "random-sampling",
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
    assert page.count("data:image/jpeg;base64,") == 13 + 12
    for reference in ("http://", "https://", 'src="/', "@import", "url("):
        assert reference not in page
    assert "<polyline" in page
    assert "labels" in page
