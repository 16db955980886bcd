"""Whatever torch keeps for a process or a thread: other threads, dtypes, modes."""

import threading
import time
from collections import OrderedDict
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from torch import nn

from skadma import CNNClassifier, SourceCenters
from skadma.adafilter import AdaFilterClassifier
from skadma.networks.torch_state import LockInTurns, RandomStream, torch_defaults
from skadma.strategies import BADGE, BALD, DropQuery, MarginSampling

from .conftest import tiny_classifier

X = np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8)
Y = np.arange(24) % 3


class Dropping(nn.Sequential):
    """Draws from torch's global generator in each step."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.Dropout(0.5),
            nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 9),
        )  # fmt: skip


def dropping(seed, **params):
    params = {"n_frozen_layers": 0, "max_epochs": 3, "batch_size": 4} | params
    return CNNClassifier(Dropping, image_size=32, random_state=seed, **params)


def test_others_run_while_one_trains():
    other, training = dropping(0).fit(X, Y), dropping(1, max_epochs=150, memory=False)
    expected = other.predict_proba(X)
    thread = threading.Thread(target=training.fit, args=(X, Y))
    thread.start()
    times = []
    while thread.is_alive():
        begin = time.perf_counter()
        np.testing.assert_array_equal(other.predict_proba(X), expected)
        times.append(time.perf_counter() - begin)
    thread.join()
    assert len(times) > 10


@pytest.mark.parametrize("frozen", [0, 1])
def test_trainings_at_the_same_time(frozen):
    """Each as if it were alone, to the bit."""
    alone = [dropping(k, n_frozen_layers=frozen).fit(X, Y) for k in range(3)]
    together = [dropping(k, n_frozen_layers=frozen) for k in range(3)]
    threads = [threading.Thread(target=one.fit, args=(X, Y)) for one in together]
    state = torch.get_rng_state()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(torch.get_rng_state(), state)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))


def test_a_training_that_fails_lets_go():
    broken = dropping(0, net_params={"callbacks": [("x", Failing())]})
    with pytest.raises(ZeroDivisionError):
        broken.fit(X, Y)
    done = []
    thread = threading.Thread(target=lambda: done.append(dropping(0).fit(X, Y)))
    thread.start()
    thread.join(60)
    assert done


class Failing(Callback):
    def on_batch_end(self, net, **kwargs):
        raise ZeroDivisionError


def test_turns():
    """Whoever waits gets the lock before the one that had it."""
    lock, order, waiting = LockInTurns(), [], threading.Event()

    def other():
        waiting.set()
        with lock:
            order.append("other")

    thread = threading.Thread(target=other)
    with lock, lock:
        thread.start()
        waiting.wait()
        time.sleep(0.1)
    with lock:
        order.append("first")
    thread.join()
    assert order == ["other", "first"]


def test_a_stream_in_pieces():
    torch.manual_seed(5)
    expected = torch.rand(4)
    before = torch.get_rng_state()
    stream, found = RandomStream(5, torch.device("cpu")), []
    for _ in range(2):
        with stream.use():
            found.append(torch.rand(2))
        torch.rand(3)
    assert torch.equal(torch.cat(found), expected)
    torch.set_rng_state(before)


SETTINGS = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "meta": lambda: default_device("meta"),
    "cuda": lambda: default_device("cuda"),
}


@contextmanager
def default_device(device):
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


def results(build):
    model = build().fit(X, Y)
    goes_on = build().set_params(warm_start=True).fit(X, Y).fit(X, Y)
    return [
        model.predict_proba(X),
        goes_on.predict_proba(X),
        model.embed(X, -2)[-2],
        model.source_proba(X),
        MarginSampling(random_state=0).query(model, X, 5),
    ]


@pytest.mark.parametrize(
    "build",
    [
        lambda: dropping(0, memory=False),
        lambda: dropping(0, memory=False, n_frozen_layers=2),
        lambda: CNNClassifier(
            "resnet18", weights=None, image_size=32, memory=False,
            training="probe", random_state=0,
        ),
        lambda: tiny_classifier(memory=False, batch_norm="update", random_state=0),
        lambda: AdaFilterClassifier(
            "resnet18", weights=None, image_size=32, memory=False, max_epochs=1,
            random_state=0,
        ),
    ],
    ids=["trained", "cut", "probe", "tiny", "adafilter"],
)  # fmt: skip
@pytest.mark.parametrize("setting", [*SETTINGS, "float64"])
def test_settings_of_the_caller(setting, build, monkeypatch):
    """They change nothing, neither now nor for those who come later."""
    monkeypatch.setattr("skadma.networks.pretrained._LOADED", OrderedDict())
    expected = results(build)
    monkeypatch.setattr("skadma.networks.pretrained._LOADED", OrderedDict())
    if setting == "float64":
        torch.set_default_dtype(torch.float64)
        try:
            found = results(build)
            assert torch.get_default_dtype() == torch.float64
        finally:
            torch.set_default_dtype(torch.float32)
    else:
        with SETTINGS[setting]():
            found = results(build)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(results(build), expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_network_that_diverged():
    model = dropping(0, lr=1e30, head_lr=1e30).fit(X, Y)
    assert np.isnan(model.predict_proba(X)).any()
    with pytest.raises(ValueError, match=r"diverged.*lower learning rate"):
        model.predict(X)
    with pytest.raises(ValueError, match=r"diverged.*lower learning rate"):
        MarginSampling().query(model, X, 3)


def slow_network():
    """As slow as a download."""
    time.sleep(2)
    return Dropping()


@pytest.mark.parametrize("builds", ["fit", "source_proba"])
def test_others_predict_while_a_network_is_built(builds):
    other = dropping(0).fit(X, Y)
    expected = other.predict_proba(X)
    clf = CNNClassifier(slow_network, image_size=32, max_epochs=1, random_state=0)
    use = {"fit": lambda: clf.fit(X, Y), "source_proba": lambda: clf.source_proba(X)}
    thread = threading.Thread(target=use[builds])
    thread.start()
    time.sleep(0.2)
    begin, n_done = time.perf_counter(), 0
    while time.perf_counter() - begin < 1:
        np.testing.assert_array_equal(other.predict_proba(X), expected)
        n_done += 1
    assert thread.is_alive()
    thread.join()
    assert n_done > 3


def test_a_network_that_is_built_beside_a_training_is_the_same():
    def build():
        time.sleep(0.2)
        return Dropping()

    alone = CNNClassifier(build, image_size=32).source_proba(X)
    training = dropping(1, max_epochs=60, memory=False)
    expected = dropping(1, max_epochs=60, memory=False).fit(X, Y).predict_proba(X)
    thread = threading.Thread(target=training.fit, args=(X, Y))
    thread.start()
    np.testing.assert_array_equal(
        CNNClassifier(build, image_size=32).source_proba(X), alone
    )
    thread.join()
    np.testing.assert_array_equal(training.predict_proba(X), expected)


def test_the_default_dtype_comes_back_when_the_last_thread_is_done():
    inside, leave = threading.Event(), threading.Event()

    def first():
        with torch_defaults():
            inside.set()
            leave.wait(10)

    torch.set_default_dtype(torch.float64)
    try:
        thread = threading.Thread(target=first)
        thread.start()
        inside.wait(10)
        with torch_defaults():
            leave.set()
            thread.join()
            assert torch.get_default_dtype() == torch.float32
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


AROUND = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "meta": SETTINGS["meta"],
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("strategy", [BALD, DropQuery, BADGE])
def test_strategies_under_settings_of_the_caller(around, strategy):
    clf = dropping(0).fit(X, Y)
    expected = strategy(random_state=0)(clf, X, 5)
    with AROUND[around]():
        found = strategy(random_state=0)(clf, X, 5)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("around", AROUND)
def test_synthesis_under_settings_of_the_caller(around):
    def synthesised():
        return SourceCenters.synthesize(
            dropping(0), n_centers=2, side=32, n_steps=4
        ).inputs

    expected = synthesised()
    with AROUND[around]():
        np.testing.assert_array_equal(synthesised(), expected)
