"""Labelled images whose label may be wrong, and images that nobody could label."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np

from ... import evaluation
from .consensus import CampaignConsensus, find_consensus
from .state import Decision, State


@dataclass(frozen=True)
class SuspectLabel:
    """A label that may be wrong, as it was given; `at` is ISO 8601, UTC.

    A model that did not see the label predicts the class `suggested` with the
    probability `confidence`; `score` is 1 minus its probability of the label. All are
    None where there is no such model, as for the only label of a class. `likely` is
    whether confident learning takes the label for wrong, `others` tells who gave which
    other label in a blind repeat. `consensus` is the most probable class by all answers
    and the model, `probability` its probability.
    """

    path: str
    sha256: str
    label: str
    who: str
    at: str
    suggested: str | None
    confidence: float | None
    score: float | None
    likely: bool
    others: list[tuple[str, str]]
    consensus: str
    probability: float


def list_cant_tell(state: State) -> list[tuple[str, Decision]]:
    """List the images marked "?cant-tell"; see :meth:`Campaign.cant_tell`."""
    usable = state.usable()
    return [
        (state.paths[usable[sha256]], decision)
        for sha256, decision in state.decisions.items()
        if decision.kind == "cant-tell" and sha256 in usable
    ]


def look_again(
    state: State, predict: Callable[[list[int], np.ndarray], np.ndarray]
) -> tuple[list[SuspectLabel], CampaignConsensus]:
    """List labels, most suspect first, and what all answers and the model say.

    See :meth:`Campaign.second_look` and :meth:`Campaign.consensus`. `predict` gets
    images and their labels, and gives probabilities by models that did not see them.
    """
    labelled, repeats = state.labelled(), state.repeats
    confirmed = {a.sha256: a.event for a in state.answers if a.act == "confirm"}
    proba, judged = _judge(labelled, sorted(state.classes), predict)  # as columns are
    agreed = find_consensus(state, labelled, proba)
    found = []
    for (image, label), together in zip(labelled, agreed.images, strict=True):
        sha256 = str(state.contents[image].sha256)
        answer = state.decisions[sha256]
        confirmed_at = confirmed.get(sha256, 0)
        others = [
            (again.who, again.mark)
            for (content, _), again in repeats.items()
            if content == sha256
            and again.event > max(answer.event, confirmed_at)
            and again.mark not in (label, "?skip")
        ]
        if others or (image in judged and confirmed_at < answer.event):
            given = state.paths[image], sha256, label, answer.who, answer.at
            judgement = judged.get(image, (None, None, None, False))
            said = together.label, together.probability
            suspect = SuspectLabel(*given, *judgement, others, *said)
            found.append((not others, together.holds_probability, suspect))
    return [one for *_, one in sorted(found, key=itemgetter(0, 1))], agreed


def _judge(
    labelled: Sequence[tuple[int, str]],
    classes: Sequence[str],
    predict: Callable[[list[int], np.ndarray], np.ndarray],
) -> tuple[np.ndarray, dict[int, tuple[str | None, float | None, float | None, bool]]]:
    """Out-of-fold probabilities, NaN where there are none, and what they say.

    Per image that a model can judge: suggested class, confidence, score, likely.
    """
    counts = Counter(label for _, label in labelled)
    several = [name for name, n in counts.items() if n >= 2]
    alone = sorted(name for name, n in counts.items() if n == 1)
    if len(several) < 2:
        so_far = ", ".join(f"{n} of {name!r}" for name, n in counts.items())
        warnings.warn(
            "No label can be judged by a model yet: that takes two classes with at "
            f"least two labels each. Labels so far: {so_far or 'none'}.",
            stacklevel=4,
        )
        return np.full((len(labelled), len(classes)), np.nan), {}
    if alone:
        warnings.warn(
            f"The only label of {', '.join(map(repr, alone))} cannot be judged: no "
            "model knows the class without it. Give the class a second label.",
            stacklevel=4,
        )
    images = [image for image, _ in labelled]
    labels = np.array([label for _, label in labelled])
    proba = predict(images, labels)
    found = evaluation.suspects(labels, proba, classes=classes)
    return proba, {
        images[i]: (str(name), float(proba[i].max()), float(score), bool(likely))
        for i, name, score, likely in zip(
            found.indices, found.suggested, found.scores, found.likely, strict=True
        )
    }
