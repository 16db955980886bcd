"""Every setting, with values of every type: taken, or refused with a sentence.

A setting is given in Python, by ``skadma start --set``, in a campaign's log and in a
saved model.
"""

import itertools
import json
import re
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image
from torch import nn

from skadma import Campaign, CNNClassifier, cli, strategies
from skadma.labelling.campaign import CampaignError, campaign, settings, stored_settings
from skadma.networks import registry
from skadma.persistence import ModelError
from skadma.strategies import RandomSampling

from .conftest import TinyCNN, tiny_classifier
from .forged import change_log
from .test_persistence import rewrite

DEEP = '{"a":' * 800 + "1" + "}" * 800
VALUES = [
    *("1e300", "-1", "0", "0.5", "65536", str(10**21), "null", "true"),
    *('""', "[]", "{}", DEEP, '"MSELoss"', '"meta"', '{"optimizer__nope": 1}'),
]
"""In JSON."""
OF_NETWORK = ("backbone", "weights", "n_frozen_layers", "layer", "layer_a", "layer_b")
"""Settings that only the network can refuse, which is loaded for the first query."""


def fresh():
    """The estimator that `start` describes."""
    return CNNClassifier("squeezenet1_1", weights=None, image_size=32, max_epochs=1)


SETTINGS = [*itertools.product(fresh().get_params(deep=False), VALUES)]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Any text may name a cache's folder, which is made in the current one."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def labelled():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (4, 32, 32, 3), np.uint8), np.array(["a", "b"] * 2)


@pytest.fixture(scope="module")
def pool(labelled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    for i, pixels in enumerate(labelled[0]):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def start(pool, tmp_path, monkeypatch, capsys):
    """Run ``skadma start`` until the images are read; return its refusal."""
    parser = cli.make_parser()  # once: it takes longer than the refusals
    monkeypatch.setattr(cli, "make_parser", lambda: parser)

    def read_no_images(*_, **__):
        raise CampaignError("all settings are taken")

    monkeypatch.setattr(campaign, "scan_new_folder", read_no_images)

    def start(setting, value, strategy="RandomSampling", backbone="squeezenet1_1"):
        with pytest.raises(SystemExit) as stop:
            cli.main(["start", str(pool), "--campaign", str(tmp_path / "c"),
                      "--classes", "a", "b", "--backbone", backbone,
                      "--weights", "none", "--strategy", strategy,
                      "--training", "fine-tune",
                      "--set", "estimator__image_size=32", "estimator__max_epochs=1",
                      f"{setting}={value}"])  # fmt: skip
        assert stop.value.code == 1
        assert not (tmp_path / "c").exists()
        said = capsys.readouterr().err
        assert said.startswith("skadma start: ")
        return "" if "all settings are taken" in said else said

    return start


def outcome(ask):
    """Return the error of a call, or None."""
    try:
        ask()
    except (TypeError, ValueError, RuntimeError) as error:
        return error
    return None


@pytest.mark.filterwarnings("ignore")
def test_what_start_takes_of_the_estimator(start, labelled):
    """It is what `fit` takes, so nothing fails only at the first labels."""
    wrong = []
    for name, value in SETTINGS:
        given = json.loads(value)
        if name in ("optimizer", "criterion") and given == "MSELoss":
            given = nn.MSELoss
        clf = fresh().set_params(**{name: given})
        refused = None
        if (name, given) != ("max_epochs", 65_536):  # it takes too long
            refused = outcome(lambda clf=clf: clf.fit(*labelled))
            assert not (refused and hasattr(clf, "net_"))
        if name in settings._KEPT_BY_CAMPAIGN:
            continue
        said = start(f"estimator__{name}", value)
        if name == "image_shape":  # of rows, which a pool has none of
            refused = refused or given is not None
        named = name in said or value == DEEP
        if bool(refused) != bool(said) or (said and not named):
            wrong.append((name, value[:9], refused, said))
    assert not wrong


def test_what_is_started_with_by_default():
    """The page is shown before torch is there to describe it."""
    usual = cli.make_parser().parse_args(["start", "photos", "--classes", "a", "b"])
    assert cli._campaign.is_usual(usual)
    estimator, strategy, _ = cli._campaign._models(usual)
    described = settings.describe_estimator(estimator)
    assert described == stored_settings.DEFAULT_ESTIMATOR
    assert settings.describe_strategy(strategy) == stored_settings.DEFAULT_STRATEGY
    for option in (
        ("--set", "estimator__lr=1"),
        ("--strategy", "ADMA"),
        ("--warm-start",),
    ):
        usual = cli.make_parser().parse_args(["label", "photos", *option])
        assert not cli._campaign.is_usual(usual)


def test_a_parameter_of_what_has_none(start):
    for setting in ("estimator__optimizer__nope", "strategy__random_state__x"):
        assert "has no parameters of its own" in start(setting, "1")


def settings_of_strategies():
    """Those of each strategy that it does not share with one before."""
    seen = set()
    for cls in (getattr(strategies, name) for name in settings.STRATEGIES):
        for name in cls().get_params(deep=False):
            key = name, str(cls._parameter_constraints.get(name))
            if key not in seen or name == "layer":
                yield from ((cls, name, value) for value in VALUES)
            seen.add(key)


@pytest.mark.filterwarnings("ignore")
def test_what_start_takes_of_the_strategy(start, labelled, monkeypatch):
    """A fitted network can be queried with it."""
    monkeypatch.setattr(settings, "check_params", lambda *_: None)
    X, y = labelled
    clf = tiny_classifier().fit(X, y)
    tiny = replace(registry.build_backbone(TinyCNN, None, 32), state_dict=None)
    monkeypatch.setitem(registry._BUILDERS, "tiny", lambda *_: tiny)
    wrong = []
    for cls, name, value in settings_of_strategies():
        said = start(f"strategy__{name}", value, cls.__name__, "tiny")
        if said:
            of_network = name in OF_NETWORK or "package has none" in said
            if name not in said and value != DEEP and not of_network:
                wrong.append((cls, name, value, said))
            continue
        strategy = cls().set_params(**{name: json.loads(value)})
        for estimator in (tiny_classifier(), clf):
            query = partial(strategy.query, estimator, X, 2, X_labeled=X, y_labeled=y)
            if error := outcome(query):
                wrong.append((cls, name, value, error))
    assert not wrong


# --- files that somebody changed ------------------------------------------------------


def changed_settings():
    """Every 13th case: each parameter meets one or two of the 15 values."""
    for name, value in SETTINGS[::13]:
        yield "estimator", name, value
    for cls, name, value in [*settings_of_strategies()][::13]:
        if name != "centers":
            yield cls.__name__, name, value


@pytest.mark.filterwarnings("ignore")
def test_settings_in_a_log(labelled, pool, tmp_path):
    """Refused where a model is needed; labels can be given and read all the same."""
    made, folder = tmp_path / "made", tmp_path / "changed"
    with Campaign.create(
        made, pool, ["a", "b"], fresh(), RandomSampling(), n_instances=1
    ) as campaign_made:
        campaign_made.teach({"0.png": "a", "1.png": "b"}, train=False)
    described = settings.describe_estimator(fresh())
    for target, name, value in changed_settings():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made, folder)
        if target == "estimator":
            text = json.dumps({**described, name: "?"})
        else:
            params = {**getattr(strategies, target)().get_params(deep=False), name: "?"}
            target, text = "strategy", json.dumps({"class": target, "params": params})
        change_log(
            folder,
            ("UPDATE settings SET value = ? WHERE name = ?",
             (text.replace('"?"', value), target)),
        )  # fmt: skip
        with Campaign.open(folder) as opened:
            if refused := outcome(lambda opened=opened: opened._trainer):
                assert name in str(refused) or value == DEEP, (name, value, refused)
                assert str(outcome(opened.query)) == str(refused)
                assert opened.teach({"2.png": "a"}, train=False).n_new == 1
                assert opened.status().labels == {"a": 2, "b": 1}
            elif name != "max_epochs":
                error = outcome(opened.query)
                of_network = name in OF_NETWORK or re.search(
                    "a network that|the package has none for", str(error)
                )
                assert error is None or of_network, (name, value, error)


@pytest.mark.filterwarnings("ignore")
def test_settings_in_a_model(labelled, tmp_path):
    made, folder = tmp_path / "made", tmp_path / "changed"
    X, y = labelled
    fresh().fit(X, y).save(made)
    params = json.loads((made / "model.json").read_text("utf-8"))["params"]
    for name, value in SETTINGS[::7]:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made, folder)
        rewrite(folder, params={**params, name: json.loads(value)})
        try:
            clf = CNNClassifier.load(folder)
        except ModelError as error:
            assert name in str(error) or value == DEEP
            continue
        assert clf.predict_proba(X).shape == (4, 2)
        if name != "max_epochs":
            assert outcome(partial(clf.fit, X, y)) is None or name in OF_NETWORK
