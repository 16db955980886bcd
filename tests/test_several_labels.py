"""Campaigns in which a picture may have several labels: solar cells, of two kinds."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skadma import Campaign, CNNClassifier
from skadma.cli import main
from skadma.features.table import EmbeddingTable
from skadma.labelling.campaign import CampaignError, LabelFileError
from skadma.labelling.campaign.check import find_problems
from skadma.labelling.campaign.history import right_guesses
from skadma.labelling.campaign.ledger import Mark, Operation
from skadma.labelling.campaign.state import read_state
from skadma.labelling.label_studio.backend import guesses, teach
from skadma.labelling.page.session import choose_batch, do_job
from skadma.labelling.predict import predict_files
from skadma.labelling.sort import plan_sort
from skadma.persistence import load_probe
from skadma.strategies import BADGE

from .label_site import paint, press, saved, shown, strip, until

CLASSES = ["defective", "mono"]


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """120 photographs, the labels of each: any of two, or none."""
    data = Path(pytest.importorskip("elpv_dataset").__file__).parent / "data"
    rows = [row.split() for row in (data / "labels.csv").read_text().splitlines()]
    folder, truth = tmp_path_factory.mktemp("cells"), {}
    for defective in (True, False):
        for mono in (True, False):
            wanted = "1.0" if defective else "0.0", "mono" if mono else "poly"
            for name, *_ in [row for row in rows if (*row[1:],) == wanted][::9][:30]:
                file = folder / Path(name).name
                with Image.open(data / name) as image:
                    image.resize((96, 96)).save(file)
                has = zip(CLASSES, (defective, mono), strict=True)
                truth[file.name] = [label for label, there in has if there]
    return folder, truth


@pytest.fixture
def campaign(cells, tmp_path):
    """Without a network: what the log has does not ask for one."""
    with start(tmp_path / "c", cells[0]) as campaign:
        yield campaign


def start(folder, pool, classes=CLASSES, strategy=None):
    rows = np.random.default_rng(0).normal(size=(200, 4))
    paths = sorted(path.name for path in pool.iterdir())
    paths = [str(pool / path) for path in paths]
    table = EmbeddingTable("noise", rows[: len(paths)], paths, folder / "table.npz")
    return Campaign.create(
        folder, pool, classes, None, strategy, features=table, several_labels=True
    )


def labels(campaign):
    return {path: decision.label for path, decision, _ in campaign.decisions()}


def text(names):
    return ";".join(names) or "?none"


def test_it_learns(cells, tmp_path):
    """Two labels that do not depend on each other, from the first answer on."""
    folder, truth = cells
    probe = CNNClassifier("layers/efficientnet_lite0", image_size=64, training="probe")
    with Campaign.create(
        tmp_path / "c", folder, CLASSES, probe, several_labels=True
    ) as campaign:
        ledger = campaign.ledger()
        for _ in range(20):
            first = choose_batch(campaign, 4, [])["proposals"][0]
            guess = first["guess"] and (first["guess"], first["confidence"])
            mark = text(truth[ledger.path(first["sha256"])])
            given = Mark(first["sha256"], mark, guess=guess)
            ledger.record([Operation(f"answer-{first['sha256']}", [given])], 0)
        for _ in range(2):
            asked = campaign.query(20)
            campaign.teach({image.path: truth[image.path] for image in asked})
        model = campaign.estimator()
        rest = campaign.candidates()
        found = model.predict([str(folder / path) for path in rest])
        right = np.array([[name in truth[p] for name in CLASSES] for p in rest])
        assert (found == right).mean(axis=0) == pytest.approx([0.85, 0.95], abs=0.1)
        contents = {p.sha256: p.path for p in campaign.query(len(rest))}
        n, guessed = campaign.guesses(contents)
        assert n == 60
        said = dict(zip(rest, found, strict=True))
        for sha256, (label, probability) in guessed.items():
            has = said[contents[sha256]]
            assert label == text([n for n, h in zip(CLASSES, has, strict=True) if h])
            assert 0.5 <= probability <= 1
        rounds = right_guesses(campaign.log(), campaign.decisions())
        assert sum(n for _, n, _ in rounds) > 50
        assert campaign.quality() is None
        assert find_problems(campaign.folder) == []
        done = campaign.finish(tmp_path / "model")
        assert (
            done.reason
            == "Nothing was compared: an image may have several labels here."
        )
    again = CNNClassifier.load(tmp_path / "model")
    assert (
        again.predict([str(folder / path) for path in rest]).tolist() == found.tolist()
    )
    out = tmp_path / "all.csv"
    predict_files(again, [folder], out)
    with out.open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert {"proba_defective", "proba_mono"} <= rows[0].keys()


def test_a_label_is_a_set(campaign, cells, capsys):
    one, two, three, four, five = sorted(cells[1])[:5]
    campaign.teach({one: "mono;defective", two: [], three: ["mono"], four: " Mono "})
    campaign.teach({five: "?cant-tell"})
    assert labels(campaign) == {
        one: "defective;mono", two: "?none", three: "mono", four: "mono", five: None,
    }  # fmt: skip
    assert campaign.teach({one: ("defective", "mono", "mono")}).n_same == 1
    arrays = {one: np.array(["mono", "defective"]), two: np.array([])}
    assert campaign.teach(arrays | {three: np.array("mono")}).n_same == 3
    status = campaign.status()
    assert status.labels == {"defective": 1, "mono": 3, "?none": 1}
    assert "labelled     4 (defective: 1, mono: 3, ?none: 1)" in str(status)
    assert campaign.relabel(two, "defective").n_changed == 1
    campaign.undo()
    assert labels(campaign)[two] == "?none"
    campaign.relabel(one, "?none")
    assert labels(campaign)[one] == "?none"
    for wrong in ("mono;cell", "mono;", "", ";", "?none;mono", "?maybe"):
        with pytest.raises(LabelFileError, match="none of the classes"):
            campaign.teach({one: wrong})
    for wrong, said in (
        ("?none;mono", "?none;mono"),
        ("mono;", "mono;"),
        ("x;mono", "x"),
    ):
        with pytest.raises(LabelFileError, match=f"{re.escape(repr(said))} is none of"):
            campaign.teach({one: wrong})
    assert campaign.query(3)[0].guess is not None


def test_labels_follow_renamed_and_merged_classes(campaign, cells, tmp_path):
    one, two, three = sorted(cells[1])[:3]
    campaign.add_classes(["burnt"])
    campaign.teach({one: ["mono", "burnt"], two: ["defective", "burnt"], three: []})
    main(["export", "-o", str(tmp_path / "a.csv"), "--campaign", str(campaign.folder)])
    bits, before = campaign.query(4), labels(campaign)
    campaign.rename_class("mono", "crystal")
    assert labels(campaign)[one] == "crystal;burnt"
    campaign.merge_classes(["burnt", "defective"], "defective")
    assert labels(campaign) == {
        one: "defective;crystal",
        two: "defective",
        three: "?none",
    }
    assert campaign.teach(tmp_path / "a.csv").n_same == 3  # it says as of when
    with pytest.raises(LabelFileError, match="is called 'crystal' by now"):
        campaign.teach({one: "mono;defective"})
    (taught,) = [e["decisions"] for e in campaign.log() if "decisions" in e]
    assert taught[0]["label_then"] == "mono;burnt"
    assert find_problems(campaign.folder) == []
    campaign.undo()
    campaign.undo()
    assert (labels(campaign), campaign.query(4)) == (before, bits)


def test_label_files_make_the_round_trip(campaign, cells, tmp_path):
    folder, truth = cells
    campaign.teach(dict([*truth.items()][:50]))
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    main(["export", "-o", str(first), "--campaign", str(campaign.folder)])
    with start(tmp_path / "other", folder) as other:
        rows = first.read_text().splitlines()
        at = rows[0].split(",").index("as_of")
        (tmp_path / "in.csv").write_text(
            "".join(",".join(c for k, c in enumerate(row.split(",")) if k != at) + "\n"
                    for row in rows)
        )  # fmt: skip
        assert other.teach(tmp_path / "in.csv").n_new == 50
        assert labels(other) == labels(campaign) != {}
    second.write_text("path;label\n" + f'{sorted(truth)[0]};"mono;defective"\n')
    campaign.teach(second)
    assert labels(campaign)[sorted(truth)[0]] == "defective;mono"
    second.write_text(f"path,label\n{sorted(truth)[0]},mono")  # perhaps cut
    with pytest.raises(LabelFileError, match="the last line has no end"):
        campaign.teach(second)


def test_people_and_operations_of_the_page(campaign, cells):
    """Answers of one who has not seen the other's; old names; undone and again."""
    ledger, (path, *_) = campaign.ledger(), sorted(cells[1])
    (sha256,) = [p.sha256 for p in campaign.query(200) if p.path == path]
    as_of = campaign.last_event
    campaign.rename_class("mono", "crystal")
    mark = Mark(sha256, "mono;defective", None, as_of)
    assert ledger.record([Operation("first-one", [mark])])[0].status == "recorded"
    assert ledger.labels() == {sha256: "defective;crystal"}
    (same,) = ledger.record([Operation("again-one", [mark])])
    assert (same.status, same.refused) == ("nothing", [])
    assert (ledger.counts()["crystal"], ledger.counts()["defective"]) == (1, 1)
    with Campaign.open(campaign.folder, who="eva") as eva:
        other = eva.ledger().record([Operation("evas-one", [Mark(sha256, "crystal")])])
        assert other[0].status == "recorded"
        (pair,) = eva.agreement().pairs
        assert (pair.n, pair.n_agree) == (1, 0)
        assert "said 'defective;crystal', eva 'crystal'" in str(eva.agreement())
    (refused,) = ledger.record([Operation("wrong-one", [Mark(sha256, "mono;x")])])
    assert "none of the classes defective, crystal" in refused.refused[0]["reason"]
    ledger.record([Operation("back-one", undo="first-one")])
    assert ledger.labels() == {}


def test_an_embeddings_model_is_handed_on(campaign, cells, tmp_path):
    campaign.teach(cells[1])
    campaign.export_model(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text("utf-8")
    assert "skadma evaluate" not in card  # which takes one label per picture
    probe, _ = load_probe(tmp_path / "model")
    rows = np.eye(4)
    assert probe.multilabel_
    np.testing.assert_allclose(
        probe.predict_proba(rows), campaign.estimator().predict_proba(rows)
    )


def test_what_takes_one_label_says_so(campaign, cells, tmp_path, capsys):
    campaign.teach(cells[1])
    export = tmp_path / "export.json"
    export.write_text("[]")
    row = read_state(campaign._event_log).contents
    for ask in (
        lambda: campaign.second_look(),
        lambda: campaign.audits.draw(3),
        lambda: campaign.audits.estimate(),
        lambda: plan_sort(campaign, tmp_path / "sorted"),
        lambda: campaign.teach(export),
        lambda: do_job(campaign, "forecast"),
        lambda: guesses(campaign, [str(c.sha256) for c in row.values()]),
        lambda: teach(campaign, []),
    ):
        with pytest.raises(CampaignError, match="takes one label per picture"):
            ask()
    where = ["--campaign", str(campaign.folder)]
    for command in (
        ["suspects", "-o", str(tmp_path / "s.csv")],
        ["evaluate", "--draw", "3", "-o", str(tmp_path / "e.csv")],
        ["sort", "--into", str(tmp_path / "sorted")],
        ["export", "--to", "label-studio", "-o", str(tmp_path / "tasks")],
    ):
        with pytest.raises(SystemExit):
            main([*command, *where])
        said = capsys.readouterr().err
        assert "takes one label per picture" in said
        assert "Traceback" not in said
    assert not (tmp_path / "sorted").exists()
    with pytest.raises(SystemExit):
        main(["label", "--label-studio", *where])
    assert "leave --label-studio out" in capsys.readouterr().err


def test_what_cannot_be_is_refused(cells, campaign, tmp_path, capsys):
    with pytest.raises(CampaignError, match="has a ';'"):
        start(tmp_path / "new", cells[0], ["a;b", "c"])
    with pytest.raises(CampaignError, match="has a ';'"):
        campaign.add_classes(["a;b"])
    with pytest.raises(CampaignError, match="has a ';'"):
        campaign.rename_class("mono", "a;b")
    with pytest.raises(CampaignError, match="BADGE is for tasks of one label"):
        start(tmp_path / "new", cells[0], strategy=BADGE())
    assert not (tmp_path / "new").exists()
    with Campaign.create(tmp_path / "one", cells[0], ["a;b", "c"], at_once=True) as one:
        path = sorted(cells[1])[0]
        one.teach({path: "a;b"}, train=False)  # a name, as ever
        with pytest.raises(LabelFileError, match="none of the classes"):
            one.teach({path: []})
        assert "several_labels" not in one._event_log.settings()
    with pytest.raises(SystemExit):
        main(["label", "--several-labels", "--campaign", str(tmp_path / "one")])
    assert "has one label per picture, which stays so" in capsys.readouterr().err


def test_by_command(cells, tmp_path, capsys):
    folder, truth = cells
    where, table = ["--campaign", str(tmp_path / "c")], tmp_path / "some.npz"
    names, rows = sorted(truth), np.random.default_rng(0).normal(size=(len(truth), 4))
    np.savez(table, paths=names, features=rows)
    started = ["start", str(folder), "--classes", *CLASSES, "--several-labels"]
    assert main([*started, "--features", str(table), *where]) == 0
    asked = tmp_path / "next.csv"
    for _ in range(2):
        asked.unlink(missing_ok=True)
        assert main(["query", "-n", "5", "-o", str(asked), *where]) == 0
        with asked.open(newline="") as file:
            given = [
                {**row, "label": text(truth[row["path"]])}
                for row in csv.DictReader(file)
            ]
        with asked.open("w", newline="") as file:
            writer = csv.DictWriter(file, given[0])
            writer.writeheader()
            writer.writerows(given)
        assert main(["teach", str(asked), *where]) == 0
        assert "Saved 5 labels" in capsys.readouterr().out
    assert all(row["guess"] for row in given)
    out = tmp_path / "all.csv"
    predict = ["predict", "--features", str(table), "-o", str(out)]
    assert main([*predict, *where]) == 0
    with out.open(newline="") as file:
        row = next(csv.DictReader(file))
    assert 0 < float(row["proba_defective"]) < 1


def test_on_the_page(tmp_path, serve, pages):
    """Keys press labels, Enter takes them; what is for one label is not there."""
    three = ["crack", "dark", "dirty"]
    photos = paint(tmp_path / "photos", 8)
    site = serve(tmp_path / "campaign", photos, "--several-labels", n=4, classes=three)
    page = pages(site, bypass_csp=True)
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()

    def pressed():
        chosen = ".choice[aria-pressed=true] span"
        return page.eval_on_selector_all(chosen, "all => all.map(e => e.innerText)")

    first = shown(page)
    page.keyboard.type("313")
    assert pressed() == ["crack"]
    page.keyboard.press("3")
    assert pressed() == ["crack", "dirty"]
    assert axe.run(page).violations_count == 0
    second = press(page, "Enter")
    assert (pressed(), strip(page)) == ([], ["crack;dirty"])
    assert "crack + dirty" in page.inner_text(".recent li")
    third = press(page, "Enter")  # none of them
    page.click(".choice >> text=dark")
    page.click(".choice >> text=Done")
    shown(page, third)
    assert strip(page) == ["dark", "?none", "crack;dirty"]
    saved(page)
    page.locator(".recent button[aria-label^='Take back: crack + dirty']").click()
    assert (shown(page, third), pressed()) == (first, ["crack", "dirty"])
    page.keyboard.press("1")
    saved(page)
    main(["classes", "rename", "dirty", "soiled", "--campaign", str(site.folder)])
    until(page, "document.querySelector('.choices').innerText.includes('soiled')")
    assert pressed() == ["soiled"]  # as long as it is not taken yet
    page.keyboard.press("2")
    fourth = press(page, "Enter")
    press(page, "s")
    saved(page)
    until(page, "skadmaPage.queue.state.n_known >= 3")
    with Campaign.open(site.folder) as campaign:
        held = {d.sha256: d.mark for _, d, _ in campaign.decisions()}
    assert held == {
        first: "dark;soiled", second: "?none", third: "dark", fourth: "?skip",
    }  # fmt: skip
    # A decision with a class that was added, both taken back and done again.
    change = {"change": "add", "names": ["wet"], "into": None}
    page.evaluate("change => skadmaPage.queue.changeClasses(change)", change)
    until(page, "document.querySelector('.choices').innerText.includes('wet')")
    shown(page)
    page.click(".choice >> text=crack")
    page.click(".choice >> text=wet")
    page.keyboard.press("Enter")
    for act, there in zip(("Undo",) * 2 + ("Redo",) * 2, (1, 0, 1, 1), strict=True):
        saved(page)
        page.click(f".others >> text={act}")
        until(
            page,
            f"document.querySelector('.choices').innerText.includes('wet') == {there}",
        )
    assert strip(page)[0] == "crack;wet"
    views = page.eval_on_selector_all("nav button", "all => all.map(e => e.innerText)")
    assert views == ["One by one", "Progress", "Labels", "Finish", "Settings"]
    page.click("#view-progress")
    until(page, "document.querySelector('#part-classes').innerText.includes('none of')")
    assert axe.run(page).violations_count == 0
    page.click("#view-finish")
    assert page.locator("#save-labels").is_visible()
    assert not page.locator("#sort-plan, #go-test").count()
    assert axe.run(page).violations_count == 0
