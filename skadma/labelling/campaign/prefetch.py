"""Choose the next images while others are labelled, similar ones in a row."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from .campaign import Campaign
from .state import Proposal, State, read_state


def prefetch_batch(
    campaign: Campaign, n: int, also: Sequence[str] = ()
) -> tuple[list[Proposal], dict[str, tuple[str, float]], State]:
    """Train with the labels that there are, and choose `n` images.

    More than are needed, so that nobody waits. `also` are contents that are shown
    already. Returns the images, similar ones in a row, the last round in reserve; the
    model's guesses of `also`; and the state whose labels it was trained with. A probe
    is asked after each answer, which the log need not know: it has what was answered
    and how that was guessed.
    """
    trainer = campaign._trainer
    if trainer.learns(read_state(campaign._event_log)):
        state, proposals = campaign._query(n, record=False)
    else:
        if not campaign.candidates():
            campaign.refresh()  # there may be new images
        if campaign.candidates():
            state, proposals = campaign._query(n)
        else:
            state, proposals = read_state(campaign._event_log), []
            campaign.estimator()  # the last labels count too
    if not proposals:
        return [], {}, state
    learnt = trainer.learnt(state)
    if learnt is not None:
        features = learnt.table.rows[learnt.table.numbers(p.sha256 for p in proposals)]
        n_first = (len(also) + n) // 2
    else:
        files = [str(file) for file in campaign.files(p.path for p in proposals)]
        features = trainer.model(state).embed(files, layers=-2)[-2]
        reserve = campaign.n_instances if n > campaign.n_instances else 0
        n_first = len(proposals) - reserve
    n_first = min(max(n_first, 1), len(proposals))
    features = features.reshape(len(proposals), -1)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    features = features / np.maximum(length, 1e-12)
    # Two people who get the same images begin at different ones.
    begin = zlib.crc32(campaign.who.encode()) % n_first
    order = order_by_similarity(features[:n_first], begin)
    order += [n_first + i for i in order_by_similarity(features[n_first:])]
    there = state.available()  # in no audit: who sees a guess agrees too often
    shown = [sha256 for sha256 in also if sha256 in there]
    _, found = trainer.predictions(state, [there[sha256] for sha256 in shown])
    guesses = dict(zip(shown, found, strict=False))  # nothing without a model
    return [proposals[i] for i in order], guesses, state


def order_by_similarity(features: np.ndarray, begin: int = 0) -> list[int]:
    """Order rows of length 1 so that each is followed by the most similar one left.

    Equals come in their order.
    """
    if not len(features):
        return []
    similarity = features @ features.T
    order = [begin]
    left = np.ones(len(features), dtype=bool)
    left[begin] = False
    while left.any():
        row = np.where(left, similarity[order[-1]], -np.inf)
        order.append(int(row.argmax()))
        left[order[-1]] = False
    return order
