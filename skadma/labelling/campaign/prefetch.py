"""Choose the next images while others are labelled, similar ones in a row."""

from __future__ import annotations

import warnings
import zlib
from typing import Any

import numpy as np

from .campaign import Campaign
from .consensus import CampaignConsensus
from .second_look import SuspectLabel
from .state import Proposal

_SUSPECTS = 60
_OF_SUSPECT = (
    "sha256", "suggested", "confidence", "others", "consensus", "probability",
)  # fmt: skip


def choose_batch(campaign: Campaign, n: int, shown: list[str]) -> dict[str, Any]:
    """Choose `n` images; predict those and the ones that are shown, find suspects.

    More than are needed, so that nobody waits: the last round is in reserve. A probe is
    asked after each answer, by a part of the images at first. The log need not know: it
    has what was answered and how that was guessed.
    """
    trainer, state, n_left = campaign._trainer, campaign._present_state(), 0
    if (at_once := trainer.learns(state)) and not trainer.is_of_table:
        state, n_left = trainer.part_of(state)
    proposals: list[Proposal] = []
    if n := min(n, len(state.candidates())):
        if at_once:
            with campaign._event_log.locked("query"):
                proposals = [proposal for _, proposal in trainer.query(state, n)]
            n_first = (len(shown) + n) // 2
        else:
            state, proposals = campaign._query(n)
            n_first = n - (campaign.n_instances if n > campaign.n_instances else 0)
        images = [state.available()[p.sha256] for p in proposals]
        features = trainer.source_features(images, state).reshape(len(images), -1)
        length = np.linalg.norm(features, axis=1, keepdims=True)
        features = features / np.maximum(length, 1e-12)
        n_first = min(max(n_first, 1), len(proposals))
        # Two people who get the same images begin at different ones.
        begin = zlib.crc32(campaign.who.encode()) % n_first
        order = order_by_similarity(features[:n_first], begin)
        order += [n_first + i for i in order_by_similarity(features[n_first:])]
        proposals = [proposals[i] for i in order]
    elif not at_once:
        campaign.estimator()  # the last labels count too
    there = state.available()  # in no audit: who sees a guess agrees too often
    shown = [sha256 for sha256 in shown if sha256 in there]
    _, found = trainer.predictions(state, [there[sha256] for sha256 in shown])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with too few labels
        suspects: list[SuspectLabel] = []
        agreed = CampaignConsensus([], [])
        if not campaign.several_labels:
            suspects, agreed = campaign._look_again(state)
    compared = any(len(image.answers) > 1 for image in agreed.images)
    return {
        "kind": "batch",
        "proposals": [
            {"sha256": p.sha256, "guess": p.guess, "confidence": p.confidence}
            for p in proposals
        ],
        "known": [(str(state.contents[i].sha256), y) for i, y in state.labelled()],
        "guesses": dict(zip(shown, found, strict=False)),  # nothing without a model
        "as_of": state.as_of,
        "n_left": n_left,
        "at_once": at_once,
        "quality": campaign._quality(state),
        "people": [person._asdict() for person in agreed.people] if compared else [],
        "suspects": [
            {"before": s.label, "by": s.who} | {k: getattr(s, k) for k in _OF_SUSPECT}
            for s in suspects[:_SUSPECTS]
            if s.others
            or s.consensus != s.label
            or (s.likely and s.suggested != s.label)
        ],
    }


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
