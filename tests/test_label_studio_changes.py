"""Label Studio and a campaign whose classes and pools change, with audits."""

import json

import numpy as np
import pytest
from PIL import Image

from skadma import Campaign
from skadma.cli import main
from skadma.labelling.campaign import LabelFileError
from skadma.labelling.label_studio import make_tasks

# pytest finds the fixtures by their names here
from .label_studio_campaign import (  # noqa: F401
    CLASSES,
    CRACK,
    OK,
    annotation,
    campaign,
    client,
    marks,
    path_of,
    pool,
    task,
    write,
)


def webhook(client, campaign, number, choice):  # noqa: F811
    body = {
        "action": "ANNOTATION_CREATED", "task": task(campaign, number),
        "annotation": annotation(number, choice),
    }  # fmt: skip
    return client.post("/webhook", json=body)


def test_names_that_classes_had(campaign, tmp_path):  # noqa: F811
    path = write(
        tmp_path,
        [task(campaign, 0, annotation(1, CRACK)), task(campaign, 1, annotation(2, OK))],
    )
    campaign.teach(path, train=False)
    campaign.rename_class(CRACK, "split")
    assert campaign.teach(path, train=False).n_same == 2  # the same export again
    tasks = [task(campaign, i, annotation(i, CLASSES[i % 2])) for i in range(4)]
    assert campaign.teach(write(tmp_path, tasks), train=False).n_new == 2
    assert marks(campaign) == {path_of(i): ["split", OK][i % 2] for i in range(4)}
    campaign.add_classes([CRACK])  # now it is a class of its own
    tasks.append(task(campaign, 4, annotation(4, CRACK)))
    taught = campaign.teach(write(tmp_path, tasks), train=False)
    assert marks(campaign)[path_of(4)] == CRACK
    assert taught.n_changed == 2
    with pytest.raises(LabelFileError, match="none of the classes"):
        campaign.teach({path_of(5): "crack"}, train=False)


@pytest.mark.parametrize("by", ["export", "webhook"])
def test_names_that_are_used_again(by, client, campaign, tmp_path):  # noqa: F811
    """Answers stay with the class that they named when their task was made."""
    tasks = make_tasks(campaign.query(4), "", "v1")
    campaign.rename_class(CRACK, "split")
    campaign.rename_class(OK, CRACK)
    answered = [
        {"id": i, **each, "annotations": [annotation(i, CLASSES[i % 2])]}
        for i, each in enumerate(tasks)
    ]
    if by == "webhook":
        for each in answered:
            body = {"action": "ANNOTATION_CREATED", "task": each,
                    "annotation": each["annotations"][0]}  # fmt: skip
            assert client.post("/webhook", json=body).status_code == 201
    else:
        campaign.teach(write(tmp_path, answered), train=False)
    assert marks(campaign) == {
        each["data"]["path"]: ["split", CRACK][i % 2] for i, each in enumerate(tasks)
    }


def test_the_backend(client, campaign):  # noqa: F811
    """Older names are taken; what an audit drew is not taught and gets no guess."""
    campaign.rename_class(CRACK, "split")
    assert webhook(client, campaign, 0, CRACK).status_code == 201
    campaign.teach({path_of(1): OK})
    drawn = [p.path for p in campaign.audits.draw(5, method="random")]
    numbers = [i for i in range(12) if path_of(i) in drawn]
    answer = webhook(client, campaign, numbers[0], OK)
    assert answer.status_code == 400
    assert "is in an audit" in answer.json()["error"]
    assert marks(campaign) == {path_of(0): "split", path_of(1): OK}
    asked = {"tasks": [task(campaign, i) for i in range(12)]}
    results = client.post("/predict", json=asked).json()["results"]
    assert [i for i, r in enumerate(results) if not r["result"]] == numbers
    choices = {r["result"][0]["value"]["choices"][0] for r in results if r["result"]}
    assert choices <= {"split", OK}


def test_an_export_about_an_audit_is_refused(campaign, tmp_path):  # noqa: F811
    drawn = {p.path for p in campaign.audits.draw(3, method="random")}
    tasks = [task(campaign, i, annotation(i, OK)) for i in range(12)]
    with pytest.raises(LabelFileError, match="is in an audit") as caught:
        campaign.teach(write(tmp_path, tasks), train=False)
    assert len(caught.value.problems) == 3
    assert marks(campaign) == {}
    campaign.teach(write(tmp_path, tasks), train=False, partial=True)
    assert set(marks(campaign)) == {path_of(i) for i in range(12)} - drawn


def test_pools(campaign, tmp_path):  # noqa: F811
    """Tasks say where images of each pool are, and labels of all come back."""
    more = tmp_path / "more photos"
    more.mkdir()
    for i in range(3):
        pixels = np.full((32, 32, 3), 40 + 60 * i, np.uint8)
        Image.fromarray(pixels).save(more / f"{i}.png")
    campaign.add_pool(more, "new")
    moved = more.rename(tmp_path / "moved")
    options = ["--campaign", str(campaign.folder), "--pool", f"new={moved}"]
    export = ["export", "--to", "label-studio", "-n", "15", *options]
    places = {}
    for name, prefixes in (("a", []), ("b", ["--prefix", "x/y", "--prefix", "new=z"])):
        assert main([*export, "-o", str(tmp_path / name), *prefixes]) == 0
        tasks = json.loads((tmp_path / name / "tasks.json").read_text("utf-8"))
        places[name] = {
            t["data"]["path"]: t["data"]["image"].partition("?d=")[2] for t in tasks
        }
    assert places["a"]["new/1.png"] == "moved/1.png"
    assert places["a"][path_of(0)].startswith("my%20photos/")
    assert places["b"]["new/1.png"] == "z/1.png"
    assert places["b"][path_of(1)].startswith("x/y/a%20b/")
    for task_ in tasks:
        task_ |= {"id": 1, "annotations": [annotation(1, OK)]}
    back = write(tmp_path, tasks)
    assert main(["teach", str(back), "--later", *options]) == 0
    with Campaign.open(campaign.folder, pools={"new": moved}) as opened:
        assert len(marks(opened)) == 15
