"""Label Studio: tasks out, annotations back, and the protocol of ML backends.

The JSON in tests/data/label_studio has what Label Studio 1.23 sends and writes; only
SHA-256 of the pictures is filled in here.
"""

import base64
import json
import os
import re
import signal
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from skadma import Campaign, CNNClassifier
from skadma.campaign import CampaignError, LabelFileError, Proposal
from skadma.cli import main
from skadma.label_studio import label_config, make_tasks, read_export
from skadma.strategies import RandomSampling

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
    state = campaign._state()
    return [state.last_known[state.numbers[path_of(i)]] for i in range(12)]


def export_file(name, campaign, tmp_path):
    path = tmp_path / name
    path.write_text(recorded(name, campaign), "utf-8")
    return path


def marks(campaign):
    return {path: decision.mark for path, decision, _ in campaign.decisions()}


# --- out -----------------------------------------------------------------------


def test_the_configuration():
    root = ElementTree.fromstring(label_config(CLASSES))
    image, choices = root
    assert (image.get("name"), image.get("value")) == ("image", "$image")
    assert (choices.get("name"), choices.get("toName")) == ("label", "image")
    keyed = [(choice.get("value"), choice.get("hotkey")) for choice in choices]
    assert keyed == [
        (CRACK, "1"), (OK, "2"), ("?cant-tell", "0"), ("?not-an-image", "-"),
    ]  # fmt: skip
    many = [f"class {i}" for i in range(50)]
    found = ElementTree.fromstring(label_config(many))[1]
    assert [choice.get("value") for choice in found][:50] == many
    keys = [choice.get("hotkey") for choice in found if choice.get("hotkey")]
    assert keys[8:11] == ["9", "a", "b"]
    assert len(keys) == len(set(keys)) == 37
    with pytest.raises(CampaignError, match="XML cannot hold"):
        label_config(["a", "b\x00"])


def test_tasks():
    proposals = [
        Proposal("a b/01 ü&#%+?.png", 0.25, "ok", 0.75, "0" * 64),
        Proposal("2.png", None, None, None, "1" * 64),
    ]
    one, two = json.loads(json.dumps(make_tasks(proposals, "/photos/", "skadma-7")))
    address = urlsplit(one["data"]["image"])
    assert address.path == "/data/local-files/"
    assert parse_qs(address.query) == {"d": ["photos/a b/01 ü&#%+?.png"]}
    assert one["data"]["path"] == "a b/01 ü&#%+?.png"
    assert one["data"]["sha256"] == "0" * 64
    assert (one["data"]["rank"], one["data"]["score"]) == (0, 0.25)
    (guess,) = one["predictions"]
    assert (guess["model_version"], guess["score"]) == ("skadma-7", 0.75)
    assert guess["result"][0]["value"] == {"choices": ["ok"]}
    assert guess["result"][0]["from_name"] == "label"
    assert two["data"]["rank"] == 1
    assert "predictions" not in two
    assert make_tasks(proposals[1:], "", "")[0]["data"]["image"].endswith("?d=2.png")


def test_by_command(campaign, tmp_path, capsys):
    options = ["--campaign", str(campaign.folder)]
    out = tmp_path / "out"
    export = ["export", "--to", "label-studio", "-o", str(out), "-n", "5", *options]
    assert main(export) == 0
    tasks = json.loads((out / "tasks.json").read_text("utf-8"))
    assert [t["data"]["path"] for t in tasks] == [p.path for p in campaign.query(5)]
    assert all("?d=my%20photos/" in task["data"]["image"] for task in tasks)
    assert (out / "label_config.xml").read_text("utf-8") == label_config(CLASSES)
    with pytest.raises(SystemExit):  # annotations may refer to them
        main(export)
    assert "--overwrite" in capsys.readouterr().err
    for number, task in enumerate(tasks):
        task["id"] = number
        task["annotations"] = [annotation(number, OK)]
    back = tmp_path / "back.JSON"
    back.write_text(json.dumps(tasks), "utf-8")
    assert main(["teach", str(back), "--later", *options]) == 0
    assert "Safe: 5 new" in capsys.readouterr().out
    assert set(marks(campaign).values()) == {OK}


# --- back ------------------------------------------------------------------------


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


@pytest.mark.parametrize("name", ["export.json", "export_min.json"])
def test_recorded_exports(name, campaign, tmp_path):
    path = export_file(name, campaign, tmp_path)
    taught = campaign.teach(path, train=False)
    expected = {path_of(0): OK, path_of(1): CRACK, path_of(2): "?cant-tell"}
    if name == "export.json":  # JSON-MIN leaves out what was skipped
        expected[path_of(3)] = "?skip"
    assert marks(campaign) == expected
    assert taught.n_new == len(expected)
    who = {e["who"] for e in campaign.log() if e["kind"] == "teach"}
    assert who == {"label-studio-1"}
    n_events = len(campaign.log())
    assert campaign.teach(path, train=False).n_same == len(expected)
    assert len(campaign.log()) == n_events
    assert campaign.undo()
    assert marks(campaign) == {}


def test_several_people(campaign, tmp_path):
    """One decides, the others' answers are blind repeats."""
    path = write(
        tmp_path,
        [
            task(
                campaign, 0, annotation(2, CRACK, who=2, at=5), annotation(1, OK, at=1)
            ),
            task(
                campaign, 1, annotation(3, "?cant-tell", at=1),
                annotation(4, OK, who={"id": 2, "email": "max@example.org"}, at=2),
            ),
            task(
                campaign, 2, annotation(5, OK, at=1),
                {**annotation(6, OK, who=2, at=2), "was_cancelled": True, "result": []},
                annotation(7, OK, who=3, at=3),
            ),
            # The same person again: the last counts.
            task(campaign, 3, annotation(8, OK, at=1), annotation(9, CRACK, at=2)),
            task(campaign, 4),
        ],
    )  # fmt: skip
    for n_new, n_repeats in ((4, 3), (0, 0)):  # taken again, it changes nothing
        taught = campaign.teach(path, train=False)
        assert (taught.n_new, taught.n_repeats) == (n_new, n_repeats)
        assert marks(campaign) == {
            path_of(0): OK, path_of(1): OK, path_of(2): OK, path_of(3): CRACK,
        }  # fmt: skip
    people = {d.path: (d.first, d.second) for d in campaign.agreement().disagreements}
    assert people == {
        path_of(0): ("label-studio-1", "label-studio-2"),
        path_of(1): ("label-studio-2", "label-studio-1"),
    }
    pairs = {(p.first, p.second): p.n for p in campaign.agreement().pairs}
    assert pairs == {
        ("label-studio-1", "label-studio-2"): 2,
        ("label-studio-1", "label-studio-3"): 1,
    }
    # What was decided here is not overruled by what somebody else says there, but a
    # person may correct himself.
    campaign.relabel(path_of(2), CRACK, train=False)
    campaign.teach(path, train=False)
    assert marks(campaign)[path_of(2)] == CRACK
    corrected = [task(campaign, 3, annotation(9, OK, at=2))]
    assert campaign.teach(write(tmp_path, corrected), train=False).n_changed == 1
    # One file is taken back as a whole.
    for _ in range(len({e["source"] for e in campaign.log() if e["kind"] == "teach"})):
        campaign.undo()
    campaign.undo()
    assert marks(campaign) == {}
    assert campaign.agreement().pairs == []


def test_all_or_nothing_with_the_tasks_number(campaign, tmp_path):
    no_choice = {**annotation(1, OK), "result": []}
    two = annotation(2, OK)
    two["result"][0]["value"]["choices"] = [OK, CRACK]
    other = annotation(3, OK)
    other["result"][0]["from_name"] = "mood"
    tasks = [
        task(campaign, 0, annotation(10, OK)),
        task(campaign, 1, no_choice),
        task(campaign, 2, two),
        task(campaign, 3, other),
        task(campaign, 4, annotation(4, "rot")),
        task(campaign, 5, annotation(5, OK), path="nowhere.png"),
        task(campaign, 6, annotation(6, OK), sha256="0" * 64),
        task(campaign, 7, annotation(7, OK), path=None),
        task(campaign, 8, 17),
        {"id": 109, "data": 3, "annotations": [annotation(8, OK)]},
        {"id": 110, "data": {}, "annotations": "none"},
    ]
    path = write(tmp_path, tasks)
    with pytest.raises(LabelFileError) as caught:
        campaign.teach(path, train=False)
    problems = caught.value.problems
    assert len(problems) == 10
    for number, why in [
        (101, "must be one choice named 'label', got \\[\\]"), (102, "got \\["),
        (103, "got \\[\\]"), (104, "none of the classes"), (105, "not in the pool"),
        (106, "another picture by now"), (107, "no path"), (108, "none of Label"),
        (109, "no path"), (110, "none of Label|no path"),
    ]:  # fmt: skip
        assert sum(bool(re.match(f"task {number}\\b.*({why})", p)) for p in problems)
    assert marks(campaign) == {}
    assert len(campaign.teach(path, train=False, partial=True).refused) == 10
    assert marks(campaign) == {path_of(0): OK}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no JSON"),
        ("{}", "is no export"),
        ("[3]", "is no export"),
        ('[{"text": "x"}]', "is no export"),
        ("[" * 100_000, "is no JSON"),
        ("\ud800", "is no JSON"),
    ],
)
def test_no_exports(text, message, tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CampaignError, match=message):
        read_export(path)


# --- the backend ------------------------------------------------------------------

HOST = "127.0.0.1:9090"
JSON = {"content-type": "application/json"}


def login(password):
    code = base64.b64encode(f"skadma:{password}".encode()).decode()
    return {"authorization": f"Basic {code}"}


@pytest.fixture
def client(campaign):
    pytest.importorskip("starlette")
    testclient = pytest.importorskip("starlette.testclient")
    from skadma.label_studio.backend import backend_app

    app = backend_app(campaign.folder, hosts=[HOST], password="secret")
    with testclient.TestClient(
        app, base_url=f"http://{HOST}", headers=login("secret")
    ) as client:
        yield client


def wait_for(condition):
    for _ in range(3000):  # a process starts, on a machine that may be busy
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen in five minutes")


def test_the_four_routes(client, campaign):
    """As Label Studio calls them: health, setup, annotations, training, predictions."""
    for path in ("/health", "/"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.json() == {"status": "UP", "model_class": "skadma"}
    setup = client.post(
        "/setup", content=recorded("setup.json", campaign), headers=JSON
    )
    assert setup.json() == {"model_version": "skadma"}
    asked = recorded("predict.json", campaign)
    before = client.post("/predict", content=asked, headers=JSON).json()
    n_tasks = len(json.loads(asked)["tasks"])
    assert before["results"] == n_tasks * [
        {"model_version": "skadma-0-labels", "score": 0.0, "result": []}
    ]
    created = recorded("annotation_created.json", campaign)
    for _ in range(2):  # once more: no change
        assert client.post("/webhook", content=created, headers=JSON).status_code == 201
    assert marks(campaign) == {path_of(4): OK}
    (taught,) = [e for e in campaign.log() if e["kind"] == "teach"]
    assert taught["who"] == "label-studio-1"
    updated = json.loads(created)
    updated["action"] = "ANNOTATION_UPDATED"
    updated["annotation"]["result"][0]["value"]["choices"] = [CRACK]
    assert client.post("/webhook", json=updated).status_code == 201
    assert marks(campaign) == {path_of(4): CRACK}
    updated["annotation"]["completed_by"] = 2  # somebody else does not overrule
    updated["annotation"]["result"][0]["value"]["choices"] = [OK]
    assert client.post("/webhook", json=updated).status_code == 201
    assert marks(campaign) == {path_of(4): CRACK}
    assert campaign.agreement().pairs[0].n_agree == 0
    campaign.teach({path_of(5): OK, path_of(7): OK}, train=False)
    start = recorded("start_training.json", campaign)
    assert client.post("/webhook", content=start, headers=JSON).status_code == 201
    wait_for(lambda: any(e["kind"] == "train" for e in campaign.log()))
    answers = client.post("/predict", content=asked, headers=JSON).json()["results"]
    proba = campaign.estimator().predict_proba(
        [str(campaign.pool / t["data"]["path"]) for t in json.loads(asked)["tasks"]]
    )
    assert len(answers) == n_tasks
    for answer, row in zip(answers, proba, strict=True):
        assert answer["model_version"] == "skadma-3-labels"
        assert answer["score"] == pytest.approx(row.max(), abs=1e-5)
        (choice,) = answer["result"]
        assert choice["value"]["choices"] == [CLASSES[row.argmax()]]
        assert (choice["from_name"], choice["to_name"]) == ("label", "image")
    other = {"action": "PROJECT_UPDATED", "project": {"id": 1}}
    assert client.post("/webhook", json=other).status_code == 200


def test_tasks_of_elsewhere_get_no_guess(client, campaign):
    campaign.teach({path_of(5): OK, path_of(6): CRACK})
    sha = shas_of(campaign)[0]
    tasks = [
        {"data": {"image": "http://10.0.0.1/secret"}},
        {"data": {"path": path_of(0), "sha256": "0" * 64}},
        {"data": {"path": path_of(0), "sha256": sha}},
        {"data": {"path": ["x"], "sha256": sha}},
        17,
    ]
    answer = client.post("/predict", json={"tasks": tasks})
    results = answer.json()["results"]
    assert [bool(result["result"]) for result in results] == [0, 0, 1, 0, 0]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 200),
        ({"host": "evil.example:9090"}, 400),
        ({"host": "127.0.0.1:9091"}, 400),
        ({"origin": "http://127.0.0.1:9090"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"authorization": ""}, 401),
        ({"authorization": "Basic %%%"}, 401),
        (login("wrong"), 401),
    ],
)
def test_who_may_ask(change, status, client):
    headers = {**JSON, **login("secret"), **change}
    answer = client.post("/predict", content='{"tasks": []}', headers=headers)
    assert answer.status_code == status


def test_bad_requests(client, campaign):
    post = client.post
    assert post("/predict", content="[]", headers=JSON).status_code == 400
    assert post("/predict", content="[" * 99_999, headers=JSON).status_code == 400
    assert post("/predict", json={"tasks": {}}).status_code == 400
    assert post("/predict", json={"tasks": [{}] * 1001}).status_code == 400
    long = json.dumps({"tasks": [], "more": "x" * (5 << 20)})
    assert post("/predict", content=long, headers=JSON).status_code == 413
    assert client.get("/predict").status_code == 405
    for body in (
        {"action": "ANNOTATION_CREATED"},
        {"action": "ANNOTATION_CREATED", "task": 3, "annotation": [3]},
        {"action": "ANNOTATION_CREATED", "task": task(campaign, 0),
         "annotation": annotation(1, "rot")},
    ):  # fmt: skip
        answer = post("/webhook", json=body)
        assert answer.status_code == 400
        assert "task" in answer.json()["error"]
    assert [e["kind"] for e in campaign.log()] == ["start"]


def test_the_process_ends_and_comes_back(client, campaign):
    assert client.post("/predict", json={"tasks": []}).status_code == 200
    worker = client.app.state.backend._clerk
    os.kill(worker._process.pid, signal.SIGKILL)
    worker._process.join(5)
    body = {"action": "ANNOTATION_CREATED", "task": task(campaign, 0),
            "annotation": annotation(1, OK)}  # fmt: skip
    assert client.post("/webhook", json=body).status_code == 201
    assert marks(campaign) == {path_of(0): OK}


def test_below_a_word_nobody_can_guess(campaign):
    """As docs/label_studio.md mounts it."""
    pytest.importorskip("starlette")
    testclient = pytest.importorskip("starlette.testclient")
    from starlette.applications import Starlette
    from starlette.routing import Mount

    from skadma.label_studio.backend import Backend

    backend = Backend(campaign.folder, hosts=[HOST])
    app = Starlette(routes=[Mount("/word", routes=backend.routes())])
    with testclient.TestClient(app, base_url=f"http://{HOST}") as client:
        assert client.get("/word/health").json()["status"] == "UP"
        assert client.get("/word/").status_code == 200
        assert client.get("/health").status_code == 404
        body = {"action": "PROJECT_UPDATED"}
        assert client.post("/word/webhook", json=body).status_code == 200
    backend.close()


def test_from_the_server_of_the_page(pool, tmp_path, serve):
    """skadma label --label-studio: both teach one campaign, and its network answers."""
    for module in ("starlette", "uvicorn"):
        pytest.importorskip(module)
    httpx = pytest.importorskip("httpx")
    site = serve(tmp_path / "c", pool, "--label-studio", n=4, classes=CLASSES)
    said = [site.process.stdout.readline() for _ in range(2)]
    address = said[1].split()[-1]
    with Campaign.open(site.folder) as campaign:
        created = recorded("annotation_created.json", campaign)
        asked = recorded("predict.json", campaign)
        sha256 = shas_of(campaign)[5]
    page = site.client()
    with httpx.Client(timeout=120, headers=JSON) as studio:
        assert studio.post(f"{address}/webhook", content=created).status_code == 201
        look = {"tab": "t", "have": [], "want": 0}
        assert page.post("/api/sync", json=look).json()["counts"] == {CRACK: 0, OK: 1}
        mark = {"sha256": sha256, "mark": CRACK, "before": None}
        operation = {"id": "from-the-page", "via": "keys", "marks": [mark]}
        page.post("/api/operations", json={"operations": [operation]})
        assert site.held() == {path_of(4): OK, path_of(5): CRACK}

        def guesses():
            return studio.post(f"{address}/predict", content=asked).json()["results"]

        # Half a round is labelled, so the page's process trains.
        wait_for(lambda: guesses()[0]["model_version"] == "skadma-2-labels")
        answers = guesses()
    page.close()
    assert len(answers) == len(json.loads(asked)["tasks"])
    for answer in answers:
        assert answer["result"][0]["value"]["choices"][0] in CLASSES
