"""Labels and images that are worth a second look."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ...evaluation import suspects
from .answers import Answer, holding, standing_repeats
from .state import State


@dataclass(frozen=True)
class CantTell:
    """An image of which somebody could not tell what it shows.

    Attributes
    ----------
    path : str
    sha256 : str
    who : str
    at : str
        ISO 8601, UTC.
    """

    path: str
    sha256: str
    who: str
    at: str


@dataclass(frozen=True)
class Doubt:
    """A labelled image that is worth a second look.

    Attributes
    ----------
    path : str
    sha256 : str
    label : str
        As it was given.
    who : str
        Who gave it.
    at : str
        When: ISO 8601, UTC.
    suggested : str or None
        What a model that did not see this label takes it for; None where there is no
        such model, as for the only label of a class.
    confidence : float or None
        That model's probability of what it suggests.
    score : float or None
        How little that model believes in the label: 1 minus its probability.
    likely : bool
        Whether confident learning takes the label for wrong.
    others : list of (str, str)
        Who said something else in a blind repeat, and what.
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


def quick_model(n_features: int) -> Pipeline:
    """Make the classifier of rows that judges labels; docs/campaign.md has why.

    With few labels and many features it has to be held short: a variance of 1 in all.
    """
    return make_pipeline(
        StandardScaler(),
        LogisticRegression(C=1 / n_features, class_weight="balanced", max_iter=1000),
    )


def list_cant_tell(
    answers: Sequence[Answer], state: State, exclude: str | None
) -> list[CantTell]:
    """List images that nobody could tell; see :meth:`Campaign.cant_tell`."""
    usable = state.usable()
    seen = {a.sha256 for a in answers if a.who == exclude}
    return [
        CantTell(state.paths[usable[sha256]], sha256, answer.who, answer.at)
        for sha256, answer in holding(answers).items()
        if answer.mark == "?cant-tell" and sha256 in usable and sha256 not in seen
    ]


def list_doubts(
    answers: Sequence[Answer],
    state: State,
    classes: Sequence[str],
    predict: Callable[[list[int], np.ndarray], np.ndarray],
) -> list[Doubt]:
    """List labels, most doubtful first; see :meth:`Campaign.second_look`.

    Parameters
    ----------
    answers : sequence of Answer
    state : State
    classes : sequence of str
    predict : callable
        Gives probabilities of images by models that did not see their labels.
    """
    decided = holding(answers)
    repeats = standing_repeats(answers)
    confirmed = {a.sha256: a.event for a in answers if a.act == "confirm"}
    judged = _judge(state.labelled(), classes, predict)
    doubts = []
    for image, label in state.labelled():
        sha256 = str(state.contents[image].sha256)
        answer = decided[sha256]
        stands = confirmed.get(sha256, 0)
        others = [
            (again.who, again.mark)
            for (content, _), again in repeats.items()
            if content == sha256
            and again.event > max(answer.event, stands)
            and again.mark not in (label, "?skip")
        ]
        suggested, confidence, score, likely = judged.get(
            image, (None, None, None, False)
        )
        if others or (score is not None and stands < answer.event):
            doubts.append(
                Doubt(
                    state.paths[image],
                    sha256,
                    label,
                    answer.who,
                    answer.at,
                    suggested,
                    confidence,
                    score,
                    likely,
                    others,
                )
            )
    return sorted(doubts, key=lambda doubt: (-len(doubt.others), -(doubt.score or 0)))


def _judge(
    labelled: Sequence[tuple[int, str]],
    classes: Sequence[str],
    predict: Callable[[list[int], np.ndarray], np.ndarray],
) -> dict[int, tuple[str, float, float, bool]]:
    """What models that did not see the labels make of them, where there can be one."""
    counts = Counter(label for _, label in labelled)
    several = [name for name, n in counts.items() if n >= 2]
    alone = sorted(name for name, n in counts.items() if n == 1)
    if len(several) < 2:
        warnings.warn(
            "No label can be judged by a model yet: that takes two classes with at "
            f"least two labels each, and there are {dict(counts)}.",
            stacklevel=4,
        )
        return {}
    if alone:
        warnings.warn(
            f"The only label of {', '.join(map(repr, alone))} cannot be judged: no "
            "model knows the class without it. Give the class a second label.",
            stacklevel=4,
        )
    images = [image for image, _ in labelled]
    labels = np.array([label for _, label in labelled])
    proba = predict(images, labels)
    found = suspects(labels, proba, classes=classes)
    return {
        images[i]: (str(name), float(proba[i].max()), float(score), bool(likely))
        for i, name, score, likely in zip(
            found.indices, found.suggested, found.scores, found.likely, strict=True
        )
    }
