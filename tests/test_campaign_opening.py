"""Campaign: starting, opening, and more than one process."""

# ruff: noqa: F811

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file
from sklearn.base import clone
from skorch.callbacks import Callback

from skadma import Campaign, CNNClassifier
from skadma.labelling.campaign import (
    CampaignBusyError,
    CampaignError,
    LabelFileError,
    image_index,
)
from skadma.labelling.campaign import campaign as campaign_module
from skadma.labelling.campaign.event_log import EventLog
from skadma.labelling.campaign.image_index import scan_new_folder
from skadma.strategies import (
    CEAL,
    EntropySampling,
    ProbCover,
    RandomSampling,
    TypiClust,
    from_modal,
)

from .conftest import TinyCNN, tiny_classifier
from .forged import change_log

# pytest finds the fixtures by their names here
from .painted_campaign import (  # noqa: F401
    CLASSES,
    SQUEEZE,
    bits,
    campaign,
    create,
    marks,
    painted,
    pool,
    reopen,
    write,
)

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
    from skadma.labelling.campaign.event_log import campaign_lock

    with campaign_lock(campaign.folder, 0, "query"):
        other = Campaign.open(campaign.folder, backbone=TinyCNN, wait=0.2)
        with pytest.raises(CampaignBusyError, match="'query' in process .* works on"):
            other.query()
        other.teach({"00 ü.png": "red"}, train=False)  # labels need not wait
        other.close()
    store = EventLog(campaign.folder / "campaign.sqlite")
    with store.transaction():
        other = Campaign.open(campaign.folder, backbone=TinyCNN, wait=0.2)
        with pytest.raises(CampaignBusyError, match="nothing was changed"):
            other.teach({"02 ü.png": "red"}, train=False)
        assert marks(other) == {"00 ü.png": "red"}  # reading need not wait either
        other.close()
    store.close()


def test_threads_share_a_campaign(painted, campaign):
    """As of a web server, or concurrent.futures."""
    labels = list(painted[1].items())

    def work(k):
        for path, label in labels[k:16:4]:
            campaign.teach({path: label}, train=False)
            assert campaign.status().labels[label] >= 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
        assert marks(campaign) == dict(labels[:16])
        taught = [event for event in campaign.log() if event["kind"] == "teach"]
        assert len(taught) == 16
        answers = list(threads.map(campaign.query, [2, 2, 2]))
        assert answers[0] == answers[1] == answers[2] == campaign.query(2)
        threads.submit(campaign.close).result()
    with pytest.raises(CampaignError, match="is closed"):
        campaign.status()


# --- starting and opening ---------------------------------------------------


def test_nothing_is_ever_changed_in_the_file(campaign):
    store = campaign._event_log
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
        ({"strategy": ProbCover(delta=-1.0)}, "delta"),
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
    with Campaign.open(campaign.folder) as again:
        assert again.status().n_images == 24  # what reads the log needs no network
        with pytest.raises(CampaignError, match="callable 'TinyCNN'.*backbone="):
            again.query()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "campaign.sqlite").touch()
    with pytest.raises(CampaignError, match="broken off"):
        Campaign.open(tmp_path / "empty")
    create(tmp_path / "empty", pool).close()


def test_a_campaign_that_is_there_at_once(painted, tmp_path, monkeypatch):
    """Some images, at random, before the others are read; labels of them count."""
    monkeypatch.setattr(image_index, "_AT_LEAST", 5)
    monkeypatch.setattr(campaign_module, "_AT_ONCE", 0)
    seen = set()
    for i in range(3):
        with Campaign.create(
            tmp_path / f"{i}", painted[0], CLASSES, at_once=True
        ) as one:
            found = one.candidates()
            seen.update(found)
            assert 5 <= len(found) < 24
            one.teach({found[0]: "red"}, train=False)  # which looks at the folder
            assert one.status().n_images == 24
            assert marks(one) == {found[0]: "red"}
    assert len(seen) > 7


def test_starting_is_interrupted(tmp_path):
    """Ctrl-C while images are read: nothing is there, and it can be started again."""
    pool, folder = tmp_path / "pool", tmp_path / "c"
    pool.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
    Image.fromarray(noise).save(pool / "0.png", compress_level=1)
    for i in range(1, 120):
        os.link(pool / "0.png", pool / f"{i}.png")
    # A background job of a shell ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    ctrl_c = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    ctrl_c.start()
    began = time.process_time()
    with pytest.raises(KeyboardInterrupt):
        scan_new_folder(pool, progress=False)
    signal.signal(signal.SIGINT, before)
    interrupted = time.process_time() - began
    assert not folder.exists()
    with Campaign.create(folder, pool, CLASSES, at_once=True) as campaign:
        assert campaign.status().n_images >= 32
    began = time.process_time()
    scan_new_folder(pool, progress=False)
    assert interrupted < (time.process_time() - began) / 2  # what waited was not read


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
    campaign._event_log._connection.execute(
        "INSERT INTO events (at, who, kind, detail) VALUES ('', '', 'query', ?)",
        (detail,),
    )
    campaign._event_log._connection.execute(
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
        (["skip", "00 ü.png"], b"Saved 1 label."),
        (["undo"], rb"00 \xfc.png"),
    ):
        shown = subprocess.run(
            [*command, *arguments, "--campaign", str(tmp_path / "c")],
            check=True, capture_output=True, env=ascii_only,
        )  # fmt: skip
        assert said in shown.stdout


# --- settings -----------------------------------------------------------------------

_NESTED: list = []
for _ in range(2000):
    _NESTED = [_NESTED]

VALUES = {
    "null": None, "truth": True, "negative": -1, "zero": 0, "large": 65536,
    "endless": 10**21, "no float": 10**400, "fraction": 0.5, "minus": -0.5,
    "infinite": float("inf"), "nan": float("nan"), "overflow": 1e300, "empty": "",
    "word": "nope", "criterion": "MSELoss", "other criterion": "NLLLoss",
    "optimizer": "LBFGS", "device": "meta", "zero byte": "\0", "list": [],
    "number in list": [1], "null in list": [None], "pair": [1, 2], "unordered": [2, 1],
    "dict": {}, "key": {"nope": 1}, "null in dict": {"a": None},
    "parameter": {"optimizer__nope": 1}, "epochs": {"max_epochs": 10**21},
    "workers": {"iterator_train__num_workers": 10**6}, "rate": {"lr": "x"},
    "module": {"module": 1}, "other device": {"device": "meta"}, "nested": _NESTED,
    "nested dict": {"optimizer__betas": _NESTED}, "bytes": b"x", "complex": 1j,
    "object": object(),
}  # fmt: skip
USABLE = {
    "augment": {"null"},
    "batch_norm": set(),
    "batch_size": {"large"},
    "callbacks": {"null", "list", "null in list"},
    "class_weight": {"null", "dict"},
    "criterion": set(),
    "device": set(),
    "engine": set(),
    "head_lr": {"truth", "zero", "large", "endless", "fraction"},
    "image_shape": {"null"},
    "image_size": {"null", "truth"},
    "lr": {"truth", "zero", "large", "endless", "fraction"},
    "max_epochs": {"truth", "zero", "large"},
    "n_frozen_layers": {"truth", "zero", "negative"},
    "net_params": {"null", "dict"},
    "optimizer": set(),
    "precision": set(),
    "random_state": {"null", "truth", "zero", "large"},
    "reduced_decoding": {"truth"},
    "scan_batch_size": {"null", "truth", "large"},
    "train_split": {"null"},
    "training": set(),
    "value_range": {"null", "pair"},
    "weights": {"null"},
}  # fmt: skip
"""Values that a parameter may have, of those above: the others are refused."""


@pytest.mark.parametrize("name", USABLE)
def test_parameters_by_type(name, pool, tmp_path):
    """What would fail when the first labels are there is refused at the start."""
    made = set()
    for kind, value in VALUES.items():
        estimator = clone(SQUEEZE) if name == "weights" else tiny_classifier()
        estimator.set_params(**{name: value})
        try:
            create(tmp_path / kind, pool, estimator=estimator).close()
            made.add(kind)
        except CampaignError:
            assert not (tmp_path / kind).exists()
    assert made == USABLE[name]


def test_layers_that_the_network_does_not_have(pool, tmp_path):
    for layer in (65536, "nope", None, [1, 2]):
        with pytest.raises(CampaignError, match="TypiClust cannot be used: .*ayer"):
            create(tmp_path / "c", pool, TypiClust(layer=layer))


def _set(folder, name, text):
    """Change a campaign as no method of it does."""
    change_log(folder, ("UPDATE settings SET value = ? WHERE name = ?", (text, name)))


def test_settings_of_others(pool, tmp_path):
    """A campaign that comes from elsewhere is opened, or refused with a reason."""
    folder = tmp_path / "c"
    create(folder, pool).close()
    log = EventLog(folder / "campaign.sqlite")
    settings = log.settings()
    log.close()
    plain = (type(None), bool, int, float, str, list, dict)
    texts = {
        kind: json.dumps(value)
        for kind, value in VALUES.items()
        if isinstance(value, plain) and not kind.startswith("nested")
    }

    def opens(name, text):
        _set(folder, name, text)
        try:
            with Campaign.open(folder, backbone=TinyCNN) as campaign:
                assert campaign._trainer
        except CampaignError:
            return False
        return True

    odd = {**texts, "deep": "[" * 50_000 + "]" * 50_000, "cut": "{", "NaN": "NaN"}
    usable = {"n_instances": {"large", "endless", "no float"},
              "random_state": {"zero", "large"}, "warm_start": {"truth"}}  # fmt: skip
    for name in ("classes", "estimator", "strategy", *usable):
        whole = settings[name]
        opened = {kind for kind, text in odd.items() if opens(name, text)}
        assert opened == usable.get(name, set()), name
        opens(name, json.dumps(whole))
    described = settings["estimator"]
    for key in ("lr", "criterion", "device", "net_params", "image_size", "value_range"):
        mark = json.dumps("<here>")
        whole = json.dumps({**described, key: "<here>"})
        opened = {
            k for k, t in odd.items() if opens("estimator", whole.replace(mark, t))
        }
        assert opened == USABLE[key], key
    for key, value in [
        ("lr", 1e300), ("criterion", "MSELoss"), ("device", "meta"),
        ("net_params", {"optimizer__nope": 1}), ("image_size", -1),
        ("image_size", 65536), ("max_epochs", 10**21), ("value_range", [2, 1]),
        ("net_params", {"iterator_train__num_workers": 10**6}),
    ]:  # fmt: skip
        _set(folder, "estimator", json.dumps({**settings["estimator"], key: value}))
        with pytest.raises(CampaignError, match="CNNClassifier cannot be used: "):
            Campaign.open(folder, backbone=TinyCNN).query()


@pytest.mark.parametrize("place", ["../../..", ".", "", "/", "parent", "photos", "\0"])
@pytest.mark.parametrize("added", [False, True])
def test_a_received_campaign_scans_nothing_by_itself(place, added, pool, tmp_path):
    """Its pool is one that somebody else named, until one is given."""
    (tmp_path / "received").mkdir()
    folder = tmp_path / "received" / "c"
    create(folder, pool).close()
    Image.new("RGB", (32, 32), "pink").save(tmp_path / "received" / "private.png")
    place = str(tmp_path / "received") if place == "parent" else place
    options = {"pool": pool}
    if added:
        with Campaign.open(folder, backbone=TinyCNN) as campaign:
            log = campaign._event_log
            with log.transaction():
                log.add_event("pool", name="more", folder=place, n_images=0)
        (tmp_path / "more").mkdir()
        options["pools"] = {"more": tmp_path / "more"}
    else:
        _set(folder, "pool", json.dumps(place))
    with pytest.raises(CampaignError, match="intact|--pool (more=)?FOLDER"):
        Campaign.open(folder, backbone=TinyCNN)
    if added and not Path(place).is_absolute():  # no campaign has such an event at all
        return
    with Campaign.open(folder, backbone=TinyCNN, **options) as campaign:
        assert campaign.refresh() == 0
        assert campaign.status().n_images == 24
