"""Exported probabilities: measured, made better, and the same everywhere."""

import re

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold

from skadma import AdaFilterClassifier, Campaign, CNNClassifier
from skadma.cli import main
from skadma.evaluation import (
    apply_temperature,
    expected_calibration_error,
    fit_temperature,
    out_of_fold_proba,
)
from skadma.evaluation.calibrated import N_LABELS, calibrated, with_temperature
from skadma.labelling.campaign.state import read_state
from skadma.strategies import MarginSampling

from .conftest import TinyCNN, lite0, tiny_classifier
from .test_export import run


def make_campaign(folder, X, y, n_labels, clf=None):
    """All images in the pool, the first of them labelled."""
    pool = folder / "pool"
    pool.mkdir()
    names = [f"{i:03}.png" for i in range(len(X))]
    for name, pixels in zip(names, X, strict=True):
        Image.fromarray(pixels).save(pool / name)
    clf = clf or CNNClassifier(TinyCNN, image_size=32, n_frozen_layers=1, max_epochs=2)
    classes = sorted(set(y))
    campaign = Campaign.create(folder / "c", pool, classes, clf, MarginSampling())
    truth = dict(zip(names, y, strict=True))
    campaign.teach({name: truth[name] for name in names[:n_labels]}, train=False)
    return campaign, truth


@pytest.fixture
def noisy():
    """100 random pictures of two colours; two in five labels are wrong."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 100)
    X = rng.integers(0, 90, (100, 32, 32, 3))
    X[np.arange(100), :, :, y] += 120
    y = np.where(rng.random(100) < 0.4, 1 - y, y)
    return X.astype(np.uint8), np.array(["blue", "red"])[y]


def files(campaign, truth):
    return [str(campaign.pool / name) for name in truth]


def section(folder, name):
    text = (folder / "README.md").read_text("utf-8")
    return re.search(rf"## {name}\n\n(.*?)\n\n## ", text, re.S).group(1)


def test_what_is_exported_is_calibrated(elpv, tmp_path):
    """On photographs, by a real network, which is too sure of itself."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    clf = lite0(
        image_size=64,
        n_frozen_layers=-2,
        max_epochs=20,
        head_lr=1e-2,
        random_state=None,
    )
    shuffled = np.random.default_rng(0).permutation(len(elpv[1]))
    campaign, truth = make_campaign(tmp_path, *(a[shuffled] for a in elpv), 80, clf)
    with campaign:
        campaign.export_model(tmp_path / "model", onnx=True)
        before, paths = campaign.estimator(), files(campaign, truth)

        # What the card says, computed once more.
        state = read_state(campaign._event_log)
        taught = [state.paths[image] for image, _ in state.labelled()]
        labels = np.array([truth[name] for name in taught])
        fresh = clone(clf).set_params(random_state=0)
        proba = out_of_fold_proba(fresh, files(campaign, taught), labels)
        temperature = fit_temperature(proba, labels)
        after = np.empty_like(proba)
        for shown, held in KFold(5, shuffle=True, random_state=0).split(proba):
            found = fit_temperature(proba[shown], labels[shown])
            after[held] = apply_temperature(proba[held], found)
        errors = [expected_calibration_error(p, labels) for p in (proba, after)]
        losses = [log_loss(labels, p) for p in (proba, after)]
        assert temperature > 1 and losses[1] < losses[0]
        text = section(tmp_path / "model", "Calibration")
        assert text.startswith("By 80 labels, ")
        assert f"is {errors[0]:.3f}. With a temperature of {temperature:.2f} it" in text
        assert f"it is {errors[1]:.3f}, measured on labels" in text
        assert f"loss is {losses[1]:.3f} instead of {losses[0]:.3f}" in text
        assert "divided by the temperature already" in text

        # Everything that was handed on says the same.
        loaded = CNNClassifier.load(tmp_path / "model")
        np.testing.assert_allclose(
            loaded.predict_proba(paths)[:, 1],
            expit(before.decision_function(paths) / temperature),
            rtol=0, atol=1e-6,
        )  # fmt: skip
        np.testing.assert_array_equal(loaded.predict(paths), before.predict(paths))
        np.testing.assert_allclose(
            run(loaded, tmp_path / "model", paths), loaded.predict_proba(paths),
            atol=1e-4,
        )  # fmt: skip
        # The campaign's own model is left alone.
        again = campaign.estimator().predict_proba(paths)
        np.testing.assert_array_equal(again, before.predict_proba(paths))


def test_left_as_it_is_if_so_asked(noisy, tmp_path):
    campaign, truth = make_campaign(tmp_path, *noisy, 80)
    with campaign:
        campaign.export_model(tmp_path / "model", calibration=False)
        assert section(tmp_path / "model", "Calibration").startswith(
            "Not measured. Take the"
        )
        loaded = CNNClassifier.load(tmp_path / "model", backbone=TinyCNN)
        np.testing.assert_array_equal(
            loaded.predict_proba(files(campaign, truth)),
            campaign.estimator().predict_proba(files(campaign, truth)),
        )


@pytest.mark.parametrize(
    ("labels", "n"),
    [
        (["a", "b"] * 29 + ["a"], 59),
        (["a"] * 59 + ["b"], 59),
        (["a"] * 80, 80),
        (["a"] * 80 + ["b"], 80),
    ],
)
def test_too_few_labels(labels, n, pictures):
    clf = tiny_classifier(classes=[0, 1, 2]).fit(*pictures)
    same, text = calibrated(clf, labels, unseen=None)  # which is not asked for
    assert same is clf
    assert f"Not measured: there are too few labels. It takes {N_LABELS}, " in text
    assert f"and {n} count" in text


def noise(n=200, seed=0):
    """Labels, and probabilities that are right as often as they say."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.5, 1, n)
    proba = np.stack([p, 1 - p], axis=1)
    labels = np.where(rng.random(n) < p, "a", "b")
    return proba, labels


def test_no_temperature_where_it_does_not_help(pictures):
    y = np.array(["a", "b"])[(pictures[1] == 0).astype(int)]
    clf = tiny_classifier(max_epochs=1).fit(pictures[0], y)
    for seed in range(20):  # whichever way chance has it, the text says what was done
        proba, labels = noise(seed=seed)
        after, text = calibrated(clf, labels.tolist(), lambda proba=proba: proba)
        then, before = map(
            float, re.search(r"loss is (\S+) instead of (\S+)\. ", text).groups()
        )
        if after is clf:
            assert then >= before
            assert "makes it no better: the probabilities are as the net" in text
            return
    pytest.fail("a temperature helped everywhere")


@pytest.mark.parametrize(
    "make",
    [
        lambda: tiny_classifier(),
        lambda: AdaFilterClassifier(
            TinyCNN, image_size=32, n_frozen_layers=1, max_epochs=2, random_state=0
        ),
        # Its last layer is a convolution, and a ReLU and a mean come behind it.
        lambda: CNNClassifier(
            "squeezenet1_1", weights=None, image_size=32, max_epochs=1, random_state=0
        ),
    ],
)
def test_with_temperature(make, pictures, tmp_path):
    X, y = pictures
    clf = make().fit(X, y)
    better = with_temperature(clf, 2.5)
    np.testing.assert_allclose(
        better.predict_proba(X), apply_temperature(clf.predict_proba(X), 2.5),
        rtol=0, atol=1e-6,
    )  # fmt: skip
    better.save(tmp_path / "model")
    backbone = clf.backbone if callable(clf.backbone) else None
    loaded = CNNClassifier.load(tmp_path / "model", backbone=backbone)
    np.testing.assert_array_equal(loaded.predict_proba(X), better.predict_proba(X))


def test_a_probe_is_calibrated(pictures, tmp_path):
    """Its last layer has a buffer, which is not to be scaled."""
    y = np.array(["a", "b"])[(pictures[1] == 0).astype(int)]
    clf = tiny_classifier(training="probe").fit(pictures[0], y)
    proba, labels = noise()
    better, text = calibrated(
        clf, labels.tolist(), lambda: apply_temperature(proba, 0.4)
    )
    assert "divided by the temperature already" in text
    temperature = fit_temperature(apply_temperature(proba, 0.4), labels)
    np.testing.assert_allclose(
        better.decision_function(pictures[0]),
        clf.decision_function(pictures[0]) / temperature,
        rtol=1e-5,
    )
    better.save(tmp_path / "model")
    loaded = CNNClassifier.load(tmp_path / "model", backbone=TinyCNN)
    np.testing.assert_array_equal(
        loaded.predict_proba(pictures[0]), better.predict_proba(pictures[0])
    )


# --- how good it is --------------------------------------------------------------


def test_the_card_has_the_audit(noisy, tmp_path):
    campaign, truth = make_campaign(tmp_path, *noisy, 40)
    with campaign:
        drawn = campaign.audits.draw(20)
        campaign.audits.answer({drawn[0].path: "?cant-tell"})
        campaign.export_model(tmp_path / "none")
        text = section(tmp_path / "none", "Accuracy")
        assert text.startswith("Not measured. `skadma evaluate` measures it")
        campaign.audits.answer({p.path: truth[p.path] for p in drawn[1:]})
        campaign.export_model(tmp_path / "model")
        found = campaign.audits.estimate()
    text = section(tmp_path / "model", "Accuracy")
    assert text.startswith(
        f"{found.value:.1%} (95% interval: {found.low:.1%} to {found.high:.1%}) on the "
        "60 images of the pool that had no label when the audit was drawn"
    )
    assert "by 19 labels that were drawn for it (stratified)" in text
    red = found.recall["red"]
    assert f"| red | {red.value:.1%} | {red.low:.1%} to {red.high:.1%} | " in text


def test_command(noisy, tmp_path, capsys, monkeypatch):
    clf = CNNClassifier("squeezenet1_1", weights=None, image_size=32, max_epochs=1)
    pool = tmp_path / "pool"
    pool.mkdir()
    X, y = noisy
    for i, pixels in enumerate(X[:70]):
        Image.fromarray(pixels).save(pool / f"{i}.png")
    with Campaign.create(
        tmp_path / "c", pool, ["blue", "red"], clf, MarginSampling()
    ) as campaign:
        campaign.teach({f"{i}.png": label for i, label in enumerate(y[:70])})
    monkeypatch.chdir(tmp_path)
    command = ["export-model", "--campaign", "c", "-o"]
    main([*command, "plain", "--no-calibration"])
    assert "trainings" not in capsys.readouterr().err
    assert "Not measured" in section(tmp_path / "plain", "Calibration")
    main([*command, "better"])
    assert "5/5" in capsys.readouterr().err  # the progress bar
    assert "By 70 labels" in section(tmp_path / "better", "Calibration")
