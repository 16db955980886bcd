"""'skadma label' without a browser: command, order, images, the other process."""

import hashlib
import io
import resource
import socket
import sqlite3
import time

import numpy as np
import pytest
from PIL import Image

from skadma import Campaign
from skadma.cli import main
from skadma.images.forms import UnreadableImageError
from skadma.labelling.campaign.prefetch import order_by_similarity
from skadma.labelling.page.app import Pictures
from skadma.labelling.page.session import (
    TrainingProcess,
    choose_batch,
    next_stage,
)

from .label_site import CLASSES, TINY, paint


def fails(arguments, capsys):
    """The message of a command that ends with status 1."""
    with pytest.raises(SystemExit) as ended:
        main(["label", *map(str, arguments)])
    assert ended.value.code in (1, 2)
    return capsys.readouterr().err


@pytest.fixture
def folder(tmp_path):
    """A campaign about 12 pictures."""
    folder = tmp_path / "campaign"
    photos = paint(tmp_path / "photos", 12)
    main(["start", str(photos), "--classes", "crack", "ok", "--campaign", str(folder),
          "-n", "4", *TINY])  # fmt: skip
    return folder


def test_where_there_is_no_campaign(tmp_path, capsys):
    message = fails(["--campaign", tmp_path / "none"], capsys)
    assert "There is no campaign" in message and "skadma label PHOTOS" in message
    photos = paint(tmp_path / "photos", 2)
    message = fails([photos, "--campaign", tmp_path / "none"], capsys)
    assert "--classes" in message
    assert not (tmp_path / "none").exists()


def test_what_contradicts_the_campaign_is_refused(folder, tmp_path, capsys):
    other = paint(tmp_path / "other", 2)
    message = fails([other, "--campaign", folder], capsys)
    assert "is about" in message and "--pool" in message
    where = ["--campaign", folder, "--classes", "a", "b"]
    assert "has the classes crack, ok" in fails(where, capsys)
    for keys in (["crack"], ["crack=ab"], ["crack="], ["crack=a", "ok=A"],
                 ["crack=a", "crack=b"]):  # fmt: skip
        assert "--keys" in fails(["--campaign", folder, "--keys", *keys], capsys)
    message = fails(["--campaign", folder, "--keys", "pink=p"], capsys)
    assert "'pink' is none of the classes crack, ok" in message
    assert "below 1" in fails(["--campaign", folder, "--repeat", "1"], capsys)


def test_a_port_that_is_taken(folder, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = fails(["--campaign", folder, "--port", port], capsys)
    assert f"Port {port} is taken" in message and "--port" in message


def test_what_stands_in_the_way_while_it_runs(tmp_path, serve):
    """Database busy, disk full, pool unmounted: a sentence each, then it goes on."""
    pytest.importorskip("httpx")
    photos = paint(tmp_path / "photos", 12)
    site = serve(tmp_path / "campaign", photos, "--wait", "1", n=4)
    client = site.client()
    sha256 = hashlib.sha256((photos / "000.png").read_bytes()).hexdigest()
    mark = {"sha256": sha256, "mark": CLASSES[0], "before": None}
    body = {"operations": [{"id": "operation-1", "via": "keys", "marks": [mark]}]}
    other = sqlite3.connect(site.folder / "campaign.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = client.post("/api/operations", json=body)
    assert answer.status_code == 503 and "did not end in time" in answer.json()["error"]
    other.execute("ROLLBACK")
    other.close()
    limits = resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY)
    before = resource.prlimit(site.process.pid, *limits)
    for _ in range(2):
        answer = client.post("/api/operations", json=body)
        assert answer.status_code == 500, answer.text
        assert "campaign.sqlite" in answer.json()["error"]
    resource.prlimit(site.process.pid, resource.RLIMIT_FSIZE, before)
    assert site.held() == {}
    photos.rename(tmp_path / "elsewhere")
    answer = client.get(f"/img/{sha256}?size=view")
    assert answer.status_code == 410 and "cannot be read" in answer.json()["error"]
    outcome = client.post("/api/operations", json=body).json()["outcomes"][0]
    assert outcome["status"] == "recorded"
    assert client.get("/api/progress").status_code == 200
    client.close()
    site.stop()
    assert "Traceback" not in "".join(site.errors)
    with pytest.raises(AssertionError, match="skadma label: .* is no folder"):
        site.start()
    assert "Traceback" not in "".join(site.errors)


def test_like_beside_like():
    """Each is followed by the nearest of those left, by a literal search."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 5))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    for begin in (0, 7):
        order = order_by_similarity(features, begin)
        assert order[0] == begin and sorted(order) == list(range(30))
        for k in range(29):
            left = order[k + 1 :]
            distance = np.linalg.norm(features[left] - features[order[k]], axis=1)
            assert distance[0] == distance.min()
    two = np.repeat(np.eye(2), 3, axis=0)[[0, 3, 1, 4, 2, 5]]
    assert order_by_similarity(two) == [0, 2, 4, 1, 3, 5]
    assert order_by_similarity(np.empty((0, 3))) == []


def test_pictures_are_kept_up_to_a_limit(tmp_path):
    paths = sorted(paint(tmp_path, 6).iterdir())
    shas = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    pictures = Pictures(limit=10_000)
    first = pictures.get(shas[0], paths[0], "view")
    paths[0].unlink()
    assert pictures.get(shas[0], paths[0], "view") == first
    for sha256, path in zip(shas[1:], paths[1:], strict=True):
        pictures.get(sha256, path, "view")
    assert sum(len(data) for data, _ in pictures._kept.values()) <= 10_000
    with pytest.raises(UnreadableImageError, match="cannot be read"):
        pictures.get(shas[0], paths[0], "view")
    with pytest.raises(UnreadableImageError, match="another picture"):
        pictures.get(shas[1], paths[2], "view")


def test_large_pictures_are_made_smaller(tmp_path):
    path = tmp_path / "large.png"
    Image.effect_noise((2400, 1200), 60).save(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    sizes = {}
    for size in ("small", "view", "full"):
        data, kind = Pictures().get(sha256, path, size)
        assert kind == "image/jpeg"
        (tmp_path / "sent.jpg").write_bytes(data)
        with Image.open(tmp_path / "sent.jpg") as image:
            sizes[size] = image.size
    assert sizes == {"small": (256, 128), "view": (1600, 800), "full": (2400, 1200)}


def test_a_process_that_dies_is_started_again(folder, monkeypatch):
    """It says so, holds no lock, and the next question is answered."""
    monkeypatch.setattr("skadma.labelling.page.session._PAUSE", 0.0)
    heard = []
    with Campaign.open(folder) as campaign:
        pool = campaign.pool
    training = TrainingProcess(folder, {"pool": pool, "who": "ana"}, heard.append)

    def wait_for(kind, seconds=180):
        end = time.monotonic() + seconds
        while not [m for m in heard if m["kind"] == kind]:
            assert time.monotonic() < end, heard
            time.sleep(0.05)
        return [m for m in heard if m["kind"] == kind][-1]

    assert training.request(8, []) and training.busy and not training.request(8, [])
    wait_for("stage")
    training._worker._process.kill()
    assert "started again" in wait_for("problem")["message"]
    assert not training.busy
    heard.clear()
    assert training.request(8, [])
    batch = wait_for("batch")
    assert len({p["sha256"] for p in batch["proposals"]}) == 8
    assert batch["known"] == [] and not training.busy
    training.close()
    assert not training._worker._process.is_alive() and not training.request(8, [])
    with Campaign.open(folder) as campaign:
        asked = {p.sha256 for p in campaign.query(8)}  # the same, though in order
    assert asked == {p["sha256"] for p in batch["proposals"]}


def test_what_a_repeat_is_taken_for(folder):
    """By a model that was not told its label; by the network where there is none."""
    with Campaign.open(folder, who="ben") as ben:
        labels = {f"{i:03}.png": CLASSES[i % 2] for i in range(6)}
        ben.teach(labels | {"000.png": CLASSES[1]}, train=False)  # that one is wrong
        ben.add_classes(["rust"])
        ben.teach({"007.png": "rust"}, train=False)  # no other model could know of it
    with Campaign.open(folder, who="ana") as campaign:
        assert next_stage(campaign) == "training"
        repeats = choose_batch(campaign, 4, [], True)["repeats"]
        with pytest.warns(UserWarning, match="'rust' cannot be judged"):
            unseen = {d.sha256: d for d in campaign.second_look() if d.suggested}
        rest = dict(repeats)
        for sha256, suspect in unseen.items():
            assert rest.pop(sha256) == (suspect.suggested, suspect.confidence)
            at_least = (
                1 - suspect.score if suspect.suggested == suspect.label else 1 / 3
            )
            assert at_least - 1e-6 <= suspect.confidence <= 1
        assert {suspect.path for suspect in unseen.values()} == set(labels)
        assert any(d.suggested != d.label for d in unseen.values())
        ((sha256, (name, confidence)),) = rest.items()
        alone = campaign.pool / "007.png"
        assert hashlib.sha256(alone.read_bytes()).hexdigest() == sha256
        network = campaign.estimator()
        (row,) = network.predict_proba([str(alone)])
        assert name == network.classes_[row.argmax()]
        assert confidence == pytest.approx(row.max(), abs=1e-5)


@pytest.mark.parametrize("top", [255, 1023, 4095, 65535])
def test_pictures_of_16_bits_are_not_black(top, tmp_path):
    path = tmp_path / "wide.png"
    ramp = np.linspace(0, 1, 256).reshape(16, 16)
    Image.fromarray(np.rint(ramp * top).astype(np.uint16)).save(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    for value_range, white in ((None, 1), ((0, top), 1), ((0, 2 * top), 2)):
        data, _ = Pictures(value_range=value_range).get(sha256, path, "view")
        with Image.open(io.BytesIO(data)) as image:
            shown = np.asarray(image.convert("L"))
        assert np.abs(shown - ramp * 255 / white).max() <= 2


def test_a_picture_of_too_many_pixels_is_refused(tmp_path):
    """Pillow's limit holds on the page, too: a few kB may claim 400 megapixels."""
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    data = path.read_bytes()
    assert len(data) < 1 << 20
    with pytest.raises(UnreadableImageError, match="bomb"):
        Pictures().get(hashlib.sha256(data).hexdigest(), path, "small")
