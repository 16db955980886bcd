"""A campaign that changes under the labelling page, for the tests."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from skadma import Campaign
from skadma.labelling.campaign.state import read_state
from skadma.strategies import MarginSampling

from .conftest import tiny_classifier

CLASSES = ["blue", "green", "red"]


def paint(folder, n, seed):
    """Make `n` different pictures."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(n):
        pixels = rng.integers(0, 255, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    return folder


def create(tmp_path, n=12, **more):
    return Campaign.create(
        tmp_path / "campaign", paint(tmp_path / "pool", n, 0), CLASSES,
        tiny_classifier(random_state=None, max_epochs=1), MarginSampling(),
        n_instances=4, who="ana", **more,
    )  # fmt: skip


@pytest.fixture
def campaign(tmp_path):
    with create(tmp_path) as campaign:
        yield campaign


def assert_same(ledger, campaign):
    """What a ledger says, and what is added up anew from the whole log."""
    ledger.update()
    state = read_state(campaign._event_log)
    assert ledger.classes == state.classes
    assert ledger.class_names.former == state.class_names.former
    assert ledger.folders.roots == state.folders.roots
    assert ledger.paths == state.paths
    assert ledger.contents == state.contents
    assert list(ledger.usable().items()) == list(state.usable().items())
    drawn = state.drawn()
    assert ledger.available() == {
        sha256: i for sha256, i in state.usable().items() if sha256 not in drawn
    }
    assert list(ledger.decisions.items()) == list(state.decisions.items())
    marks, split = [d.mark for d in state.decisions.values()], state.class_names.split
    assert ledger.counts() == Counter(n for m in marks for n in split(m) or [m])
    labels = {s: d.label for s, d in state.decisions.items() if d.label is not None}
    assert ledger.labels() == labels
    assert {n for label in labels.values() for n in split(label)} <= {*state.classes}
    here = {state.contents[i].sha256: label for i, label in state.labelled()}
    assert here == {s: label for s, label in labels.items() if s in state.usable()}
    assert list(ledger.acts.items()) == list(state.acts.items())
    assert ledger.training_sets == state.training_sets
    for image, sha256 in state.last_known.items():
        assert state.contents[ledger.image(sha256)].sha256 in (sha256, None)
        if state.contents[image].sha256 == sha256:
            assert ledger.path(sha256) in state.paths.values()
