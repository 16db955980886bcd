"""'skadma label' without a browser: command, order, images, the other process."""

import hashlib
import io
import re
import resource
import socket
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skadma import Campaign
from skadma.cli import main
from skadma.images.decoding import UnreadableImageError
from skadma.labelling.campaign.prefetch import order_by_similarity
from skadma.labelling.page.controller import Controller
from skadma.labelling.page.pictures import encode
from skadma.labelling.page.session import Session

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


def test_a_port_that_is_taken(folder, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = fails(["--campaign", folder, "--port", port], capsys)
    assert f"Port {port} is taken" in message and "--port" in message


def test_the_first_picture_comes_before_the_network(tmp_path, serve):
    """Drawn at random; the server loads no torch, the process that trains does."""
    pytest.importorskip("httpx")
    photos = paint(tmp_path / "photos", 40)
    site = serve(tmp_path / "campaign", photos, usual=True)
    client = site.client()
    told = client.post("/api/sync", json={"tab": "t", "have": [], "want": 6}).json()
    assert (len(told["items"]), told["stage"], told["problem"]) == (3, "choosing", None)
    sha256 = told["items"][0]["sha256"]
    assert client.get(f"/img/{sha256}?size=view").status_code == 200
    mark = {"sha256": sha256, "mark": CLASSES[0], "before": None}
    body = {"operations": [{"id": "operation-1", "via": "keys", "marks": [mark]}]}
    assert client.post("/api/operations", json=body).json()["n_labels"] == 1
    assert client.get("/api/progress").status_code == 200
    process = Path("/proc") / str(site.process.pid)
    if not process.exists():
        return
    assert "libtorch" not in (process / "maps").read_text()
    resident = re.search(r"VmRSS:\s+(\d+) kB", (process / "status").read_text())
    assert int(resident[1]) < 120_000
    children = (process / "task" / process.name / "children").read_text().split()
    told = [Path("/proc", child, "environ").read_bytes() for child in children]
    assert all(b"OMP_WAIT_POLICY=PASSIVE" in text for text in told)


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


def test_pictures_that_are_gone_or_others(tmp_path):
    paths = sorted(paint(tmp_path, 3).iterdir())
    shas = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    paths[0].unlink()
    with pytest.raises(UnreadableImageError, match="cannot be read"):
        encode(shas[0], paths[0], "view")
    with pytest.raises(UnreadableImageError, match="another picture"):
        encode(shas[1], paths[2], "view")


def test_large_pictures_are_made_smaller(tmp_path):
    path = tmp_path / "large.png"
    Image.effect_noise((2400, 1200), 60).save(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    sizes = {}
    for size in ("small", "view", "full"):
        data, kind = encode(sha256, path, size)
        assert kind == "image/jpeg"
        (tmp_path / "sent.jpg").write_bytes(data)
        with Image.open(tmp_path / "sent.jpg") as image:
            sizes[size] = image.size
    assert sizes == {"small": (256, 128), "view": (1600, 800), "full": (2400, 1200)}


def test_a_process_that_dies_is_started_again(folder, monkeypatch):
    """It says so, holds no lock, and images are chosen all the same."""
    monkeypatch.setattr("skadma.labelling.page.session._PAUSE", 0.0)
    monkeypatch.setattr("skadma.labelling.page.controller._AGAIN", 0.0)
    heard = []
    receive = Controller.receive

    def hear(controller, message):
        heard.append(message)
        receive(controller, message)

    monkeypatch.setattr(Controller, "receive", hear)
    session = Session(folder, {"who": "ana"})

    def wait_for(condition, seconds=180):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, heard
            time.sleep(0.05)

    wait_for(lambda: session._worker._process is not None)
    assert session._busy
    session._worker._process.kill()
    wait_for(lambda: len(heard) == 2)  # one request at a time, and no other one
    problem, batch = heard
    assert "started again" in problem["message"]
    assert len({p["sha256"] for p in batch["proposals"]}) == 8
    assert batch["known"] == []
    session.close()
    assert not session._worker._process.is_alive()
    with Campaign.open(folder) as campaign:
        asked = {p.sha256 for p in campaign.query(8)}  # the same, though in order
    assert asked == {p["sha256"] for p in batch["proposals"]}


@pytest.mark.parametrize("top", [255, 1023, 4095, 65535])
def test_pictures_of_16_bits_are_not_black(top, tmp_path):
    path = tmp_path / "wide.png"
    ramp = np.linspace(0, 1, 256).reshape(16, 16)
    Image.fromarray(np.rint(ramp * top).astype(np.uint16)).save(path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    for value_range, white in ((None, 1), ((0, top), 1), ((0, 2 * top), 2)):
        data, _ = encode(sha256, path, "view", value_range)
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
        encode(hashlib.sha256(data).hexdigest(), path, "small")
