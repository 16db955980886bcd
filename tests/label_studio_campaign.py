"""A campaign and the tasks of Label Studio, for their tests."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skadma import Campaign, CNNClassifier
from skadma.labelling.campaign.state import read_state
from skadma.strategies import RandomSampling

HOST = "127.0.0.1:9090"
RECORDED = Path(__file__).with_name("data") / "label_studio"
CLASSES = ['crack & "co" <x>', "ok"]
CRACK, OK = CLASSES


@pytest.fixture
def pool(tmp_path):
    folder = tmp_path / "my photos"
    (folder / "a b").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.integers(0, 90, (32, 32, 3))
        pixels[:, :, i % 2] += 120
        path = folder / ("a b" if i % 2 else "") / f"{i:02} ü&#%+.png"
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


@pytest.fixture
def campaign(pool, tmp_path):
    estimator = CNNClassifier(
        "squeezenet1_1", weights=None, image_size=32, max_epochs=1
    )
    with Campaign.create(
        tmp_path / "c", pool, CLASSES, estimator, RandomSampling(), who="eva"
    ) as campaign:
        yield campaign


def path_of(number):
    return f"{'a b/' if number % 2 else ''}{number:02} ü&#%+.png"


def recorded(name, campaign):
    """What Label Studio sent, about the pictures of this campaign."""
    shas = {path_of(i): sha for i, sha in enumerate(shas_of(campaign))}
    text = (RECORDED / name).read_text("utf-8")
    return re.sub(r"sha256 of (\d+)", lambda m: shas[path_of(int(m[1]))], text)


def shas_of(campaign):
    state = read_state(campaign._event_log)
    return [state.last_known[state.numbers[path_of(i)]] for i in range(12)]


def marks(campaign):
    return {path: decision.mark for path, decision, _ in campaign.decisions()}


def annotation(number, choice, who=1, at=0, **more):
    result = [
        {"from_name": "label", "to_name": "image", "type": "choices",
         "value": {"choices": [choice]}}
    ]  # fmt: skip
    return {
        "id": number, "completed_by": who, "result": result, "was_cancelled": False,
        "created_at": f"2026-01-01T00:00:{at:02}.000000Z", **more,
    }  # fmt: skip


def task(campaign, number, *annotations, **data):
    given = {"path": path_of(number), "sha256": shas_of(campaign)[number], **data}
    return {"id": 100 + number, "data": given, "annotations": list(annotations)}


def write(tmp_path, tasks):
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks), "utf-8")
    return path


def login(password):
    code = base64.b64encode(f"skadma:{password}".encode()).decode()
    return {"authorization": f"Basic {code}"}


@pytest.fixture
def client(campaign):
    pytest.importorskip("starlette")
    testclient = pytest.importorskip("starlette.testclient")
    from starlette.applications import Starlette

    from skadma.labelling.label_studio.backend import Backend

    backend = Backend(campaign.folder, hosts=[HOST], password="secret")
    app = Starlette(routes=backend.routes())
    app.state.backend = backend
    with testclient.TestClient(
        app, base_url=f"http://{HOST}", headers=login("secret")
    ) as client:
        yield client
    backend.close()
