"""The ML backend that Label Studio asks for guesses."""

# The fixtures that are imported are the arguments of the same name.
# ruff: noqa: F811

import json
import os
import signal
import time

import pytest

from skadma import Campaign

from .label_studio_campaign import (  # noqa: F401
    CLASSES,
    CRACK,
    HOST,
    OK,
    annotation,
    campaign,
    client,
    login,
    marks,
    path_of,
    pool,
    recorded,
    shas_of,
    task,
)

JSON = {"content-type": "application/json"}


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
        {"action": "ANNOTATION_CREATED", "task": [{"id": []}]},
        {"action": "ANNOTATION_CREATED", "task": [{"id": {}}, {"id": []}],
         "annotation": [{"task": []}]},
        {"action": "ANNOTATION_CREATED", "task": task(campaign, 0),
         "annotation": annotation(1, "rot")},
    ):  # fmt: skip
        answer = post("/webhook", json=body)
        assert answer.status_code == 400
        assert "task" in answer.json()["error"]
    assert [e["kind"] for e in campaign.log()] == ["start"]


def test_the_process_ends_and_comes_back(client, campaign):
    assert client.post("/predict", json={"tasks": []}).status_code == 200
    worker = client.app.state.backend._worker
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

    from skadma.labelling.label_studio.backend import Backend

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
    page = site.client()
    address = site.said[1].split()[-1]
    with Campaign.open(site.folder) as campaign:
        created = recorded("annotation_created.json", campaign)
        asked = recorded("predict.json", campaign)
        sha256 = shas_of(campaign)[5]
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
