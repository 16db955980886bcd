"""Choose the next images while others are labelled, and put like beside like."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .campaign import Campaign
from .state import State
from .trainer import Proposal


@dataclass(frozen=True)
class Ahead:
    """What was chosen, and what was known then.

    Attributes
    ----------
    proposals : list of Proposal
        Like beside like; the last round of them in reserve. Empty where nothing is
        left.
    known : list of (str, str)
        The labels that the model was trained with: SHA-256 and class.
    guesses : dict of str to (str, float)
        What the model takes the other pictures for that were asked about.
    as_of : int
        The last event of the log when the choice was made.
    """

    proposals: list[Proposal]
    known: list[tuple[str, str]]
    guesses: dict[str, tuple[str, float]]
    as_of: int


def choose_ahead(campaign: Campaign, n: int, also: Sequence[str] = ()) -> Ahead:
    """Train with the labels that there are, and choose.

    Parameters
    ----------
    campaign : Campaign
    n : int
        How many; more than a round, so that nobody waits.
    also : sequence of str
        Contents that are shown already: what does the new model take them for?

    Returns
    -------
    Ahead
    """
    if not campaign.candidates():
        campaign.refresh()  # there may be new images
    if campaign.candidates():
        state, proposals = campaign._query(n)
    else:
        state, proposals = campaign._state(), []
        campaign.estimator()  # the last labels count too
    as_of = campaign.log()[-1]["id"]
    known = [(str(state.contents[i].sha256), label) for i, label in state.labelled()]
    guesses = {}
    if proposals:
        guesses = _guesses(campaign, state, also)
        places = campaign._places
        files = [str(places.file(each.path, state.pools)) for each in proposals]
        features = _features(campaign._trainer.model(state), files)
        reserve = campaign.n_instances if n > campaign.n_instances else 0
        n_first = max(len(proposals) - reserve, 1)
        # Two people who get the same images begin at different ones.
        begin = zlib.crc32(campaign.who.encode()) % n_first
        order = chain(features[:n_first], begin)
        order += [n_first + i for i in chain(features[n_first:])]
        proposals = [proposals[i] for i in order]
    return Ahead(proposals, known, guesses, as_of)


def _guesses(
    campaign: Campaign, state: State, contents: Sequence[str]
) -> dict[str, tuple[str, float]]:
    usable = state.usable()
    asked = [sha256 for sha256 in contents if sha256 in usable]
    model = campaign._trainer.model(state)
    if not asked or not hasattr(model, "net_"):
        return {}
    files = campaign._trainer.files([usable[sha256] for sha256 in asked], state)
    proba = model.predict_proba(files)
    return {
        sha256: (str(model.classes_[row.argmax()]), float(row.max()))
        for sha256, row in zip(asked, proba, strict=True)
    }


def _features(estimator: Any, files: list[str]) -> np.ndarray:
    """What the head receives, of length 1."""
    features = estimator.embed(files, layers=-2)[-2].reshape(len(files), -1)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, 1e-12)


def chain(features: np.ndarray, begin: int = 0) -> list[int]:
    """Put like beside like: from one row always on to the nearest one left.

    Parameters
    ----------
    features : ndarray of shape (n, d)
        Rows of length 1.
    begin : int, default=0
        The first row.

    Returns
    -------
    list of int
        All rows. Equals come in their order.
    """
    if not len(features):
        return []
    likeness = features @ features.T
    order = [begin]
    left = np.ones(len(features), dtype=bool)
    left[begin] = False
    while left.any():
        row = np.where(left, likeness[order[-1]], -np.inf)
        order.append(int(row.argmax()))
        left[order[-1]] = False
    return order
