"""Consensus: what all people's answers and the model say of each labelled image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ... import evaluation
from .state import State


@dataclass(frozen=True)
class ImageConsensus:
    """The most probable class of an image, by everybody's last answer and the model.

    `label` has the `probability`; `holds` is the label that holds, with the probability
    `holds_probability`. `answers` tells who said what, blind repeats included.
    """

    path: str
    sha256: str
    label: str
    probability: float
    holds: str
    holds_probability: float
    answers: list[tuple[str, str]]

    def __str__(self) -> str:
        said = ", ".join(f"{who}: {label}" for who, label in self.answers)
        return f"{self.path}: {self.label} ({self.probability:.0%}); {said}"


@dataclass(frozen=True)
class PersonQuality:
    """How often somebody is `right`, by `n` answers, with a 95 % interval."""

    who: str
    n: int
    right: float
    low: float
    high: float

    def __str__(self) -> str:
        interval = f"95 %: {self.low:.0%} to {self.high:.0%}"
        return f"{self.who}: right {self.right:.0%} of {self.n} answers ({interval})"


@dataclass(frozen=True)
class CampaignConsensus:
    """What answers and model say together; ``print`` shows it.

    `images` has those with a label, `people` those who answered about any of them.
    """

    images: list[ImageConsensus]
    people: list[PersonQuality]

    @property
    def differing(self) -> list[ImageConsensus]:
        """Images of which another label holds, the most probable mistakes first."""
        differing = [image for image in self.images if image.label != image.holds]
        return sorted(differing, key=lambda image: image.holds_probability)

    def __str__(self) -> str:
        n = len(self.differing)
        what = f"{n} of {len(self.images)} labels differ from the consensus"
        return "\n".join(map(str, [*self.people, what, *self.differing[:20]]))


def find_consensus(
    state: State, labelled: Sequence[tuple[int, str]], proba: np.ndarray
) -> CampaignConsensus:
    """Weigh the answers about labelled images; see :meth:`Campaign.consensus`.

    `proba` is out-of-fold, its columns are the sorted classes.
    """
    if not labelled:
        return CampaignConsensus([], [])
    names = sorted(state.classes)
    rows = {str(state.contents[i].sha256): k for k, (i, _) in enumerate(labelled)}
    last = {
        (answer.sha256, answer.who): answer.label
        for answer in state.answers
        if answer.act != "confirm" and answer.kind != "skip" and answer.sha256 in rows
    }
    given = {key: label for key, label in last.items() if label in names}
    people = sorted({who for _, who in given})
    answers = np.full((len(rows), len(people)), -1)
    said: list[list[tuple[str, str]]] = [[] for _ in rows]
    for (sha256, who), label in given.items():
        answers[rows[sha256], people.index(who)] = names.index(str(label))
        said[rows[sha256]].append((who, str(label)))
    found = evaluation.consensus(answers, proba)
    best = found.proba.argmax(axis=1)
    images = [
        ImageConsensus(
            state.paths[image],
            sha256,
            names[best[k]],
            float(found.proba[k, best[k]]),
            holds,
            float(found.proba[k, names.index(holds)]),
            said[k],
        )
        for (sha256, k), (image, holds) in zip(rows.items(), labelled, strict=True)
    ]
    columns = (answers >= 0).sum(axis=0), found.right, found.low, found.high
    numbers = zip(people, *(column.tolist() for column in columns), strict=True)
    return CampaignConsensus(images, [PersonQuality(*each) for each in numbers])
