"""Campaigns with a table of embeddings in place of a network."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from skadma import Campaign, CNNClassifier, ProbeClassifier
from skadma.cli import main
from skadma.features.table import EmbeddingTable, TableError, read_table
from skadma.labelling.campaign import CampaignError
from skadma.labelling.campaign.check import find_problems
from skadma.labelling.campaign.embeddings import without_rows
from skadma.labelling.campaign.image_index import add_contents
from skadma.labelling.campaign.state import known_contents, read_state
from skadma.labelling.page.session import choose_batch, do_job
from skadma.persistence import load_probe
from skadma.strategies import ADMA, AIFT, BALD, CoreSet, UncertaintyHerding

CLASSES = ["bright", "dark"]


def label_of(path):
    return CLASSES[int(path[-6:-4]) % 2]


def paint(folder, numbers):
    """Pictures of noise, and a row of each that tells bright from dark."""
    rng = np.random.default_rng(0)
    paths, rows = [], []
    for i in range(max(numbers) + 1):
        noise, row = rng.integers(0, 99, (8, 9, 3)), rng.normal(size=16)
        if i in numbers:
            path = f"{'ab'[i % 3 > 0]}/{i:02}.png"
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((noise + 99 * (i % 2)).astype(np.uint8)).save(folder / path)
            row[0] += 4 * (i % 2)
            paths.append(path)
            rows.append(row)
    return paths, np.array(rows, dtype=np.float32)


def save(file, paths, rows):
    np.savez(file, paths=paths, features=rows)
    return file


@pytest.fixture
def photos(tmp_path):
    """30 pictures, and a table of all."""
    paths, rows = paint(tmp_path / "photos", range(30))
    return tmp_path / "photos", save(tmp_path / "clip.npz", paths, rows)


def start(tmp_path, photos, **options):
    pool, file = photos
    return Campaign.create(
        tmp_path / "campaign", pool, CLASSES, ProbeClassifier(), UncertaintyHerding(),
        **{"features": file, "n_instances": 6, **options},
    )  # fmt: skip


def teach(campaign, proposals):
    return campaign.teach({p.path: label_of(p.path) for p in proposals})


def test_query_and_model_are_those_of_the_rows(tmp_path, photos):
    table = read_table(photos[1])
    with start(tmp_path, photos) as campaign:
        assert campaign.features == "clip"
        first = campaign.query()
        assert campaign.query() == first
        teach(campaign, first)
        labelled = sorted(
            [p.path for p in first], key=lambda p: campaign_place(campaign, p)
        )
        at = [table.paths.index(path) for path in labelled]
        own = ProbeClassifier(classes=CLASSES)
        own.fit(table.rows[at], [label_of(path) for path in labelled])
        model = campaign.estimator()
        np.testing.assert_allclose(
            model.predict_proba(table.rows), own.predict_proba(table.rows), rtol=1e-5
        )
        second = campaign.query()
        assert not {p.path for p in second} & set(labelled)
        assert all(p.guess in CLASSES for p in second)
        teach(campaign, second)
        campaign.audits.draw(8)
        campaign.audits.answer(
            {p.path: label_of(p.path) for p in campaign.audits.pending()}
        )
        assert campaign.audits.estimate().value > 0.6
        assert campaign.second_look(3)
        assert campaign.quality().value > 0.5
        batch = choose_batch(campaign, 12, [])
        assert len(batch["proposals"]) == 10
        campaign.undo()
        proposals = campaign.query()
    with Campaign.open(tmp_path / "campaign") as again:
        assert again.query() == proposals
    assert find_problems(tmp_path / "campaign") == []


def campaign_place(campaign, path):
    return [path for path, *_ in campaign.decisions()].index(path)


def test_new_images_wait_for_their_rows(tmp_path, photos):
    pool, file = photos
    with start(tmp_path, photos) as campaign:
        teach(campaign, campaign.query())
        model = campaign.estimator()
        paths, rows = paint(pool, range(40))
        with pytest.warns(UserWarning, match="10 images have no row and are left out"):
            campaign.refresh()
        assert len(campaign.candidates()) == 24
        assert "skadma features FILE" in str(campaign.status())
        assert campaign.refresh() == 0
        # The new ones alone, under another name, at other rows, of other widths.
        new = save(tmp_path / "new.npz", paths[30:], rows[30:])
        with pytest.raises(TableError, match="--features-name clip"):
            campaign.add_features(new)
        with pytest.raises(TableError, match="of 16 numbers"):
            campaign.add_features(EmbeddingTable("clip", rows[:, :9], paths, file))
        with pytest.raises(TableError, match=r"another row for 'a/00.png'"):
            campaign.add_features(EmbeddingTable("clip", rows[::-1], paths, file))
        assert campaign.refresh() == 0
        assert len(campaign.candidates()) == 24
        with pytest.warns(UserWarning, match="30 images have no row"):
            assert campaign.add_features(read_table(new, "clip")) == 10
        assert len(campaign.candidates()) == 34
        assert campaign.add_features(EmbeddingTable("clip", rows, paths, file)) == 0
        assert np.array_equal(campaign.estimator().coef_, model.coef_)
        assert {p.path for p in campaign.query(34)} >= set(paths[30:])
    assert find_problems(tmp_path / "campaign") == []
    (stored,) = [
        f for f in (tmp_path / "campaign" / "embeddings").iterdir()
        if f.stat().st_size < 2000
    ]  # fmt: skip
    data = bytearray(stored.read_bytes())
    data[-1] ^= 1
    stored.write_bytes(data)
    with Campaign.open(tmp_path / "campaign") as campaign:
        with pytest.raises(CampaignError, match="missing or damaged"):
            campaign.query(5)
        assert len(campaign.decisions()) == 6


def test_no_image_is_judged_by_the_row_of_another(tmp_path, photos):
    """Labels are learnt in the order of the paths, and files get other names."""
    with start(tmp_path, photos) as campaign:
        teach(campaign, campaign.query(20))
        before = {s.sha256: s.score for s in campaign.second_look()}
        files = sorted(photos[0].rglob("*.png"))
        for i, file in enumerate(files):
            file.rename(photos[0] / f"{99 - i}.png")
        campaign.refresh()
        after = {s.sha256: s.score for s in campaign.second_look()}
    assert len(before) == 20 and after == pytest.approx(before, abs=1e-4)


def test_rows_that_a_scan_had_not_seen(tmp_path, photos):
    """An image whose row is there by now is no image without a row for good."""
    with start(tmp_path, photos) as campaign:
        log = campaign._event_log
        with log.transaction():
            contents = without_rows(known_contents(read_state(log)), {})
            add_contents(log, contents, log.add_event("scan", n_changes=30))
        assert campaign.candidates() == []
        assert campaign.add_features(photos[1]) == 30
        assert len(campaign.candidates()) == 30
    assert find_problems(tmp_path / "campaign") == []


def test_a_forecast_takes_no_network(tmp_path):
    paths, rows = paint(tmp_path / "photos", range(40))
    photos = tmp_path / "photos", save(tmp_path / "clip.npz", paths, rows)
    with start(tmp_path, photos) as campaign:
        teach(campaign, campaign.query(32))
        now, *later = do_job(campaign, "forecast")
        assert now["value"] > 0.5 and [each["n_more"] for each in later] == [
            20,
            50,
            100,
        ]


def test_what_is_refused(tmp_path, photos):
    pool, file = photos
    table = read_table(file)
    args = tmp_path / "campaign", pool, CLASSES
    for estimator, strategy, what in (
        (CNNClassifier(weights=None), CoreSet(), "got CNNClassifier with them"),
        (ProbeClassifier(), ADMA(), "ADMA cannot be used.*CNNClassifier"),
        (ProbeClassifier(), AIFT(), "AIFT cannot be used"),
        (ProbeClassifier(class_weight=3), CoreSet(), "class_weight"),
    ):
        with pytest.raises(CampaignError, match=what):
            Campaign.create(*args, estimator, strategy, features=file)
    with pytest.raises(CampaignError, match="takes a CNNClassifier"):
        Campaign.create(*args, ProbeClassifier(), CoreSet())
    elsewhere = [f"x/{i}.jpg" for i in range(30)]
    nothing = EmbeddingTable("clip", table.rows, elsewhere, file)
    with pytest.raises(TableError, match="No path in"):
        Campaign.create(*args, ProbeClassifier(), CoreSet(), features=nothing)
    Image.open(pool / "a/00.png").save(pool / "a/copy.png")
    copies = EmbeddingTable(
        "clip", np.concatenate([table.rows, 2 * table.rows[:1]]),
        [*table.paths, "a/copy.png"], file,
    )  # fmt: skip
    with pytest.raises(TableError, match="another row for 'a/copy.png'"):
        Campaign.create(*args, ProbeClassifier(), CoreSet(), features=copies)
    assert not (tmp_path / "campaign").exists()
    Campaign.create(*args, ProbeClassifier(), BALD(), features=file).close()


def test_by_commands(tmp_path, photos, capsys, monkeypatch):
    pool, file = photos
    monkeypatch.chdir(tmp_path)
    main(["start", str(pool), "--classes", *CLASSES, "--features", "clip.npz",
          "--features-name", "ViT-L/14", "-n", "8"])  # fmt: skip
    main(["query", "-o", "ask.csv"])
    with Path("ask.csv").open() as lines:
        asked = [row["path"] for row in csv.DictReader(lines)]
    rows = [f"{path},{label_of(path)}" for path in asked]
    Path("labels.csv").write_text("\n".join(["path,label", *rows, ""]))
    main(["teach", "labels.csv"])
    main(["export-model", "-o", "model"])
    probe, name = load_probe("model")
    assert name == "ViT-L/14"
    table = read_table(file)
    for options in (["--model", "model"], ["--campaign", "skadma-campaign"]):
        main(["predict", "--features", "clip.npz", "--features-name", name, *options,
              "-o", "out.csv", "--overwrite", "--proba"])  # fmt: skip
        with Path("out.csv").open() as lines:
            rows = [*csv.DictReader(lines)]
        assert [row["path"] for row in rows] == table.paths
        assert [row["label"] for row in rows] == probe.predict(table.rows).tolist()
    capsys.readouterr()
    for arguments, what in (
        (["predict", "--features", "clip.npz", "--model", "model"], "ViT-L/14"),
        (["predict", str(pool), "--model", "model"], "no intact model"),
        (["predict", str(pool), "--campaign", "skadma-campaign"], "--features FILE"),
        (["predict", "--campaign", "skadma-campaign"], "--features FILE"),
        (["features", "clip.npz"], "--features-name ViT-L/14"),
        (["features", "no.npz"], "is not there"),
        (
            [
                "start",
                str(pool),
                "--classes",
                "a",
                "b",
                "--features",
                "clip.npz",
                "--campaign",
                "other",
                "--warm-start",
            ],
            "leave --backbone",
        ),
    ):
        extra = ["-o", "x.csv"] if arguments[0] == "predict" else []
        with pytest.raises(SystemExit):
            main([*arguments, *extra])
        assert what in capsys.readouterr().err
    main(["features", "clip.npz", "--features-name", name])
    assert "0 images" in capsys.readouterr().out


def test_neither_the_server_nor_its_child_imports_torch(tmp_path, photos):
    """From the first query to the labels of other images."""
    pool, _ = photos
    rows = paint(tmp_path / "others", range(5))
    save(tmp_path / "others.npz", *rows)
    (tmp_path / "seen.py").write_text(
        "import sys\nNAMES = 'torch', 'torchvision', 'skorch', 'timm', 'transformers'\n"
        "def modules(_):\n    return [name for name in NAMES if name in sys.modules]\n"
    )
    code = f"""if True:
        import sys, time
        from pathlib import Path
        from skadma.cli import main
        from skadma.labelling.page.session import Session, choose_batch
        from seen import modules
        main(["start", {str(pool)!r}, "--classes", "bright", "dark", "--features",
              "clip.npz"])
        session = Session(Path("skadma-campaign"), {{}})
        for _ in range(2):
            batch = session._worker.call(choose_batch, 6, [])
            paths = [session.controller.ledger.path(p["sha256"])
                     for p in batch["proposals"]]
            labels = [{CLASSES}[int(path[-6:-4]) % 2] for path in paths]
            session.campaign.teach(dict(zip(paths, labels)), train=False)
        print(batch["proposals"][0]["guess"], session._worker.call(modules))
        session.close()
        main(["features", "clip.npz"])
        main(["predict", "--features", "others.npz", "--features-name", "clip",
              "--campaign", "skadma-campaign", "-o", "out.csv"])
        print(modules(None))
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": f"{Path(__file__).parents[1]}:{tmp_path}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert any(line in (f"{name} []" for name in CLASSES) for line in said)
    assert said[-1] == "[]"
